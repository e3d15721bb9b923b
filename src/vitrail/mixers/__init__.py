"""How the working tokens meet: one contract, one file a family."""

from vitrail.mixers.base import Mixer, MixerSpec
from vitrail.mixers.clustered import Clustered, ImprovedClustered
from vitrail.mixers.conv_attention import ConvAttention
from vitrail.mixers.deformable import Deformable
from vitrail.mixers.gated import Gated
from vitrail.mixers.linear import Linear
from vitrail.mixers.linformer import Linformer
from vitrail.mixers.lsa import Lsa
from vitrail.mixers.lsh import Lsh
from vitrail.mixers.pooling import Identity, Pooling
from vitrail.mixers.projected import Projected
from vitrail.mixers.prototype import PrototypeConv, PrototypeSoftmax
from vitrail.mixers.reduced import Reduced
from vitrail.mixers.relative import Relative
from vitrail.mixers.sliding import Sliding
from vitrail.mixers.softmax import Softmax
from vitrail.mixers.spatial import Spatial
from vitrail.mixers.window import GridAttention, Window

__all__ = [
    "Clustered",
    "ConvAttention",
    "Deformable",
    "Gated",
    "GridAttention",
    "Identity",
    "ImprovedClustered",
    "Linear",
    "Linformer",
    "Lsa",
    "Lsh",
    "Mixer",
    "MixerSpec",
    "Pooling",
    "Projected",
    "PrototypeConv",
    "PrototypeSoftmax",
    "Reduced",
    "Relative",
    "Sliding",
    "Softmax",
    "Spatial",
    "Window",
]
