"""Does relevance add up? Pixels and constants against the score, model by model.

``python -m benchmarks.lrp_conservation --help``. No times, so it runs on a busy machine as well.

LRP-0 in double precision and in single, gamma (the default) in single; biases, norms and statistics
are drawn, since fresh ones are zero and would prove nothing. Writes one JSON row a model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import vitrail
from benchmarks import command
from vitrail.attribution import explain
from vitrail.files import write_text

PLAIN: Mapping[str, Any] = {"conv": "zero", "linear": "zero"}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to run.

    Attributes:
        models: by name or call; none means one of each paper.
        image: edge in pixels.
        seed: of weights and picture.
        out: a JSON file for the rows; none prints only.
    """

    models: tuple[str, ...] = (
        "vit_tiny",
        "deit_tiny_distilled",
        "convit_tiny",
        "ceit_tiny",
        "cvt_13",
        "cct_7_7x2",
        "coat_lite_tiny",
        "clustering_coat_lite_tiny",
        "clustering_coat_lite_tiny_qf",
        "clustering_coat_lite_tiny_qs",
        "coat_tiny",
        "coatnet_0",
        "coatnet_nano_rw",
        "cmt_ti",
        "mobilevit_xxs",
        "filtervit_xs",
        "dropoutvit_xs",
        "filtervit_v2_xs",
    )
    image: int = 224
    seed: int = 0
    out: Path | None = None


def main(options: Options) -> list[dict[str, Any]]:
    """Print the table, and write it if asked to."""
    print(f"{'model':30} {'score':>9} {'pixels':>9} {'constants':>9}  left over: ", end="")
    print("LRP-0 float64, float32 (part of the largest), gamma float32")
    rows = []
    for name in options.models:
        row = measure(name, options)
        rows.append(row)
        print(
            f"{name:30} {row['score']:9.4f} {row['input']:9.4f} {row['bias']:9.4f}  "
            f"{row['float64']:.1e}  {row['float32']:.1e}  {row['gamma']:.1e}",
            flush=True,
        )
    if options.out is not None:
        import json

        write_text(options.out, json.dumps(rows, indent=1) + "\n")
    return rows


def measure(name: str, options: Options) -> dict[str, Any]:
    """One model."""
    torch.manual_seed(options.seed)
    model = perturb_weights(vitrail.create(name, image=options.image), options.seed)
    draw = torch.Generator().manual_seed(options.seed)
    picture = torch.randn(1, 3, options.image, options.image, generator=draw)
    single = explain(model, picture, "lrp", 0, **PLAIN).check
    gamma = explain(model, picture, "lrp", 0).check
    double = explain(model.double(), picture.double(), "lrp", 0, **PLAIN).check
    facts = {key: float(double[key]) for key in ("score", "input", "bias")}
    return {
        "model": name,
        "image": options.image,
        **facts,
        "float64": float(double["residual"].abs()),
        "float32": relative(single),
        "gamma": relative(gamma),
    }


def relative(check: Any) -> float:
    """What is left over, as a part of the largest of score, pixels and constants."""
    largest = max(float(check[key].abs()) for key in ("score", "input", "bias"))
    return float(check["residual"].abs()) / largest


def perturb_weights(model: nn.Module, seed: int) -> nn.Module:
    """Biases, norms and statistics drawn."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.dim() < 2 and tensor.is_floating_point():
                tensor.add_(0.2 * torch.randn(tensor.shape, generator=draw))
        for module in model.modules():
            if (
                isinstance(module, nn.modules.batchnorm._BatchNorm)
                and module.running_var is not None
            ):
                module.running_var.abs_().add_(0.2)
    return model.eval()


if __name__ == "__main__":
    command.run(main, Options, __doc__)
