"""How near the machine's ceilings: the roofline of Williams, Waterman and Patterson (2009).

matrix products of many shapes -> the arithmetic ceiling, multiply-adds a second
copies and sums of many sizes  -> the bandwidth ceiling, bytes a second
work (macs, bytes, seconds)    -> least time = max(macs / arithmetic, bytes / bandwidth) / seconds

The bytes of a work are what its operators read and write if no cache keeps anything: a work that
stays in the caches can be nearer than 100 %.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import linear

from vitrail.cost.candidates import PRECISIONS, Settings, time_interleaved
from vitrail.cost.timing import Timing
from vitrail.errors import UserError, figure_text
from vitrail.files import atomic_file, sweep_dead

Shape = tuple[int, int, int]

SHAPES: tuple[Shape, ...] = (  # rows, inner, columns
    (1024, 1024, 1024),
    (2048, 2048, 2048),
    (3136, 64, 512),  # a wide feed-forward at 56 x 56 places
    (3136, 512, 64),
    (784, 128, 1024),
    (197, 384, 1536),  # ViT-S, one picture
    (1576, 384, 1536),  # and eight
    (49, 512, 2048),
)
"""Matrix products as the models have them, and two that should be as fast as can be."""
ARRAYS = tuple(2**power for power in (17, 20, 23, 26, 28))
"""Bytes of one array: from what every cache holds to what none does."""
HEAVY = {"cuda": ((8192, 8192, 8192),)}
"""A GPU needs more to be busy."""


class Work(Protocol):
    """Something done: a layer, or a model's call."""

    @property
    def seconds(self) -> float: ...
    @property
    def macs(self) -> int: ...
    @property
    def traffic(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Product:
    """A matrix product: rows x inner times inner x columns, median and best multiply-adds/s."""

    shape: Shape
    median: float
    best: float


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Arrays of ``size`` bytes, copied (``read + write``) or summed (``2 read + write``)."""

    kind: str
    size: int
    median: float
    best: float


@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """What the machine can do, in one precision, with one number of threads."""

    precision: str
    threads: int
    device: str
    products: tuple[Product, ...]
    streams: tuple[Stream, ...]
    quiet: bool

    @property
    def arithmetic(self) -> float:
        """Multiply-adds a second: the fastest product's best window."""
        return max(product.best for product in self.products)

    @property
    def bandwidth(self) -> float:
        """Bytes a second of main memory: the best window with the largest arrays."""
        largest = max(stream.size for stream in self.streams)
        return max(stream.best for stream in self.streams if stream.size == largest)

    @property
    def cache_bandwidth(self) -> float:
        """Bytes a second of the fastest cache that was tried."""
        return max(stream.best for stream in self.streams)

    def least(self, work: Work) -> float:
        """Seconds that the work must take if all its bytes come from main memory."""
        return max(work.macs / self.arithmetic, work.traffic / self.bandwidth)

    def near(self, work: Work) -> float:
        """The least time over the time taken; 0 where nothing was timed."""
        return self.least(work) / work.seconds if work.seconds else 0.0

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self) | {
            "arithmetic_macs_per_s": self.arithmetic,
            "bandwidth_bytes_per_s": self.bandwidth,
            "cached_bytes_per_s": self.cache_bandwidth,
        }


def ceilings(
    settings: Settings | None = None,
    *,
    shapes: Sequence[Shape] = (),
    arrays: Sequence[int] = (),
    on_step: Callable[[str], None] | None = None,
) -> Ceilings:
    """Measure the machine, all shapes and sizes interleaved.

    Args:
        settings: device, precision, threads, rounds and windows.
        shapes: matrix products; none means :data:`SHAPES`, and larger ones on a GPU.
        arrays: bytes of one array for the bandwidth; none means :data:`ARRAYS`.
        on_step: told after each window.
    """
    settings = settings or Settings()
    kind = settings.device.partition(":")[0]
    products = {f"product {s}": s for s in shapes or (*SHAPES, *HEAVY.get(kind, ()))}
    streams = {f"{op} {size}": (op, size) for size in arrays or ARRAYS for op in STREAMS}
    calls = {name: product_call(shape, settings) for name, shape in products.items()}
    calls |= {name: STREAMS[op](size, settings.device) for name, (op, size) in streams.items()}
    timings = time_interleaved(
        calls, replace(settings, warmup_s=min(settings.warmup_s, 0.5)), on_step
    )
    return Ceilings(
        precision=settings.precision,
        threads=next(iter(timings.values())).threads,
        device=settings.device,
        products=tuple(
            Product(shape=shape, **rates(timings[name], shape[0] * shape[1] * shape[2]))
            for name, shape in products.items()
        ),
        streams=tuple(
            Stream(kind=op, size=size, **rates(timings[name], MOVED[op] * size))
            for name, (op, size) in streams.items()
        ),
        quiet=all(timing.quiet for timing in timings.values()),
    )


def rates(timing: Timing, amount: int) -> dict[str, float]:
    """Amount a second, in the median and the best window."""
    return {"median": amount / timing.median, "best": amount / timing.best}


def product_call(shape: Shape, settings: Settings) -> Callable[[], object]:
    """A linear layer's product, in the precision of the settings."""
    rows, inner, columns = shape
    dtype = PRECISIONS[settings.precision] or torch.float32
    x = torch.randn(rows, inner, device=settings.device, dtype=dtype)
    weight = torch.randn(columns, inner, device=settings.device, dtype=dtype)

    def call() -> object:
        with torch.inference_mode():
            return linear(x, weight)

    return call


def copy_call(size: int, device: str) -> Callable[[], object]:
    """One array into another."""
    source, target = array(size, device), array(size, device)
    return lambda: target.copy_(source)


def sum_call(size: int, device: str) -> Callable[[], object]:
    """Two arrays into a third."""
    a, b, out = (array(size, device) for _ in range(3))
    return lambda: torch.add(a, b, out=out)


def array(size: int, device: str) -> Tensor:
    """``size`` bytes that the system has really given."""
    return torch.ones(max(1, size // 4), device=device)


STREAMS: Mapping[str, Callable[[int, str], Callable[[], object]]] = {
    "copy": copy_call,
    "sum": sum_call,
}
MOVED = {"copy": 2, "sum": 3}


def tables(found: Ceilings) -> list[Any]:
    """``rich`` tables of what was measured, the ceilings below."""
    from vitrail.console import make_table

    where = f"{found.precision}, {found.threads} thread(s), {found.device}"
    products = make_table(
        ("rows x inner x columns", "GMAC/s", "best"),
        [
            (" x ".join(map(str, p.shape)), f"{p.median / 1e9:.1f}", f"{p.best / 1e9:.1f}")
            for p in found.products
        ],
        left=0,
        title=f"Matrix products, {where}",
    )
    streams = make_table(
        ("operation", "MB an array", "GB/s", "best"),
        [
            (s.kind, f"{s.size / 2**20:g}", f"{s.median / 1e9:.1f}", f"{s.best / 1e9:.1f}")
            for s in found.streams
        ],
        title="Memory",
    )
    noisy = "" if found.quiet else "; NOISY: other processes used the CPU"
    return [
        products,
        streams,
        f"ceilings: {found.arithmetic / 1e9:.1f} GMAC/s, {found.bandwidth / 1e9:.1f} GB/s from "
        f"main memory, {found.cache_bandwidth / 1e9:.1f} GB/s at best from a cache{noisy}",
    ]


def draw(
    found: Ceilings,
    works: Mapping[str, Sequence[Work]],
    path: Path,
    *,
    overwrite: bool = False,
) -> Path:
    """Draw the roof and every work under it: multiply-adds/s over multiply-adds a byte.

    Args:
        found: the roof.
        works: model -> its call first, then its layers.
        path: an SVG, PNG or PDF file.
        overwrite: write over a file that exists.

    Raises:
        UserError: the file exists and ``overwrite`` is not set.
    """
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists; choose another name or ask for it to be overwritten")
    from matplotlib.figure import Figure  # late: most runs draw nothing

    figure = Figure(figsize=(7, 4.8), layout="constrained")
    panel = figure.subplots()
    points = [p for some in works.values() for p in map(point, some) if p]
    roof(panel, found, [x for x, _ in points])
    for name, (first, *layers) in works.items():
        small = [p for p in map(point, layers) if p]
        spot = zip(*filter(None, [point(first)]), strict=True)
        (line,) = panel.plot(*spot, "o", label=figure_text(name))
        if small:
            panel.plot(*zip(*small, strict=True), ".", color=line.get_color(), alpha=0.45)
    where = f"{found.precision}, {found.threads} thread(s), {found.device}"
    panel.set(xscale="log", yscale="log", xlabel="multiply-adds a byte moved", ylabel="GMAC/s")
    panel.set_title(f"Roofline: {where}", fontsize=10)
    panel.legend(fontsize=8, frameon=False)
    panel.grid(alpha=0.3)
    sweep_dead(path.parent)
    with atomic_file(path) as draft:
        figure.savefig(draft, format=path.suffix[1:].lower() or "png")
    return path


def point(work: Work) -> tuple[float, float] | None:
    """(Multiply-adds a byte, GMAC/s); None for a work without multiply-adds."""
    if not (work.macs and work.traffic and work.seconds):
        return None
    return work.macs / work.traffic, work.macs / work.seconds / 1e9


def roof(panel: Any, found: Ceilings, used: Sequence[float]) -> None:
    """The ceilings as lines, wide enough for the points and for the ridge."""
    ridge = found.arithmetic / found.bandwidth
    low, high = min([*used, ridge]) / 2, max([*used, ridge]) * 2
    xs = sorted({low, ridge, found.arithmetic / found.cache_bandwidth, high})
    for speed, style, name in (
        (found.bandwidth, "-", "main memory"),
        (found.cache_bandwidth, ":", "cache"),
    ):
        ys = [min(found.arithmetic, x * speed) / 1e9 for x in xs]
        panel.plot(xs, ys, style, color="0.35", label=f"{name}, {speed / 1e9:.0f} GB/s")
