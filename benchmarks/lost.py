"""What is lost when working tokens stand for others: by block, and in answers, without training.

``python -m benchmarks.lost RUN --data PICTURES``: a trained plain run is given each reducer.

at each block:  features f (what the mixer would see) -> means of what works together -> back: g
                lost = |f - g|^2 / |f - mean of f|^2
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torch import Tensor

from benchmarks.placing import PLAIN, many
from vitrail.data import PictureSet, batches, fraction, open_pictures, plain_order
from vitrail.hub import give_reducer, open_run
from vitrail.models import Backbone
from vitrail.reducers import Reducer
from vitrail.tasks import evaluate


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to look at.

    Attributes:
        run: folder of a trained plain backbone.
        data: the pictures; their test part is shown, or validation where there is none.
        reducers: put into every stage but the last of a pyramid.
        tested: pictures for the accuracy.
        looked: of these, for what is lost.
    """

    run: Annotated[Path, tyro.conf.Positional]
    data: str
    reducers: tuple[str, ...] = ("pool", "cluster", "cluster(by='kmeans')", "cluster(by='sort')")
    tested: int = 1000
    looked: int = 64


def main(options: Options) -> dict[str, tuple[float, list[float]]]:
    """Print and give, by reducer, the accuracy and what each block loses."""
    run = open_run(options.run)
    plain = give_reducer(run.model, PLAIN)
    pictures = open_pictures(options.data)
    items = pictures.split("test") or pictures.split("val")
    items = fraction(items, min(1.0, options.tested / len(items)), 0)
    shown = PictureSet(pictures, items, run.preprocess.transform(), 0)
    step = max(1, len(items) // options.looked)
    some = torch.stack([shown[i][0] for i in range(0, len(items), step)])
    found = {}
    for reducer in (PLAIN, *options.reducers):
        model = give_reducer(plain, many(plain, reducer)).eval()
        order = plain_order(len(items), batch=50)
        scores = evaluate(model, batches(shown, order=order, workers=0), len(pictures.classes))
        found[reducer] = scores.accuracy, lost(model, some)
        blocks = " ".join(f"{share:.2f}" for share in found[reducer][1])
        print(f"{reducer:22} {scores.accuracy:6.1%}  lost by block: {blocks}", flush=True)
    return found


def lost(model: Backbone, pictures: Tensor) -> list[float]:
    """The share of the variance between tokens that each reduced block loses, in their order.

    ``pictures`` are ``(B, 3, H, W)``.
    """
    shares: list[float] = []
    with torch.no_grad(), watching(model, shares):
        model(pictures)
    return shares


@contextmanager
def watching(model: Backbone, shares: list[float]) -> Iterator[None]:
    """Every reducer's answer is weighed as it is given."""

    def weigh(_: Any, given: tuple[Any, ...], answer: tuple[Any, ...]) -> None:
        x, grid, look = given
        plan = answer[1]
        features = look(x)
        back = plan.restore(plan.reduce(features))
        extra = x.shape[1] - grid[0] * grid[1]
        features, back = features[:, extra:], back[:, extra:]
        whole = (features - features.mean(1, keepdim=True)).square().sum()
        shares.append(float((features - back).square().sum() / whole))

    hooks = [m.register_forward_hook(weigh) for m in model.modules() if isinstance(m, Reducer)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
