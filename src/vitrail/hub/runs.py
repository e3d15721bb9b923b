"""A trained run opened again: model, classes and preprocessing as they were in training."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vitrail.errors import UserError, printable
from vitrail.hub.build import build
from vitrail.hub.plugged import recall
from vitrail.hub.sizes import check_fits

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor, nn

    from vitrail.data import Preprocess
    from vitrail.tasks.card import Card

WEIGHTS = ("best.safetensors", "last.safetensors")
SAVED = "model.safetensors"
"""What a folder of :func:`vitrail.hub.save_timm` calls its weights."""
JOB = "run"
"""Where a job of a study keeps its run."""
EXPORTED = (".onnx", ".pt2")
BARE = (".pth", ".pt", ".bin", ".ckpt", ".tar", ".npz")
FOR_PREDICT = (
    "is an exported model: 'vitrail predict' takes it, everything else needs the run it was made of"
)


@dataclass(frozen=True)
class Classifier:
    """A model with the card it was saved with and the preprocessing it was trained with."""

    model: "nn.Module"
    card: "Card"
    classes: tuple[str, ...]
    preprocess: "Preprocess"

    def predict(self, images: "Sequence[Image.Image]") -> "Tensor":
        """Probabilities ``(B, classes)`` of pictures of any size."""
        import torch

        from vitrail.tasks.classify import probabilities

        transform = self.preprocess.transform()
        return probabilities(self.model, torch.stack([transform(image) for image in images]))


def open_run(folder: str | Path, device: str | None = None) -> Classifier:
    """The best weights of a folder that Vitrail saved (or one of its files), ready to predict.

    A run, a job of a study, a folder of :func:`vitrail.hub.save_timm`.
    ``device`` is where the model runs: a GPU where there is one, unless another is named.

    Raises:
        UserError: no such folder, no weights in it yet, weights that do not fit their card, or a
            plugin that is no longer there.
    """
    import torch

    from vitrail.data import Preprocess
    from vitrail.models.weights import check_finite
    from vitrail.tasks.card import load_weights

    path = weights_of(Path(folder))
    card = read_fitting_card(path, run_of(Path(folder)))
    preprocess = Preprocess.from_dict(card.preprocess or {"image": card.image})
    model = build(card.model, classes=len(card.classes), image=card.image, in_chans=card.in_chans)
    try:
        model.load_state_dict(load_weights(path))
    except RuntimeError as error:
        raise UserError(f"the weights in {str(path)!r} do not fit {card.model}") from error
    check_finite(model, repr(str(path)))
    model = model.eval().to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    setattr(model, "class_names", card.classes)  # noqa: B010 - explain() takes classes by name
    return Classifier(model, card, card.classes, preprocess)


def read_fitting_card(path: Path, run: Path) -> "Card":
    """The card of a weights file whose plugins are known and whose model fits these weights.

    Raises:
        UserError: no card, a plugin that is not trusted, or a model of another size.
    """
    from vitrail.tasks.card import card_in
    from vitrail.tensors import read_header

    header = read_header(path)
    card = card_in(header, path)
    recall(card.extra.get("plugins", ()), run)
    check_fits(card, header.shapes, repr(str(path)))
    return card


def weights_of(path: Path) -> Path:
    """The weights file in a folder that Vitrail saved: best, else last, else a saved model's.

    A run, a job of a study, a folder of :func:`vitrail.hub.save_timm`; a file is itself.

    Raises:
        UserError: nothing there, or something else; the message says what it is.
    """
    if path.is_file():
        return refuse_other_files(path)
    if not path.is_dir():
        raise UserError(f"no run {str(path)!r}; 'vitrail train' makes one in runs/")
    run = run_of(path)
    for name in (*WEIGHTS, SAVED):
        if (run / name).is_file():
            return run / name
    raise UserError(f"{str(path)!r} holds no {' or '.join(WEIGHTS)}; {advice(path)}")


def run_of(path: Path) -> Path:
    """The run that a path names: a job of a study keeps its own, its only one, a folder deeper."""
    return path / JOB if not runs_at(path, ".") and runs_at(path, "*") == [path / JOB] else path


def runs_at(folder: Path, pattern: str) -> list[Path]:
    """Folders below ``folder`` that hold a run's weights."""
    return sorted({path.parent for name in WEIGHTS for path in folder.glob(f"{pattern}/{name}")})


def refuse_other_files(path: Path) -> Path:
    """A file that may be weights with a card.

    Raises:
        UserError: its ending says that it is something else.
    """
    if path.suffix in EXPORTED:
        raise UserError(f"{str(path)!r} {FOR_PREDICT}")
    if path.suffix in BARE:
        raise UserError(
            f"{str(path)!r} holds weights but no Vitrail card (classes, preprocessing); train from "
            f"them with: vitrail train DATA --model MODEL --weights {shlex.quote(str(path))}"
        )
    return path


def advice(folder: Path) -> str:
    """What a folder without weights is, and what to give instead."""
    if (folder / "card.json").is_file() or any((folder / f"model{e}").is_file() for e in EXPORTED):
        return f"it {FOR_PREDICT}"
    if (folder / "run.json").is_file():
        return "the run has not come to its first validation yet"
    if (folder / "config.json").is_file():
        return "nor a model.safetensors with Vitrail's card: it was saved by something else"
    inside = runs_at(folder, "*") or runs_at(folder, f"runs/*/*/*/{JOB}")
    if inside:
        return f"name one of its runs ({len(inside)} in all), such as {printable(inside[0])}"
    return "is it a run folder?"


def model_text(word: str) -> str:
    """The text of the model of a saved folder or file; any other word is a model's text already."""
    from vitrail.models.zoo import everything

    if word.partition("(")[0] in everything() or not Path(word).exists():
        return word
    return read_fitting_card(weights_of(Path(word)), run_of(Path(word))).model
