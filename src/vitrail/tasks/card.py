"""Weights that say what they are: safetensors with the card inside.

Class names in order, image size and preprocessing travel in the file's metadata, so that a model
is used as it was trained. Nothing here unpickles: see :mod:`vitrail.models.reader` for the
files of others.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from vitrail.errors import UserError
from vitrail.schema import parse_json
from vitrail.tensors import Header, read_header, save_tensors

_KEY = "vitrail.card"
MOST_CLASSES, MOST_IMAGE, MOST_CHANNELS = 10**6, 2**14, 2**10
"""A card that says more is no card: no images were trained on so."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a weights file is for.

    ``model`` is the text that builds it (``"coat_lite_tiny(mixer='softmax')"``), ``classes`` its
    class names in the order of the logits, ``image`` its size in pixels, ``preprocess`` the
    dictionary of :class:`vitrail.data.Preprocess`, ``extra`` facts such as epoch and scores.
    """

    model: str
    classes: tuple[str, ...]
    image: int
    in_chans: int = 3
    preprocess: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> dict[str, Any]:
        """Classes, pixels and channels of the model."""
        return {"classes": len(self.classes), "image": self.image, "in_chans": self.in_chans}

    def to_json(self) -> str:
        """One line of JSON, in ASCII: names of files need not be Unicode."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str, where: str = "the card") -> "Card":
        """The inverse of :meth:`to_json`; keys of later versions are passed over.

        Raises:
            UserError: another shape, or sizes that no model has.
        """
        card: Card = parse_json(text, cls, where)
        card.check(where)
        return card

    def check(self, where: str = "the card") -> None:
        """Refuse what no trained model can have.

        Raises:
            UserError: no classes, or sizes out of all bounds.
        """
        sizes = (
            ("classes", len(self.classes), MOST_CLASSES),
            ("image", self.image, MOST_IMAGE),
            ("in_chans", self.in_chans, MOST_CHANNELS),
        )
        for name, value, most in sizes:
            if not 1 <= value <= most:
                raise UserError(f"{where}: {name} must be from 1 to {most}, not {value}")


def save_weights(path: str | Path, state: Mapping[str, Tensor], card: Card) -> None:
    """Write ``state`` and ``card`` as one safetensors file, whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    save_tensors(path, state, {_KEY: card.to_json(), "format": "pt"})


def read_card(path: str | Path) -> Card:
    """The card inside a weights file.

    Raises:
        UserError: no such file, not safetensors, or written by something else than Vitrail.
    """
    return card_from_header(read_header(path), path)


def card_from_header(header: Header, path: str | Path) -> Card:
    """The card that a file's header holds.

    Raises:
        UserError: none, or one of another shape.
    """
    if _KEY not in header.texts:
        raise UserError(f"{str(path)!r} holds weights but no Vitrail card (classes, preprocessing)")
    return Card.from_json(header.texts[_KEY], f"the card in {str(path)!r}")


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """Named tensors of a weights file, one of ours or any that ``read_weights`` reads.

    Raises:
        UserError: no such file, a damaged one, or one that holds more than tensors.
    """
    from vitrail.models.reader import read_weights  # an exported model needs no model's code

    return read_weights(path)
