"""The laws, for a mixer and a reducer of one's own: ``pytest examples``."""

from pathlib import Path

from vitrail import plugins
from vitrail.layers.attend import split_heads
from vitrail.testing import MixerLaws, SelectionLaws

for name in ("swirl.py", "checker.py"):
    plugins.use(Path(__file__).with_name(name))


class TestSwirl(MixerLaws):
    specs = ["swirl", "swirl(reach=2)"]

    def values(self, mixer, x, grid):
        """What the matrix of its ``explain`` is applied to."""
        return split_heads(mixer.v(x), 4)


class TestChecker(SelectionLaws):
    specs = ["checker", "checker(step=3)"]
    identities = ["checker(step=1)"]
