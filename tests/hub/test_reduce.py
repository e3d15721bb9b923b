"""A trained plain model with a reducer: same weights, fewer tokens, and the old run untouched."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import vitrail
from vitrail.errors import UserError
from vitrail.hub import give_reducer, open_run, reduce_run
from vitrail.tasks import Card, read_card, save_weights

TINY = "vit_tiny(patch=8, dim=24, heads=3, depth=2)"
PREPROCESS = {"image": 32, "mean": (0.5,) * 3, "std": (0.5,) * 3}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder of a plain model, as training leaves it."""
    folder = tmp_path / "plain"
    folder.mkdir()
    for seed, name in enumerate(("best.safetensors", "last.safetensors")):
        torch.manual_seed(seed)
        model = vitrail.create(TINY, classes=2, image=32)
        extra = {"accuracy": 0.9, "step": 7}
        card = Card(
            model=TINY, classes=("cat", "dog"), image=32, preprocess=PREPROCESS, extra=extra
        )
        save_weights(folder / name, model.state_dict(), card)
    facts = {"format": "vitrail-run-1", "model": TINY, "seed": 3}
    (folder / "run.json").write_text(json.dumps(facts))
    (folder / "recipe.yaml").write_text("epochs: 1\n")
    (folder / "result.json").write_text("{}")
    return folder


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_a_new_run_with_the_same_weights(run: Path, tmp_path: Path) -> None:
    before = bytes_of(run)
    made = reduce_run(run, tmp_path / "new", "cluster(ratio=4)")
    assert bytes_of(run) == before
    names = {"best.safetensors", "last.safetensors", "run.json", "recipe.yaml"}
    assert set(bytes_of(tmp_path / "new")) == names  # no figures of the plain model
    assert made.fresh == () and made.dropped == ()
    assert made.after.params == made.before.params and made.after.macs < made.before.macs
    old, new = open_run(run), open_run(tmp_path / "new")
    assert new.model.config.reducer == ("cluster(ratio=4)",)
    for name, tensor in old.model.state_dict().items():
        assert torch.equal(new.model.state_dict()[name], tensor)
    card = read_card(tmp_path / "new" / "best.safetensors")
    assert "accuracy" not in card.extra and card.extra["from"]["model"] == TINY
    facts = json.loads((tmp_path / "new" / "run.json").read_text())
    assert facts["model"] == card.model and facts["seed"] == 3
    assert new.predict([Image.new("RGB", (40, 40), "red")]).sum().item() == pytest.approx(1)


def test_as_many_tokens_answer_as_the_plain_model(run: Path, tmp_path: Path) -> None:
    picture = [Image.radial_gradient("L").convert("RGB")]
    wanted = open_run(run).predict(picture)
    for i, reducer in enumerate(("cluster(ratio=1)", "merge(keep=1.0)", "filter(keep=1.0)")):
        reduce_run(run, tmp_path / f"{i}", reducer)
        torch.testing.assert_close(open_run(tmp_path / f"{i}").predict(picture), wanted)


def test_what_is_new_is_named_and_what_is_old_is_dropped(run: Path, tmp_path: Path) -> None:
    made = reduce_run(run, tmp_path / "filtered", "filter")
    assert made.fresh == tuple(
        f"blocks.{i}.reducer.score.{part}" for i in range(2) for part in ("bias", "weight")
    )
    again = reduce_run(tmp_path / "filtered", tmp_path / "sorted", ["cluster(by='sort')"])
    assert again.fresh == () and again.dropped == made.fresh
    assert again.model == made.model.replace("'filter'", "\"cluster(by='sort')\"")
    softer = reduce_run(tmp_path / "sorted", tmp_path / "soft", "paca(clusters=3)")
    finer = reduce_run(tmp_path / "soft", tmp_path / "softer", "paca(clusters=5)")
    told = {n for n in softer.fresh if ".tell." in n}
    assert len(softer.fresh) == 12 and set(finer.fresh) == told == set(finer.dropped)


def test_one_file_of_weights_serves(run: Path, tmp_path: Path) -> None:
    reduce_run(run / "last.safetensors", tmp_path / "new", "pool")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["best.safetensors"]
    old, new = open_run(run / "last.safetensors").model, open_run(tmp_path / "new").model
    assert torch.equal(new.head.weight, old.head.weight)


def test_nothing_is_overwritten_and_nothing_is_left_behind(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing is overwritten; choose another folder"):
        reduce_run(run, run, "pool")
    with pytest.raises(UserError, match="no reducer 'pol'"):
        reduce_run(run, tmp_path / "new", "pol")
    with pytest.raises(UserError, match="ratio must be int"):
        reduce_run(run, tmp_path / "new", "cluster(ratio=2.5)")
    assert [p.name for p in tmp_path.iterdir()] == ["plain"]


def test_timms_models_take_none(tmp_path: Path) -> None:
    card = Card(model="timm:resnet18", classes=("a",), image=32)
    save_weights(tmp_path / "w.safetensors", {"x": torch.zeros(1)}, card)
    with pytest.raises(UserError, match="a reducer works with our models only"):
        reduce_run(tmp_path / "w.safetensors", tmp_path / "new", "pool")


def test_a_model_in_memory_keeps_place_mode_and_weights() -> None:
    model = vitrail.create("cmt_ti", depths=(1, 1, 1, 1), image=64, classes=3).double().eval()
    given = give_reducer(model, ("pool", "native", "native", "native"))
    assert given.config.reducer == ("pool", "all", "all", "all") and not given.training
    assert given.stages[0].shared.table.shape != model.stages[0].shared.table.shape  # resized
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    assert given(x).dtype == torch.float64 and not torch.equal(given(x), model(x))
    with pytest.raises(UserError, match="is no backbone of Vitrail's"):
        give_reducer(torch.nn.Linear(2, 2), "pool")


def test_released_weights_of_plain_models_fit_models_with_reducers(tmp_path: Path) -> None:
    plain = vitrail.create(TINY, classes=2, image=32)
    torch.save(plain.state_dict(), tmp_path / "w.pth")
    model = vitrail.create(TINY, classes=2, image=32, reducer="filter", weights=tmp_path / "w.pth")
    assert torch.equal(model.head.weight, plain.head.weight)
    torn = {n: t for n, t in model.state_dict().items() if n != "blocks.1.reducer.score.bias"}
    torch.save(torn, tmp_path / "torn.pth")
    with pytest.raises(UserError, match="1 tensors missing, such as blocks.1.reducer"):
        vitrail.create(TINY, classes=2, image=32, reducer="filter", weights=tmp_path / "torn.pth")
