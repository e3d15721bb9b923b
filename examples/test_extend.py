"""The laws, for a mixer and a reducer of one's own: ``pytest examples``."""

from pathlib import Path

from vitrail import plugins
from vitrail.testing import MixerLaws, SelectionLaws

for name in ("swirl.py", "checker.py"):
    plugins.use(Path(__file__).with_name(name))


class TestSwirl(MixerLaws):
    specs = ["swirl", "swirl(reach=2)"]


class TestChecker(SelectionLaws):
    specs = ["checker", "checker(step=3)"]
    identities = ["checker(step=1)"]
