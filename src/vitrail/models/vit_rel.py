"""ViT-REL: the plain end of CoAtNet's layouts (Dai et al. 2021, section 2.2.2).

picture -> 16x16 patches -> blocks of (relative attention, mlp) -> mean -> norm -> head

A ViT without class token and without absolute position: where a token is, only its offsets say.
The paper does not print its sizes; these are DeiT's tiny and small with heads of 32 as in
CoAtNet, so the small one has about as many parameters as ``coatnet_0``.
"""

from torch import Tensor

from vitrail.layers.grid import Grid, grid_of, pad_to, to_tokens
from vitrail.models.backbone import check_image
from vitrail.models.vit import ViT, ViTConfig


def relative(dim: int) -> ViTConfig:
    """One width of the family."""
    return ViTConfig(depth=12, dim=dim, heads=dim // 32, pool="mean", mixer=("relative",))


CONFIGS = {"vit_rel_tiny": relative(192), "vit_rel_small": relative(384)}


class ViTRel(ViT):
    """ViT with offsets for positions."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__(config)
        self.register_parameter("position", None)

    def embed(self, x: Tensor) -> tuple[Tensor, Grid]:
        """``(B, in_chans, H, W)`` -> tokens ``(B, N, C)`` and their grid."""
        check_image(x, self.in_chans, 1)
        x = self.patch(pad_to(x, self.config.patch))
        return to_tokens(x).contiguous(), grid_of(x)

    def no_weight_decay(self) -> set[str]:
        """Relative biases."""
        return {name for name, _ in self.named_parameters() if ".offsets." in name}


RENAMES = ()
"""There are no released weights."""
