"""Which process sees which images in which update, and what every random draw follows from."""

import pytest

from vitrail.errors import UserError
from vitrail.train import sampling


@pytest.mark.parametrize(("count", "world"), [(10, 1), (10, 2), (11, 2), (7, 3), (2, 3)])
def test_shares_deal_every_picture_to_equally_many_batches(count: int, world: int) -> None:
    dealt = [sampling.evaluation_batches(count, 2, world, rank) for rank in range(world)]
    assert len({tuple(map(len, batches)) for batches in dealt}) == 1
    flat = [[i for batch in batches for i in batch] for batches in dealt]
    together = [flat[i % world][i // world] for i in range(count)]
    assert together == list(range(count))


def test_a_schedule_gives_each_slot_the_same_pictures_in_any_division() -> None:
    def pictures(world: int, accumulate: int) -> list[list[int]]:
        schedules = [
            sampling.BatchSchedule.create(
                count=50, batch=12, accumulate=accumulate, world=world, rank=rank, seed=3
            )
            for rank in range(world)
        ]
        by_rank = [schedule.epoch(1) for schedule in schedules]
        slots = []
        for update in range(schedules[0].updates):
            for part in range(accumulate):
                slots += [by_rank[rank][update * accumulate + part] for rank in range(world)]
        return slots

    assert pictures(1, 4) == pictures(2, 2) == pictures(4, 1)
    assert pictures(1, 4) != pictures(1, 3)


def test_a_schedule_that_cannot_be_is_refused() -> None:
    settings = {"accumulate": 1, "world": 3, "rank": 0, "seed": 0}
    with pytest.raises(UserError, match="multiple of 3"):
        sampling.BatchSchedule.create(count=50, batch=16, **settings)
    with pytest.raises(UserError, match="too few"):
        sampling.BatchSchedule.create(count=2, batch=15, **settings)
    assert sampling.BatchSchedule.create(count=10, batch=15, **settings).batch == 9


def test_seeds_differ_by_each_argument() -> None:
    seeds = {sampling.seed_for(a, b, c) for a in range(4) for b in range(4) for c in range(4)}
    assert len(seeds) == 64
    assert all(0 <= seed < 2**63 for seed in seeds)
