"""An exported folder: the model's file, and a card that says how to use it.

::

    model.onnx or model.pt2
    card.json     classes, preprocessing, sizes, versions, and how near it is to its original

``vitrail predict FOLDER`` and :func:`open_folder` need neither the run nor the model's code.
"""

import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any

from vitrail.errors import UserError
from vitrail.export.runtime import ENDINGS, open_file
from vitrail.files import taken, unwritable, write_text

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor, nn

    from vitrail.data import Preprocess
    from vitrail.export.files import Exported
    from vitrail.tasks.card import Card

CARD = "card.json"
FORMAT = "vitrail-export"
VERSION = 1
PACKAGES = ("vitrail", "torch", "onnx", "onnxscript", "onnxruntime", "openvino", "numpy")


@dataclass(frozen=True)
class Served:
    """An exported model ready for pictures, with what its card says."""

    answer: "Callable[[Tensor], Tensor]"
    card: dict[str, Any]
    classes: tuple[str, ...]
    preprocess: "Preprocess"

    def predict(self, images: "Sequence[Image.Image]") -> "Tensor":
        """Probabilities ``(B, classes)`` of pictures of any size."""
        import torch

        transform = self.preprocess.transform()
        return self.answer(torch.stack([transform(image) for image in images])).softmax(-1)


def write_folder(
    model: "nn.Module",
    card: "Card",
    out: str | Path,
    *,
    format: str = "onnx",
    precision: str = "float32",
    any_size: bool = False,
    tolerance: float | None = None,
) -> "Exported":
    """Export ``model`` into a new folder with its card; all of it appears, or nothing.

    Raises:
        ExportError: see :func:`vitrail.export.to_onnx`.
        UserError: an unknown format, or the folder holds something.
    """
    from vitrail.export.files import to_onnx, to_openvino, to_torch

    if format not in ENDINGS:
        raise UserError(f"no format {format!r}; there are {', '.join(ENDINGS)}")
    out = Path(out)
    refuse_filled(out)
    draft = out.with_name(f".{out.name}.{os.getpid()}.vitrail-tmp")
    try:
        draft.mkdir(parents=True)
        write = {"onnx": to_onnx, "torch": to_torch, "openvino": to_openvino}[format]
        made = write(
            model,
            example_of(card),
            draft / f"model{ENDINGS[format]}",
            precision=precision,
            any_size=any_size,
            tolerance=tolerance,
        )
        write_text(draft / CARD, json.dumps(card_of(made, card), indent=2, ensure_ascii=False))
        if out.is_dir():
            out.rmdir()
        draft.rename(out)
    except OSError as error:
        raise unwritable(out, error) from error
    finally:
        rmtree(draft, ignore_errors=True)
    return made


def refuse_filled(out: Path) -> None:
    """Nothing is overwritten.

    Raises:
        UserError: ``out`` is a file, or a folder that holds something.
    """
    if taken(out):
        raise UserError(f"{str(out)!r} holds something; choose another folder")


def example_of(card: "Card") -> "Tensor":
    """Noise of the size that a run was trained on, always the same."""
    import torch

    shape = (2, card.in_chans, card.image, card.image)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def card_of(made: "Exported", card: "Card") -> dict[str, Any]:
    """What the folder's card says."""
    from vitrail.cost.host import versions

    return {
        "format": FORMAT,
        "version": VERSION,
        "file": made.path.name,
        "kind": made.format,
        "precision": made.precision,
        "sizes": made.sizes,
        "model": card.model,
        "classes": list(card.classes),
        "image": card.image,
        "in_chans": card.in_chans,
        "preprocess": card.preprocess,
        "training": card.extra,
        "verification": {
            "against": "PyTorch, float32, the run's own weights",
            "tolerance": made.tolerance,
            "batches": [d.to_dict() for d in made.differences],
        },
        "versions": {**versions(*PACKAGES), "python": platform.python_version()},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def is_exported(path: str | Path) -> bool:
    """Whether ``path`` is a folder with a card of ours."""
    return (Path(path) / CARD).is_file()


def open_folder(folder: str | Path) -> Served:
    """An exported folder, ready to predict.

    Raises:
        UserError: no card, one of a later version, or a file that cannot be opened.
    """
    from vitrail.data import Preprocess

    folder = Path(folder)
    card = read_card(folder / CARD)
    answer = open_file(folder / card["file"], kind=card["kind"], precision=card["precision"])
    classes = tuple(card["classes"])
    return Served(answer, card, classes, Preprocess.from_dict(card["preprocess"]))


def read_card(path: Path) -> dict[str, Any]:
    """The card of an exported folder.

    Raises:
        UserError: none there, damaged, or of a later version.
    """
    if not path.is_file():
        raise UserError(f"{str(path.parent)!r} holds no {CARD}; 'vitrail export' writes one")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"cannot read {str(path)!r}: {error}") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise UserError(f"{str(path)!r} is no card of an exported model")
    if card["version"] > VERSION:
        raise UserError(f"{str(path)!r} was written by a later Vitrail; update this one")
    return card
