"""A run that needs a user's own file: recorded, found again, and never run from the run itself."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vitrail.errors import UserError
from vitrail.hub.plugged import extra, recall
from vitrail.models import list_models
from vitrail.plugins import digest_of

EXAMPLE = Path(__file__).parents[2] / "examples" / "swirl.py"
TINY = "vit_tiny(patch=8,dim=24,heads=3,depth=1)"


def vitrail(folder: Path, *commands: str) -> list[tuple[int, str]]:
    """Some commands in one fresh process; the status of each, and what all said."""
    code = (
        "import sys, json\nfrom vitrail.cli import main\n"
        "print(json.dumps([main(line.split('|')) for line in sys.argv[1:]]), file=sys.stderr)\n"
    )
    where = os.pathsep.join(path or "." for path in sys.path)
    done = subprocess.run(
        [sys.executable, "-c", code, *commands],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": where, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    statuses = json.loads(done.stderr.splitlines()[-1])
    return [(status, done.stdout + done.stderr) for status in statuses]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plugin, a picture, and a run that needs the plugin."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("plugged")
    (folder / "my.py").write_text(EXAMPLE.read_text())
    Image.new("RGB", (40, 40), "red").save(folder / "red.png")
    words = f"train|fashion|--model|{TINY}|--mixer|swirl|--plugin|my.py|--out|run|--image|32"
    ran = vitrail(folder, f"{words}|--epochs|1|--fraction|0.01|--set|workers=0", "mixers")
    assert [status for status, _ in ran] == [0, 0], ran[0][1]
    assert "Channels step aside" in ran[0][1]  # listed, without being named again
    return folder


def test_a_run_remembers_its_plugin(trained: Path) -> None:
    (record,) = json.loads((trained / "run" / "run.json").read_text())["plugins"]
    assert record["file"] == "my.py" and record["names"] == ["mixer swirl"]
    assert record["path"] == str((trained / "my.py").resolve())
    assert (trained / "run" / "plugins" / "my.py").read_text() == EXAMPLE.read_text()


def test_it_opens_again_where_the_file_still_is(trained: Path) -> None:
    ran = vitrail(trained, "predict|run|red.png", "train|--resume|run")
    assert [status for status, _ in ran] == [0, 0], ran[0][1]


def test_what_came_with_a_run_is_not_executed_unasked(trained: Path) -> None:
    (trained / "my.py").rename(trained / "mine.py")
    copy = Path("run") / "plugins" / "my.py"
    try:
        ran = vitrail(trained, "predict|run|red.png", f"predict|run|red.png|--plugin|{copy}")
        assert [status for status, _ in ran] == [2, 0], ran[0][1]
        assert f"look at {copy} and, if you trust it, say --plugin {copy}" in ran[0][1]
        facts = trained / "run" / "run.json"
        told = json.loads(facts.read_text())
        assert told["plugins"][0]["path"].endswith("my.py")
    finally:
        (trained / "mine.py").rename(trained / "my.py")


def record(path: Path, name: str) -> dict[str, object]:
    return {"file": path.name, "path": str(path), "sha256": digest_of(path), "names": [name]}


def test_a_changed_file_is_another_plugin(tmp_path: Path) -> None:
    file = tmp_path / "its.py"
    file.write_text("x = 1\n")
    before = record(file, "mixer stirred")
    file.write_text("x = 2\n")
    with pytest.raises(UserError, match="needs mixer stirred of the plugin its.py, which is no "):
        recall([before], tmp_path / "run")


def test_a_file_inside_the_run_is_not_taken_even_if_the_record_says_so(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "plugins").mkdir(parents=True)
    file = run / "plugins" / "its.py"
    file.write_text("raise SystemExit('executed')\n")
    with pytest.raises(UserError, match="look at .*its.py and, if you trust it"):
        recall([record(file, "mixer stirred")], run)
    with pytest.raises(UserError, match="if you trust it"):
        recall([record(file, "mixer stirred") | {"path": "run/plugins/its.py"}], run)


def test_names_that_another_file_gives_are_taken_with_a_word(tmp_path: Path) -> None:
    file = tmp_path / "its.py"
    file.write_text("x = 1\n")
    with pytest.warns(UserWarning, match="mixer softmax: not the its.py that the run was made"):
        recall([record(file, "mixer softmax")], tmp_path / "run")


def test_models_without_plugins_need_none() -> None:
    assert extra("timm:resnet18") == {}
    assert all(extra(name) == {} for name in list_models())
