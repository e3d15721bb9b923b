"""Named tensors as one safetensors file: the same content gives the same bytes, with a digest.

The digest is a SHA-256 over names, types, shapes, values and texts; it stands among the texts and
is checked whenever the tensors are read, so a flipped bit is an error and not another answer.
Files without one (of others, of earlier versions) are read as they are.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitrail.errors import UserError, printable
from vitrail.files import atomic_file

DIGEST = "vitrail.sha256"
_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.complex64: "C64",
}


@dataclass(frozen=True)
class Header:
    """What a file says before its values: shapes by name, and texts."""

    shapes: Mapping[str, tuple[int, ...]]
    texts: Mapping[str, str]


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> None:
    """Write named tensors and texts as one safetensors file, whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    ready = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    order = sorted(ready, key=lambda name: (-ready[name].element_size(), name))
    header: dict[str, Any] = {"__metadata__": {**texts, DIGEST: _digest(ready, texts)}}
    end = 0
    for name in order:
        tensor, start = ready[name], end
        end = start + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _TYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_file(path) as draft, draft.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            file.write(_values(ready[name]))


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and texts of a safetensors file; the tensors own their memory.

    Raises:
        UserError: no such file, not safetensors, or changed since it was written.
    """
    with open_tensors(path) as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        texts = dict(file.metadata() or {})
    promised = texts.pop(DIGEST, None)
    if promised is not None and promised != _digest(tensors, texts):
        raise damage_error(path)
    return tensors, texts


def read_header(path: str | Path) -> Header:
    """Names, shapes and texts of a safetensors file, without its values.

    Raises:
        UserError: no such file, or not safetensors.
    """
    with open_tensors(path) as file:
        names = list(file.keys())
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
        texts = dict(file.metadata() or {})
    texts.pop(DIGEST, None)
    return Header(shapes, texts)


@contextmanager
def open_tensors(path: str | Path) -> Iterator[Any]:
    """The file in safetensors' own reader.

    Raises:
        UserError: no such file, or not safetensors.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise UserError(f"no weights file {str(path)!r}")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError, AttributeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        why = printable(" ".join(str(error).split()))[:200]
        raise UserError(f"cannot read {str(path)!r} as safetensors: {why}") from error


def check_file(path: Path, digest: str) -> None:
    """Compare a file with the SHA-256 that was written down when it was made.

    Raises:
        UserError: it has another one.
    """
    if file_digest(path) != digest:
        raise damage_error(path)


def file_digest(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def damage_error(path: str | Path) -> UserError:
    """The one line for a file that is no longer what was written."""
    return UserError(
        f"{str(path)!r} is damaged: its content is not what was written (SHA-256 differs); "
        "take it from a copy, or make it again"
    )


def _digest(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    digest.update(json.dumps(sorted(texts.items())).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(_values(tensor))
    return digest.hexdigest()


def _values(tensor: Tensor) -> Any:
    plain = tensor.contiguous().reshape(-1)
    return plain.view(torch.uint8).numpy() if plain.numel() else b""
