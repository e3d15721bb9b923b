"""Training with a teacher: what is learned, and that it goes on exactly."""

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.train import small
from tests.train.same import assert_same_to_the_bit, bits
from tests.train.test_fit import at, raised
from torch import nn

import vitrail
from vitrail import train
from vitrail.errors import UserError
from vitrail.tasks import Distillation, Teacher, load_weights

HEADS = "deit_tiny_distilled(depth=2, dim=32, heads=2, patch=4)"
SHOWN = small.card().preprocess
ctrl_c = raised(signal.SIGINT)


def teacher(seed: int = 7) -> Teacher:
    """A network with running statistics, of another size and normalisation."""
    own = {"image": 24, "mean": (0.5,) * 3, "std": (0.25,) * 3}
    return Teacher(small.build(seed=seed), name="friend", own=own, student=SHOWN)


def student(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return vitrail.create(HEADS, classes=10, image=small.IMAGE, drop_path=0.3)


def recipe(**changes: Any) -> train.Recipe:
    return small.recipe(teacher="friend", **changes)


def fit(out: Path, made: train.Recipe, **options: Any) -> train.Result:
    pictures, parts = small.clothes()
    card = replace(small.card(), model=HEADS)
    settings: dict[str, Any] = {"card": card, "parts": parts, "progress": False, **options}
    return train.fit(student(), pictures, made, out, **settings)


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_a_stopped_run_goes_on_to_the_bit(tmp_path: Path, kind: str) -> None:
    made = recipe(distill=Distillation(kind=kind, alpha=0.3, tau=2.0))
    student_logits = teacher()
    fit(tmp_path / "whole", made, teacher=student_logits)
    with pytest.raises(train.Interrupted):
        fit(tmp_path / "run", made, teacher=student_logits, on_event=at("step", 3, ctrl_c))
    asked: list[str] = []

    def teach(name: str, card: object) -> Teacher:
        asked.append(name)
        return teacher()

    train.resume(tmp_path / "run", lambda card: student(9), teach=teach, progress=False)
    assert asked == ["friend"]
    assert_same_to_the_bit(tmp_path / "whole", tmp_path / "run")
    facts = train.read_run(tmp_path / "run").facts["teacher"]
    assert facts == student_logits.facts() == teacher().facts()  # and its weights are as they were
    assert train.read_run(tmp_path / "run").recipe == made


def test_the_teacher_is_heard_by_its_own_head(tmp_path: Path) -> None:
    """With all weight on the teacher's word the label's head stays as it was."""
    alone = recipe(distill=Distillation(alpha=1.0), ema=0.0, weight_decay=0.0, epochs=1)
    fit(tmp_path / "run", alone, teacher=teacher())
    before, after = student().state_dict(), load_weights(tmp_path / "run" / "last.safetensors")
    assert torch.equal(after["head.label.weight"], before["head.label.weight"])
    assert not torch.equal(after["head.teacher.weight"], before["head.teacher.weight"])
    fit(tmp_path / "none", small.recipe(ema=0.0, weight_decay=0.0, epochs=1))
    labelled = load_weights(tmp_path / "none" / "last.safetensors")
    assert not torch.equal(labelled["head.label.weight"], before["head.label.weight"])


def test_a_plain_student_bf16_and_maps(tmp_path: Path) -> None:
    made = recipe(epochs=1, precision="bf16", distill=Distillation(kind="soft"))
    small.fit(tmp_path / "run", made, teacher=teacher())
    small.fit(tmp_path / "other", made, teacher=teacher(seed=8))
    one, two = (bits(tmp_path / n / "last.safetensors") for n in ("run", "other"))
    assert one != two


def test_the_loss_is_deits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the trainer makes small, spelled out for one batch of mixed pictures."""
    from contextlib import nullcontext

    from vitrail.train.objective import Objective

    how = Distillation(kind="soft", alpha=0.2, tau=3.0)
    made, student_logits, model = recipe(distill=how, smoothing=0.1), teacher(), student().train()
    images, targets = torch.randn(4, 3, 16, 16), torch.rand(4, 10).softmax(1)
    torch.manual_seed(1)
    both = model.forward_both(images)
    got = Objective(recipe=made, student=model, teacher=student_logits, autocast=nullcontext)(
        both, images, targets
    )
    p, q = (student_logits(images) / 3).softmax(1), (both[1] / 3).softmax(1)
    divergence = (p * (p.log() - q.log())).sum(1).mean()
    label = F.cross_entropy(both[0], targets, label_smoothing=0.1)
    torch.testing.assert_close(got, 0.8 * label + 0.2 * 9 * divergence)


def test_class_weights_weigh_the_label_and_not_the_teacher() -> None:
    from contextlib import nullcontext

    from vitrail.tasks.distill import distill_term
    from vitrail.train.balance import weighted_targets
    from vitrail.train.objective import Objective

    how, weights = Distillation(kind="soft", alpha=0.3, tau=2.0), torch.rand(10)
    made, friend, model = recipe(distill=how, smoothing=0.1), teacher(), small.build().eval()
    images, targets = torch.randn(4, 3, 16, 16), torch.tensor([0, 3, 3, 9])
    logits = model(images)
    got = Objective(
        recipe=made, student=model, teacher=friend, autocast=nullcontext, weights=weights
    )(logits, images, targets)
    label = F.cross_entropy(logits, weighted_targets(targets, weights, 0.1))
    torch.testing.assert_close(got, 0.7 * label + 0.3 * distill_term(logits, friend(images), how))


def test_maps_are_compared_where_asked(tmp_path: Path) -> None:
    text = "vit_tiny(depth=4, dim=32, heads=2, patch=4)"
    pictures, parts = small.clothes()

    def trained(name: str, feature: float) -> dict[str, bytes]:
        made = recipe(epochs=1, distill=Distillation(feature=feature))
        torch.manual_seed(0)
        model, other = (vitrail.create(text, classes=10, image=small.IMAGE) for _ in range(2))
        card = replace(small.card(), model=text)
        friend = Teacher(other, name="friend", own=SHOWN, student=SHOWN)
        options: dict[str, Any] = {"card": card, "parts": parts, "progress": False}
        train.fit(model, pictures, made, tmp_path / name, teacher=friend, **options)
        return bits(tmp_path / name / "last.safetensors")

    assert trained("without", 0.0) != trained("with", 1.0)


def test_maps_come_from_one_pass_and_are_those_of_two() -> None:
    """A clustered model beside its plain self: logits, maps, and one pass through each."""
    from contextlib import nullcontext

    from vitrail.tasks.distill import distill
    from vitrail.train.objective import Objective, StudentCall, configure_student

    text = "coat_lite_tiny(dims=(8, 16, 16, 24), depths=(1, 1, 1, 1), heads=2)"
    torch.manual_seed(0)
    plain = vitrail.create(text, classes=10, image=32)
    model = vitrail.create(text, classes=10, image=32, reducer="cluster")
    model.load_state_dict(plain.state_dict())
    friend = Teacher(plain, name="plain", own={**SHOWN, "image": 32}, student=SHOWN)
    how = Distillation(kind="soft", alpha=0.3, feature=0.5)
    images, targets = torch.randn(3, 3, 32, 32), torch.tensor([0, 4, 9])
    wanted = distill(model.train(), friend, images, targets, how=how)
    passes = {"student": 0, "teacher": 0}
    for name, network in (("student", model), ("teacher", plain)):
        first = network.stages[0]
        first.register_forward_hook(lambda *_, name=name: passes.update({name: passes[name] + 1}))
    method = configure_student(model, friend, torch.device("cpu"), how.feature)
    objective = Objective(
        recipe=recipe(distill=how, smoothing=0.0),
        student=model,
        teacher=friend,
        autocast=nullcontext,
    )
    wrapped = nn.Sequential(model)  # as processes wrap it: they call ``forward`` and nothing else
    call = StudentCall(wrapped, model, method, nullcontext)
    torch.testing.assert_close(objective(call(images), images, targets), wanted)
    assert passes == {"student": 1, "teacher": 1}
    assert isinstance(model(images), torch.Tensor)  # logits, in training too


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="recipe's teacher is 'friend', the one given is None"):
        fit(tmp_path / "run", recipe())
    with pytest.raises(UserError, match="recipe's teacher is None, the one given is 'friend'"):
        fit(tmp_path / "run", small.recipe(), teacher=teacher())
    with pytest.raises(train.Interrupted):
        fit(tmp_path / "run", recipe(), teacher=teacher(), on_event=at("step", 1, ctrl_c))
    with pytest.raises(UserError, match="the teacher friend has other weights now"):
        fit(tmp_path / "run", recipe(), teacher=teacher(seed=8), resume=True)
    with pytest.raises(UserError, match="recipe changed .*distill"):
        fit(
            tmp_path / "run",
            recipe(distill=Distillation(alpha=0.9)),
            teacher=teacher(),
            resume=True,
        )
