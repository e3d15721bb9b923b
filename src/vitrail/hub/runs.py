"""A trained run opened again: model, classes and preprocessing as they were in training."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vitrail.errors import UserError
from vitrail.hub.build import build
from vitrail.hub.plugged import recall

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor, nn

    from vitrail.data import Preprocess
    from vitrail.tasks.card import Card

WEIGHTS = ("best.safetensors", "last.safetensors")


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
    """The best weights of a run folder (or one ``.safetensors`` file of a run), ready to predict.

    ``device`` is where the model runs: a GPU where there is one, unless another is named.

    Raises:
        UserError: no such folder, no weights in it yet, weights that do not fit their card, or a
            plugin that is no longer there.
    """
    import torch

    from vitrail.data import Preprocess
    from vitrail.tasks.card import load_weights, read_card

    path = weights_of(Path(folder))
    card = read_card(path)
    recall(card.extra.get("plugins", ()), Path(folder))
    model = build(card.model, classes=len(card.classes), image=card.image, in_chans=card.in_chans)
    try:
        model.load_state_dict(load_weights(path))
    except RuntimeError as error:
        raise UserError(f"the weights in {str(path)!r} do not fit {card.model}") from error
    model = model.eval().to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return Classifier(model, card, card.classes, Preprocess.from_dict(card.preprocess))


def weights_of(path: Path) -> Path:
    """The weights file of a run: best, else last."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"no run {str(path)!r}; 'vitrail train' makes one in runs/")
    for name in WEIGHTS:
        if (path / name).is_file():
            return path / name
    raise UserError(f"{str(path)!r} holds no {' or '.join(WEIGHTS)}; is it a run folder?")
