"""Weights by word: a file, a run, a saved folder, ``"timm"``, or a repository on the hub."""

from pathlib import Path
from typing import Any

from vitrail.errors import UserError, unknown
from vitrail.hub.baselines import TIMM
from vitrail.hub.fetch import FILES, REPOSITORY, fetch, from_hub, weights_in
from vitrail.hub.locate import WEIGHTS, is_there, run_of, weights_of
from vitrail.hub.timm_names import TIMM_NAMES
from vitrail.models.reader import choice
from vitrail.specs import parse_call

NO_WEIGHTS = "none"
RELEASED = TIMM.rstrip(":")
"""The word for the weights that timm released."""
ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".npz")


def find_weights(word: str | Path | None, model: str) -> tuple[Path | None, int | None]:
    """The file that a word for weights means for a model, downloaded where need be.

    The second is how many classes the weights know, where the word is one of timm's.

    Raises:
        UserError: there is none, or it cannot be had.
    """
    if word is None or (str(word) == NO_WEIGHTS and not Path(word).exists()):
        return None, None
    kind, _, released = str(word).partition(":")
    if kind != RELEASED or is_there(Path(word)):
        return find_file(word), None
    config = timm_config(model, released)
    return fetch(config), config["num_classes"]  # some of timm's know 11821 or 21843


def find_file(weights: str | Path) -> Path:
    """The file that a path or the name of a repository stands for, downloaded where need be.

    Raises:
        UserError: there is none, or it cannot be had.
    """
    path, prefer = choice(weights)
    if path != Path(weights):
        return Path(f"{find_in_folder(path)}#{prefer}")
    if not is_there(path) and is_repository(str(weights)):
        repository = REPOSITORY.match(str(weights))
        assert repository is not None
        name, revision = repository.groups()
        return from_hub(name, revision, FILES)
    return find_in_folder(path)


def find_in_folder(path: Path) -> Path:
    """The weights in a run (its best) or a saved folder; a file is itself."""
    is_run = any((run_of(path) / name).is_file() for name in WEIGHTS)
    return weights_of(path) if is_run else weights_in(path)


def counterpart_of(model: str) -> str:
    """timm's name for a model; empty where it has none."""
    if model.startswith(TIMM):
        return model.removeprefix(TIMM)
    return TIMM_NAMES.get(parse_call(model)[0], "")


def timm_config(model: str, released: str = "") -> dict[str, Any]:
    """timm's description of its model ``released``, by default of our model's counterpart.

    Raises:
        UserError: no such model in timm, or it has no weights.
    """
    from vitrail.hub.doctor import require_torchvision

    name = released or counterpart_of(model)
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


def is_repository(text: str) -> bool:
    """Whether a text reads like ``owner/name``, and no folder ``owner`` is here."""
    return bool(REPOSITORY.match(text)) and not (
        text.endswith(ENDINGS) or is_there(Path(text).parent)
    )
