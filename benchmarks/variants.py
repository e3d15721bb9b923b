"""Every variant of the zoo: our parameters and multiply-adds beside the published ones.

python -m benchmarks.variants                         # prints the page
python -m benchmarks.variants --write docs/reference/variants.md
python -m benchmarks.variants --check docs/reference/variants.md # exit status 1 if it is stale

Nothing is computed or downloaded: models are built and counted on the meta device (half a minute on
one core). A test counts most of it again and holds the page against it.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import vitrail
from benchmarks.published import PUBLISHED, SIBLINGS, Figure, read, reason_for, silence
from vitrail.cost.counting import no_parameter_gradients
from vitrail.hub.timm_names import TIMM_NAMES
from vitrail.models.zoo import entry
from vitrail.specs import parse_call

HASHED = ("_qf", "_qs")
"""How many clusters a hash finds depends on the picture: no multiply-adds without one."""
LIMIT = 0.01
HEAD = """# Every variant, beside what was published

Parameters with the classes of the weights (1000, CCT's 10 or 102, SL-ViT's 100) and multiply-adds
of one picture, in G, counted here (1 MAC = 2 FLOPs; convolutions, linear layers, matrix products
and attention count, norms and activations do not), beside the figures of the papers, of their
released code and of timm. "As printed" means: the same once rounded as the source rounds.
Where ours is more than 1 % away, the reason stands beside it.

Made by `python -m benchmarks.variants --write docs/reference/variants.md` (figures and reasons:
`benchmarks/published.py`); `tests/benchmarks/test_variants.py` counts again.
"""
PAPERS = """
## Papers and released code

| variant | px | parameters | GMAC | published | GMAC | apart | GMAC | source, reason |
|---|---|---|---|---|---|---|---|---|
"""
TIMMS = """
## timm's models, counted by the same counter

Outputs are equal on the same weights (`tests/parity`; timm's `coatnet_0` to `3` told to pool by
maximum, as the paper does).

| variant | timm's | parameters | GMAC | apart | GMAC | why |
|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Cost:
    """Parameters, and multiply-adds of one picture; None where a picture decides."""

    params: int
    macs: float | None


@cache
def ours(name: str, image: int | None = None) -> Cost:
    """A variant's parameters at its own size, multiply-adds at ``image`` (default: the same)."""
    size = size_of(name)
    params = parameters(built(name, size))
    if name.endswith(HASHED):
        return Cost(params, None)
    return Cost(params, multiply_adds(built(name, image or size), image or size))


def built(name: str, image: int) -> nn.Module:
    """On the meta device, in evaluation mode."""
    with torch.device("meta"):
        return vitrail.create(name, image=image).eval()


@cache
def theirs(name: str, image: int) -> Cost:
    """timm's model, with the same classes as its weights."""
    import timm

    with torch.device("meta"):
        model = timm.create_model(name, num_classes=1000).eval()
    return Cost(parameters(model), multiply_adds(model, image))


def size_of(name: str) -> int:
    """Pixels a variant is built for."""
    image = entry(parse_call(name)[0]).config.image
    assert isinstance(image, int)
    return image


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def multiply_adds(model: nn.Module, image: int) -> float:
    """Of one forward, shapes alone; attention spelled out as its two products."""
    x = torch.empty(1, 3, image, image, device="meta")
    counter = FlopCounterMode(display=False)
    spelled = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
    with no_parameter_gradients(model), counter, spelled:
        model(x)
    return counter.get_total_flops() / 2


@dataclass(frozen=True)
class Row:
    """A variant beside one source's figures."""

    name: str
    image: int
    own: Cost
    figure: Figure

    def apart(self) -> tuple[str, str]:
        """Differences of parameters and multiply-adds, in words."""
        return (
            difference(self.own.params, self.figure.params),
            difference(self.own.macs, self.figure.macs),
        )

    def reasons(self) -> list[str]:
        """Why ours is more than 1 % away, where it is."""
        pairs = (
            (self.own.params, self.figure.params, self.figure.why_params),
            (self.own.macs, self.figure.macs, self.figure.why_macs),
        )
        return [why for own, printed, why in pairs if is_far(own, printed)]

    def cells(self) -> tuple[str, ...]:
        """One line of the first table."""
        params, macs = self.apart()
        words = "; ".join(dict.fromkeys((self.figure.source, *self.reasons())))
        return (
            f"`{self.name}`",
            str(self.image),
            f"{self.own.params:,}",
            giga(self.own.macs),
            shown(self.figure.params),
            shown(self.figure.macs),
            params,
            macs,
            words,
        )


def is_far(own: float | None, printed: str) -> bool:
    """More than 1 % from a printed figure, and not by its rounding."""
    if own is None or not printed:
        return False
    found = read(printed)
    return abs(own / found.value - 1) > LIMIT and not found.rounds(own)


def difference(own: float | None, printed: str) -> str:
    if own is None or not printed:
        return ""
    found = read(printed)
    return "as printed" if found.rounds(own) else f"{own / found.value - 1:+.2%}"


def giga(macs: float | None) -> str:
    return "the picture decides" if macs is None else f"{macs / 1e9:.3f}"


def shown(printed: str) -> str:
    return f"{int(printed):,}" if printed.replace("_", "").isdigit() else printed


def rows() -> Iterator[Row]:
    """Each variant with each source; with none, why there is none."""
    for name in sorted({*vitrail.list_models(), *PUBLISHED}):
        for figure in PUBLISHED.get(name, (Figure(source=silence(name)),)):
            image = figure.image or size_of(name)
            yield Row(name, image, ours(name, figure.image), figure)


def timm_rows() -> Iterator[Row]:
    """Each variant that timm has too, with timm's count as the figure."""
    others = {**TIMM_NAMES, **SIBLINGS}
    for name in sorted(others):
        image, own = size_of(name), ours(name)
        their = theirs(others[name], image)
        macs = f"{their.macs:.0f}"
        params, why = str(their.params), reason_for(name)
        figure = Figure(source=others[name], params=params, macs=macs, why_params=why, why_macs=why)
        yield Row(name, image, own, figure)


def timm_cells(row: Row) -> tuple[str, ...]:
    """One line of the second table."""
    params, macs = (word.replace("as printed", "the same") for word in row.apart())
    why = " ".join(dict.fromkeys((row.figure.why_params, row.figure.why_macs))).strip()
    return (
        f"`{row.name}`",
        f"`{row.figure.source}`",
        shown(row.figure.params),
        giga(float(row.figure.macs)),
        params,
        macs,
        why if "%" in params + macs else "",
    )


def table(lines: Iterator[tuple[str, ...]]) -> str:
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def page() -> str:
    """The whole page."""
    return (
        HEAD
        + PAPERS
        + table(row.cells() for row in rows())
        + TIMMS
        + table(timm_cells(row) for row in timm_rows())
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", type=Path, help="file to write instead of printing")
    parser.add_argument("--check", type=Path, help="file to compare: exit status 1 if stale")
    wanted = parser.parse_args()
    text = page()
    if wanted.check is not None:
        sys.exit(f"{wanted.check} is stale" if wanted.check.read_text() != text else 0)
    if wanted.write is None:
        print(text, end="")
    else:
        wanted.write.write_text(text)


if __name__ == "__main__":
    main()
