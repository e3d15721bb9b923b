"""An exported file in ONNX Runtime and in OpenVINO: which serves it faster on a CPU?

``python -m benchmarks.runtimes --help``; the rules are in ``README.md`` beside this file. OpenVINO
comes with the extra ``vitrail[openvino]``.

model -> model.onnx, checked -> ONNX Runtime, OpenVINO in float32 and in bf16, interleaved
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

import vitrail
from benchmarks import command, contract
from vitrail.cost import Settings, ratio
from vitrail.cost.candidates import time_interleaved
from vitrail.export import open_file, to_onnx
from vitrail.export.verify import compare, require

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
        ExportError: OpenVINO is not installed, or the float32 answers differ.
    """
    settings = Settings(
        image=options.image,
        batch=batch,
        threads=options.threads,
        rounds=options.rounds,
        window_s=options.window_s,
        warmup_s=options.warmup_s,
    )
    pictures = torch.randn(
        batch, 3, options.image, options.image, generator=torch.Generator().manual_seed(0)
    )
    opened = partial(open_file, path, options.threads)
    answers = {
        YARDSTICK: opened(),
        "openvino f32": opened(kind="openvino"),
        "openvino bf16": opened(kind="openvino", precision="bf16"),
    }
    apart = compare(answers[YARDSTICK], answers["openvino f32"], [pictures])
    require(apart, 1e-4, f"{model} in OpenVINO")
    timings = time_interleaved(
        {name: partial(one, pictures) for name, one in answers.items()}, settings
    )
    facts = {"model": model, "image": options.image, "batch": batch, "apart": apart[0].relative}
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


def line(row: Mapping[str, Any]) -> str:
    """A row for people."""
    ratios = "".join(f"  {o['ratio']:.2f} x {o['arm']}" for o in row["against"])
    return (
        f"{row['model']:16} batch {row['batch']}  {row['arm']:14} "
        f"{row['time']['median_ms']:8.1f} ms{ratios}"
    )


if __name__ == "__main__":
    command.run(main, Options, __doc__)
