"""A run that needs a user's own file: recorded, found again, and never run from the run itself."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vitrail import plugins
from vitrail.cli import main
from vitrail.errors import UserError
from vitrail.hub.plugin_records import card_extra, require_plugins
from vitrail.mixers import MixerSpec
from vitrail.models import list_models

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


def test_a_trusted_digest_opens_again_wherever_the_file_went(trained: Path) -> None:
    (trained / "my.py").rename(trained / "mine.py")
    try:
        ran = vitrail(trained, "predict|run|red.png", "train|--resume|run")
        assert [status for status, _ in ran] == [0, 0], ran[0][1]
    finally:
        (trained / "mine.py").rename(trained / "my.py")


@pytest.fixture
def stranger(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person who has trusted nothing yet, beside the run; nobody else's names are known."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv(plugins.VARIABLE, raising=False)
    monkeypatch.delitem(MixerSpec.known, "swirl", raising=False)
    monkeypatch.chdir(trained)
    return tmp_path / "vitrail" / "trusted-plugins"


WORDS = "train fashion --out new --epochs 1 --fraction 0.01 --set workers=0"


@pytest.mark.parametrize(
    "words",
    [
        "predict run red.png",
        "explain run red.png",
        "export run",
        "create run --reducer pool --out reduced",
        "train --resume run",
        f"{WORDS} --from run",
        f"{WORDS} --model {TINY} --image 32 --teacher run",
    ],
)
def test_without_trust_nothing_runs(
    words: str, stranger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file lies where the record says, as it was; even so only the person makes it run."""
    assert main(words.split()) == 2
    said = capsys.readouterr().err
    copy = Path("run") / "plugins" / "my.py"
    digest = hashlib.sha256(Path("my.py").read_bytes()).hexdigest()
    assert f"{digest}), which is not trusted on this machine; look at " in said
    assert f"{copy} and, if you trust it, say --plugin " in said
    assert "swirl" not in MixerSpec.known


def test_naming_a_file_trusts_these_bytes_from_then_on(trained: Path, stranger: Path) -> None:
    words = f"predict|run|red.png|--plugin|{Path('run') / 'plugins' / 'my.py'}"
    ran = vitrail(trained, words, words)
    assert [status for status, _ in ran] == [0, 0], ran[0][1]
    assert ran[0][1].count("is trusted on this machine from now on") == 1
    (kept,) = stranger.glob("*/*")
    assert kept.read_bytes() == (trained / "my.py").read_bytes()


SPRUNG = "import pathlib; pathlib.Path('sprung').touch()\n"


def record(code: str = SPRUNG, **changes: object) -> dict[str, object]:
    digest = hashlib.sha256(code.encode()).hexdigest()
    plain: dict[str, object] = {"file": "its.py", "sha256": digest, "names": ["mixer stirred"]}
    return plain | {"path": "its.py"} | changes


@pytest.mark.parametrize("place", ["its.py", "run/plugins/its.py", "run/../its.py", "link.py"])
@pytest.mark.parametrize("how", ["absolute", "relative", "/proc/self/cwd"])
def test_no_path_of_a_record_is_followed(
    place: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / "plugins").mkdir(parents=True)
    for name in ("its.py", "run/plugins/its.py"):
        (tmp_path / name).write_text(SPRUNG)
    (tmp_path / "link.py").symlink_to(tmp_path / "its.py")
    base = {"absolute": str(tmp_path), "relative": ".", "/proc/self/cwd": how}[how]
    with pytest.raises(UserError, match="needs mixer stirred of the plugin its.py .SHA-256 .*not "):
        require_plugins([record(path=f"{base}/{place}")], tmp_path / "run")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "found",
    [
        {"a": 1},
        "its.py",
        [3],
        [record(file="../its.py")],
        [record(file="/tmp/its.py")],
        [record(file="plugins\\its.py")],
        [record(file=["its.py"])],
        [record(sha256="../../etc/passwd")],
        [record(sha256=None)],
        [record(names="mixer stirred")],
        [record(names=["mixer [bold]x"])],
        [record(names=["mixer"])],
        [record(names=["model x"])],
        [{"file": "its.py"}],
    ],
)
def test_records_of_another_shape(found: object, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="plugin"):
        require_plugins(found, tmp_path / "run")


def test_nothing_that_a_record_names_is_copied(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("mine")
    plugins.copy_plugins([record(path=str(tmp_path / "secret"), file="../out.py")], tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["secret"]


def test_two_plugins_of_one_name_have_a_copy_each_and_it_is_offered_by_digest(
    tmp_path: Path,
) -> None:
    codes = ["first = 1\n", "second = 2\n"]
    for folder, code in zip("ab", codes, strict=True):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "its.py").write_text(code)
        plugins.load_file(tmp_path / folder / "its.py")
    run = tmp_path / "run"
    run.mkdir()
    plugins.copy_plugins(map(record, codes), run)
    for code in codes:
        with pytest.raises(UserError) as refused:
            require_plugins([record(code)], run)
        copy = str(refused.value).rpartition("--plugin ")[2]
        assert Path(copy).read_text() == code
    with pytest.raises(UserError, match="find that file"):
        require_plugins([record("third = 3\n")], run)


def test_names_that_another_file_gives_are_taken_with_a_word(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="mixer softmax: not the its.py that the run was made"):
        require_plugins([record(names=["mixer softmax"])], tmp_path / "run")


def test_models_without_plugins_need_none() -> None:
    assert card_extra("timm:resnet18") == {}
    assert all(card_extra(name) == {} for name in list_models())
