"""How the working tokens meet: one contract, one file a family."""

from vitrail.mixers.base import Mixer, MixerSpec
from vitrail.mixers.conv import Conv
from vitrail.mixers.prototype import PrototypeConv, PrototypeSoftmax
from vitrail.mixers.reduced import Reduced
from vitrail.mixers.relative import Relative
from vitrail.mixers.softmax import Softmax

__all__ = [
    "Conv",
    "Mixer",
    "MixerSpec",
    "PrototypeConv",
    "PrototypeSoftmax",
    "Reduced",
    "Relative",
    "Softmax",
]
