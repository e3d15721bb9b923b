"""How the working tokens meet: one contract, one file a family."""

from vitrail.mixers.base import Mixer, MixerSpec
from vitrail.mixers.conv import Conv
from vitrail.mixers.gated import Gated
from vitrail.mixers.lsa import Lsa
from vitrail.mixers.projected import Projected
from vitrail.mixers.prototype import PrototypeConv, PrototypeSoftmax
from vitrail.mixers.reduced import Reduced
from vitrail.mixers.relative import Relative
from vitrail.mixers.softmax import Softmax
from vitrail.mixers.spatial import Spatial

__all__ = [
    "Conv",
    "Gated",
    "Lsa",
    "Mixer",
    "MixerSpec",
    "Projected",
    "PrototypeConv",
    "PrototypeSoftmax",
    "Reduced",
    "Relative",
    "Softmax",
    "Spatial",
]
