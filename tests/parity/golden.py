"""Outputs that original implementations gave, and the weights they gave them with.

``tests/goldens/<name>.json`` holds an original's state-dict names and shapes, the input's shape
and the outputs. Weights are not kept: each tensor follows from its own name and shape, so the
original, filled so when the file was made, and our model, which loads them under the original's
names, agree.
"""

import json
import zlib
from pathlib import Path

import numpy
import torch
from torch import Tensor

FOLDER = Path(__file__).parents[1] / "goldens"


def fill(name: str, shape: tuple[int, ...]) -> Tensor:
    """Variances positive, scales near one, the rest small enough to keep signals in range."""
    noise = numpy.random.Generator(numpy.random.PCG64(zlib.crc32(name.encode())))
    x = torch.from_numpy(noise.standard_normal(shape).astype(numpy.float32))
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.long)
    if name == "input":
        return x
    if name.endswith("running_var"):
        return 0.5 + x.abs()
    if len(shape) >= 2 and shape[0] > 1:
        return x / numpy.sqrt(numpy.prod(shape[1:]))
    return 1 + 0.1 * x if name.endswith(("weight", "scale")) and shape[0] > 1 else 0.1 * x


def weights(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    return {name: fill(name, tuple(shape)) for name, shape in shapes.items()}


def load(name: str) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """State dict, input and the output the original gave."""
    kept = json.loads((FOLDER / f"{name}.json").read_text())
    return (
        weights(kept["shapes"]),
        fill("input", tuple(kept["input"])),
        torch.tensor(kept["output"]),
    )


def save(name: str, source: str, model: torch.nn.Module, x: tuple[int, ...], *args: object) -> None:
    """Make a golden from an original implementation, which lies outside this repository."""
    shapes = {n: list(t.shape) for n, t in model.state_dict().items()}
    model.load_state_dict(weights(shapes))
    with torch.no_grad():
        output = model.eval()(fill("input", x), *args)
    kept = {"source": source, "input": list(x), "output": output.tolist(), "shapes": shapes}
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(kept) + "\n")
