"""Small models of every family, randomised, with a head that reads them; and pictures."""

from functools import cache

import torch
from tests.contracts.test_backbones import SHALLOW, family_of, narrow
from torch import Tensor, nn

import vitrail

SIZE = (72, 56)  # not square, not multiples of the stride
TEXTS = {  # one a wiring: name -> (mixer, reducer)
    "vit_tiny": ("softmax", "all"),
    "vit_tiny(pool='mean')": ("softmax", "all"),
    "vit_tiny(stem='shifted')": ("lsa", "cluster(by='sort')"),
    "vit_tiny(resize='corner')": ("softmax", "filter(keep=0.5)"),
    "deit_tiny_distilled": ("softmax", "all"),
    "convit_tiny": (("gated", "softmax(bias=False)"), "all"),
    "ceit_tiny": ("softmax", "all"),
    "cvt_13": ("projected", "all"),
    "cct_2_3x2": ("softmax(bias=False)", "all"),
    "coat_lite_tiny": ("conv_attention", "all"),
    "coat_tiny": ("conv_attention", "all"),
    "clustering_coat_lite_tiny": ("conv_attention", ("cluster",) * 3 + ("all",)),
    "clustering_coat_lite_tiny_qf": ("prototype_conv", "all"),
    "clustering_coat_lite_tiny_qs": ("prototype_softmax(by='window')", "all"),
    "pooled_coat_lite_tiny": ("spatial", ("pool",) * 3 + ("all",)),
    "coatnet_0": ("native", "all"),
    "cmt_ti": ("native", "all"),
    "mobilevit_xxs": ("softmax", "all"),
    "filtervit_xxs": ("softmax", "all"),
    "dropoutvit_xs": ("softmax", "all"),
    "filtervit_v2_xxs": ("softmax", ("filter(keep=0.2)", "random(keep=0.3)", "all", "all")),
}
FILTERS = ("filtervit", "dropoutvit", "vit_tiny(resize='corner')")
CLUSTERS = ("clustering", "vit_tiny(stem='shifted')")


@cache
def build(text: str) -> nn.Module:
    """The model of a row, in evaluation, in random but lively state."""
    torch.manual_seed(0)
    name = text.split("(")[0]
    mixer, reducer = TEXTS[text]
    options = {**SHALLOW[family_of(name)], **narrow(name, mixer, reducer)}
    if name.startswith(("vit", "deit", "ceit", "cct")):
        options["depth"] = 2
    if name == "coat_tiny":
        options["parallel"] = 2
    model = vitrail.create(text, classes=5, image=64, **options).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * (0.05 if p.dim() > 1 else 0.2))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    return model


def pictures(count: int = 2) -> Tensor:
    """Smooth colours and a little noise."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(count, 3, 6, 5, generator=generator)
    smooth = nn.functional.interpolate(coarse, SIZE, mode="bicubic")
    return smooth + 0.1 * torch.randn(count, 3, *SIZE, generator=generator)
