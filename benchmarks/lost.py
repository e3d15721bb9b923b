"""What is lost when working tokens stand for others: by block, and in answers, without training.

``python -m benchmarks.lost RUN --data PICTURES``: a trained plain run is given each reducer.

at each choice: features f (what the mixer would see) -> means of what works together -> back: g
                lost = |f - g|^2 / |f - mean of f|^2
in answers:     accuracy; the share that is answered as before; KL(plain || reduced), in nats

Answers tell apart what accuracy cannot: in a thousand pictures it moves a point by chance.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from benchmarks import command
from benchmarks.placing import PLAIN, many
from vitrail.data import ImageTensors, open_dataset, take_fraction
from vitrail.hub import give_reducer, open_run
from vitrail.models import Backbone
from vitrail.reducers import Reducer


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


@dataclass(frozen=True, kw_only=True)
class Lost:
    """What a reducer costs a trained model.

    Attributes:
        accuracy: share of right answers.
        same: share of answers that are the plain model's.
        divergence: KL(plain || reduced), the mean over pictures, in nats.
        blocks: what each choice of working tokens loses.
    """

    accuracy: float
    same: float
    divergence: float
    blocks: list[float]

    def __str__(self) -> str:
        blocks = " ".join(f"{share:.2f}" for share in self.blocks)
        answers = f"{self.accuracy:6.1%}, {self.same:6.1%} as before, KL {self.divergence:.4f}"
        return f"{answers}  lost by choice: {blocks}"


def main(options: Options) -> dict[str, Lost]:
    """Print and give, by reducer, what is lost in answers and at each choice."""
    run = open_run(options.run)
    plain = give_reducer(run.model, PLAIN)
    pictures = open_dataset(options.data)
    items = pictures.split("test") or pictures.split("val")
    items = take_fraction(items, min(1.0, options.tested / len(items)), 0)
    shown = ImageTensors(pictures, items, run.preprocess.transform(), 0)
    asked = [shown[i] for i in range(len(items))]
    images, labels = torch.stack([a[0] for a in asked]), torch.tensor([int(a[1]) for a in asked])
    some = images[:: max(1, len(items) // options.looked)]
    said, found = logits(plain.eval(), images), {}
    for reducer in (PLAIN, *options.reducers):
        model = give_reducer(plain, many(plain, reducer)).eval()
        found[reducer] = compare_logits(logits(model, images), said, labels, lost(model, some))
        print(f"{reducer:30} {found[reducer]}", flush=True)
    return found


def logits(model: Backbone, images: Tensor) -> Tensor:
    """Answers ``(B, classes)``, fifty pictures at a time."""
    with torch.inference_mode():
        return torch.cat([model(part) for part in images.split(50)])


def compare_logits(said: Tensor, before: Tensor, labels: Tensor, blocks: list[float]) -> Lost:
    """Answers beside the plain model's, both ``(B, classes)``."""
    own, plain = said.log_softmax(1), before.log_softmax(1)
    return Lost(
        accuracy=float((said.argmax(1) == labels).float().mean()),
        same=float((said.argmax(1) == before.argmax(1)).float().mean()),
        divergence=float(F.kl_div(own, plain, reduction="batchmean", log_target=True)),
        blocks=blocks,
    )


def lost(model: Backbone, pictures: Tensor) -> list[float]:
    """The share of the variance between tokens that each choice loses, in their order.

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
    command.run(main, Options, __doc__)
