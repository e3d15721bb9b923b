"""What this machine cannot hold, and numbers that cannot be, are refused in words."""

from collections.abc import Callable

import pytest

from vitrail import limits
from vitrail.errors import UserError


def test_memory_is_the_machine_s_or_the_container_s(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = limits.usable_memory()
    assert whole == 0 or whole > 2**28
    monkeypatch.setattr(limits, "_read", {limits.GROUPS[0]: "1000", limits.GROUPS[1]: "max"}.get)
    assert limits.usable_memory() == 1000
    assert limits.fits_in_memory(1000) and not limits.fits_in_memory(1001)
    with pytest.raises(UserError, match="2 pictures of 10 x 20 pixels at once take 19.2 kB or mor"):
        limits.refuse_large_batch(2, (10, 20))
    monkeypatch.setattr(limits, "usable_memory", lambda: 0)
    assert limits.fits_in_memory(10**18)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: limits.check_seed(-1), "whole number from 0 to 9223372036854775807, not -1"),
        (lambda: limits.check_seed(10**20), "the seed must be a whole number"),
        (lambda: limits.check_share(float("nan"), "a share"), "a share must be above 0"),
        (lambda: limits.check_share(1.01, "a share"), "at most 1"),
        (lambda: limits.check_count(0, "the batch"), "the batch must be 1 or more, not 0"),
        (lambda: limits.check_count(10**12, "the batch"), "the batch must be at most"),
    ],
)
def test_numbers_that_cannot_be(call: Callable[[], object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        call()


def test_amounts_in_words() -> None:
    assert [limits.format_amount(v) for v in (3e15, 2.5e10, 999, 0)] == [
        "3 PB",
        "25 GB",
        "999 B",
        "0 B",
    ]
