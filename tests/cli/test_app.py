"""Help, version, completion, exit statuses; the inventory of commands and options."""

import json
import subprocess
import sys
from dataclasses import fields

import pytest

import vitrail.cli.app as app
from vitrail.cli import main
from vitrail.cli.command import Answer, Command, option
from vitrail.errors import UserError

COMMON = ("json", "plugin")
OPTIONS = {
    "models": "count image like",
    "mixers": "",
    "reducers": "",
    "check": "copies data seed strict val",
    "train": "alpha copies data distill epochs fraction from_ image mixer model out recipe reducer"
    " resume seed set strict teacher temperature tune val weights weights_folder",
    "choose": "batch data max_mb max_ms max_params minutes out pool seed val weights"
    " weights_folder",
    "reduce": "folder reducer out",
    "create": "folder out reducer",
    "study": "budget copies data epochs fractions image models out recipe resume seconds seeds"
    " set val weights weights_folder",
    "cost": "against batch by_layer checkpointing classes compiled depth device growth image"
    " models no_memory precision roofline rounds threads train_step window",
    "predict": "folder pictures top",
    "explain": "beside count folder method out part pictures score seed set steps target",
    "export": "any_size folder format out precision tolerance verify",
    "doctor": "",
}


def test_inventory_of_commands_and_options() -> None:
    found = {n: sorted(f.name for f in fields(c)) for n, c in app.COMMANDS.items()}
    assert found == {n: sorted([*own.split(), *COMMON]) for n, own in OPTIONS.items()}


@pytest.mark.parametrize("name", app.COMMANDS)
def test_help_has_an_example(name: str, give) -> None:
    said = give(name, "--help")
    assert (said.status, said.err) == (0, "")
    assert f"usage: vitrail {name}" in said.out
    assert f"Example: vitrail {name}" in said.out
    for field in fields(app.COMMANDS[name]):
        assert (
            option(field.name) in said.out
            or field.name.upper() in said.out
            or (field.name in ("like", "folder", "models"))
        )


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_help_lists_the_commands(words: tuple[str, ...], give) -> None:
    said = give(*words)
    assert (said.status, said.err) == (0, "")
    for name in (*app.COMMANDS, "completion", "--debug", "--version"):
        assert name in said.out


def test_version(give) -> None:
    said = give("--version")
    assert said.status == 0
    assert said.out.startswith("vitrail ")


@pytest.mark.parametrize("shell", app.SHELLS)
def test_completion_knows_commands_and_options(shell: str, give) -> None:
    said = give("completion", shell)
    assert (said.status, said.err) == (0, "")
    assert "predict" in said.out
    assert "--resume" in said.out or "resume" in said.out


def test_python_m_vitrail_gives_the_exit_status() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vitrail", "nonsense"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith(
        "vitrail: no command 'nonsense'; there are check, choose, completion, "
    )
    assert done.stderr.count("\n") == 1


def test_ctrl_c_before_the_commands_are_read_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Stopped:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "vitrail.cli.app":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "vitrail.cli.app")
    monkeypatch.delattr("vitrail.cli.app", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Stopped(), *sys.meta_path])
    assert main(["models"]) == 130
    assert capsys.readouterr().err == "vitrail: stopped\n"


def saying(monkeypatch: pytest.MonkeyPatch, run) -> None:
    """Let ``vitrail doctor`` do something else."""
    monkeypatch.setattr(app.COMMANDS["doctor"], "run", run)


def test_ctrl_c_is_130_and_says_how_to_go_on(give, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(self: Command) -> Answer:
        raise KeyboardInterrupt("stopped; go on with: vitrail train --resume runs/a")

    saying(monkeypatch, run)
    said = give("doctor")
    assert said.status == 130
    assert said.line == "stopped; go on with: vitrail train --resume runs/a"


def test_a_refusal_of_the_system_is_1(give, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(self: Command) -> Answer:
        raise OSError(28, "No space left on device")

    saying(monkeypatch, run)
    said = give("doctor")
    assert said.status == 1
    assert "No space left on device" in said.line


def test_a_fault_of_ours_keeps_its_traceback(give, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(self: Command) -> Answer:
        raise RuntimeError("a bug")

    saying(monkeypatch, run)
    with pytest.raises(RuntimeError, match="a bug"):
        give("doctor")


def test_the_torchvision_mismatch_is_one_line(give, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(self: Command) -> Answer:
        raise RuntimeError("operator torchvision::nms does not exist")

    saying(monkeypatch, run)
    monkeypatch.setattr("vitrail.hub.doctor.torchvision_problem", lambda: "reinstall both")
    assert give("doctor").line == "reinstall both"


def test_only_the_first_process_speaks(give, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    said = give("nonsense")
    assert (said.status, said.err) == (2, "")


def test_json_is_alone_on_stdout(give, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(self: Command) -> Answer:
        print("a library chatters")
        return Answer({"a": float("nan"), "b": (1, 2)}, ["for people"])

    saying(monkeypatch, run)
    said = give("doctor", "--json")
    assert json.loads(said.out) == {"a": None, "b": [1, 2]}
    assert said.err == "a library chatters\n"


def test_a_user_error_of_many_lines_becomes_one(give, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(self: Command) -> Answer:
        raise UserError("first\n  second")

    saying(monkeypatch, run)
    assert give("doctor").line == "first second"


def test_gist_of_an_unknown_box_is_empty() -> None:
    assert app.error_summary("") == ""


@pytest.mark.parametrize(
    ("words", "same_as"),
    [
        ("train a --set x=1 y=2 --set z=3", "train a --set x=1 y=2 z=3"),
        ("train a --set=x=1 --seed 1 --set=y=-2", "train a --set x=1 y=-2 --seed 1"),
        ("cost --image 64 --batch 1 --image 96 -- b", "cost --image 64 96 --batch 1 -- b"),
        ("explain r --set a=1 -o out --set b=2", "explain r --set a=1 b=2 -o out"),
        ("explain r -o out --beside s --beside t", "explain r -o out --beside s t"),
        ("choose a --max-ms 3 --pool x --pool y z", "choose a --max-ms 3 --pool x y z"),
    ],
)
def test_an_option_for_many_values_may_be_repeated(words: str, same_as: str) -> None:
    assert app.read(words.split()) == app.read(same_as.split())
