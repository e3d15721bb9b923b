"""Unbalanced sets: weights, sampling, and the best epoch by another score."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.train import small
from tests.train.same import assert_same_to_the_bit
from tests.train.test_fit import at, raised

from vitrail import data, train
from vitrail.errors import UserError
from vitrail.tasks.classify import score_logits
from vitrail.train import sampling
from vitrail.train.balance import balanced_order, class_weights, frequencies, weighted_targets
from vitrail.train.trainer import Trainer, ranking_key

LABELS = [0] * 90 + [1] * 9 + [2]
"""Shuffled where it matters: places and classes must not be taken for each other."""
MIXED = [LABELS[i] for i in torch.randperm(100, generator=torch.Generator().manual_seed(1))]


@pytest.mark.parametrize(
    ("choice", "sampling", "ratios"),
    [
        ("balanced", "shuffle", (1, 10, 90)),
        ("sqrt", "shuffle", (1, math.sqrt(10), math.sqrt(90))),
        ("balanced", "sqrt", (1, math.sqrt(10), math.sqrt(90))),
        ("balanced", "balanced", (1, 1, 1)),
        ("effective", "shuffle", (1, 9.9598, 89.6)),
    ],
)
def test_weights_by_count(choice: str, sampling: str, ratios: tuple[float, ...]) -> None:
    weights = class_weights(choice, MIXED, 4, sampling)
    assert weights is not None and weights[3] == 1  # a class without a picture
    assert (weights[:3] / weights[0]).tolist() == pytest.approx(ratios, rel=1e-3)
    often = torch.tensor(frequencies((90, 9, 1), sampling))
    assert float((weights[:3] * often).sum() / 100) == pytest.approx(1)


def test_weights_as_given() -> None:
    assert class_weights("none", MIXED, 3) is None
    assert class_weights((1, 2, 0.5), MIXED, 3).tolist() == [1, 2, 0.5]
    with pytest.raises(UserError, match="has 2 numbers, the pictures have 3 classes"):
        class_weights((1, 2), MIXED, 3)


def test_the_weighted_loss_is_the_sum_of_its_labels() -> None:
    """Shares, smoothing and weights; labels as shares of one; parts that make the whole."""
    torch.manual_seed(0)
    logits, weights, s = torch.randn(6, 3), torch.tensor([0.5, 2.0, 7.0]), 0.1
    shares, labels = torch.rand(6, 3).softmax(1), torch.tensor([0, 1, 2, 0, 1, 2])
    each = [
        F.cross_entropy(logits, torch.full((6,), c), reduction="none", label_smoothing=s)
        for c in range(3)
    ]
    wanted = sum(shares[:, c] * weights[c] * each[c] for c in range(3))

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits, weighted_targets(targets, weights, s))

    torch.testing.assert_close(loss(logits, shares), wanted.mean())
    torch.testing.assert_close(loss(logits, labels), loss(logits, F.one_hot(labels).float()))
    parts = [loss(logits[half], labels[half]) for half in (slice(0, 3), slice(3, 6))]
    torch.testing.assert_close(sum(parts) / 2, loss(logits, labels))
    plain = weighted_targets(labels, torch.ones(3), s)
    torch.testing.assert_close(
        F.cross_entropy(logits, plain), F.cross_entropy(logits, labels, label_smoothing=s)
    )


@pytest.mark.parametrize(
    ("sampling", "shares"), [("balanced", (33.3, 33.3, 33.3)), ("sqrt", (70.3, 22.2, 7.4))]
)
def test_classes_come_as_often_as_asked(sampling: str, shares: tuple[float, ...]) -> None:
    places = balanced_order(MIXED, sampling, 3, 5)
    assert len(places) == 100 and len(set(places)) == 100
    often = Counter(MIXED[place % 100] for place in places)
    assert all(abs(often[c] - share) < 1 for c, share in enumerate(shares))
    for label in range(3):  # all of a class once before one comes again
        times = Counter(place % 100 for place in places if MIXED[place % 100] == label)
        of_class = [times[i] for i in range(100) if MIXED[i] == label]
        assert max(of_class) - min(of_class) <= 1
    assert places == balanced_order(MIXED, sampling, 3, 5)
    assert places != balanced_order(MIXED, sampling, 3, 6) != balanced_order(MIXED, sampling, 4, 5)


def test_more_classes_than_an_epoch_shares_out_equally() -> None:
    """What is left over after equal shares goes round: no class is always the loser."""
    labels = [*range(7), 0, 0, 0]
    extra = Counter(
        label
        for epoch in range(40)
        for label, n in Counter(
            labels[i % 10] for i in balanced_order(labels, "balanced", 0, epoch)
        ).items()
        if n == 2
    )
    assert set(extra) == set(range(7)) and sum(extra.values()) == 120


def test_slots_and_starts_cut_the_same_epoch() -> None:
    def batch_schedule(world: int, rank: int) -> sampling.BatchSchedule:
        return sampling.BatchSchedule.create(
            count=100, batch=12, accumulate=4 // world, world=world, rank=rank, seed=3,
            sampling="balanced", labels=MIXED,
        )  # fmt: skip

    alone, pair = batch_schedule(1, 0), [batch_schedule(2, rank).epoch(1) for rank in range(2)]
    both = [lot for update in zip(*pair, strict=True) for lot in update]
    assert alone.epoch(1) == both and alone.epoch(1, 3) == alone.epoch(1)[12:]


def test_a_picture_that_comes_again_is_augmented_anew() -> None:
    pictures, parts = small.clothes()
    preprocess = data.Preprocess(image=small.IMAGE, crop=1.0)
    made = data.ImageTensors(
        pictures, parts["train"], data.Augment(erase=0.0).transform(preprocess), 0
    )
    first, again = made[2, 5], made[2, 5 + 2 * len(made)]
    assert first[1:] == again[1:] == (parts["train"][5].label, 5)
    assert not torch.equal(first[0], again[0])
    assert torch.equal(again[0], made[2, 5 + 2 * len(made)][0])


BALANCED = [
    {"sampling": "balanced", "class_weights": "sqrt", "best": "balanced_accuracy"},
    {"class_weights": tuple(float(i) for i in range(10)), "best": "loss", "mixup": 0.0},
]


@pytest.mark.parametrize("changes", BALANCED)
def test_a_stopped_run_goes_on_to_the_bit(tmp_path: Path, changes: dict[str, Any]) -> None:
    import signal

    made = small.recipe(**changes)
    small.fit(tmp_path / "whole", made)
    with pytest.raises(train.Interrupted):
        small.fit(tmp_path / "run", made, on_event=at("step", 7, raised(signal.SIGINT)))
    train.resume(tmp_path / "run", lambda card: small.build(seed=9), progress=False)
    assert_same_to_the_bit(tmp_path / "whole", tmp_path / "run")
    assert train.read_run(tmp_path / "run").recipe == made


def test_numbers_that_do_not_fit_the_classes_leave_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="class_weights has 3 numbers"):
        small.fit(tmp_path / "run", small.recipe(class_weights=(1.0, 2.0, 3.0)))
    assert not list(tmp_path.iterdir())


#: (accuracy, balanced accuracy, loss) of four epochs.
COURSE = [(0.9, 0.5, 0.30), (0.8, 0.7, 0.40), (0.8, 0.6, 0.20), (0.7, 0.6, 0.25)]


@pytest.mark.parametrize(
    ("best", "epoch", "ends"), [("accuracy", 1, 3), ("balanced_accuracy", 2, 4), ("loss", 3, 4)]
)
def test_the_best_epoch_by_each_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, best: str, epoch: int, ends: int
) -> None:
    """And early stopping counts from the same epoch."""
    blank = score_logits(torch.eye(2), torch.tensor([0, 1]), 2)
    rows = iter(COURSE)

    def validate(self: Trainer, part: str) -> Any:
        accuracy, balanced, loss = next(rows)
        changed = {"accuracy": accuracy, "balanced_accuracy": balanced, "loss": loss}
        return type(blank)(**vars(blank) | changed)

    monkeypatch.setattr(Trainer, "validate", validate)
    result = small.fit(tmp_path / "run", small.recipe(epochs=4, best=best, patience=2))
    assert (result.best["epoch"], result.epochs) == (epoch, ends)


def test_a_loss_that_is_no_number_is_never_the_best() -> None:
    nothing = {"accuracy": 0.5, "balanced_accuracy": 0.5, "val_loss": math.nan}
    for by in ("accuracy", "balanced_accuracy", "loss"):
        assert ranking_key(nothing | {"val_loss": 9.0}, by) > ranking_key(nothing, by)


@pytest.mark.parametrize("rare", [1, 2])
def test_a_very_unbalanced_set_gets_one_line(tmp_path: Path, rare: int) -> None:
    pictures, parts = small.clothes()
    by_class = {c: [i for i in pictures.split("train") if i.label == c] for c in (0, 1)}
    chosen = (*by_class[0][: 10 * rare], *by_class[1][:rare])
    notes: list[str] = []

    def listen(event: dict[str, Any]) -> None:
        if event["kind"] == "note" and "unbalanced" in event["line"]:
            notes.append(event["line"])

    options: dict[str, Any] = {"parts": {**parts, "train": chosen}, "on_event": listen}
    made = small.recipe(epochs=1, batch=10)
    small.fit(tmp_path / "one", made, **options)
    (line,) = notes
    assert f"{10 * rare} training pictures of" in line and "sampling=sqrt" in line
    small.fit(tmp_path / "two", small.recipe(epochs=1, batch=10, sampling="sqrt"), **options)
    assert len(notes) == 1 and data.describe_imbalance(chosen[1:], pictures.classes) == ""
