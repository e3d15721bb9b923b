"""The table of variants: that it is fresh, that every difference has a reason, and some reasons.

Counting all of it takes half a minute (``python -m benchmarks.variants --check PAGE``); here
parameters are counted for every variant, multiply-adds for one variant of each structure.
"""

from pathlib import Path

import pytest
from benchmarks.published import PUBLISHED, WIDER, Figure, read, silence
from tests.contracts.structures import STRUCTURES

import vitrail
from benchmarks import variants
from vitrail.models.zoo import configure

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "variants.md"
STALE = f"{PAGE.name} is stale: python -m benchmarks.variants --write docs/reference/variants.md"


def lines(heading: str) -> list[list[str]]:
    """The cells of one of the page's tables, without its two header lines."""
    part = PAGE.read_text().partition(f"## {heading}")[2].partition("\n## ")[0]
    rows = [line for line in part.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in row[1:-1].split(" |")] for row in rows]


def test_parameters_and_multiply_adds_are_fresh() -> None:
    """Each model is built once, as most of the time goes there."""
    models, counted = {}, 0
    for name, image, params, macs, *_ in lines("Papers"):
        plain = name.strip("`")
        own = variants.size_of(plain)
        if plain not in models:
            models[plain] = variants.built(plain, own)
        assert params == f"{variants.parameters(models[plain]):,}", f"{plain}: {STALE}"
        if plain in STRUCTURES and int(image) == own and float(read_or(macs, 99)) < 3:
            assert macs == variants.giga(variants.multiply_adds(models[plain], own)), STALE
            counted += 1
    assert counted > 15


def read_or(text: str, other: float) -> float:
    return float(text) if text.replace(".", "").isdigit() else other


def test_every_variant_stands_in_it_with_figures_or_a_word_why_there_are_none() -> None:
    rows = lines("Papers")
    assert {row[0].strip("`") for row in rows} == {*vitrail.list_models(), *PUBLISHED}
    for name in vitrail.list_models():
        assert (name in PUBLISHED) != bool(silence(name)), name
    printed = [f for figures in PUBLISHED.values() for f in figures]
    assert len([row for row in rows if row[4] or row[5]]) == len(printed)


def test_the_page_tells_the_figures_and_the_reasons_of_the_data() -> None:
    """Each row is what its figures and the counts in the row come to."""
    far = 0
    for cells in lines("Papers"):
        name, image = cells[0].strip("`"), int(cells[1])
        own = variants.Cost(int(cells[2].replace(",", "")), macs_of(cells[3]))
        figures = PUBLISHED.get(name, (Figure(source=silence(name)),))
        rows = [variants.Row(name, image, own, figure) for figure in figures]
        assert cells[-1] in [row.cells()[-1] for row in rows], f"{name}: {STALE}"
        reasons = next(row.reasons() for row in rows if row.cells()[-1] == cells[-1])
        assert all(reasons), f"{name} is more than 1 % from {cells[-1]}: say why in published.py"
        far += bool(reasons)
    assert far > 20


def macs_of(cell: str) -> float | None:
    return 1e9 * float(cell) if cell.replace(".", "").isdigit() else None


def test_timms_models_cost_what_ours_cost() -> None:
    pytest.importorskip("timm")
    rows = lines("timm's models")
    assert len(rows) > 30
    for _, _, _, _, params, macs, why in rows:
        for word in (params, macs):
            assert word == "the same" or (abs(float(word.strip("%"))) < 1 and why)


def entries(name: str, image: int) -> int:
    """Entries of all attention matrices of a CoAtNet."""
    config, total, stride = configure(name), 0, 2
    for kind, dim, depth, halve in zip(
        config.kinds, config.dims, config.depths, config.strides, strict=True
    ):
        stride *= halve
        total += (kind == "T") * depth * (dim // config.head_dim) * (image // stride) ** 4
    return total


def test_coatnets_reasons_hold() -> None:
    """What ``MORE``, ``MISPRINT`` and ``HALVING`` say, from the page's own counts."""
    found = {}
    for name, image, _, macs, _, printed, *_ in lines("Papers"):
        plain = name.strip("`")
        if plain.startswith("coatnet_") and printed and int(image) >= 384:
            apart = read(printed).value - 1e9 * float(macs)
            found[plain] = apart / entries(plain, int(image))
    small = {name: ratio for name, ratio in found.items() if name[8] in "012345"}
    assert len(small) == 7 and all(13 < ratio < 17 for ratio in small.values())
    assert found["coatnet_6"] > 100
    for halved, whole in (
        ("coatnet_7(style='dagger')", 2586e9),
        (WIDER.removesuffix(")") + ", style='dagger')", 1521e9),
    ):
        assert abs(variants.ours(halved, 512).macs / whole - 1) < 0.01
    assert read("1.47G").rounds(variants.ours(WIDER, 64).params)


def test_printed_numbers_know_their_rounding() -> None:
    assert read("4.2G").value == pytest.approx(4.2e9) and read("4.2G").rounds(4.249e9)
    assert not read("4.2G").rounds(4.26e9) and read("25M").rounds(25.4e6)
    assert read("1_293_108").rounds(1_293_108) and not read("1_293_108").rounds(1_293_109)
    assert read("0.284M").rounds(283_723)


@pytest.mark.parametrize(
    ("printed", "apart", "far"),
    [("5.5M", "as printed", False), ("5.4M", "+1.85%", True), ("5.53M", "-0.54%", False)],
)
def test_differences_in_words(printed: str, apart: str, far: bool) -> None:
    assert variants.difference(5_500_000, printed) == apart
    assert variants.is_far(5_500_000, printed) is far
    row = variants.Row("x", 224, variants.Cost(5_500_000, 1e9), Figure(source="s", params=printed))
    assert row.reasons() == ([""] if far else [])
