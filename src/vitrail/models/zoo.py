"""All models by name."""

import difflib
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cache
from types import ModuleType
from typing import Any

from vitrail.errors import UserError
from vitrail.mixers import MixerSpec
from vitrail.models import (
    cct,
    ceit,
    cmt,
    coat,
    coatnet,
    coatnet_rw,
    convit,
    cvt,
    deit,
    filtervit,
    filtervit_v2,
    mobilevit,
    vit,
    vit_rel,
)
from vitrail.models.backbone import Backbone, Config
from vitrail.models.limits import check_options, check_size
from vitrail.models.reader import State
from vitrail.models.weights import LoadReport, load, translate
from vitrail.plugins import load_group
from vitrail.reducers import ReducerSpec
from vitrail.specs import Spec, parse_call, print_call

SPECS: dict[str, type[Spec]] = {"mixer": MixerSpec, "reducer": ReducerSpec}
"""The fields of a config that hold specs, one a stage."""


@dataclass(frozen=True)
class Entry:
    """A named variant: its config, its class, and the file that tells the paper's story."""

    config: Any
    model: type[Backbone]
    paper: ModuleType


PAPERS: tuple[tuple[ModuleType, type[Backbone]], ...] = (
    (vit, vit.ViT),
    (vit_rel, vit_rel.ViTRel),
    (deit, deit.DeiT),
    (convit, convit.ConViT),
    (ceit, ceit.CeiT),
    (cvt, cvt.CvT),
    (cct, cct.CCT),
    (coat, coat.CoaT),
    (coatnet, coatnet.CoAtNet),
    (coatnet_rw, coatnet_rw.CoAtNetRW),
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


COMMON = tuple(field.name for field in fields(Config))
"""What every model has, named after its own options in errors."""
ZOO = dict(entries())
FREE = ("classes", "image", "in_chans", "drop_path")
"""What a user sets for any model; the rest of a config is wiring."""


@cache
def plugin_entries() -> dict[str, Entry]:
    """Variants of other packages (entry points ``vitrail.models``); our own names stay ours."""
    found: dict[str, Entry] = {}
    for name, model in load_group("vitrail.models").items():
        paper = sys.modules.get(getattr(model, "__module__", ""))
        configs = getattr(paper, "CONFIGS", None)
        kind = isinstance(model, type) and issubclass(model, Backbone)
        if paper is None or configs is None or not kind:
            warnings.warn(
                f"the plug-in {name!r} (vitrail.models) is left out: it must name a Backbone whose "
                "module holds CONFIGS",
                stacklevel=3,
            )
            continue
        found |= {n: Entry(c, model, paper) for n, c in configs.items() if n not in ZOO}
    return found


def everything() -> dict[str, Entry]:
    """Our own variants and those of other packages."""
    return {**ZOO, **plugin_entries()}


def list_models() -> list[str]:
    """Names that :func:`vitrail.create` knows."""
    return sorted(everything())


def entry(name: str) -> Entry:
    """The variant of that name.

    Raises:
        UserError: no such model; the message names the closest.
    """
    found = ZOO.get(name) or plugin_entries().get(name)
    if found is None:
        close = difflib.get_close_matches(name, everything(), n=3) or list_models()[:3]
        raise UserError(
            f"no model {name!r}; did you mean {' or '.join(close)}? `vitrail models` lists all"
        )
    return found


def configure(model: str, **options: Any) -> Any:
    """The config of a variant with changes, ``"vit_tiny(patch=8)"`` or as keywords.

    A single ``mixer`` or ``reducer`` serves all stages; ``"native"`` keeps the paper's own. Old
    names of specs become today's.

    Raises:
        UserError: unknown model or option, or an impossible value.
    """
    name, written = parse_call(model)
    config = entry(name).config
    refuse_two_counts(model, options.get("classes"), written.get("classes"))
    options = {k: v for some in (options, written) for k, v in some.items() if v is not None}
    known = sorted((f.name for f in fields(config)), key=lambda option: option in COMMON)
    for option in options:
        if option not in known:
            raise UserError(f"model {name!r} has no option {option!r}; it has {', '.join(known)}")
    for kind, spec in SPECS.items():
        if kind in options:
            texts = per_stage(options[kind], getattr(config, kind))
            options[kind] = tuple(spec.with_current_name(text) for text in texts)
    return replace(config, **check_options(name, config, options))


def refuse_two_counts(model: str, asked: int | None, written: Any) -> None:
    """A count of classes in the text may repeat the one that is asked for, and nothing else.

    Raises:
        UserError: they differ.
    """
    if asked is not None and written is not None and asked != written:
        raise UserError(
            f"{model!r} says classes={written!r}, and {asked} are asked for; leave it out of the "
            "text"
        )


def per_stage(specs: Any, native: tuple[str, ...]) -> tuple[str, ...]:
    """One spec a stage; ``native`` stands for the paper's own."""
    many = specs if isinstance(specs, tuple | list) else (specs,) * len(native)
    if len(many) != len(native):
        return tuple(str(spec) for spec in many)
    return tuple(n if str(s) == "native" else str(s) for s, n in zip(many, native, strict=True))


def build_within_limits(text: str, found: Entry, config: Any) -> Backbone:
    """The model of a config, if this machine can hold it.

    Raises:
        UserError: it is too large, or its options do not fit each other.
    """
    check_size(repr(text), config, lambda: found.model(config))
    try:
        return found.model(config)
    except (ArithmeticError, LookupError, TypeError, RuntimeError, AssertionError) as error:
        if not changes(found.config, config):
            raise  # the variant as the paper has it: a fault of ours
        raise UserError(f"the options of {text!r} do not fit each other: {error}") from error


def load_into(model: Backbone, state: dict[str, Any], found: Entry | None = None) -> LoadReport:
    """Load a state dict under our names, timm's or the official ones into a built model.

    Raises:
        UserError: it does not fit.
    """
    paper = (found or entry_of(model)).paper
    convert = getattr(paper, "convert", dict)
    renames, unused = getattr(paper, "RENAMES", ()), getattr(paper, "UNUSED", "$^")
    return load(model, convert(state), renames, unused)


def our_names(model: Backbone, state: dict[str, Any]) -> State:
    """A state dict under timm's names or the official ones, as this model names its tensors.

    Raises:
        UserError: two names that should share a tensor differ.
    """
    paper = entry_of(model).paper
    convert = getattr(paper, "convert", dict)
    return translate(
        convert(state), model, getattr(paper, "RENAMES", ()), getattr(paper, "UNUSED", "$^")
    )


def entry_of(model: Backbone) -> Entry:
    """The variant of which a model differs least; its class and paper are the model's for sure.

    Raises:
        UserError: its class is not in the zoo.
    """
    return entry(name_of(model))


def name_of(model: Backbone) -> str:
    """The name whose config is the model's with the fewest changes.

    Raises:
        UserError: its class is not in the zoo.
    """
    kinds = {e.model for e in everything().values()}
    kind = next((k for k in type(model).__mro__ if k in kinds), None)
    if kind is None:
        raise UserError(f"{type(model).__name__} is no model of the zoo; offer it as a plug-in")
    kin = {n: e.config for n, e in everything().items() if e.model is kind}
    return min(kin, key=lambda name: (len(changes(kin[name], model.config)), len(name), name))


def text_of(model: Backbone) -> str:
    """What to give :func:`vitrail.create` for the same wiring, ``"vit_tiny(patch=8)"``."""
    name = name_of(model)
    changed = changes(entry(name).config, model.config)
    for kind in SPECS:
        if len(set(changed.get(kind, ()))) == 1:
            changed[kind] = changed[kind][0]
    return print_call(name, changed)


def changes(before: Any, after: Any) -> dict[str, Any]:
    """Fields of wiring whose values ``before`` does not have."""
    wiring = [f.name for f in fields(after) if f.name not in FREE]
    return {n: getattr(after, n) for n in wiring if getattr(before, n) != getattr(after, n)}
