"""An exported folder: the model's file, and a card that says how to use it.

::

    model.onnx or model.pt2
    card.json     classes, preprocessing, sizes, versions, and how near it is to its original

``vitrail predict FOLDER`` and :func:`open_folder` need neither the run nor the model's code.
"""

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitrail.digests import add_digest
from vitrail.errors import UserError
from vitrail.export.metadata import metadata_of, read_metadata
from vitrail.export.runtime import ENDINGS, answer_of, check_ends, open_file, session_of
from vitrail.files import atomic_folder, resolve_path, write_text
from vitrail.schema import convert, read_json
from vitrail.tensors import check_file, file_digest

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor, nn

    from vitrail.data import Preprocess
    from vitrail.export.files import Exported
    from vitrail.tasks.card import Card

CARD = "card.json"
ALONE = "model.onnx"
"""The file that can be opened without its card."""
FORMAT = "vitrail-export"
VERSION = 1
PRECISIONS = ("float32", "bf16", "int8")
PACKAGES = ("vitrail", "torch", "onnx", "onnxscript", "onnxruntime", "openvino", "numpy")


@dataclass(frozen=True)
class ExportedClassifier:
    """An exported model ready for pictures, with what its card says."""

    answer: "Callable[[Tensor], Tensor]"
    card: dict[str, Any]
    classes: tuple[str, ...]
    preprocess: "Preprocess"

    def predict(self, images: "Sequence[Image.Image]") -> "Tensor":
        """Probabilities ``(B, classes)`` of pictures of any size."""
        import torch

        from vitrail.tasks.classify import to_probabilities

        transform = self.preprocess.transform()
        logits = self.answer(torch.stack([transform(image) for image in images]))
        if logits.shape != (len(images), len(self.classes)):
            raise UserError(
                f"the exported model answers {tuple(logits.shape)} for {len(images)} pictures and "
                f"{len(self.classes)} classes; export it again"
            )
        return to_probabilities(logits)


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
    with atomic_folder(out) as draft:
        write = {"onnx": to_onnx, "torch": to_torch, "openvino": to_openvino}[format]
        made = write(
            model,
            example_of(card),
            draft / f"model{ENDINGS[format]}",
            precision=precision,
            any_size=any_size,
            tolerance=tolerance,
            metadata=metadata_of(card, precision=precision, any_size=any_size),
        )
        content = json.dumps(add_digest(card_of(made, card)), indent=2, ensure_ascii=False)
        write_text(draft / CARD, content)
    return replace(made, path=out / made.path.name)


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
        "sha256": file_digest(made.path),
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


def holds_export(path: str | Path) -> bool:
    """Whether :func:`open_exported` is to open ``path``: such a folder, or a model's file."""
    path = Path(path)
    return is_exported(path) or path.suffix in ENDINGS.values() or (path / ALONE).is_file()


@dataclass(frozen=True, kw_only=True)
class FolderCard:
    """What must stand in a card for the folder to be used; the rest is for people."""

    version: int
    file: str
    kind: str
    precision: str
    classes: tuple[str, ...]
    preprocess: dict[str, Any]
    sha256: str | None = None


def open_folder(folder: str | Path) -> ExportedClassifier:
    """An exported folder, ready to predict.

    Raises:
        UserError: no card, one of a later version, a file outside the folder, or one that cannot
            be opened.
    """
    from vitrail.data import Preprocess

    folder = Path(folder)
    content = read_card(folder / CARD)
    card: FolderCard = convert(FolderCard, content, repr(str(folder / CARD)), extra_keys=True)
    path, seen = inside(folder, card), Preprocess.from_dict(card.preprocess)
    if card.sha256 is not None:
        check_file(path, card.sha256)
    answer = open_file(path, kind=card.kind, precision=card.precision)
    return ExportedClassifier(answer, content, card.classes, seen)


def inside(folder: Path, card: FolderCard) -> Path:
    """The model's file, which lies in the folder itself and is of the kind that the card says.

    Raises:
        UserError: it lies elsewhere, also by a link, or is of another kind.
    """
    where = f"{str(folder / CARD)!r}"
    path = folder / card.file
    if not card.file or Path(card.file).name != card.file:
        raise UserError(f"{where} names a file outside its folder: {card.file!r}; not opened")
    if not path.is_file():  # a pipe would be waited for, and a link to itself cannot be resolved
        raise UserError(f"{where} names {card.file!r}, which is no regular file; export it again")
    if resolve_path(path).parent != resolve_path(folder):
        raise UserError(f"{where} names a file outside its folder: {card.file!r}; not opened")
    if ENDINGS.get(card.kind) != path.suffix:
        raise UserError(
            f"{where} says kind {card.kind!r} of {card.file!r}; there are "
            + ", ".join(f"{kind} (*{ending})" for kind, ending in ENDINGS.items())
        )
    if card.precision not in PRECISIONS:
        raise UserError(
            f"{where} says precision {card.precision!r}; there are {', '.join(PRECISIONS)}"
        )
    if not card.classes:
        raise UserError(f"{where} names no classes")
    return path


def open_exported(path: str | Path) -> ExportedClassifier:
    """An exported folder, or the model file of one; an ``.onnx`` may also have come alone.

    Raises:
        UserError: no such file, one that cannot be opened, or one that says nothing of its classes.
    """
    path = Path(path)
    if path.is_dir():
        bare = not is_exported(path) and (path / ALONE).is_file()
        return open_onnx_alone(path / ALONE) if bare else open_folder(path)
    if is_exported(path.parent) and read_card(path.parent / CARD).get("file") == path.name:
        return open_folder(path.parent)
    if path.suffix == ENDINGS["onnx"]:
        return open_onnx_alone(path)
    raise UserError(
        f"{str(path)!r} does not say its classes and preprocessing; give the folder that 'vitrail "
        "export' wrote"
    )


def open_onnx_alone(path: Path) -> ExportedClassifier:
    """An ``.onnx`` file with the card inside that Vitrail writes.

    Raises:
        UserError: no such file, damaged, or without a card that fits it.
    """
    from vitrail.data import Preprocess

    if not path.is_file():
        raise UserError(f"no exported file {str(path)!r}")
    session = session_of(path)
    check_ends(path, session.get_inputs(), session.get_outputs())
    card = read_metadata(session.get_modelmeta().custom_metadata_map, path)
    preprocess = Preprocess.from_dict(card.preprocess)
    image = (preprocess.in_chans, preprocess.image, preprocess.image)
    taken_in, given = session.get_inputs()[0].shape[1:], session.get_outputs()[0].shape[1:]
    if not fits(taken_in, image) or not fits(given, (len(card.classes),)):
        raise UserError(
            f"{str(path)!r} takes pictures {taken_in} and gives {given}, its card says "
            f"{list(image)} and {len(card.classes)} classes; export it again"
        )
    return ExportedClassifier(answer_of(session, path), asdict(card), card.classes, preprocess)


def fits(shape: Sequence[int | str | None], wanted: Sequence[int]) -> bool:
    """Whether a shape with named axes can be ``wanted``."""
    pairs = zip(shape, wanted, strict=False)
    return len(shape) == len(wanted) and all(a == b or not isinstance(a, int) for a, b in pairs)


def read_card(path: Path) -> dict[str, Any]:
    """The card of an exported folder.

    Raises:
        UserError: none there, damaged, or of a later version.
    """
    if not path.is_file():
        raise UserError(f"{str(path.parent)!r} holds no {CARD}; 'vitrail export' writes one")
    card = read_json(path)
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise UserError(f"{str(path)!r} is no card of an exported model")
    version = convert(int, card.get("version"), f"{str(path)!r}: version")
    if version > VERSION:
        raise UserError(f"{str(path)!r} was written by a later Vitrail; update this one")
    return card
