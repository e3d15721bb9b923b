"""ViT-REL: the plain end of CoAtNet's layouts (Dai et al. 2021, section 2.2.2).

image -> 16x16 patches -> blocks of (relative attention, mlp) -> mean -> norm -> head

No class token and no position table: only the relative bias knows where a token is. The paper
does not print its sizes; these are DeiT's tiny and small with heads of 32 as in CoAtNet, so the
small one has about as many parameters as ``coatnet_0``.
"""

from typing import Any

from torch import Tensor, nn

from vitrail.layers.grid import cells, grid_of, pad_to, to_tokens
from vitrail.models.backbone import (
    States,
    check_choices,
    check_image,
    choose,
    classifier,
    drop_path_rates,
    image_hw,
    init_weights,
)
from vitrail.models.pyramid import OneScale
from vitrail.models.reading import CamLayer, last_block
from vitrail.models.vit import STEMS, ViTConfig
from vitrail.specs import Place


def variant(dim: int) -> ViTConfig:
    """One width of the family."""
    return ViTConfig(depth=12, dim=dim, heads=dim // 32, pool="mean", mixer=("relative",))


CONFIGS = {"vit_rel_tiny": variant(192), "vit_rel_small": variant(384)}


class ViTRel(OneScale):
    """Patches and plain blocks with relative attention."""

    tail = ("norm",)

    def __init__(self, config: ViTConfig) -> None:
        super().__init__(config)
        check_choices(config, {"stem": tuple(STEMS), "pool": ("mean",)})
        dim, grid = config.dim, cells(image_hw(config.image), config.patch)
        self.width, self.channels = dim, (dim,) * 4
        place = Place(dim=dim, heads=config.heads, grid=grid, name="vit_rel's blocks")
        self.patch = STEMS[config.stem](config.in_chans, dim, config.patch)
        (choice,) = choose([place], config.mixer, config.reducer)
        self.shared = choice.build_shared()
        rates = drop_path_rates(config.drop_path, config.depth)
        self.blocks = choice.plain_blocks(int(dim * config.mlp_ratio), rates, eps=config.eps)
        self.norm = nn.LayerNorm(dim, eps=config.eps)
        self.head = classifier(dim, config.classes)
        self.apply(init_weights)

    def encode(self, x: Tensor, *, maps: bool = True) -> States:
        """Maps after each quarter of the depth; the last tokens, ``(B, N, C)``."""
        check_image(x, self.in_chans, 1)
        size, x = grid_of(x), self.patch(pad_to(x, self.config.patch))
        grid, x = grid_of(x), to_tokens(x).contiguous()
        if not maps:
            return States((), self.blocks(x, grid, shared=self.shared))
        after = self.blocks.states(x, grid, shared=self.shared)
        return States(self.pyramid(after, grid, size), after[-1])

    def pool(self, x: Tensor) -> Tensor:
        """The normalised mean: ``(B, C)``."""
        return self.norm(x.mean(1))

    def cam_layers(self) -> list[CamLayer]:
        """All tokens after the last block."""
        return last_block(self)

    def no_weight_decay(self) -> set[str]:
        """Relative biases."""
        return {name for name, _ in self.named_parameters() if ".offsets." in name}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Stem, then one group a block."""
        return {"stem": r"^patch", "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))]}


RENAMES = ()
"""There are no released weights."""
