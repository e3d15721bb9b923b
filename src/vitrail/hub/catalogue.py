"""Our own zoo as a table, without weights in memory: ``vitrail models``."""

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vitrail.cost import Count


def catalogue() -> list[dict[str, str]]:
    """Name, mixer and reducer by stage, and the paper, of every model."""
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


def count_on_meta(model: str, image: int) -> "Count":
    """Parameters, and multiply-adds of one picture with 1000 classes, of a model of our zoo.

    The model is built and run on torch's meta device, which takes neither memory nor arithmetic;
    one whose work follows the content (as many clusters as hashing finds) is built for real.

    Raises:
        UserError: an image size that the model cannot serve.
    """
    import torch

    from vitrail.cost import count, follows_content
    from vitrail.hub.resolve import create

    with torch.device("meta"):
        shell = create(model, classes=1000, image=image)
    if not follows_content(shell):
        with suppress(RuntimeError):  # a layer of one's own that reads a value
            return count(shell, image)
    return count(create(model, classes=1000, image=image), image)


def by_stage(specs: Sequence[str]) -> str:
    """One spec for all stages, or one each."""
    texts = [str(spec) for spec in specs]
    return texts[0] if len(set(texts)) == 1 else ", ".join(texts)
