"""``vitrail explain``: what is drawn and kept, what is scored, what is refused in one line."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitrail.attribution import ExplainError, LayerRecord, base
from vitrail.attribution.base import Case, Method, MethodResult, Need, method
from vitrail.cli.maps import file_names


@pytest.fixture(autouse=True)
def toys(own_methods: dict[str, Method], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two quick methods and one that serves nobody stand in for all."""
    own_methods.clear()
    monkeypatch.setattr(base, "MODULES", ())

    @method("saliency", class_specific=True, needs={Need.GRADIENT})
    def saliency(case: Case, *, power: float = 1.0) -> MethodResult:
        """Size of the gradient."""
        images = case.images.requires_grad_()
        score = case.goal(case.model(images)).sum()
        return MethodResult(native=torch.autograd.grad(score, images)[0].abs().amax(1) ** power)

    @method("halves", class_specific=False)
    def halves(case: Case) -> MethodResult:
        """The left half, as a layer would choose it."""
        mask = torch.zeros(len(case.images), 4, 4, dtype=torch.bool)
        mask[:, :, :2] = True
        return MethodResult(
            native=mask.float(), layers={"stage.0": LayerRecord("filter", (4, 4), {"mask": mask})}
        )

    @method("nobody", class_specific=True, signed=True)
    def nobody(case: Case) -> MethodResult:
        """Refuses."""
        raise ExplainError("no layer here; use another method")

    yield


@pytest.fixture
def new(tmp_path: Path) -> Path:
    (tmp_path / "new").mkdir()
    for i in range(2):
        noise = np.random.default_rng(i).integers(0, 255, (40, 52, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "new" / f"{i}.png")
    return tmp_path / "new"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_maps_are_drawn_and_kept(give, tiny_run: Path, new: Path, tmp_path: Path) -> None:
    words = ("--method", "saliency", "halves", "--target", "Bag", "--set", "saliency.power=2")
    said = give("explain", tiny_run, new, *words, "--out", "maps", "--json")
    assert (said.status, said.err) == (0, "")
    assert names(tmp_path / "maps") == [
        f"{i}{end}"
        for i in range(2)
        for end in (".halves.layers.png", ".halves.png", ".json", ".npz", ".saliency.png",
                    ".sheet.png")
    ]  # fmt: skip
    rows = json.loads(said.out)["rows"]
    assert [(row["method"], row["target"]) for row in rows] == [
        ("saliency", "Bag"), ("halves", "Bag")] * 2  # fmt: skip
    assert rows[0]["params"] == {"method": "saliency", "seed": 0, "power": 2}
    assert 0 < rows[0]["probability"] < 1 and rows[0]["class_specific"]
    assert rows[1]["layers"] == {"stage.0": {"kind": "filter", "grid": [4, 4]}}
    assert json.loads((tmp_path / "maps" / "0.json").read_text()) == rows[:2]
    with np.load(tmp_path / "maps" / "0.npz") as arrays:
        assert set(arrays) == {"saliency/map", "saliency/native", "halves/map", "halves/native",
                               "halves/layers/stage.0/mask"}  # fmt: skip
        assert arrays["saliency/map"].shape == (32, 32)
        assert arrays["halves/layers/stage.0/mask"].dtype == bool


def test_kept_maps_are_the_librarys(give, tiny_run: Path, new: Path, tmp_path: Path) -> None:
    import vitrail
    from vitrail.hub import open_run

    give("explain", tiny_run, new / "0.png", "--method", "saliency", "-o", "maps")
    run = open_run(tiny_run)
    images = run.preprocess.transform()(Image.open(new / "0.png"))
    wanted = vitrail.explain(run.model, images, "saliency").map[0].numpy()
    with np.load(tmp_path / "maps" / "0.npz") as arrays:
        assert np.allclose(arrays["saliency/map"], wanted, atol=1e-6)


def test_several_runs_share_a_sheet(give, tiny_run: Path, new: Path, tmp_path: Path) -> None:
    words = ("--beside", tiny_run, "--method", "saliency", "nobody", "--out", "maps")
    said = give("explain", tiny_run, new / "0.png", *words)
    assert said.status == 1 and said.err.count("use another method") == 2
    assert "2 of 4 explanations could not be had" in said.out
    assert names(tmp_path / "maps") == ["0.json", "0.npz", "0.sheet.png", "0.tiny-2.saliency.png",
                                        "0.tiny.saliency.png"]  # fmt: skip


def test_without_a_folder_there_is_a_new_one_each_time(give, tiny_run: Path, new: Path) -> None:
    words = ("explain", tiny_run, new / "0.png", "--method", "saliency", "--json")
    first, second = (json.loads(give(*words).out)["out"] for _ in range(2))
    assert first != second and Path(first).is_dir() and first.startswith("explanations/tiny-")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "name at least one picture"),
        (("new", "--method", "saliancy"), "no method 'saliancy'; close: saliency"),
        (("new", "--method", "nobody"), "no layer here"),
        (("new", "--method", "saliency", "--target", "Bug"), "no class 'Bug'; close: Bag"),
        (("new", "--method", "saliency", "--set", "saliency.pow=2"), "no option 'pow'"),
        (("new", "--method", "saliency", "--set", "power=2"), "METHOD.KEY=VALUE"),
        (("new", "--method", "saliency", "--set", "halves.x=2"), "no chosen method 'halves'"),
        (("new", "--method", "saliency", "--out", "new"), "nothing is overwritten"),
        (("new", "--score", "fashion"), "leave out 'new'"),
        (("--score", "fashion", "--part", "best"), "--part is one of"),
        (("--score", "fashion", "--count", "0"), "1 or more"),
        (("--score", "scenes(count=20)"), "pictures of its own classes"),
        (("--score", "nowhere"), "nowhere"),
    ],
)
def test_what_cannot_be_is_one_line(
    words: tuple[str, ...], said: str, give, tiny_run: Path, new: Path, tmp_path: Path
) -> None:
    before = names(tmp_path)
    got = give("explain", tiny_run, *words)
    assert got.status == 2 and said in got.line
    assert names(tmp_path) == before and len(names(new)) == 2


def test_a_broken_picture_costs_one_line(give, tiny_run: Path, new: Path, tmp_path: Path) -> None:
    (new / "00.png").write_bytes(b"no picture")
    said = give("explain", tiny_run, new, "--method", "saliency", "--out", "maps")
    assert said.status == 1 and "00.png" in said.err and len(said.err.splitlines()) == 1
    assert "1.saliency.png" in names(tmp_path / "maps")


def test_scores_stand_beside_four_baselines(give, tiny_run: Path, tmp_path: Path) -> None:
    words = ("--count", "4", "--steps", "3", "--out", "scores")
    said = give("explain", tiny_run, "--score", "fashion", *words)
    assert said.status == 0
    for name in ("saliency", "halves", "random", "centre", "edges", "nobody: no layer here"):
        assert name in said.out
    assert "no masks known" in said.out
    with (tmp_path / "scores" / "scores.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert {line["method"] for line in lines} == {"saliency", "halves", "random", "centre", "edges"}
    data = json.loads((tmp_path / "scores" / "scores.json").read_text())
    (run,) = data["runs"]
    rows = {row["method"]: row for row in run["rows"]}
    assert len(run["pictures"]) == 4 and data["settings"]["steps"] == 3
    assert rows["nobody"]["problem"] and not rows["nobody"]["scores"]
    assert rows["halves"]["kind"] == "agnostic" and rows["halves"]["mean"]["contrast"] == 0
    assert rows["halves"]["mean"]["head_randomised"] == pytest.approx(1)
    means = {(x["method"], x["score"]): float(x["mean"]) for x in lines}
    assert means["saliency", "deletion"] == pytest.approx(rows["saliency"]["mean"]["deletion"])


def test_pictures_of_one_name_do_not_overwrite_each_other() -> None:
    paths = [Path("a/x.png"), Path("b/x.jpg"), Path("c/x 1.png"), Path("d/???.png")]
    assert list(file_names(paths).values()) == ["x", "x-2", "x-1", "picture"]
