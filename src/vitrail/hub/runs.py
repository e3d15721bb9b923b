"""A trained run opened again: model, classes and preprocessing as they were in training."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from vitrail.arguments import check_arguments
from vitrail.errors import UserError
from vitrail.hub.baselines import TIMM
from vitrail.hub.locate import is_there, run_of, weights_of
from vitrail.hub.resolve import create_from_card, download, read_fitting_card
from vitrail.hub.weights import is_repository

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor, nn

    from vitrail.data import Preprocess
    from vitrail.tasks.card import Card


SHAPE = "images are tensors of (B, C, H, W) with 1 or 3 channels"

Images: TypeAlias = "Sequence[Image.Image] | Image.Image | Tensor"


@dataclass(frozen=True)
class Classifier:
    """A model with the card it was saved with and the preprocessing it was trained with."""

    model: "nn.Module"
    card: "Card"
    classes: tuple[str, ...]
    preprocess: "Preprocess"

    def prepare(self, images: "Images") -> "Tensor":
        """What ``model`` takes, ``(B, C, H, W)``: resized, cut and normalised as in training.

        Args:
            images: PIL images of any size; or a tensor ``(B, C, H, W)`` or ``(C, H, W)`` of bytes
                or of floats from 0 to 1.

        Raises:
            UserError: a tensor of another kind, or nothing.
        """
        import torch

        transform = self.preprocess.transform()
        return torch.stack([transform(image) for image in as_pictures(images)])

    def predict(self, images: "Images") -> "Tensor":
        """Probabilities ``(B, classes)`` of images, as :meth:`prepare` takes them.

        Raises:
            UserError: a tensor of another kind, or a model that answers no numbers.
        """
        from vitrail.tasks.classify import probabilities

        return probabilities(self.model, self.prepare(images))


def as_pictures(images: "Images") -> "list[Image.Image]":
    """PIL images, as training has them, from these or from a tensor.

    Raises:
        UserError: no images, or a tensor of another shape or with other values.
    """
    import torch
    from PIL import Image

    if isinstance(images, Image.Image):
        return [images]
    if not isinstance(images, torch.Tensor):
        found = list(images)
    else:
        if images.dim() not in (3, 4):
            raise UserError(f"{SHAPE}, not of {tuple(images.shape)}")
        batch = images.detach().cpu()
        found = [to_picture(image) for image in (batch if batch.dim() == 4 else batch[None])]
    if not found:
        raise UserError("there are no images to predict")
    other = next((image for image in found if not isinstance(image, Image.Image)), None)
    if other is not None:
        raise UserError(
            f"give PIL images (PIL.Image.open(path)) or one tensor, not {type(other).__name__}"
        )
    return found


def to_picture(image: "Tensor") -> "Image.Image":
    """The PIL image of ``(C, H, W)`` with 1 or 3 channels, bytes or floats from 0 to 1.

    Raises:
        UserError: another shape, or other values.
    """
    import torch
    from PIL import Image

    if image.shape[0] not in (1, 3) or not image.numel():
        raise UserError(f"{SHAPE}, not of {tuple(image.shape)}")
    if image.is_floating_point():
        low, high = float(image.min()), float(image.max())
        if not (low >= 0 and high <= 1):
            raise UserError(
                f"a tensor of floats holds values from 0 to 1, this one {low:.3g} to {high:.3g}; "
                "divide bytes by 255, or give a normalised tensor to .model"
            )
        image = (image.float() * 255).round().to(torch.uint8)
    if image.dtype != torch.uint8:
        raise UserError(f"a tensor of images holds bytes (uint8) or floats, not {image.dtype}")
    values = image.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(values)


@check_arguments
def load(source: str | Path, *, device: str | None = None) -> Classifier:
    """Open something trained, ready to predict::

        import vitrail

        classifier = vitrail.load("runs/photos-1")
        probabilities = classifier.predict([image])      # PIL images or a tensor -> (B, classes)
        print(classifier.classes[probabilities[0].argmax()])

    Args:
        source: a run folder or a job of a study (its best weights), a weights file in one, a folder
            of :func:`vitrail.hub.save_timm`, such a repository ``"owner/name[@revision]"`` on the
            Hugging Face hub, or ``"timm:NAME[.TAG]"`` with the weights that timm releases.
        device: where the model runs: a GPU where there is one, unless another is named.

    Raises:
        UserError: nothing there, no Vitrail card in the weights, a plug-in that is not trusted
            here, or a net that is away.
    """
    here = is_there(Path(source)) or not is_repository(str(source))
    return open_run(source if here else download(str(source)), device)


def open_released(text: str, device: str | None = None) -> Classifier:
    """A model of timm's with its released weights, its head and the names of its classes.

    Raises:
        UserError: timm has no such weights, or they cannot be had.
    """
    from vitrail.data import Preprocess
    from vitrail.hub.released import find_released, released_classes
    from vitrail.tasks.card import Card

    weights = find_released(text)
    preprocess = Preprocess.from_dict(dict(weights.preprocess))
    card = Card(
        model=text,
        classes=released_classes(weights.classes or 0),
        image=preprocess.image,
        in_chans=preprocess.in_chans,
        preprocess=preprocess.to_dict(),
    )
    model = create_from_card(card, weights=weights).eval().to(choose_device(device))
    return Classifier(model=model, card=card, classes=card.classes, preprocess=preprocess)


def choose_device(device: str | None) -> str:
    """The device named, else a GPU where there is one.

    Raises:
        UserError: there is no such device here.
    """
    import torch

    from vitrail.cost.candidates import check_device

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    check_device(device)
    return device


def open_run(folder: str | Path, device: str | None = None) -> Classifier:
    """The best weights of a folder that Vitrail saved (or one of its files), ready to predict.

    A run, a job of a study, a folder of :func:`vitrail.hub.save_timm`; ``timm:NAME`` as released.
    ``device`` is where the model runs: a GPU where there is one, unless another is named.

    Raises:
        UserError: no such folder, no weights in it yet, weights that do not fit their card, or a
            plugin that is no longer there.
    """
    if str(folder).startswith(TIMM) and not is_there(Path(folder)):
        return open_released(str(folder), device)
    from vitrail.data import Preprocess
    from vitrail.models.weights import check_finite, check_kinds
    from vitrail.tasks.card import load_weights

    device = choose_device(device)
    path = weights_of(Path(folder))
    card = read_fitting_card(path, run_of(Path(folder)))
    preprocess = Preprocess.from_dict(card.preprocess or {"image": card.image})
    model = create_from_card(card)
    state = load_weights(path)
    check_kinds(state, model.state_dict())
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"the weights in {str(path)!r} do not fit {card.model}") from error
    check_finite(model, repr(str(path)))
    model = model.eval().to(device)
    return Classifier(model, card, card.classes, preprocess)
