"""All models by name."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from vitrail.errors import UserError
from vitrail.models import cmt, coat, coatnet, filtervit, filtervit_v2, mobilevit, vit, vit_rel
from vitrail.models.backbone import Backbone, Size
from vitrail.models.weights import load, read_weights
from vitrail.specs import parse_call


@dataclass(frozen=True)
class Entry:
    """A named variant: its config, its class, and the file that tells the paper's story."""

    config: Any
    model: type[Backbone]
    paper: ModuleType


PAPERS: tuple[tuple[ModuleType, type[Backbone]], ...] = (
    (vit, vit.ViT),
    (vit_rel, vit_rel.ViTRel),
    (coat, coat.CoaT),
    (coatnet, coatnet.CoAtNet),
    (cmt, cmt.CMT),
    (mobilevit, mobilevit.MobileViT),
    (filtervit, filtervit.FilterViT),
    (filtervit_v2, filtervit_v2.FilterViTv2),
)


def entries() -> Iterator[tuple[str, Entry]]:
    """Every variant of every paper."""
    for paper, model in PAPERS:
        for name, config in paper.CONFIGS.items():
            yield name, Entry(config, model, paper)


ZOO = dict(entries())


def list_models() -> list[str]:
    """Names that :func:`create` knows."""
    return sorted(ZOO)


def entry(name: str) -> Entry:
    """The variant of that name.

    Raises:
        UserError: no such model; the message names the closest.
    """
    if name not in ZOO:
        close = difflib.get_close_matches(name, ZOO, n=3) or list_models()[:3]
        raise UserError(
            f"no model {name!r}; did you mean {' or '.join(close)}? `vitrail models` lists all"
        )
    return ZOO[name]


def configure(model: str, **options: Any) -> Any:
    """The config of a variant with changes, ``"vit_tiny(patch=8)"`` or as keywords.

    A single ``mixer`` or ``reducer`` serves all stages; ``"native"`` keeps the paper's own.

    Raises:
        UserError: unknown model or option, or an impossible value.
    """
    name, written = parse_call(model)
    config = entry(name).config
    options = {k: v for k, v in {**options, **written}.items() if v is not None}
    known = [f.name for f in fields(config)]
    for option in options:
        if option not in known:
            raise UserError(f"model {name!r} has no option {option!r}; it has {', '.join(known)}")
    for kind in ("mixer", "reducer"):
        if kind in options:
            options[kind] = per_stage(options[kind], getattr(config, kind))
    return replace(config, **options)


def per_stage(specs: Any, native: tuple[str, ...]) -> tuple[str, ...]:
    """One spec a stage; ``native`` stands for the paper's own."""
    many = specs if isinstance(specs, tuple | list) else (specs,) * len(native)
    if len(many) != len(native):
        return tuple(str(spec) for spec in many)
    return tuple(n if str(s) == "native" else str(s) for s, n in zip(many, native, strict=True))


def create(
    model: str,
    *,
    classes: int | None = None,
    image: Size | None = None,
    in_chans: int | None = None,
    mixer: str | tuple[str, ...] | None = None,
    reducer: str | tuple[str, ...] | None = None,
    drop_path: float | None = None,
    weights: str | Path | None = None,
    **options: Any,
) -> Backbone:
    """Build a backbone by name.

    Args:
        model: a name, or a call such as ``"vit_tiny(patch=8, pool='mean')"``.
        classes: logits; 0 for pooled features.
        image: pixels the model is built for; other sizes work too, by resizing tables.
        in_chans: channels of the input.
        mixer: how tokens meet, one spec for all stages or a tuple with one each.
        reducer: which tokens work, likewise.
        drop_path: rate of stochastic depth.
        weights: a file with our names, timm's or the official ones.
        options: any other field of the model's config.

    Raises:
        UserError: something unknown, or weights that do not fit.
        SpecError: a mixer or reducer that cannot serve its place.
    """
    config = configure(
        model,
        classes=classes,
        image=image,
        in_chans=in_chans,
        mixer=mixer,
        reducer=reducer,
        drop_path=drop_path,
        **options,
    )
    found = entry(parse_call(model)[0])
    built = found.model(config)
    if weights is not None:
        load_into(built, read_weights(weights), found)
    return built


def load_into(model: Backbone, state: dict[str, Any], found: Entry | None = None) -> None:
    """Load a state dict under our names, timm's or the official ones into a built model.

    Raises:
        UserError: it does not fit.
    """
    paper = found.paper if found else next(e.paper for e in ZOO.values() if e.model is type(model))
    convert = getattr(paper, "convert", dict)
    load(model, convert(state), paper.RENAMES, getattr(paper, "UNUSED", "$^"))
