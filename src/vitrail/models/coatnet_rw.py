"""timm's own CoAtNets, ``coatnet_*_rw`` (Wightman 2022), for which released weights exist.

image -> stem, /2 -> stages of MBConv ("C") or attention and mlp ("T") -> norm, mean -> head

The stages are those of ``coatnet.py``. In all of these models: SiLU in stem and MBConv, MBConv
expanded from its input's width, attention as narrow as its input in the block that enters a stage,
no hidden layer before the classifier. The rest is :data:`STYLES`, after the settings of timm's
``maxxvit.py``. Deviations: layer scale is multiplied into the projection behind it when weights
are loaded, and the network behind the biases of ``rmlp`` trains without dropout.
"""

from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from vitrail.layers.conv import ConvStem
from vitrail.layers.mbconv import MBConvRW, MBConvRWStyle, init_convs
from vitrail.models.backbone import classifier, init_weights
from vitrail.models.coatnet import (
    LONG,
    AttentionStyle,
    CoAtNetConfig,
    ConvAttentionNet,
    L,
    M,
    S,
    build_stages,
    check,
)
from vitrail.models.coatnet_weights import RENAMES, convert

__all__ = ["CONFIGS", "RENAMES", "STYLES", "TIMM", "CoAtNetRW", "convert"]


class BatchNormTokens(nn.BatchNorm1d):
    """Batch norm over all tokens of all images."""

    def forward(self, x: Tensor) -> Tensor:
        """``(..., C)`` -> the same shape."""
        return super().forward(x.flatten(0, -2)).view_as(x)


@dataclass(frozen=True)
class RWStyle:
    """The MBConv blocks; the shortcut's bias and the norm of attention stages."""

    conv: MBConvRWStyle
    bias: bool = True
    norm: type[nn.Module] = nn.LayerNorm


Conv = MBConvRWStyle
# fmt: off
STYLES = {  #        where it halves, activation first, squeeze and its activation
    "nano":   RWStyle(Conv("pool",      False, "late",  nn.SiLU)),
    "pico":   RWStyle(Conv("depthwise", False, "late",  nn.SiLU)),
    "rw_0":   RWStyle(Conv("pool",      True,  "early", nn.ReLU), bias=False),
    "rw_1":   RWStyle(Conv("depthwise", True,  "early", nn.ReLU), bias=False),
    "rw_2":   RWStyle(Conv("depthwise", True,  "late",  nn.SiLU)),
    "bn":     RWStyle(Conv("depthwise", True,  "early", nn.ReLU), bias=False, norm=BatchNormTokens),
    "rmlp_0": RWStyle(Conv("depthwise", True,  "late",  nn.ReLU)),
    "rmlp_1": RWStyle(Conv("pool",      True,  "early", nn.ReLU, pool="max3"), bias=False),
}
XS, SHORT, NANO = (64, 128, 256, 512), (2, 3, 7, 2), (3, 4, 6, 3)
MLP, MLP384 = "relative(by='mlp')", "relative(by='mlp', hidden=384)"
CONFIGS = {  #                            stem      dims depths       style     relation
    "coatnet_pico_rw":      CoAtNetConfig((32, 64),  XS, (2, 3, 5, 2), "pico"),
    "coatnet_nano_rw":      CoAtNetConfig((32, 64),  XS, NANO,         "nano"),
    "coatnet_0_rw":         CoAtNetConfig((32, 64),  S,  SHORT,        "rw_0"),
    "coatnet_1_rw":         CoAtNetConfig((32, 64),  S,  LONG,         "rw_1"),
    "coatnet_2_rw":         CoAtNetConfig((64, 128), M,  LONG,         "rw_2"),
    "coatnet_3_rw":         CoAtNetConfig((96, 192), L,  LONG,         "rw_2"),
    "coatnet_bn_0_rw":      CoAtNetConfig((32, 64),  S,  SHORT,        "bn"),
    "coatnet_rmlp_nano_rw": CoAtNetConfig((32, 64),  XS, NANO,         "pico",   MLP384),
    "coatnet_rmlp_0_rw":    CoAtNetConfig((32, 64),  S,  SHORT,        "rmlp_0", MLP),
    "coatnet_rmlp_1_rw":    CoAtNetConfig((32, 64),  S,  LONG,         "rmlp_1", MLP384),
    "coatnet_rmlp_1_rw2":   CoAtNetConfig((32, 64),  S,  LONG,         "rmlp_0", MLP),
    "coatnet_rmlp_2_rw":    CoAtNetConfig((64, 128), M,  LONG,         "rw_2",   MLP),
    "coatnet_rmlp_3_rw":    CoAtNetConfig((96, 192), L,  LONG,         "rw_2",   MLP),
}
# fmt: on


class CoAtNetRW(ConvAttentionNet):
    """timm's."""

    tail = ("norm",)

    def __init__(self, config: CoAtNetConfig) -> None:
        check(config, STYLES)
        style = STYLES[config.style]
        conv = partial(MBConvRW, style=style.conv)
        attention = AttentionStyle(
            narrow=True, pool=style.conv.pool, bias=style.bias, norm=style.norm
        )
        stem = ConvStem(config.in_chans, config.stem, nn.SiLU())
        super().__init__(config, stem, build_stages(config, conv, attention))
        self.norm = style.norm(self.width, eps=1e-6)
        self.head = classifier(self.width, config.classes)
        self.apply(init_weights)
        self.apply(init_convs)

    def finish(self, last: Tensor) -> Tensor:
        """Normalised tokens."""
        return self.norm(last)

    def pool(self, x: Tensor) -> Tensor:
        """The mean: ``(B, C)``."""
        return x.mean(1)


TIMM = {  # ours -> timm's, which has weights for it (equal outputs: ``tests/parity``)
    "coatnet_nano_rw": "coatnet_nano_rw_224",
    "coatnet_0_rw": "coatnet_0_rw_224",
    "coatnet_1_rw": "coatnet_1_rw_224",
    "coatnet_2_rw": "coatnet_2_rw_224",
    "coatnet_3_rw": "coatnet_3_rw_224",
    "coatnet_bn_0_rw": "coatnet_bn_0_rw_224",
    "coatnet_rmlp_nano_rw": "coatnet_rmlp_nano_rw_224",
    "coatnet_rmlp_1_rw": "coatnet_rmlp_1_rw_224",
    "coatnet_rmlp_1_rw2": "coatnet_rmlp_1_rw2_224",
    "coatnet_rmlp_2_rw": "coatnet_rmlp_2_rw_224",
}
