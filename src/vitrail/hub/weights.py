"""Weights by word: none, auto, timm[:NAME], OWNER/NAME[@REVISION], a file, a run or saved folder.

word, model -> Weights: the file, where it came from, and how pictures are prepared for it
"""

import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from vitrail.errors import UserError
from vitrail.hub.baselines import TIMM
from vitrail.hub.fetch import (
    FILES,
    REPOSITORY,
    NotAvailable,
    download,
    from_cache,
    read_companion,
    revision_of,
    weights_in,
)
from vitrail.hub.locate import WEIGHTS, is_there, run_of, weights_of
from vitrail.hub.origin import Weights
from vitrail.hub.released import (
    ENDINGS,
    find_released,
    preprocess_from_timm,
    preprocess_of_model,
    require_same_parts,
)
from vitrail.models.reader import choice
from vitrail.schema import parse_json
from vitrail.tasks.card import Card, card_from_header
from vitrail.tensors import read_header

NO_WEIGHTS = "none"
AUTO = "auto"
UNKNOWN = {
    "config.json": "images are prepared as the model's released weights want them, or as usual",
    "README.md": "the licence of these weights is not known",
}
"""What is not known without a file."""
RELEASED = TIMM.rstrip(":")
"""The word for the weights that timm released."""


def find_weights(
    word: str | Path | None, model: str, folder: str | Path | None = None
) -> Weights | None:
    """The weights that a word means for a model, downloaded where need be; None for none.

    Where ``auto`` finds nothing, a warning says why and what would help.

    Args:
        word: none, auto, timm, timm:NAME, OWNER/NAME, a file, a run or a saved folder.
        model: its text.
        folder: of weights named by timm's tag; by default the one that ``VITRAIL_WEIGHTS`` names.

    Raises:
        UserError: there are none, or they cannot be had.
    """
    check_word(word)
    if word is None or (str(word) == NO_WEIGHTS and not is_there(Path(word))):
        return None
    if str(word) == AUTO and not is_there(Path(word)):
        return find_auto(model, folder)
    kind, _, name = str(word).partition(":")
    if kind == RELEASED and not is_there(Path(word)):
        return find_released(model, name, folder)
    return find_file(word, model)


def check_word(word: str | Path | None) -> None:
    """Refuse a word that is empty, or names nothing behind ``timm:``.

    Raises:
        UserError: it does.
    """
    if word is not None and str(word).strip() in ("", TIMM):
        raise UserError(
            f"weights {str(word)!r} name nothing; give none, auto, timm, timm:NAME, OWNER/NAME on "
            "the hub, a file or a run"
        )


def find_auto(model: str, folder: str | Path | None = None) -> Weights | None:
    """Released weights of the model's name, if they can be had; else a warning says why not."""
    try:
        require_same_parts(model)
        return find_released(model, folder=folder)
    except NotAvailable as error:
        warnings.warn(f"{model} starts from scratch: {error}", stacklevel=2)
        return None


def find_file(word: str | Path, model: str = "") -> Weights:
    """The file that a path or the name of a repository stands for, downloaded where need be.

    Raises:
        UserError: there is none, or it cannot be had.
    """
    path, prefer = choice(word)
    if path == Path(word) and not is_there(path) and is_repository(str(word)):
        return find_repository(str(word), model)
    found = find_in_folder(path)
    file = str(found) if path == Path(word) else f"{found}#{prefer}"
    said = describe_file(found)
    preprocess = said.preprocess or preprocess_of_model(model)
    return replace(said, file=file, source=str(word), place="file", preprocess=preprocess)


def find_repository(word: str, model: str = "") -> Weights:
    """The weights of a repository on the hub, with what lies beside them there.

    Where a text beside them cannot be had now, a warning says what is not known for that reason.

    Raises:
        UserError: no such repository, or the net is away.
    """
    repository = REPOSITORY.match(word)
    assert repository is not None
    name, revision = repository.groups()
    path, place = from_cache(name, revision, FILES), "cache"
    if path is None:
        path, place = download(name, revision, FILES), "net"
    commit = revision_of(path)
    texts = {
        file: read_companion(path, name, commit, file, online=place == "net")
        for file in ("config.json", "README.md")
    }
    said = describe_file(path)
    config = parse_json(texts["config.json"] or "{}", dict[str, Any], f"config.json of {word}")
    for file in (file for file, text in texts.items() if text is None):
        warnings.warn(f"{file} of {word} cannot be had now: {UNKNOWN[file]}", stacklevel=2)
    return replace(
        said,
        source=word,
        place=place,
        revision=commit,
        licence=licence_in(texts["README.md"] or "") or said.licence,
        preprocess=said.preprocess or preprocess_in(config) or preprocess_of_model(model),
    )


def describe_file(path: Path) -> Weights:
    """What a file says of itself where it has a card of Vitrail's: a run's, a saved folder's."""
    bare = Weights(file=str(path), source=str(path), place="file")
    card = read_card_of(path)
    if card is None:
        return bare
    first = card.extra.get("weights")
    inherited = first.get("licence") if isinstance(first, dict) else ""
    readme = path.parent / "README.md"
    text = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""
    licence = licence_in(text) or (inherited if isinstance(inherited, str) else "")
    return replace(bare, licence=licence, preprocess={"image": card.image, **card.preprocess})


def read_card_of(path: Path) -> Card | None:
    """The card in a file of weights, if it has one."""
    if path.suffix != ".safetensors":
        return None
    try:
        return card_from_header(read_header(path), path)
    except UserError:
        return None  # a file of others, or a damaged one: reading its tensors will say so


def licence_in(text: str) -> str:
    """The licence that a model card's head names."""
    head = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
    found = re.search(r"^license(?:_name)?:\s*([\w.+-]+)", head[1], re.MULTILINE) if head else None
    return found[1] if found else ""


def preprocess_in(config: dict[str, Any]) -> dict[str, Any]:
    """How pictures are prepared, by timm's ``config.json``; nothing where it does not say.

    Raises:
        UserError: it says what no model can want.
    """
    from vitrail.data import Preprocess

    said = config.get("pretrained_cfg")
    keys = ("input_size", "mean", "std")
    if not isinstance(said, dict) or any(not isinstance(said.get(k), list) for k in keys):
        return {}
    try:
        found = preprocess_from_timm(said)
        if len(found["mean"]) in (1, 3):
            Preprocess.from_dict({**found, "in_chans": len(found["mean"])})
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        why = " ".join(str(error).split())[:160]
        raise UserError(f"'pretrained_cfg' in config.json prepares no pictures: {why}") from error
    return found


def find_in_folder(path: Path) -> Path:
    """The weights in a run (its best) or a saved folder; a file is itself."""
    is_run = any((run_of(path) / name).is_file() for name in WEIGHTS)
    return weights_of(path) if is_run else weights_in(path)


def is_repository(text: str) -> bool:
    """Whether a text reads like ``owner/name``, and no folder ``owner`` is here."""
    return bool(REPOSITORY.match(text)) and not (
        text.endswith(ENDINGS) or is_there(Path(text).parent)
    )
