"""An exported file in ONNX Runtime and in OpenVINO: which serves it faster on a CPU?

``python -m benchmarks.runtimes --help``; the rules are in ``README.md`` beside this file. OpenVINO
is no dependency of Vitrail: ``pip install openvino``.

model -> model.onnx, checked -> ONNX Runtime, OpenVINO in float32 and in bf16, interleaved
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

import vitrail
from benchmarks import contract
from vitrail.cost import ratio, time_side_by_side
from vitrail.errors import UserError
from vitrail.export import to_onnx

YARDSTICK = "onnxruntime"
BARS = (contract.Bar(arm="openvino f32", against=YARDSTICK, at_least=1.0),)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to run.

    Attributes:
        models: names or calls.
        image: edge in pixels.
        batches: pictures a call.
        threads: of either runtime.
        rounds: undisturbed windows wanted of each candidate.
        window_s: least seconds of a window.
        warmup_s: least seconds of warm-up.
        out: folder for the result file.
    """

    models: tuple[str, ...] = ("vit_small", "coat_lite_tiny", "cmt_ti", "mobilevit_xxs")
    image: int = 224
    batches: tuple[int, ...] = (1, 8)
    threads: int = 2
    rounds: int = 5
    window_s: float = 0.3
    warmup_s: float = 0.5
    out: Path = contract.RESULTS


def main(options: Options) -> Path:
    """Export, time and compare each model, write the file and give its path."""
    record = contract.Record("runtimes", asdict(options), options.out, BARS)
    for model in options.models:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            torch.manual_seed(0)
            example = torch.randn(1, 3, options.image, options.image)
            to_onnx(vitrail.create(model, image=options.image).eval(), example, path)
            for batch in options.batches:
                rows = measure(model, path, batch, options)
                record.add(rows)
                for row in rows:
                    print(line(row), flush=True)
    record.close()
    return record.path


def measure(model: str, path: Path, batch: int, options: Options) -> list[dict[str, Any]]:
    """One interleaved run of all runtimes.

    Raises:
        UserError: OpenVINO is not installed, or the float32 answers differ.
    """
    shape = (batch, 3, options.image, options.image)
    pictures = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    arms = {
        YARDSTICK: onnxruntime(path, pictures, options.threads),
        "openvino f32": openvino(path, pictures, options.threads, "f32"),
        "openvino bf16": openvino(path, pictures, options.threads, "bf16"),
    }
    first, second = arms[YARDSTICK](), arms["openvino f32"]()
    apart = float(np.abs(first - second).max() / np.abs(first).max())
    if apart > 1e-4:
        raise UserError(f"{model}: the runtimes differ by {apart:.1e} of the largest logit")
    timings = time_side_by_side(
        arms,
        rounds=options.rounds,
        window_s=options.window_s,
        warmup_s=options.warmup_s,
        threads=options.threads,
    )
    facts = {"model": model, "image": options.image, "batch": batch, "apart": apart}
    return [
        contract.row(
            name,
            own,
            {} if name == YARDSTICK else {YARDSTICK: ratio(own, timings[YARDSTICK])},
            images_per_s=own.rate(batch),
            **facts,
        )
        for name, own in timings.items()
    ]


def onnxruntime(path: Path, pictures: np.ndarray, threads: int) -> Callable[[], np.ndarray]:
    """A call of ONNX Runtime."""
    package = import_module("onnxruntime")
    settings = package.SessionOptions()
    settings.intra_op_num_threads = threads
    session = package.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"pictures": pictures})[0]


def openvino(
    path: Path, pictures: np.ndarray, threads: int, precision: str
) -> Callable[[], np.ndarray]:
    """A call of OpenVINO, compiled for the batch."""
    try:
        core = import_module("openvino").Core()
    except ModuleNotFoundError as missing:
        raise UserError("OpenVINO is not installed: pip install openvino") from missing
    model = core.read_model(path)
    model.reshape(list(pictures.shape))
    wishes = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision}
    compiled = core.compile_model(model, "CPU", {**wishes, "PERFORMANCE_HINT": "LATENCY"})
    return lambda: compiled(pictures)[0]


def line(row: Mapping[str, Any]) -> str:
    """A row for people."""
    ratios = "".join(f"  {o['ratio']:.2f} x {o['arm']}" for o in row["against"])
    return (
        f"{row['model']:16} batch {row['batch']}  {row['arm']:14} "
        f"{row['time']['median_ms']:8.1f} ms{ratios}"
    )


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Options, description=__doc__))
