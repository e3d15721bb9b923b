"""Baselines taken from timm by name, made for any image size that they can serve.

timm's families differ in how they are told a size: about half take any picture, the others were
built for one size and must be told another at creation (``img_size``); CrossViT is listed as
fixed but takes any size, EfficientFormer can be told nothing. Measured on timm 1.0.31.
"""

import inspect
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from vitrail.errors import UserError, printable, unknown
from vitrail.hub.doctor import require_torchvision
from vitrail.models.backbone import Size

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vitrail.models.weights import LoadReport

TIMM = "timm:"
"""What stands before the name of a model of timm's."""
TAKES_ANY_SIZE = ("crossvit",)


def create_baseline(
    name: str,
    *,
    classes: int | None = None,
    image: Size | None = None,
    in_chans: int = 3,
    drop_path: float = 0.0,
    weights: str | Path | None = None,
    trial: bool = True,
) -> "nn.Module":
    """timm's ``name`` with ``classes`` logits for ``(B, in_chans, image, image)``; no download.

    Classes and image are timm's own unless given.

    ``weights`` is any file that :func:`vitrail.models.reader.read_weights` reads, under timm's
    names; a head of another class count is left out, other input channels and other position
    tables are adapted by timm's own rules. A ``trial`` runs the model once at another size.

    Raises:
        UserError: no such model, a size it cannot serve, or weights that do not fit.
    """
    require_torchvision()
    import timm

    architecture = architecture_of(name)
    config = timm.get_pretrained_cfg(architecture)
    usual = config.input_size[-2:]
    size = (image, image) if isinstance(image, int) else image or usual
    classes = config.num_classes if classes is None else classes
    options: dict[str, Any] = {"num_classes": classes, "in_chans": in_chans}
    if config.fixed_input_size and not architecture.startswith(TAKES_ANY_SIZE):
        options["img_size"] = size
    model = create_in_timm(architecture, options, drop_path)
    if weights is not None:
        load_weights(model, architecture, weights, classes=classes, in_chans=in_chans)
    if trial and tuple(size) != tuple(usual):
        try_size(model, architecture, size, in_chans)
    return model


def architecture_of(name: str) -> str:
    """timm's name without the tag of weights.

    Raises:
        UserError: timm has no such model.
    """
    import timm

    architecture, known = name.split(".")[0], timm.list_models()
    if not architecture:
        raise UserError(f"{TIMM} is a model of timm's with its name behind, such as {TIMM}resnet18")
    if architecture not in known:
        raise unknown("timm model", name, known)
    return architecture


def create_in_timm(name: str, options: dict[str, Any], drop_path: float) -> "nn.Module":
    """timm's model, leaving out what its family has no argument for."""
    import timm

    if drop_path:
        options = options | {"drop_path_rate": drop_path}
    try:
        model: nn.Module = timm.create_model(name, **options)
        return model
    except TypeError as error:
        refused = [key for key in ("drop_path_rate", "img_size") if f"'{key}'" in str(error)]
        if not refused or refused[0] not in options:
            raise
    if refused[0] == "drop_path_rate":
        warnings.warn(f"{TIMM}{name} has no drop path: built without it", stacklevel=2)
        drop_path = 0.0
    left = {key: value for key, value in options.items() if key not in refused}
    return create_in_timm(name, left, drop_path)


def load_weights(
    model: "nn.Module", name: str, weights: str | Path, *, classes: int, in_chans: int
) -> "LoadReport":
    """Load a file by timm's rules, but miss nothing except the head (timm only logs the rest).

    The head's own shape decides whether it is kept, never what timm says of a released model.
    Gives what became of the tensors.

    Raises:
        UserError: the file cannot be read, leaves part of the model as it was, or holds parts of
            another model.
    """
    from vitrail.models.reader import read_weights
    from vitrail.models.weights import LoadReport, check_kinds

    state, own = read_weights(weights), model.state_dict()
    check_kinds(state, own)
    if same_shapes(state, own):
        model.load_state_dict(state)
        return LoadReport(loaded=sum("num_batches" not in n for n in own))
    shapes = {key: tensor.shape for key, tensor in state.items()}
    misfit = f"the weights in {str(weights)!r} do not fit {TIMM}{name}"
    try:
        state = filter_state_dict(model, state)
        check_kinds(state, own)
        missing, unexpected = load_released(model, state, classes, in_chans)
    except UserError:
        raise
    except Exception as error:  # timm's rules of a hundred families fail in as many ways
        raise UserError(f"{misfit}: {' '.join(str(error).split())[:200]}") from error
    heads = heads_of(model)
    new = [key for key in missing if "num_batches" not in key]
    for what, keys in (("are missing", new), ("belong to another model", unexpected)):
        lost = [key for key in keys if not key.startswith(heads)]
        if lost:
            raise UserError(f"{misfit}: {len(lost)} tensors {what}, such as {printable(lost[0])}")
    return LoadReport(
        loaded=sum(key not in missing and "num_batches" not in key for key in own),
        resized=tuple(
            k for k in own if k not in missing and shapes.get(k, own[k].shape) != own[k].shape
        ),
        new=tuple(new),
        left_out=tuple(k for k in shapes if k.startswith(heads) and (k in missing or k not in own)),
    )


def same_shapes(state: "Mapping[str, Tensor]", own: "Mapping[str, Tensor]") -> bool:
    """Whether a file holds this very model."""
    return state.keys() == own.keys() and all(state[n].shape == own[n].shape for n in own)


def filter_state_dict(model: "nn.Module", state: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """A released file's names and tables as timm's model has them, by timm's own filter."""
    rename = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if rename is None:
        return state
    takes_model = len(inspect.signature(rename).parameters) > 1
    found = rename(state, model) if takes_model else rename(state)
    return dict(found)


def heads_of(model: "nn.Module") -> tuple[str, ...]:
    """Names of a timm model's classifiers."""
    released: Any = model.pretrained_cfg
    head = released.get("classifier") or ()
    return (head,) if isinstance(head, str) else tuple(head)


def load_released(
    model: "nn.Module", state: "dict[str, Tensor]", classes: int, in_chans: int
) -> tuple[list[str], list[str]]:
    """Load by timm's rules for stem and label offsets.

    Gives the model's names that stayed as they were, and the file's that it does not know.
    """
    from timm.models import load_pretrained

    from vitrail.models.weights import drop_head, fit_channels

    released, own = dict(cast(Any, model.pretrained_cfg)), model.state_dict()
    offset = released.get("label_offset") or 0
    heads = [f"{head}.{part}" for head in heads_of(model) for part in ("weight", "bias")]
    there = [name for name in heads if name in state]
    if all(state[n].shape[0] != classes + offset for n in there):
        released["label_offset"] = 0
        drop_head(state, own, there)
    stems = [f"{n}.weight" for n in as_names(released.get("first_conv"))]
    for name in (n for n in stems if n in state and n in own):
        if state[name].shape[1] not in (3, own[name].shape[1]):  # timm adapts those of three alone
            state[name] = fit_channels(state[name], own[name].shape[1])
    stem_fits = all(n in state and state[n].shape == own[n].shape for n in stems if n in own)
    missing: list[str] = []
    unexpected: list[str] = []

    def note(_: Any, keys: Any) -> None:
        missing.extend(keys.missing_keys)
        unexpected.extend(keys.unexpected_keys)

    hook = model.register_load_state_dict_post_hook(note)
    config = {**released, "state_dict": state, "source": "", "num_classes": classes}
    try:
        kept = all(name in state for name in heads if name in own)
        load_pretrained(
            model, config, classes, 3 if stem_fits else in_chans, strict=kept, filter_fn=None
        )
    finally:
        hook.remove()
    return missing, unexpected


def as_names(value: Any) -> tuple[str, ...]:
    """One name, several, or none."""
    return (value,) if isinstance(value, str) else tuple(value or ())


def try_size(model: "nn.Module", name: str, size: tuple[int, int], in_chans: int) -> None:
    """Run one empty picture, so that a size is refused here and not in the midst of a study."""
    import torch

    training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, in_chans, *size))
    except (RuntimeError, AssertionError, ValueError, IndexError) as error:
        raise UserError(
            f"{TIMM}{name} cannot serve {size[0]} px ({' '.join(str(error).split())[:120]}); "
            "give another image size or another model"
        ) from error
    model.train(training)
