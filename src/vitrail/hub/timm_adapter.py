"""Our backbones under timm's contract, registered as ``vitrail_<name>``.

timm 1.0 finds a model only by a function registered under its name, and a name of its own would be
overwritten together with its weights: hence the prefix. What each method must do stands in timm's
own test suite; differences that a user can meet:

- ``global_pool`` is ``"native"`` (the paper's: class token, mean, ...) or ``""`` (none).
- ``norm`` of ``forward_intermediates`` changes nothing: maps are un-normalised, as in the papers.
- ``stop_early`` saves nothing; ``prune_intermediate_layers`` (and ``features_only``) do. A model
  pruned to an earlier map ends there: pooling is that map's mean.
"""

import types
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import fields, replace
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.models import (
    build_model_with_cfg,
    generate_default_cfgs,
    get_arch_pretrained_cfgs,
    register_model,
    resolve_pretrained_cfg,
)
from torch import Tensor, nn
from torch.fx import Proxy

from vitrail.errors import UserError
from vitrail.hub.fetch import fetch
from vitrail.hub.timm_names import TIMM_NAMES
from vitrail.layers.grid import grid_of, to_map, to_tokens
from vitrail.models.backbone import Backbone, classifier, image_hw
from vitrail.models.reader import read_weights
from vitrail.models.weights import fit_tables
from vitrail.models.zoo import build_within_limits, configure, entry, list_models, our_names

PREFIX = "vitrail_"
NATIVE, UNPOOLED = "native", ""
CONFIG_NAMES = {"num_classes": "classes", "img_size": "image", "drop_path_rate": "drop_path"}
"""timm's word for a field of our configs."""
FORMATS = {
    "NCHW": lambda x: x,
    "NHWC": lambda x: x.permute(0, 2, 3, 1),
    "NLC": to_tokens,
}
SOURCE = ("hf_hub_id", "hf_hub_filename", "url", "num_classes", "mean", "std", "crop_pct")
ABOUT = ("interpolation", "input_size", "license", "origin_url", "paper_ids", "paper_name")


class UnknownOption(UserError, TypeError):
    """A keyword that a model does not have; a ``TypeError`` too, as of timm's own models."""


class TimmAdapter(Backbone):
    """What timm asks of a model beyond what :class:`Backbone` promises; mixed into each model."""

    drop_rate: float = 0.0
    global_pool: str = NATIVE
    output_fmt = "NCHW"
    end: int | None = None
    """The map that a pruned model ends with; None for a whole one."""

    def __init__(
        self, config: Any, *, variant: str, drop_rate: float = 0.0, global_pool: str = NATIVE
    ) -> None:
        super().__init__(config)
        self.variant, self.drop_rate = variant, drop_rate
        self.places = feature_modules(self)
        self.pool_by(global_pool)

    @property
    def num_classes(self) -> int:
        """Logits."""
        return self.classes

    @property
    def num_features(self) -> int:
        """Channels of :meth:`forward_features`."""
        return self.last_channels if self.end is None else self.channels[self.end]

    @property
    def head_hidden_size(self) -> int:
        """Channels of pooled features, without a classifier."""
        return self.single_width if self.end is None else self.channels[self.end]

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """Channels, stride and place of each map."""
        rows = zip(self.channels, self.strides, self.places, strict=True)
        return [{"num_chs": c, "reduction": s, "module": name} for c, s, name in rows]

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """timm's description of the weights and of their preprocessing."""
        return self._pretrained_cfg

    @pretrained_cfg.setter
    def pretrained_cfg(self, config: dict[str, Any]) -> None:
        modules = list(self.named_modules())
        linear = [n for n, m in modules if n.startswith("head") and isinstance(m, nn.Linear)]
        last = [n for n in linear if self.get_submodule(n).out_features == self.classes]
        config["first_conv"] = next((n for n, m in modules if isinstance(m, nn.Conv2d)), ())
        config["pool_size"] = self.final_grid(config["input_size"][-2:])
        config["classifier"] = tuple(last) if len(last) > 1 else (last or ["head"])[0]
        self._pretrained_cfg = config

    def forward_features(self, x: Tensor) -> Tensor:
        """What the head pools: a map wherever there is one, else tokens."""
        if self.end is not None:
            return self.features(x)[self.end]
        return self.to_timm_layout(super().forward_features(x), x)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, or what ``global_pool=''`` leaves."""
        if isinstance(x, Proxy):
            return self.forward_traced(x)
        return self.forward_head(self.forward_features(x))

    def features_and_last(self, x: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """The maps, and :meth:`forward_features` from the same pass."""
        if self.end is not None:
            maps = self.features(x)
            return maps, maps[self.end]
        maps, last = super().features_and_last(x)
        return maps, self.to_timm_layout(last, x)

    def to_timm_layout(self, last: Tensor, image: Tensor) -> Tensor:
        """The tokens of a map, ``(B, H*W, C)``, as timm wants them: ``(B, C, H, W)``."""
        grid = self.final_grid(grid_of(image))
        return to_map(last, grid) if self.flat_map and grid else last

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool (unless ``global_pool`` is empty), drop out and classify."""
        whole = self.end is None
        if self.global_pool:
            x = self.pool(to_tokens(x) if self.flat_map else x) if whole else x.mean((2, 3))
        x = F.dropout(x, self.drop_rate, self.training)
        if pre_logits or not self.classes:
            return self.single(x) if self.global_pool and whole else x
        return self.head(x)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Chosen maps (all, the last n, or those of ``indices``), after what the head pools."""
        if output_fmt not in FORMATS:
            raise UserError(f"output_fmt={output_fmt!r}: one of {', '.join(FORMATS)}")
        chosen = self.choose_maps(indices)
        if intermediates_only:
            maps = self.features(x)
        else:
            maps, last = self.features_and_last(x)
        taken = [FORMATS[output_fmt](maps[i]) for i in chosen]
        return taken if intermediates_only else (last, taken)

    def prune_intermediate_layers(
        self,
        indices: int | Sequence[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Drop what the chosen maps do not need; gives their absolute indices.

        With a map before the last, norm and head go whatever is asked: they read what is dropped.
        """
        chosen = self.choose_maps(indices)
        shorter = max(chosen) + 1 < len(self.channels)
        if shorter or prune_norm:
            self.prune_to(max(chosen) + 1)
            self.end = max(chosen)
            for name in self.tail:
                setattr(self, name, None)
        if shorter or prune_head:
            self.reset_classifier(0)
        return chosen

    def choose_maps(self, indices: int | Sequence[int] | None) -> list[int]:
        """Absolute indices; UserError where there is no such map, or pruning has dropped it."""
        chosen = absolute(indices, len(self.channels))
        if self.end is not None and max(chosen) > self.end:
            raise UserError(f"indices={indices!r}: the model was pruned to map {self.end}")
        return chosen

    def fresh_head(self, classes: int) -> nn.Module:
        """A classifier of what the model gives."""
        whole = self.end is None
        return super().fresh_head(classes) if whole else classifier(self.num_features, classes)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh head for another number of classes (0: none), and perhaps other pooling.

        A classifier after none brings the paper's own pooling back, unless another is named.
        """
        super().reset_classifier(num_classes)
        kept = NATIVE if num_classes else self.global_pool
        self.pool_by(kept if global_pool is None else global_pool)

    def pool_by(self, how: str) -> None:
        """Choose ``global_pool``.

        Raises:
            UserError: neither the paper's own nor none, or none in front of a classifier.
        """
        if how not in (NATIVE, UNPOOLED):
            raise UserError(
                f"global_pool={how!r}: {self.variant} pools as its paper does ({NATIVE!r}) or not "
                f"at all ({UNPOOLED!r})"
            )
        if how == UNPOOLED and self.classes:
            raise UserError("global_pool='' leaves nothing to classify; give num_classes=0 with it")
        self.global_pool = how

    def set_input_size(self, img_size: Any = None, **_: Any) -> None:
        """Fit position tables to another image size once and for all; any size runs anyway."""
        if img_size is None:
            return
        self.config = replace(self.config, image=image_hw(img_size))
        fresh = self.clone_fresh()
        fresh.load_state_dict(fit_tables(self.state_dict(), fresh))
        for now, new in zip(self.parameters(), fresh.parameters(), strict=True):
            new.requires_grad_(now.requires_grad)
        parts = fresh.train(self.training).__dict__
        self.__dict__.update({key: part for key, part in parts.items() if "hook" not in key})
        traits = getattr(self, "_traits", {})
        self.__dict__["_traits"] = {**traits, "img_size": image_hw(img_size)}

    def init_weights(self, *_: Any, **__: Any) -> None:
        """Draw all parameters and buffers anew, as at building, also after the meta device."""
        self.copy_from_fresh(set(self.state_dict()) | self.non_persistent_buffers())

    def init_non_persistent_buffers(self) -> None:
        """Make again what no state dict holds."""
        self.copy_from_fresh(self.non_persistent_buffers())

    def non_persistent_buffers(self) -> set[str]:
        """Names of buffers that are not saved."""
        return {name for name, _ in self.named_buffers()} - set(self.state_dict())

    @torch.no_grad()
    def copy_from_fresh(self, names: set[str]) -> None:
        """Copy the named tensors from a model just built."""
        if not names:
            return
        fresh = self.clone_fresh()
        given = {**dict(fresh.named_parameters()), **dict(fresh.named_buffers())}
        for name, tensor in [*self.named_parameters(), *self.named_buffers()]:
            if name in names and name in given:
                tensor.copy_(given[name])

    def clone_fresh(self) -> "TimmAdapter":
        """A new model of the same kind, on the same device."""
        some = next(self.parameters())
        with torch.device(some.device):
            fresh = type(self)(
                replace(self.config, classes=self.classes),
                variant=self.variant,
                drop_rate=self.drop_rate,
                global_pool=self.global_pool,
            )
        fresh.set_grad_checkpointing(self.grad_checkpointing)
        if self.end is not None:
            fresh.prune_intermediate_layers([self.end], prune_norm=True)
            fresh.reset_classifier(self.classes)
        return fresh.to(some.dtype)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """As torch's; names of timm's and of the official release are understood too."""
        own = self.state_dict()
        if any(name not in own for name in state_dict):
            state_dict = our_names(self, dict(state_dict))
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    def load_pretrained(self, checkpoint_path: str, *_: Any, **__: Any) -> None:
        """A file of another format than torch's, such as the original ViT's ``.npz``."""
        self.load_state_dict(read_weights(checkpoint_path))


def feature_modules(model: Backbone) -> list[str]:
    """The module each map comes from: its stage or block, as ``torch.fx`` names its nodes."""
    count = len(model.channels)
    stages: Any = getattr(model, "stages", None)
    ends: Any = getattr(model, "ends", None)
    if stages is not None:
        last = len(stages) - 1
        first = max(0, last + 1 - count)
        return [f"stages.{min(i, last)}" for i in ends or range(first, first + count)]
    return [f"level{i}" for i in range(count)] if ends is None else [f"blocks.{i}" for i in ends]


def absolute(indices: int | Sequence[int] | None, count: int) -> list[int]:
    """All, the last n, or the named ones (negative from the end), as timm counts.

    Raises:
        UserError: there are not so many.
    """
    wanted: Sequence[int] = range(count)
    if indices is not None:
        wanted = range(count - indices, count) if isinstance(indices, int) else indices
    taken = [i + count if i < 0 else i for i in wanted]
    if not taken or min(taken) < 0 or max(taken) >= count:
        raise UserError(f"indices={indices!r}: there are {count} maps, 0 to {count - 1}")
    return taken


def checkpoint_filter_fn(state: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    """A released file in our names, its tables resized; head and stem are left to timm's rules."""
    return fit_tables(our_names(model, dict(state)), model)


@cache
def adapt(model: type[Backbone]) -> type[TimmAdapter]:
    """A paper's class with timm's contract; found in this module by ``pickle``."""
    made = types.new_class(f"Timm{model.__name__}", (TimmAdapter, model))
    made.__module__ = __name__
    globals()[made.__name__] = made
    return made


def create_adapter(name: str, **options: Any) -> TimmAdapter:
    """Our model ``name`` from timm's keywords; others are fields of the model's config.

    Raises:
        UnknownOption: an option the model does not have.
        UserError: options that do not fit each other, a stride it cannot have, or more parameters
            than fit in memory.
    """
    if options.pop("output_stride", 32) != 32:
        raise UserError(
            f"{PREFIX}{name} has strides 4, 8, 16 and 32 and cannot leave out the last; take a "
            "decoder that needs no output_stride (FPN, U-Net, UPerNet, Segformer)"
        )
    own = {key: options.pop(key) for key in ("drop_rate", "global_pool") if key in options}
    device, dtype = options.pop("device", None), options.pop("dtype", None)
    if "img_size" in options:
        options["img_size"] = image_hw(options["img_size"])
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}  # from JSON
    found = entry(name)
    ours = {CONFIG_NAMES.get(k, k): v for k, v in options.items()}
    try:
        config = configure(name, **ours)
    except UserError as error:
        if set(ours) <= {field.name for field in fields(found.config)}:
            raise
        raise UnknownOption(str(error)) from error
    kind: Any = partial(adapt(found.model), variant=name, **own)
    with torch.device(device) if device else nullcontext():
        model: Any = build_within_limits(name, replace(found, model=kind), config)
    return model.to(dtype) if dtype else model


def create(name: str, pretrained: bool = False, **options: Any) -> nn.Module:
    """timm's entry point of one model.

    Raises:
        UserError: pretrained weights are asked for and there are none, or the net is away.
    """
    variant = f"{PREFIX}{name}"
    if pretrained:
        overlay = dict(options.get("pretrained_cfg_overlay") or {})
        config = resolve_pretrained_cfg(variant, options.get("pretrained_cfg"), overlay).to_dict()
        if not config.get("state_dict"):
            found = fetch(config, options.get("cache_dir"))
            options["pretrained_cfg_overlay"] = overlay | {"file": str(found), "source": ""}
    return build_model_with_cfg(
        partial(create_adapter, name),
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"out_indices": (0, 1, 2, 3), "feature_cls": "getter"},
        **options,
    )


def describe(name: str) -> dict[str, dict[str, Any]]:
    """timm's ``pretrained_cfg`` of one of our models, for each set of weights that fits it."""
    variant = f"{PREFIX}{name}"
    theirs = get_arch_pretrained_cfgs(TIMM_NAMES[name]) if name in TIMM_NAMES else {}
    released = {
        f"{variant}.{tagged.split('.', 1)[1]}": {k: getattr(config, k) for k in SOURCE + ABOUT}
        for tagged, config in theirs.items()
        if config.has_weights and "." in tagged
    }
    config = entry(name).config
    plain = {
        "input_size": (config.in_chans, *image_hw(config.image)),
        "num_classes": config.classes,
        "crop_pct": 0.9,
    }
    return released or {f"{variant}.untrained": plain}


default_cfgs: dict[str, Any] = {}


@cache
def register() -> None:
    """Register every model that is not there yet; ``import vitrail.timm`` does it."""
    for name in list_models():
        variant = f"{PREFIX}{name}"
        default_cfgs.update(generate_default_cfgs(describe(name)))
        adapt(entry(name).model)

        def point(pretrained: bool = False, *, _name: str = name, **options: Any) -> nn.Module:
            return create(_name, pretrained, **options)

        point.__name__ = point.__qualname__ = variant
        point.__doc__ = (entry(name).paper.__doc__ or name).strip().splitlines()[0]
        globals()[variant] = register_model(point)
