"""Every value of every file of a run may be of a wrong kind: one line each, never a traceback."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vitrail.cli import main
from vitrail.digests import KEY
from vitrail.errors import UserError
from vitrail.hub import open_run
from vitrail.tensors import load_tensors, save_tensors
from vitrail.train import read_run, resume
from vitrail.train.checkpoint import load

WRONG: tuple[Any, ...] = (None, [], {}, "text", -1, 10**30, 1.5, float("nan"), True, [[1]], [None])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with its first checkpoint still there."""
    out = tmp_path_factory.mktemp("files") / "run"
    words = "--model vit_tiny(patch=8,dim=24,heads=3,depth=1) --image 32 --epochs 1 --fraction 0.01"
    status = main(["train", "fashion", "--out", str(out), "--set", "workers=0", *words.split()])
    assert status == 0
    return out


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where values stand: of a list the first only, and what classes of pictures share once."""
    yield path
    inner: Any = ()
    if isinstance(value, dict):
        inner = list(value.items())[:25]
    if isinstance(value, list):
        inner = list(enumerate(value))[:1]
    for key, child in inner:
        yield from places(child, (*path, key))


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    if isinstance(value, dict):
        return {k: put(v, path[1:], new) if k == path[0] else v for k, v in value.items()}
    return [put(v, path[1:], new) if i == path[0] else v for i, v in enumerate(value)]


def without(value: Any, path: tuple[Any, ...]) -> Any:
    if len(path) == 1 and isinstance(value, dict):
        return {k: v for k, v in value.items() if k != path[0]}
    return put(value, path[:1], without(value[path[0]], path[1:])) if len(path) > 1 else value


def variants(value: Any) -> Iterator[Any]:
    """Each place with two of the wrong values, in turn, and each key left out."""
    for turn, path in enumerate(places(value)):
        for offset in (0, 5):
            yield put(value, path, WRONG[(turn + offset) % len(WRONG)])
        if path:
            yield without(value, path)


def held(read: Callable[[], object]) -> bool:
    """Whether reading was refused; anything else than an answer or one line is an error."""
    try:
        read()
    except UserError as error:
        assert "\n" not in str(error)
        return True
    return False


@pytest.mark.parametrize("name", ["run.json", "result.json", "metrics.jsonl"])
def test_values_of_another_kind_in_json(name: str, run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    text = (run / name).read_text()
    value = json.loads(text.splitlines()[0] if name.endswith("l") else text)
    del value[KEY]  # its shape is held against its types also where no digest stands
    tried = list(variants(value)) + ["[" * 10**5]
    refused = 0
    for variant in tried:
        (copy / name).write_text(variant if variant == tried[-1] else json.dumps(variant))
        refused += held(lambda: resume(copy, lambda card: pytest.fail("the run is finished")))
    assert refused > 2


@pytest.mark.parametrize("row", ["best", "last"])
def test_scores_of_a_finished_run_are_numbers(row: str, run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    value = json.loads((run / "result.json").read_text())
    del value[KEY]
    value[row]["accuracy"] = "high"
    (copy / "result.json").write_text(json.dumps(value))
    with pytest.raises(UserError, match=f"{row}.*accuracy"):
        resume(copy, lambda card: pytest.fail("the run is finished"))


def test_a_missing_epoch_is_noticed(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    rows = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    first = {key: value for key, value in json.loads(rows[0]).items() if key != KEY}
    for others in ([first, first], [{**first, "epoch": 3}]):
        (copy / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in others))
        with pytest.raises(UserError, match="row . is of epoch ."):
            read_run(copy)
    (copy / "metrics.jsonl").write_text("".join(rows[:-1]))
    with pytest.raises(UserError, match="it ends with epoch 0, result.json with 1; take"):
        read_run(copy)
    (copy / "metrics.jsonl").unlink()
    assert read_run(copy).metrics == []


def test_a_manifest_of_another_kind(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    value = json.loads((run / "manifest.json").read_text())
    for variant in variants(value):
        if variant == value:
            continue
        (copy / "manifest.json").write_text(json.dumps(variant))
        was_absent = isinstance(variant, dict) and variant.get("whole") is None
        assert held(lambda: read_run(copy)) or was_absent


def test_a_checkpoint_or_card_of_another_kind(run: Path, tmp_path: Path) -> None:
    tensors, texts = load_tensors(run / "best.safetensors")
    card = json.loads(texts["vitrail.card"])
    for variant in variants(card):
        save_tensors(tmp_path / "w.safetensors", tensors, {"vitrail.card": json.dumps(variant)})
        held(lambda: open_run(tmp_path / "w.safetensors", device="cpu"))
    plain = {
        "format": "vitrail-checkpoint-1",
        "progress": '{"rows": [{}]}',
        "optim": "{}",
        "scaler": "{}",
        "world": "1",
    }
    save_tensors(tmp_path / "c.safetensors", {}, plain)
    assert not held(lambda: load(tmp_path / "c.safetensors"))
    for key in plain:
        for text in (*map(json.dumps, WRONG), "", "{", '{"rows": [3]}', '{"a": 1}'):
            save_tensors(tmp_path / "c.safetensors", {}, plain | {key: text})
            held(lambda: load(tmp_path / "c.safetensors"))
        save_tensors(tmp_path / "c.safetensors", {}, {k: t for k, t in plain.items() if k != key})
        assert held(lambda: load(tmp_path / "c.safetensors"))


@pytest.mark.parametrize("name", ["run.json", "result.json", "metrics.jsonl", "recipe.yaml"])
def test_a_run_that_was_changed_by_a_bit_is_refused(name: str, run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    text = (copy / name).read_text()
    digit = re.search(r"\d(?=\d*,?\n)" if name != "metrics.jsonl" else r"(?<=\d)\d(?=,)", text)
    assert digit is not None
    changed = text[: digit.start()] + str(int(digit[0]) ^ 1) + text[digit.end() :]
    (copy / name).write_text(changed)
    with pytest.raises(UserError, match=f"{name}' is damaged or was changed by hand"):
        read_run(copy)
