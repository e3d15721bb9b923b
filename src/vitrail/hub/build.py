"""A model from its text: our own zoo, or a baseline from timm."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitrail.errors import UserError
from vitrail.hub.baselines import create_baseline

if TYPE_CHECKING:
    from torch import nn

TIMM = "timm:"


def build(
    arm: str,
    *,
    classes: int,
    image: int,
    in_chans: int = 3,
    drop_path: float = 0.0,
    weights: str | Path | None = None,
) -> "nn.Module":
    """The model that ``arm`` names: ``"coat_lite_tiny(mixer='softmax')"`` or ``"timm:resnet18"``.

    ``forward`` takes ``(B, in_chans, image, image)`` and gives logits ``(B, classes)``. Nothing is
    downloaded: weights are random unless ``weights`` is a file.

    Raises:
        UserError: no such model or option, or a model that cannot serve this image size,
            or weights that are not finite.
    """
    options: dict[str, Any] = {"classes": classes, "image": image, "in_chans": in_chans}
    options |= {"drop_path": drop_path, "weights": weights}
    if arm.startswith(TIMM):
        model: nn.Module = create_baseline(arm.removeprefix(TIMM), **options)
    else:
        import vitrail

        model = vitrail.create(arm, **options)
    if weights is not None:
        from vitrail.models.weights import check_finite

        check_finite(model, repr(str(weights)))
    return model


def check_fit(
    model: "nn.Module", text: str, *, classes: int, image: int, in_chans: int = 3
) -> None:
    """Let a model look at one blank picture, before anything is trained.

    Raises:
        UserError: it cannot take such pictures, or does not answer with a logit a class.
    """
    import torch

    was_training, blank = model.training, torch.zeros(1, in_chans, image, image)
    try:
        with torch.inference_mode(), torch.random.fork_rng(devices=[]):
            logits = model.eval()(blank)
    except (RuntimeError, LookupError, ArithmeticError, TypeError, AssertionError) as error:
        raise UserError(f"{text} cannot take pictures of {image} px: {error}") from error
    finally:
        model.train(was_training)
    if logits.shape != (1, classes):
        raise UserError(
            f"{text} answers {tuple(logits.shape)}, not one logit for each of {classes} classes; "
            "leave 'classes' out of its text"
        )


def catalogue() -> list[dict[str, str]]:
    """Our own zoo, built of nothing: name, mixer and reducer by stage, and the paper."""
    from vitrail.models.zoo import everything

    return [
        {
            "model": name,
            "mixer": by_stage(entry.config.mixer),
            "reducer": by_stage(entry.config.reducer),
            "paper": (entry.paper.__doc__ or "").strip().splitlines()[0].rstrip("."),
        }
        for name, entry in sorted(everything().items())
    ]


def by_stage(specs: Sequence[str]) -> str:
    """One spec for all stages, or one each."""
    texts = [str(spec) for spec in specs]
    return texts[0] if len(set(texts)) == 1 else ", ".join(texts)
