"""Weights by word: ``"timm"``, a file, a saved folder, or a repository on the hub."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitrail.errors import UserError, unknown
from vitrail.hub.counterparts import COUNTERPARTS
from vitrail.hub.fetch import FILES, REPOSITORY, fetch, from_hub, inside
from vitrail.models.reader import choice

if TYPE_CHECKING:
    from vitrail.models import Backbone

TIMM = "timm"


def create(model: str, *, weights: str | Path | None = None, **options: Any) -> "Backbone":
    """Build a backbone by name; ``weights`` may also be had from the net.

    Args:
        model: a name, or a call such as ``"vit_tiny(patch=8, pool='mean')"``.
        weights: a file (our names, timm's or the official ones); a saved folder; ``"timm"`` for
            the weights of timm's counterpart, ``"timm:coat_tiny.in1k"`` for those of that model;
            ``"owner/name"`` or ``"owner/name@revision"`` for a repository on the Hugging Face hub.
            Position tables are resized to ``image``, another number of ``classes`` gets a fresh
            head, other ``in_chans`` a stem of the same response.
        options: ``classes``, ``image``, ``in_chans``, ``mixer``, ``reducer``, ``drop_path`` and any
            other field of the model's config, as :func:`vitrail.models.create` says.

    Raises:
        UserError: something unknown, weights that do not fit, or a net that is away.
    """
    from vitrail import models

    if weights is None:
        return models.create(model, **options)
    word, _, released = str(weights).partition(":")
    if word != TIMM or Path(weights).exists():
        return models.create(model, weights=find(weights), **options)
    config = from_timm(model, released)
    if options.get("classes") is None:
        options["classes"] = config["num_classes"]  # some of timm's know 11821 or 21843
    return models.create(model, weights=fetch(config), **options)


def find(weights: str | Path) -> Path:
    """The file that a path or the name of a repository stands for, downloaded where need be.

    Raises:
        UserError: there is none, or it cannot be had.
    """
    path, prefer = choice(weights)
    if path != Path(weights):
        return Path(f"{inside(path)}#{prefer}")
    text = str(weights)
    if path.exists():
        return inside(path)
    repository = REPOSITORY.match(text)
    if repository and not text.endswith((".safetensors", ".pth", ".pt", ".bin", ".npz")):
        name, revision = repository.groups()
        return from_hub(name, revision, FILES)
    return inside(Path(weights))


def from_timm(model: str, released: str = "") -> dict[str, Any]:
    """timm's description of its model ``released``, by default of our model's counterpart.

    Raises:
        UserError: no such model in timm, or it has no weights.
    """
    from vitrail.hub.pairing import require_torchvision
    from vitrail.specs import parse_call

    name = released or COUNTERPARTS.get(parse_call(model)[0], "")
    if not name:
        raise UserError(
            f"timm has no weights for {model!r}; those of a model with the same parts can be "
            "named: weights='timm:coat_lite_tiny'"
        )
    require_torchvision()
    import timm

    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if config is None or not timm.is_model(name):
        raise unknown("timm model", name, timm.list_models(pretrained=True))
    described: dict[str, Any] = config.to_dict()
    return described
