"""Peak memory, measured in real fresh processes."""

import pytest
from tests.cost import builders

from vitrail import cost
from vitrail.cost.peak import MemoryJob
from vitrail.errors import UserError

MEGA = 2**20


def test_job_survives_the_command_line() -> None:
    settings = cost.Settings(image=48, precision="bfloat16", threads=1)
    job = MemoryJob(model="x(a='b c')", build="a:b", train=True, settings=settings)
    assert MemoryJob.from_json(job.to_json()) == job


@pytest.mark.skipif("not __import__('pathlib').Path('/proc/self/status').exists()")
def test_memory_grows_as_the_tensors_do() -> None:
    """At 128 px a map of 64 channels holds 4 MB a picture; convolution and GELU make two."""
    settings = cost.Settings(threads=1, classes=10)

    def peak(batch: int, train: bool = False) -> float:
        return (
            cost.memory("wide", 128, batch, train, build=builders.build, settings=settings) / MEGA
        )

    one, eight, training = peak(1), peak(8), peak(8, train=True)
    assert 7 <= one <= 40
    assert 0.8 * 7 * 8 <= eight - one <= 2.5 * 7 * 8
    assert training > eight + 20


@pytest.mark.skipif("not __import__('pathlib').Path('/proc/self/status').exists()")
def test_a_process_may_take_so_much_and_no_more() -> None:
    """A map of 64 channels of 512 x 512 takes 64 MB a picture; libraries alone take more."""
    settings = cost.Settings(threads=1, classes=10)
    with pytest.raises(UserError, match="memory could not be measured.*memory"):
        cost.memory("wide", 512, 64, build=builders.build, settings=settings, limit=2 * 10**9)


def test_a_model_that_cannot_be_built_says_why() -> None:
    with pytest.raises(UserError, match="memory could not be measured.*no model 'huge'"):
        cost.memory("huge", 16, 1, build=builders.build)
