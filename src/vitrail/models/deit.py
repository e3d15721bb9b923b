"""DeiT: Training Data-Efficient Image Transformers (Touvron et al., ICML 2021, arXiv 2012.12877).

picture -> patches -> class token, distillation token + position -> ViT's blocks -> norm
        -> a head on each of the two tokens -> their mean

Section 4 and table 1 of the paper; undistilled DeiT is ViT (``vit_tiny``, ``vit_small``,
``vit_base``, which load its weights). The recipe lies in training, the loss in
``vitrail.tasks.distill``. Deviation from timm: pooled features are both tokens side by side
``(B, 2 C)``, not their mean, since the two heads differ; logits are the same.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitrail.errors import UserError
from vitrail.models.reading import CamLayer, last_mixer
from vitrail.models.vit import RENAMES as VIT_RENAMES
from vitrail.models.vit import PlainTransformer, ViTConfig


@dataclass(frozen=True, kw_only=True)
class DeiTConfig(ViTConfig):
    """A ViT's row."""


CONFIGS = {
    "deit_tiny_distilled": DeiTConfig(depth=12, dim=192, heads=3),
    "deit_small_distilled": DeiTConfig(depth=12, dim=384, heads=6),
    "deit_base_distilled": DeiTConfig(depth=12, dim=768, heads=12),
}


class TwoHeads(nn.Module):
    """One head learns from labels, one from a teacher; together they give their mean."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.label = nn.Linear(dim, classes)
        self.teacher = nn.Linear(dim, classes)

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Class and distillation token side by side ``(B, 2 C)`` -> two logits ``(B, K)``."""
        first, second = x.chunk(2, 1)
        return self.label(first), self.teacher(second)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 2 C)`` -> ``(B, K)``."""
        label, teacher = self.both(x)
        return (label + teacher) / 2


class DeiT(PlainTransformer):
    """A ViT with a second token that learns what a teacher says."""

    def __init__(self, config: DeiTConfig) -> None:
        if config.pool != "token":
            raise UserError(
                f"pool={config.pool!r}: a distilled model reads its two tokens; leave "
                "pool='token', or take vit_tiny, vit_small or vit_base"
            )
        super().__init__(config, "deit", 2)
        self.dist = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, config.dim), std=0.02))
        self.width = 2 * config.dim
        self.reset_classifier(config.classes)

    def prefix(self) -> list[Tensor]:
        """Class and distillation token."""
        return [*super().prefix(), self.dist]

    def finish(self, last: Tensor) -> Tensor:
        """Normalised tokens."""
        return self.norm(last)

    def cam_layers(self) -> list[CamLayer]:
        """What the last mixer is given."""
        return last_mixer(self)

    @property
    def last_channels(self) -> int:
        """Of one token; two lie side by side behind pooling."""
        return self.config.dim

    def pool(self, x: Tensor) -> Tensor:
        """Both tokens side by side: ``(B, 2 C)``."""
        return x[:, :2].flatten(1)

    @property
    def single_width(self) -> int:
        """Of one token."""
        return self.config.dim

    def single(self, pooled: Tensor) -> Tensor:
        """The mean of both tokens: ``(B, 2 C)`` -> ``(B, C)``."""
        return pooled.unflatten(1, (2, -1)).mean(1)

    def forward_both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, in_chans, H, W)`` -> logits of the label's head and of the teacher's.

        Raises:
            UserError: the model was built without classes.
        """
        if not isinstance(self.head, TwoHeads):
            raise UserError("this model has no heads; build it with classes=... to distil into it")
        return self.head.both(self.pool(self.forward_features(x)))

    def fresh_head(self, classes: int) -> nn.Module:
        """One head a token, ``(B, 2 C)`` -> ``(B, classes)``; the identity for none."""
        return TwoHeads(self.config.dim, classes) if classes else nn.Identity()

    def no_weight_decay(self) -> set[str]:
        """Position table and both tokens."""
        return {"position", "cls", "dist"}


TIMM = {  # ours -> timm's, which has weights for it (equal outputs: ``tests/parity``)
    "deit_tiny_distilled": "deit_tiny_distilled_patch16_224",
    "deit_small_distilled": "deit_small_distilled_patch16_224",
    "deit_base_distilled": "deit_base_distilled_patch16_224",
}
RENAMES = (  # timm's and the official name -> ours
    *VIT_RENAMES,
    (r"^dist_token$", "dist"),
    (r"^head\.(weight|bias)$", r"head.label.\1"),
    (r"^head_dist\.", "head.teacher."),
)
