"""Ceilings of figures that are known, and one real measurement that is small."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from vitrail import cost
from vitrail.cost import roofline
from vitrail.cost.roofline import Ceilings, Product, Stream
from vitrail.errors import UserError

KNOWN = Ceilings(
    precision="float32",
    threads=1,
    device="cpu",
    products=(
        Product(shape=(8, 8, 8), median=40e9, best=50e9),
        Product(shape=(9, 9, 9), median=60e9, best=100e9),
    ),
    streams=(
        Stream(kind="copy", size=2**10, median=40e9, best=80e9),
        Stream(kind="copy", size=2**28, median=9e9, best=10e9),
        Stream(kind="sum", size=2**28, median=19e9, best=20e9),
    ),
    quiet=True,
)


@dataclass(frozen=True)
class Work:
    macs: int
    traffic: int
    seconds: float


def test_the_roof() -> None:
    assert KNOWN.arithmetic == 100e9
    assert KNOWN.bandwidth == 20e9
    assert KNOWN.cache_bandwidth == 80e9
    bound_by_arithmetic = Work(macs=10**11, traffic=10**9, seconds=2.0)
    bound_by_memory = Work(macs=10**9, traffic=20 * 10**9, seconds=4.0)
    assert KNOWN.near(bound_by_arithmetic) == pytest.approx(0.5)
    assert KNOWN.near(bound_by_memory) == pytest.approx(0.25)
    assert KNOWN.near(Work(macs=0, traffic=10, seconds=0.0)) == 0.0


def test_a_small_measurement() -> None:
    settings = cost.Settings(rounds=1, window_s=0.005, warmup_s=0.005, threads=1)
    found = cost.ceilings(settings, shapes=((32, 32, 32), (8, 64, 8)), arrays=(2**12, 2**16))
    assert [p.shape for p in found.products] == [(32, 32, 32), (8, 64, 8)]
    assert {(s.kind, s.size) for s in found.streams} == {
        (kind, size) for kind in ("copy", "sum") for size in (2**12, 2**16)
    }
    assert 0 < found.bandwidth <= found.cache_bandwidth
    assert json.loads(json.dumps(found.to_dict()))["arithmetic_macs_per_s"] == found.arithmetic
    assert found.threads == 1


def test_streams_move_what_they_say() -> None:
    copied = roofline.copy_call(64, "cpu")()
    assert copied.numel() * copied.element_size() == 64
    assert roofline.sum_call(64, "cpu")().tolist() == [2.0] * 16


def test_tables_name_the_ceilings() -> None:
    *tables, line = roofline.tables(KNOWN)
    assert [table.row_count for table in tables] == [2, 3]
    assert line.startswith("ceilings: 100.0 GMAC/s, 20.0 GB/s from main memory, 80.0 GB/s")


@pytest.mark.parametrize("name", ["roof.svg", "roof.png"])
def test_picture(tmp_path: Path, name: str) -> None:
    whole, norm = Work(10**9, 10**8, 0.1), Work(0, 10**6, 0.01)
    works = {"a model": (whole, Work(10**8, 10**8, 0.05), norm), "b": (whole,)}
    path = roofline.draw(KNOWN, works, tmp_path / name)
    assert path.stat().st_size > 1000
    with pytest.raises(UserError, match="exists; choose another name"):
        roofline.draw(KNOWN, works, path)
    assert roofline.draw(KNOWN, works, path, overwrite=True) == path
