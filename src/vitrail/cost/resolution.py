"""How cost grows with the picture: several models at several sizes, all in one interleaved run.

models x sizes -> GrowthRow each -> cost ~ pixels ** exponent, one fit a model and quantity

An exponent of 1 is linear in the number of tokens, 2 is quadratic. Fixed overheads flatten the
small end, so the slope between the two largest sizes stands beside the fit.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

from vitrail.cost.candidates import (
    DEFAULT_BUILD,
    Build,
    Settings,
    build_on_device,
    forward,
    time_interleaved,
)
from vitrail.cost.counting import count, follows_content
from vitrail.cost.peak import memory
from vitrail.cost.timing import Timing
from vitrail.errors import UserError, figure_text
from vitrail.files import atomic_file, sweep_dead


@dataclass(frozen=True, kw_only=True)
class GrowthRow:
    """One model at one size; seconds are those of a whole batch, memory is the forward's peak."""

    model: str
    image: int
    macs: int
    timing: Timing
    memory: int | None

    @property
    def seconds(self) -> float:
        """Median wall seconds of a batch."""
        return self.timing.median

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "model": self.model,
            "image": self.image,
            "macs": self.macs,
            "memory_bytes": self.memory,
            "time": self.timing.to_dict(),
        }


@dataclass(frozen=True, kw_only=True)
class Exponent:
    """``cost ~ pixels ** exponent``: least squares on logarithms, with its share of explained
    variance, and the slope between the two largest sizes.
    """

    model: str
    quantity: str
    exponent: float
    r2: float
    last: float


@dataclass(frozen=True, kw_only=True)
class Growth:
    """All rows and all fits of one run."""

    settings: Settings
    rows: tuple[GrowthRow, ...]
    exponents: tuple[Exponent, ...]

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "settings": asdict(self.settings),
            "rows": [row.to_dict() for row in self.rows],
            "exponents": [asdict(fit) for fit in self.exponents],
        }

    def of(self, model: str) -> tuple[GrowthRow, ...]:
        """One model's rows, from small pictures to large."""
        return tuple(sorted((r for r in self.rows if r.model == model), key=lambda r: r.image))


QUANTITIES: dict[str, Callable[[GrowthRow], float | None]] = {
    "macs": lambda row: row.macs,
    "seconds": lambda row: row.seconds,
    "memory": lambda row: row.memory,
}


def growth(
    models: Sequence[str],
    sizes: Sequence[int],
    *,
    settings: Settings | None = None,
    build: Build | str = DEFAULT_BUILD,
    with_memory: bool = True,
    most_macs: float = math.inf,
    on_step: Callable[[str], None] | None = None,
) -> Growth:
    """Measure every model at every size (edge in pixels), interleaved, and fit the growth.

    Each model is built anew for each size, since many can serve only one. A size at which a model
    takes more than ``most_macs`` multiply-adds is left out for that model, which then must have
    shapes that do not depend on the picture.

    Raises:
        UserError: fewer than two sizes or no model, or one that cannot be built at a size.
    """
    settings, tell = settings or Settings(batch=1), on_step or (lambda text: None)
    if not models or len(set(sizes)) < 2:
        raise UserError("growth needs at least one model and two different sizes")
    at = {
        (model, image): replace(settings, image=image)
        for model, image in product(dict.fromkeys(models), sorted(set(sizes)))
    }
    macs: dict[tuple[str, int], int] = {}
    if most_macs < math.inf:
        macs = {key: _count_on_meta(key[0], where, build) for key, where in at.items()}
        at = {key: where for key, where in at.items() if macs[key] <= most_macs}
    timings, macs = _time_all(at, macs, settings, build, tell)
    rows = [
        GrowthRow(
            model=key[0],
            image=key[1],
            macs=macs[key],
            timing=timings[_name(*key)],
            memory=_memory(key[0], where, build, tell) if with_memory else None,
        )
        for key, where in at.items()
    ]
    return Growth(settings=settings, rows=tuple(rows), exponents=tuple(fit(rows)))


def _time_all(
    at: dict[tuple[str, int], Settings],
    macs: dict[tuple[str, int], int],
    settings: Settings,
    build: Build | str,
    tell: Callable[[str], None],
) -> tuple[dict[str, Timing], dict[tuple[str, int], int]]:
    """Timings and multiply-adds; those of work that follows the content are counted here.

    The models, with tables that may take gigabytes, end with this function: the fresh processes
    that measure memory need the room.
    """
    built = {key: build_on_device(key[0], where, build) for key, where in at.items()}
    calls = {
        _name(*key): forward(model, at[key], batch=settings.batch) for key, model in built.items()
    }
    timings = time_interleaved(calls, settings, tell)
    return timings, {
        key: macs[key]
        if key in macs and not follows_content(model)
        else count(model, key[1], settings.in_chans).macs
        for key, model in built.items()
    }


def _count_on_meta(model: str, where: Settings, build: Build | str) -> int:
    """Multiply-adds counted on the meta device, where nothing is computed."""
    hollow = build_on_device(model, replace(where, device="meta"), build)
    return count(hollow, where.image, where.in_chans).macs


def _memory(
    model: str, where: Settings, build: Build | str, tell: Callable[[str], None]
) -> int | None:
    """The forward's peak, or None where there was not enough memory for it."""
    tell(f"memory of {_name(model, where.image)}")
    try:
        return memory(model, where.image, where.batch, build=build, settings=where)
    except UserError as error:
        tell(str(error))
        return None


def _name(model: str, image: int) -> str:
    return f"{model} at {image} px"


def fit(rows: Iterable[GrowthRow]) -> list[Exponent]:
    """An exponent for each model and each quantity that was measured at all its sizes."""
    rows = sorted(rows, key=lambda row: row.image)
    fits = []
    for model, (quantity, read) in product(
        dict.fromkeys(r.model for r in rows), QUANTITIES.items()
    ):
        points = [(row.image**2, read(row)) for row in rows if row.model == model]
        known = [(pixels, cost) for pixels, cost in points if cost]
        if len(known) == len(points) >= 2:
            slope, r2, last = power_law(known)
            fits.append(Exponent(model=model, quantity=quantity, exponent=slope, r2=r2, last=last))
    return fits


def power_law(points: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """Exponent, explained variance and last slope of ``y ~ x ** p`` through two or more points."""
    xs, ys = ([math.log(value) for value in column] for column in zip(*points, strict=True))
    line = statistics.linear_regression(xs, ys)
    spread = statistics.pvariance(ys)
    missed = statistics.fmean(
        (y - line.intercept - line.slope * x) ** 2 for x, y in zip(xs, ys, strict=True)
    )
    (x0, y0), (x1, y1) = list(pairwise(zip(xs, ys, strict=True)))[-1]
    return line.slope, 1 - missed / spread if spread else 1.0, (y1 - y0) / (x1 - x0)


LABELS = {
    "macs": "GMAC a picture",
    "seconds": "milliseconds a batch",
    "memory": "peak MB (forward)",
}
SCALES = {"macs": 1e9, "seconds": 1e-3, "memory": 1e6}


def draw(measured: Growth, path: Path, *, overwrite: bool = False) -> Path:
    """Draw each quantity over the picture's edge, both logarithmic, into an SVG or PNG file.

    Raises:
        UserError: the file exists and ``overwrite`` is not set.
    """
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists; choose another name or ask for it to be overwritten")
    from matplotlib.figure import Figure  # late: most runs draw nothing

    fitted = {(fit.model, fit.quantity): fit.exponent for fit in measured.exponents}
    shown = [q for q in QUANTITIES if any(quantity == q for _, quantity in fitted)]
    figure = Figure(figsize=(4.6 * len(shown), 3.8), layout="constrained")
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for panel, quantity in zip(panels, shown, strict=True):
        for model in dict.fromkeys(row.model for row in measured.rows):
            _line(panel, measured.of(model), quantity, fitted.get((model, quantity)))
        panel.set(xscale="log", yscale="log", xlabel="edge in pixels", ylabel=LABELS[quantity])
        _plain_numbers(panel, sorted({row.image for row in measured.rows}))
        panel.legend(fontsize=8, frameon=False)
    sweep_dead(path.parent)
    with atomic_file(path) as draft:
        figure.savefig(draft, format=path.suffix[1:].lower() or "png")
    return path


def _line(panel: Any, rows: Sequence[GrowthRow], quantity: str, exponent: float | None) -> None:
    values = [(row.image, QUANTITIES[quantity](row)) for row in rows]
    known = [(image, value / SCALES[quantity]) for image, value in values if value]
    label = rows[0].model if exponent is None else f"{rows[0].model}: pixels^{exponent:.2f}"
    panel.plot(*zip(*known, strict=True), marker="o", markersize=4, label=figure_text(label))


def _plain_numbers(panel: Any, sizes: Sequence[int]) -> None:
    """The sizes measured along x, and enough readable numbers along y."""
    from matplotlib.ticker import LogLocator

    panel.set_xticks(sizes, [str(size) for size in sizes])
    panel.minorticks_off()
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    panel.yaxis.set_major_formatter("{x:g}")
    panel.grid(alpha=0.3)
