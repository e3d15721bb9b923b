"""What is installed: only what is used, all that is needed, and quick to import."""

import ast
import json
import pydoc
import re
import subprocess
import sys
import tomllib
import zipfile
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import vitrail
from vitrail.cost import Settings

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "vitrail"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMPORT_NAMES = {"pillow": "PIL", "pyyaml": "yaml", "jinja2": "jinja2"}
LAZY = (
    "torchvision", "timm", "scipy", "matplotlib", "PIL", "accelerate", "torchmetrics", "jinja2",
    "rich", "tyro", "yaml", "pyarrow", "tensorboard",
)  # fmt: skip
SURFACE = [
    "Backbone", "MixerSpec", "Place", "ReducerSpec", "UserError", "__version__", "choose",
    "create", "explain", "fit", "list_models", "load", "measure",
]  # fmt: skip


def requirement_name(text: str) -> str:
    return re.split(r"[<>=!~\[; ]", text)[0].lower()


@cache
def imported_packages() -> frozenset[str]:
    found: set[str] = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return frozenset(found)


@pytest.mark.parametrize("requirement", PROJECT["dependencies"])
def test_every_dependency_is_imported_and_has_no_upper_pin(requirement: str) -> None:
    name = requirement_name(requirement)
    assert IMPORT_NAMES.get(name, name) in imported_packages(), f"nothing imports {name}"
    assert not re.search(r"[<~]|==", requirement), f"{requirement} pins from above"


def test_everything_imported_is_declared() -> None:
    declared = {requirement_name(r) for r in PROJECT["dependencies"]}
    extras = PROJECT["optional-dependencies"]
    declared |= {
        requirement_name(r) for name in ("parquet", "track", "export") for r in extras[name]
    }
    allowed = {IMPORT_NAMES.get(name, name) for name in declared} | {"vitrail"}
    allowed.add("pytest")  # vitrail.testing: laws for the tests of whoever writes a mixer
    strangers = imported_packages() - allowed - set(sys.stdlib_module_names)
    assert not strangers


def fresh(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_import_brings_torch_at_most() -> None:
    code = (
        f"import json, sys, vitrail; print(json.dumps([m for m in {LAZY!r} if m in sys.modules]))"
    )
    assert json.loads(fresh(code)) == []


def test_the_command_line_reads_words_without_torch() -> None:
    code = (
        "import sys\nfrom vitrail.cli import main\nmain(['--help'])\n"
        "assert 'torch' not in sys.modules"
    )
    assert "usage: vitrail" in fresh(code)


def test_building_and_running_a_model_imports_torch_only() -> None:
    code = (
        "import json, sys, torch, vitrail\n"
        "m = vitrail.create('vit_tiny', classes=3, image=64).eval()\n"
        "assert m(torch.zeros(1, 3, 64, 64)).shape == (1, 3)\n"
        f"print(json.dumps([m for m in {LAZY!r} if m in sys.modules]))"
    )
    assert json.loads(fresh(code)) == []


def test_the_way_that_help_shows_can_be_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The module's docstring, with fewer epochs and pixels and less measuring."""
    for number, name in enumerate(("cats", "dogs")):
        for i in range(10):
            (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
            image = Image.new("RGB", (40, 40), (12 * i, 100 * number, 50))
            image.save(tmp_path / "photos" / name / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    short = partial(Settings, rounds=1, window_s=0.01, warmup_s=0.0)
    monkeypatch.setattr("vitrail.hub.measure.Settings", short)
    lines = (vitrail.__doc__ or "").splitlines()
    program = "\n".join(line[4:] for line in lines if line.startswith(" " * 4))
    space: dict[str, Any] = {}
    for word, quick in (("epochs=20", "epochs=1"), ("image=224, batch=8", "image=64, batch=2")):
        program = program.replace(word, quick)
    exec(program, space)
    assert space["probabilities"].shape == (2, 2) and space["found"].map.shape[0] == 2
    assert "timm:resnet18" in capsys.readouterr().out


def test_help_shows_the_functions_with_an_example_each() -> None:
    about = pydoc.plain(pydoc.render_doc(vitrail))
    for name in ("choose", "create", "fit", "load", "measure"):
        assert f"\n    {name}(" in about and f"vitrail.{name}(" in getattr(vitrail, name).__doc__


def test_public_surface() -> None:
    assert sorted(vitrail.__all__) == SURFACE
    for name in SURFACE:
        assert getattr(vitrail, name)
        assert name in dir(vitrail)
    assert "coat_lite_tiny" in vitrail.list_models()


def test_an_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_thing"):
        vitrail.no_such_thing  # noqa: B018


def test_wheel_holds_the_sample_the_templates_and_the_type_marker(tmp_path: Path) -> None:
    build = pytest.importorskip("hatchling.builders.wheel", reason="hatchling is not installed")
    made = next(build.WheelBuilder(str(ROOT)).build(directory=str(tmp_path)))
    inside = zipfile.ZipFile(made).namelist()
    assert "vitrail/py.typed" in inside
    assert "vitrail/data/sample/fashion-mnist-mini.npz" in inside
    assert any(name.startswith("vitrail/study/templates/") for name in inside)
    assert any(name.endswith("licenses/LICENSE") for name in inside)
    assert any(name.endswith("licenses/NOTICE") for name in inside)
    assert not [name for name in inside if name.startswith("tests")]
