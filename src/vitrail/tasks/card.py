"""Weights that say what they are: safetensors with the card inside.

Class names in order, image size and preprocessing travel in the file's metadata, so that a model
is used as it was trained. Nothing here unpickles; foreign ``.pth`` files are read by torch with
``weights_only=True``.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitrail.errors import UserError
from vitrail.files import unwritable, whole

_KEY = "vitrail.card"
_FOREIGN = (".pth", ".pt", ".bin", ".ckpt", ".tar")
_NESTS = ("state_dict_ema", "model_ema", "state_dict", "model")


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

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Card":
        """The inverse of :meth:`to_json`; keys of later versions are passed over."""
        known = {f.name for f in fields(cls)}
        values = {k: v for k, v in json.loads(text).items() if k in known}
        return cls(**values | {"classes": tuple(values["classes"])})


def save_weights(path: str | Path, state: Mapping[str, Tensor], card: Card) -> None:
    """Write ``state`` and ``card`` as one safetensors file, whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    save_tensors(path, state, {_KEY: card.to_json(), "format": "pt"})


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> None:
    """Write named tensors and texts as one safetensors file, whole or not at all."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path = Path(path)
    try:
        with whole(path) as draft:
            save_file(_unshared(tensors), draft, metadata=dict(facts))
    except SafetensorError as error:
        raise unwritable(path, OSError(str(error))) from error


def read_card(path: str | Path) -> Card:
    """The card inside a weights file.

    Raises:
        UserError: no such file, not safetensors, or written by something else than Vitrail.
    """
    with _opened(path) as file:
        facts = file.metadata() or {}
    if _KEY not in facts:
        raise UserError(f"{str(path)!r} holds weights but no Vitrail card (classes, preprocessing)")
    return Card.from_json(facts[_KEY])


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """Named tensors of a ``.safetensors`` file, or of a foreign ``.pth`` (``weights_only=True``).

    Raises:
        UserError: no such file, a damaged one, or one that holds more than tensors.
    """
    path = Path(path)
    if path.suffix in _FOREIGN:
        return _load_foreign(path)
    return load_tensors(path)[0]


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and texts of a safetensors file; the tensors own their memory."""
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        return tensors, file.metadata() or {}


@contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise UserError(f"no weights file {str(path)!r}")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise UserError(f"cannot read {str(path)!r} as safetensors: {error}") from error


def _load_foreign(path: Path) -> dict[str, Tensor]:
    import pickle

    if not path.is_file():
        raise UserError(f"no weights file {str(path)!r}")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"cannot read {str(path)!r} as plain weights ({why}); Vitrail runs no code from files: "
            "convert it to safetensors where it was made"
        ) from error
    for nest in _NESTS:
        if isinstance(found, dict) and isinstance(found.get(nest), dict):
            found = found[nest]
            break
    if not isinstance(found, dict) or not any(isinstance(v, Tensor) for v in found.values()):
        raise UserError(f"{str(path)!r} holds no named tensors")
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def _unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU tensors, a tensor with two names copied for the second: safetensors' rule."""
    seen: set[int] = set()
    ready = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().to("cpu").contiguous()
        place = plain.untyped_storage().data_ptr()
        whole_storage = plain.untyped_storage().nbytes() == plain.nbytes
        ready[name] = plain if whole_storage and place not in seen else plain.clone()
        seen.add(place)
    return ready
