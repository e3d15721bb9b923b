"""The tools of ``dev/``: every mutant can be made, and the measures count what they say."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


def tool(name: str) -> ModuleType:
    """A script of ``dev/`` as a module."""
    spec = importlib.util.spec_from_file_location(f"dev_{name}", ROOT / "dev" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


mutants, measures, before_after = map(tool, ("mutants", "measures", "before_after"))


def test_every_mutant_changes_one_line_that_is_there() -> None:
    """If you changed such a line: give the mutant its new text, in ``dev/mutants.py``."""
    assert len(mutants.MUTANTS) >= 40
    assert len({mutant.name for mutant in mutants.MUTANTS}) == len(mutants.MUTANTS)
    assert {mutant.room for mutant in mutants.MUTANTS} == set(mutants.TESTS)
    assert [why for mutant in mutants.MUTANTS if (why := mutants.trouble(mutant, ROOT))] == []


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A library with one of each fault."""
    files = {
        "__init__": "",
        "models/__init__": "",
        "models/cmt": "CONFIGS = {}\nfrom vitrail.layers import used\n\ndef run():\n    used()\n",
        "mixers/reduced": "class Reduced:\n    pass\n",
        "layers": "def used():\n    deeper()\n\ndef deeper():\n    pass\n\ndef idle():\n    pass\n",
        "cost": "from vitrail.models.cmt import CONFIGS\nclass Reduced:\n    pass\n",
        "hub": (
            "from torch.nn import Module\n"
            "def create(text: str) -> Module: ...\n"
            "def told(): ...\n"
            "def feed(): ...\n"
            "def two_words_kept(): ...\n"
        ),
    }
    for name, text in files.items():
        path = tmp_path / "src" / "vitrail" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_measures_count_what_they_say(house: Path) -> None:
    assert measures.builders_from_text(house) == ["vitrail.hub.create"]
    assert measures.names_a_model(house) == ["vitrail.cost"]
    assert measures.bare_participles(house) == ["vitrail.hub.told", "vitrail.layers.used"]
    assert measures.classes_named_twice(house) == ["Reduced"]
    lines = measures.lines_to_read(house, measures.CMT)
    assert len(lines) == 5 + 2 + 2 + 2  # the model's file, the mixer's, used, deeper; not idle
    assert not any("idle" in line for line in lines)


def test_two_versions_are_compared_on_the_peers() -> None:
    from benchmarks.peer_models import PEERS

    assert tuple(peer.model for peer in PEERS) == before_after.MODELS
