"""A model of our zoo, or of timm's, from its name and options."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from vitrail.errors import UserError
from vitrail.hub.baselines import TIMM, create_baseline
from vitrail.hub.baselines import load_weights as load_by_timm
from vitrail.hub.origin import Origin, Weights, record_origin
from vitrail.limits import MOST, check_count
from vitrail.models.backbone import Size
from vitrail.models.reader import read_weights
from vitrail.models.weights import check_finite
from vitrail.models.zoo import build_within_limits, configure, entry, load_into
from vitrail.schema import convert
from vitrail.specs import parse_call, print_call


def build(
    text: str,
    options: Mapping[str, Any],
    *,
    drop_path: float | None = None,
    weights: Weights | None = None,
    trial: bool = True,
) -> nn.Module:
    """Build the model of a name of our zoo or of ``timm:NAME``, and load weights into it.

    A ``trial`` runs a model of timm's once where it is given another size than its own.

    Raises:
        UserError: something unknown, or weights that do not fit.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if weights is not None and weights.classes is not None:
        given.setdefault("classes", weights.classes)
    if text.startswith(TIMM):
        refuse_our_options(text, given)
        check_sizes(text, given)
        rest: dict[str, Any] = {"drop_path": drop_path or 0.0, "trial": trial}
        model = create_baseline(text.removeprefix(TIMM), **given, **rest)
    else:
        found = entry(parse_call(text)[0])
        model = build_within_limits(text, found, configure(text, **given, drop_path=drop_path))
    if weights is not None:
        record_origin(model, load_and_record(model, text, weights, given))
    return model


def load_and_record(model: Any, text: str, weights: Weights, options: Mapping[str, Any]) -> Origin:
    """Load weights that were found into the model of a text; the record of what became of them.

    Raises:
        UserError: they do not fit, or are not finite.
    """
    if text.startswith(TIMM):
        name = text.removeprefix(TIMM).split(".")[0]
        size = {"classes": model.num_classes, "in_chans": options.get("in_chans", 3)}
        report = load_by_timm(model, name, weights.file, **size)
    else:
        report = load_into(model, read_weights(weights.file), entry(parse_call(text)[0]))
    check_finite(model, repr(weights.source))
    return Origin.create(weights, report)


SIZES = {"classes": int, "image": Size, "in_chans": int}
BOUNDS = {"classes": {"least": 0, "most": 10**7}}


def check_sizes(text: str, options: Mapping[str, Any]) -> None:
    """What any model is built for.

    Raises:
        UserError: no whole numbers, or less than there can be.
    """
    for name, value in options.items():
        where = f"model {text!r}: {name}"
        convert(SIZES[name], value, where)
        for number in value if isinstance(value, tuple) else (value,):
            check_count(number, where, **BOUNDS.get(name, {"least": 1, "most": MOST}))


def refuse_our_options(text: str, options: Mapping[str, Any]) -> None:
    """timm's models are as timm has them.

    Raises:
        UserError: a mixer, a reducer or a field of our configs is asked for.
    """
    ours = [name for name in options if name not in ("classes", "image", "in_chans")]
    if ours:
        raise UserError(f"{text} is timm's own: {ours[0]} works with our models only")


def with_options(text: str, options: Mapping[str, Any]) -> str:
    """A model's text with some options, which go before those written in it.

    Raises:
        UserError: it is timm's own.
    """
    if not options:
        return text
    if text.startswith(TIMM):
        refuse_our_options(text, options)
    name, written = parse_call(text)
    return print_call(name, written | dict(options))


def one_or_each(specs: str | Sequence[str] | None) -> str | tuple[str, ...] | None:
    """One text for all stages, a tuple with one each, or nothing."""
    if specs is None or isinstance(specs, str):
        return specs or None
    texts = tuple(map(str, specs))
    return texts[0] if len(texts) == 1 else texts or None
