"""A model from its text: the one place where texts become models.

text  -> our zoo | timm:NAME | a run, a saved folder or a file | OWNER/NAME on the hub
      -> the model, for the classes, the size and the channels asked for
words -> weights: none, auto, timm[:NAME], OWNER/NAME[@REVISION], a file, a run or saved folder
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from vitrail.arguments import check_arguments
from vitrail.errors import UserError
from vitrail.hub.baselines import TIMM
from vitrail.hub.fetch import FILES, REPOSITORY, from_hub
from vitrail.hub.heads import classes_of, match_head
from vitrail.hub.locate import is_there, run_of, weights_of
from vitrail.hub.names import build, one_or_each, with_options
from vitrail.hub.origin import Weights
from vitrail.hub.plugin_records import require_plugins
from vitrail.hub.released import ENDINGS
from vitrail.hub.sizes import check_fits
from vitrail.hub.weights import AUTO, find_weights, is_repository
from vitrail.models.backbone import Backbone, Size
from vitrail.models.zoo import ZOO, everything
from vitrail.tasks.card import Card, card_from_header
from vitrail.tensors import read_header

Value = bool | int | float | str | tuple[Any, ...] | None
"""What a field of a model's config can be."""


@check_arguments
def create(
    model: str | Path,
    *,
    classes: int | None = None,
    image: Size | None = None,
    in_chans: int | None = None,
    mixer: str | Sequence[str] | None = None,
    reducer: str | Sequence[str] | None = None,
    drop_path: float | None = None,
    weights: str | Path | None = None,
    weights_folder: str | Path | None = None,
    **fields: Value,
) -> Backbone | Any:
    """Build a model by name::

        import torch, vitrail

        model = vitrail.create("coat_lite_tiny", classes=5, reducer="cluster(ratio=4)")
        logits = model(torch.randn(2, 3, 224, 224))      # (2, 5)

    Nothing is downloaded unless ``weights`` or ``model`` names something on the net.

    Args:
        model: a name of :func:`vitrail.list_models`, or a call such as
            ``"vit_tiny(patch=8, pool='mean')"``; ``"timm:resnet18"`` for a model of timm's; a run,
            a saved folder or a weights file of Vitrail's, or ``"owner/name"`` of such a one on the
            Hugging Face hub: these bring their weights, classes and size.
        classes: logits; 0 for pooled features.
        image: pixels the model is built for; our models take other sizes too.
        in_chans: channels of the input.
        mixer: how tokens meet, one spec for all stages or one each; our models only.
        reducer: which tokens work, likewise.
        drop_path: rate of stochastic depth.
        weights: ``"none"`` (random, the default, also where ``model`` would bring some);
            ``"auto"``: released ones where they can be had, else random ones and a warning;
            ``"timm"`` or ``"timm:NAME.TAG"``; ``"owner/name[@revision]"`` on the hub; a file (our
            names, timm's or the official ones); a run or a saved folder. Position tables are
            resized to ``image``, other ``classes`` get a fresh head, other ``in_chans`` a stem of
            the same response. The model's ``weights_origin`` says what was loaded.
        weights_folder: of files named by timm's name and tag, ``coat_tiny.in1k.safetensors``,
            looked into before the cache and the net (default: environment ``VITRAIL_WEIGHTS``).
        fields: any other field of the model's config (``patch``, ``depth``, ...).

    Returns:
        One of our backbones, or timm's own module for ``"timm:NAME"``.

    Raises:
        UserError: something unknown, weights that do not fit, or a net that is away.
        SpecError: a mixer or reducer that cannot serve its place.
    """
    named = find_model(model)
    parts = {"mixer": one_or_each(mixer), "reducer": one_or_each(reducer), **fields}
    size = {"classes": classes, "image": image, "in_chans": in_chans}
    if named.card is None:
        found = find_weights(weights, named.text, weights_folder)
        return build(named.text, size | parts, drop_path=drop_path, weights=found)
    text = with_options(named.text, {k: v for k, v in parts.items() if v is not None})
    own = named.weights if weights in (None, AUTO) else weights
    found = find_weights(own, text, weights_folder)
    return build_like_card(text, named.card, size, drop_path=drop_path, weights=found)


def build_like_card(
    text: str,
    card: Card,
    size: Mapping[str, Any],
    *,
    drop_path: float | None,
    weights: Weights | None,
) -> nn.Module:
    """A model in the sizes of a card, but for those that are given."""
    size = card.size | {name: value for name, value in size.items() if value is not None}
    made = build(text, size, drop_path=drop_path, weights=weights)
    return name_classes(made, card) if size["classes"] == len(card.classes) else made


def create_from_card(
    card: Card, *, drop_path: float | None = None, weights: Weights | None = None
) -> nn.Module:
    """The model that a card describes; no path and no address in a card is followed.

    Raises:
        UserError: no such model, or weights that do not fit.
    """
    made = build(card.model, card.size, drop_path=drop_path, weights=weights)
    if weights is not None:
        match_head(made, card.classes, classes_of(weights.file))
    return name_classes(made, card)


def name_classes(model: nn.Module, card: Card) -> Any:
    """The model, which now knows its classes by name, as ``vitrail.explain`` takes them."""
    setattr(model, "class_names", card.classes)  # noqa: B010
    return model


# ---- what a text names --------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class NamedModel:
    """What a text names: a model, and its card and weights where it is something saved."""

    text: str
    card: Card | None = None
    weights: Path | None = None


def find_model(word: str | Path) -> NamedModel:
    """What ``word`` names; a name of our zoo goes before a folder of the same name.

    Raises:
        UserError: a path where nothing of Vitrail's lies, a plug-in that is not there, or a
            repository that cannot be had.
    """
    text = str(word)
    name = text.partition("(")[0].strip()
    if text.startswith(TIMM) or name in ZOO or name in everything():
        return NamedModel(text=text)
    path = Path(word)
    if not text or (not is_there(path) and not is_path(word)):
        return NamedModel(text=text)  # unknown: the zoo names the closest
    weights = weights_of(path) if is_there(path) or not is_repository(text) else download(text)
    card = read_fitting_card(weights, run_of(path) if is_there(path) else weights)
    return NamedModel(text=card.model, card=card, weights=weights)


def read_fitting_card(path: Path, run: Path) -> Card:
    """The card of a weights file whose plugins are known and whose model fits these weights.

    Raises:
        UserError: no card, a plugin that is not trusted, or a model of another size.
    """
    header = read_header(path)
    card = card_from_header(header, path)
    require_plugins(card.extra.get("plugins", ()), run)
    check_fits(card, header.shapes, repr(str(path)))
    return card


def model_text(word: str | Path) -> str:
    """The text of the model that ``word`` names."""
    return find_model(word).text


def is_path(word: str | Path) -> bool:
    """Whether a word that is no model's name reads like a path or an address."""
    text = str(word)
    return isinstance(word, Path) or text.endswith(ENDINGS) or ("/" in text and "(" not in text)


def download(text: str) -> Path:
    """The weights with a card in a repository on the hub.

    Raises:
        UserError: no such repository, or the net is away.
    """
    repository = REPOSITORY.match(text)
    assert repository is not None
    name, revision = repository.groups()
    try:
        return from_hub(name, revision, FILES[:1])
    except UserError as error:
        raise UserError(f"no file or folder {text!r} here, and {error}") from error
