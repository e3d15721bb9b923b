"""``vitrail export``, and ``vitrail predict`` on what it wrote."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.test_pictures import paint


def test_predictions_are_the_runs(give, tiny_run: Path, exported: Path, tmp_path: Path) -> None:
    for i in range(3):
        paint(tmp_path / "new" / f"{i}.png", i)
    said = give("predict", exported, "new", "--json", "--top", "10")
    assert (said.status, said.err) == (0, "")
    rows, wanted = (
        json.loads(text)
        for text in (said.out, give("predict", tiny_run, "new", "--json", "--top", "10").out)
    )
    for row, other in zip(rows, wanted, strict=True):
        chances = {p["class"]: p["probability"] for p in row["top"]}
        assert chances == pytest.approx(
            {p["class"]: p["probability"] for p in other["top"]}, abs=1e-5
        )


def test_the_models_code_is_not_needed(exported: Path, tmp_path: Path) -> None:
    picture = paint(tmp_path / "a.png")
    code = (
        "import sys; from vitrail.cli import main\n"
        f"status = main(['predict', {str(exported)!r}, {str(picture)!r}])\n"
        "assert not [m for m in sys.modules if m.startswith(('vitrail.models', 'timm'))]\n"
        "sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "a.png" in done.stdout


def test_onnx_for_people_and_programs(give, tiny_run: Path) -> None:
    pytest.importorskip("onnxruntime")
    said = give("export", tiny_run, "--out", "here", "--verify")
    assert said.status == 0, said.err
    assert "largest difference from the run" in said.out
    assert "1 x 32 x 32" in said.out
    assert sorted(p.name for p in Path("here").iterdir()) == ["card.json", "model.onnx"]
    again = give("export", tiny_run, "--out", "here")
    assert again.status == 2
    assert "is there already" in again.line


def test_json(give, tiny_run: Path) -> None:
    said = give("export", tiny_run, "--format", "torch", "--out", "there", "--json")
    data = json.loads(said.out)
    assert data["folder"] == "there"
    assert data["worst"]["relative"] <= data["tolerance"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--format", "torch", "--precision", "int8"), "'int8' cannot go into a torch file"),
        (("--tolerance", "-1"), "--tolerance must be above 0"),
        (("--format", "tensorrt"), "invalid choice|format"),
    ],
)
def test_wrong_input_is_one_line(give, tiny_run: Path, words, line) -> None:
    import re

    said = give("export", tiny_run, "--out", "x", *words)
    assert said.status == 2
    assert re.search(line, said.line)
    assert not Path("x").exists()


def test_no_run(give) -> None:
    said = give("export", "nowhere")
    assert said.status == 2
    assert "no run 'nowhere'" in said.line


def test_a_folder_for_openvino_predicts_by_it(give, tiny_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    from vitrail.export import open_folder

    told = json.loads(give("export", tiny_run, "--format", "openvino", "--out", "ov", "--json").out)
    assert told["format"] == "openvino" and told["worst"]["relative"] <= told["tolerance"]
    card = json.loads(Path("ov/card.json").read_text())
    assert card["kind"] == "openvino" and "openvino" in card["versions"]
    assert len(open_folder("ov").classes) == len(card["classes"])
    paint(tmp_path / "new" / "a.png")
    rows = [json.loads(give("predict", run, "new", "--json").out) for run in ("ov", tiny_run)]
    chances = [[p["probability"] for p in row[0]["top"]] for row in rows]
    assert chances[0] == pytest.approx(chances[1], abs=1e-5)
