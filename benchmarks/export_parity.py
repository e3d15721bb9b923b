"""Every model of the zoo optimised, as ONNX and as a torch program: how far from itself?

``python -m benchmarks.export_parity``: small variants of every name (64 px, few blocks, their own
wiring, weights of seed 0); names that come to the same small model are exported once. Prints the
largest difference per model and writes all of them; exit status 1 if one is above the tolerance.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from tests.export.small import distinct, pictures, smallest

from benchmarks import command, contract
from vitrail.cost import machine
from vitrail.export import ExportError, OutputDifference, optimize, to_onnx, to_torch
from vitrail.export.verify import worst
from vitrail.files import write_text

Way = Literal["optimize", "bf16", "onnx", "torch"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to export.

    Attributes:
        ways: optimize (float32), bf16 (optimised), onnx (ONNX Runtime), torch (torch.export).
        models: only names that begin so; none means all.
        any_size: ask the files for pictures of any size, and say which models can.
        out: folder for the result file.
    """

    ways: tuple[Way, ...] = ("optimize", "onnx", "torch")
    models: tuple[str, ...] = ()
    any_size: bool = False
    out: Path = contract.RESULTS / "parity"


def differences(way: Way, model: torch.nn.Module, any_size: bool) -> tuple[OutputDifference, ...]:
    """One model, one way."""
    if way in ("optimize", "bf16"):
        precision: Any = {"optimize": "float32", "bf16": "bf16"}[way]
        made = optimize(model, pictures(2), precision=precision, compile=False)
        return made.report.differences
    write: Callable[..., Any] = {"onnx": to_onnx, "torch": to_torch}[way]
    with TemporaryDirectory() as folder:
        path = Path(folder) / {"onnx": "m.onnx", "torch": "m.pt2"}[way]
        found: tuple[OutputDifference, ...] = write(
            model, pictures(2), path, any_size=any_size
        ).differences
        return found


def rows(options: Options) -> Iterator[dict[str, Any]]:
    """One row for each small model and way, as soon as it is known."""
    for name, names in distinct().items():
        if options.models and not name.startswith(options.models):
            continue
        for way in options.ways:
            began = time.perf_counter()
            row: dict[str, Any] = {"model": name, "same": names[1:], "way": way}
            torch.manual_seed(0)
            try:
                found = worst(differences(way, smallest(name), options.any_size))
                row |= {**found.to_dict(), "problem": ""}
            except ExportError as error:
                row |= {"problem": str(error)}
            yield row | {"seconds": time.perf_counter() - began}


def line(row: dict[str, Any]) -> str:
    """A row for people."""
    also = f" (= {', '.join(row['same'])})" if row["same"] else ""
    said = row["problem"] or f"{row['largest']:.1e} ({row['relative']:.1e} of the largest output)"
    return f"{row['model']:28} {row['way']:8} {row['seconds']:5.1f} s  {said}{also}"


def write(options: Options, done: list[dict[str, Any]], path: Path) -> None:
    """The result file, as far as it goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    result = {
        "benchmark": "export_parity",
        "command": " ".join(["python -m benchmarks.export_parity", *sys.argv[1:]]),
        "machine": machine(),
        "settings": asdict(options),
        "rows": done,
    }
    write_text(path, json.dumps(result, indent=1, default=str) + "\n")


def main(options: Options) -> int:
    """Export everything, print and write."""
    path = options.out / f"export_parity-{contract.stamp()}.json"
    done: list[dict[str, Any]] = []
    for row in rows(options):
        print(line(row), flush=True)
        done.append(row)
        write(options, done, path)  # after each: a sweep takes half an hour
    bad = [row for row in done if row["problem"]]
    near = [row["relative"] for row in done if not row["problem"]]
    print(
        f"{len(near)} of {len(done)} agree, largest difference {max(near, default=0):.1e} of the "
        f"largest output; {len(bad)} refused or apart; written: {path}"
    )
    return 1 if bad and not options.any_size else 0


if __name__ == "__main__":
    command.run(main, Options, __doc__)
