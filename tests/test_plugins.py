"""Entry points of other packages: found lazily, named like our own, harmless when broken."""

import json
import os
import subprocess
import sys

import pytest

from vitrail import plugins
from vitrail.cli import main
from vitrail.errors import UserError

MODEL = '''
from dataclasses import replace
from vitrail.models.vit import CONFIGS as VITS, ViT

class Swirl(ViT):
    """Swirl (a test's)."""

CONFIGS = {"swirl": replace(VITS["vit_tiny"], depth=1), "vit_tiny": "never taken"}
'''
MIXER = '''
from dataclasses import dataclass
from vitrail.mixers.softmax import Softmax

@dataclass(frozen=True, kw_only=True)
class Stir(Softmax, name="stir"):
    """Softmax under another name."""
'''
ENTRIES = """
[vitrail.models]
swirl = swirl.model:Swirl
bad = swirl.missing:Thing
shapeless = swirl.mixer:Stir
[vitrail.mixers]
stir = swirl.mixer
[vitrail.reducers]
bad = swirl.missing
"""


@pytest.fixture
def distribution(tmp_path):
    """A package as pip would leave it, on a path of its own."""
    package, facts = tmp_path / "swirl", tmp_path / "swirl-1.0.dist-info"
    package.mkdir()
    facts.mkdir()
    (package / "__init__.py").write_text("")
    (package / "model.py").write_text(MODEL)
    (package / "mixer.py").write_text(MIXER)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: swirl\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(ENTRIES)
    return tmp_path


def run(distribution, code):
    """A fresh process that has the distribution installed."""
    start = f"import sys, warnings; sys.path.insert(0, {str(distribution)!r})\n"
    return subprocess.run(
        [sys.executable, "-c", start + code], capture_output=True, text=True, check=False
    )


def test_models_of_another_package_are_built_by_name(distribution):
    done = run(
        distribution,
        "import vitrail\n"
        "own = vitrail.create('vit_tiny', image=32, classes=2)\n"
        "assert 'swirl' not in sys.modules\n"  # nobody has looked for it yet
        "model = vitrail.create('swirl', image=32, classes=2, mixer='stir')\n"
        "assert type(model).__name__ == 'Swirl' and 'swirl' in vitrail.list_models()\n"
        "assert len(own.blocks) == 12 and model.config.mixer == ('stir',)\n"
        "import timm, vitrail.timm\n"
        "assert timm.create_model('vitrail_swirl', img_size=32).num_classes == 1000\n",
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if "is left out" in line]
    assert any("'bad' of swirl (vitrail.models) is left out: No module" in line for line in lines)
    assert any("'shapeless'" in line and "must name a Backbone" in line for line in lines)


def test_a_broken_reducer_is_a_line_and_the_error_stays_the_users(distribution):
    done = run(
        distribution,
        "from vitrail import ReducerSpec\n"
        "try:\n    ReducerSpec.parse('swirled')\n"
        "except ValueError as error:\n    print(error)\n",
    )
    assert done.stdout.startswith("no reducer 'swirled'; there are all")
    assert done.stderr.count("is left out: No module named 'swirl.missing'; update swirl") == 1


FILE = '''
from dataclasses import dataclass
from vitrail.mixers.softmax import Softmax

@dataclass(frozen=True, kw_only=True)
class Whisk(Softmax, name="whisk"):
    """Softmax of a single file."""
'''


def test_a_file_is_found_by_variable_or_by_hand_and_run_once(tmp_path):
    (tmp_path / "whisk.py").write_text(FILE)
    (tmp_path / "broken.py").write_text("import nowhere_at_all\n")
    done = run(
        tmp_path,
        "import os\nfrom vitrail import MixerSpec, plugins\n"
        f"os.environ['VITRAIL_PLUGINS'] = {str(tmp_path / 'whisk.py')!r}\n"
        "spec = MixerSpec.parse('whisk')\n"  # looked up by its name alone
        f"module = plugins.use({str(tmp_path / 'whisk.py')!r})\n"  # the same file: the same module
        "assert module.Whisk is type(spec)\n"
        "assert plugins.source_behind(type(spec)).path.name == 'whisk.py'\n"
        "assert os.environ['VITRAIL_PLUGINS'].count('whisk.py') == 1\n"
        "from vitrail.errors import UserError\n"
        f"for name in ('broken.py', 'absent.py', 'whisk.txt'):\n"
        f"    try:\n        plugins.use({str(tmp_path)!r} + '/' + name)\n"
        "    except UserError as error:\n        print(error)\n",
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].endswith("broken.py' fails: No module named 'nowhere_at_all'")
    assert all("no plugin" in line and "No such file" in line for line in lines[1:])
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("ends.py", "raise SystemExit(3)", "'.*ends.py' fails: SystemExit"),
        ("base.py", "raise GeneratorExit", "fails: GeneratorExit"),
        (f"a{os.pathsep}b.py", "", "the path of a plugin cannot hold"),
    ],
)
def test_no_plugin_ends_the_command_without_a_word(name, code, said, tmp_path):
    (tmp_path / name).write_text(code)
    with pytest.raises(UserError, match=said):
        plugins.use(tmp_path / name)


def test_what_a_plugin_prints_is_not_in_the_result(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv(plugins.VARIABLE, "")  # what the plug-in adds goes with the test
    (tmp_path / "talks.py").write_text("print('hello')")
    assert main(["models", "--json", "--plugin", str(tmp_path / "talks.py")]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) and said.err.startswith("hello")
