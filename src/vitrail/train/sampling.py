"""Seeds and the order of images: every random draw is a function of (seed, step, slot) alone.

A *slot* is one micro-batch of an update: ``slot = accumulation index * processes + rank``. One
process with two accumulation steps and two processes with one see the same two slots, hence the
same images, the same mixing and the same dropped paths; and a run that goes on after a kill
needs no saved generator.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vitrail import data
from vitrail.errors import UserError
from vitrail.train.balance import balanced_order


def seed_for(seed: int, step: int, slot: int) -> int:
    """A 63-bit seed, the same on every machine."""
    text = f"{seed}/{step}/{slot}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 1


def reseed(seed: int, step: int, slot: int) -> None:
    """Set torch's generators, on all devices, for one micro-batch."""
    torch.manual_seed(seed_for(seed, step, slot))


@dataclass(frozen=True, kw_only=True)
class BatchSchedule:
    """The order of images: which process sees which images in which update.

    ``count`` images in batches of ``batch``, cut into ``accumulate * world`` equal slots.
    """

    count: int
    batch: int
    accumulate: int
    world: int
    rank: int
    seed: int
    sampling: str = "shuffle"
    labels: Sequence[int] = ()

    @classmethod
    def create(
        cls,
        *,
        count: int,
        batch: int,
        accumulate: int,
        world: int,
        rank: int,
        seed: int,
        sampling: str = "shuffle",
        labels: Sequence[int] = (),
    ) -> "BatchSchedule":
        """A schedule for ``count`` images; a batch larger than the set shrinks to fit it.

        ``sampling`` other than ``"shuffle"`` needs their ``labels``.

        Raises:
            UserError: a batch that the slots cannot share equally, or fewer images than slots.
        """
        slots = accumulate * world
        if batch % slots:
            raise UserError(
                f"a batch of {batch} cannot be shared equally by {world} processes with "
                f"{accumulate} parts each; choose a multiple of {slots}"
            )
        if count < slots:
            raise UserError(f"{count} training pictures are too few for {slots} parts of a batch")
        return cls(
            count=count,
            batch=min(batch, count - count % slots),
            accumulate=accumulate,
            world=world,
            rank=rank,
            seed=seed,
            sampling=sampling,
            labels=labels,
        )

    @property
    def updates(self) -> int:
        """Updates per epoch; what does not fill a batch waits for another epoch's shuffle."""
        return self.count // self.batch

    @property
    def microbatch_size(self) -> int:
        """Images in one slot."""
        return self.batch // (self.accumulate * self.world)

    def microbatch(self, part: int) -> int:
        """The slot of this process's accumulation step ``part``."""
        return part * self.world + self.rank

    def epoch(self, epoch: int, start: int = 0) -> list[list[int]]:
        """This process's micro-batches of ``epoch``, from its update ``start`` on."""
        order = self._batches(epoch)
        firsts = [self.microbatch(part) * self.microbatch_size for part in range(self.accumulate)]
        return [
            lot[first : first + self.microbatch_size] for lot in order[start:] for first in firsts
        ]

    def _batches(self, epoch: int) -> list[list[int]]:
        if self.sampling == "shuffle":
            return data.epoch_order(
                self.count, batch=self.batch, seed=self.seed, epoch=epoch, drop_last=True
            )
        places = balanced_order(self.labels, self.sampling, self.seed, epoch)
        starts = range(0, self.updates * self.batch, self.batch)
        return [places[start : start + self.batch] for start in starts]


def evaluation_batches(count: int, batch: int, world: int, rank: int) -> Sequence[list[int]]:
    """This process's batches of a fixed order over ``count``: equally many for every process.

    Positions are dealt in turn (rank, rank + world, ...); the last ones are dealt twice where the
    processes do not divide the count, so that all make equally many collective calls.
    """
    each = -(-count // world)
    mine = [(rank + world * i) % count for i in range(each)]
    return [mine[i : i + batch] for i in range(0, each, batch)]
