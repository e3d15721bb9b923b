"""Batches that do not depend on the number of workers, the order, or earlier batches.

Every random choice for an image is a pure function of (seed, epoch, key). So training can stop
and go on anywhere, and one process or eight give the same tensors.
"""

import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from vitrail.data.cache import ImageCache
from vitrail.data.dataset import ImageDataset
from vitrail.data.decode import ImageError
from vitrail.data.items import Item, stable_seed
from vitrail.data.limits import BYTES_PER_PIXEL, MemoryGate
from vitrail.data.transforms import Transform
from vitrail.data.workers import (
    SHARED_MEMORY,
    WorkerError,
    explain_worker_error,
    free_shared_memory,
    keep_sigchld_handler,
    limit_workers,
    start_worker,
)
from vitrail.errors import UserError

#: One batch: images ``(B, C, H, W)``, labels ``(B,)``, places in the set ``(B,)``.
Batch = tuple[Tensor, Tensor, Tensor]


class ImageTensors(Dataset[tuple[Tensor, int, int]]):
    """Items of a set, read and transformed.

    ``set[epoch, i]`` is (image ``(C, H, W)``, label, i); ``set[i]`` is epoch 0. Place
    ``i + r * len(set)`` is image ``i`` for the ``r + 1``-th time in an epoch, augmented anew.
    ``cache="memory"`` decodes and prepares every image once, at once, and keeps the bytes; the
    results are the same to the bit. What would take more than ``limit`` bytes is not kept.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        items: Sequence[Item],
        transform: Transform,
        seed: int,
        cache: str | None = None,
        limit: int | None = None,
    ):
        if cache not in (None, "memory"):
            raise UserError(f"no cache {cache!r}; there are None and 'memory'")
        self.dataset, self.items = dataset, tuple(items)
        self.transform, self.seed = transform, seed
        self._copies = _copies(self.items)
        self.cache = self._fill_cache(limit) if cache else None

    def _fill_cache(self, limit: int | None) -> ImageCache | None:
        """All images prepared; several threads decode only so much at once."""
        known = self.cache_bytes([i for i in self.items if min(i.size)], self.transform)
        if limit is not None and known > limit:
            return None
        gate = MemoryGate()

        def prepare_when_free(i: int) -> np.ndarray:
            width, height = self.items[i].size
            with gate.hold(BYTES_PER_PIXEL * width * height):
                return self._prepare(i)

        return ImageCache.fill(len(self.items), prepare_when_free, limit)

    @staticmethod
    def cache_bytes(items: Sequence[Item], transform: Transform) -> int:
        """Memory that ``cache="memory"`` would take, known without reading an image."""
        return sum(transform.prepared_bytes(item.size) for item in items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int | tuple[int, int]) -> tuple[Tensor, int, int]:
        epoch, place = index if isinstance(index, tuple) else (0, index)
        turn, i = divmod(place, len(self.items))
        item = self.items[i]
        prepared = self._prepare(i) if self.cache is None else self.cache[i]
        if not self.transform.random:
            return self.transform.finish(prepared), item.label, i
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed: that would also reseed the accelerators.
            again = (*self._copies.get(i, ()), *((turn,) if turn else ()))
            seed = stable_seed("picture", self.seed, epoch, item.key, *again)
            torch.default_generator.manual_seed(seed)
            return self.transform.finish(prepared), item.label, i

    def _prepare(self, i: int) -> np.ndarray:
        image = self.dataset.read(self.items[i], self.transform.short_side)
        return self.transform.prepare(image)


def _copies(items: Sequence[Item]) -> dict[int, tuple[str, int]]:
    """For items whose key came before (a table may repeat rows on purpose): the how many-th."""
    seen: Counter[str] = Counter()
    copies: dict[int, tuple[str, int]] = {}
    for i, item in enumerate(items):
        if seen[item.key]:
            copies[i] = ("copy", seen[item.key])
        seen[item.key] += 1
    return copies


def epoch_order(
    count: int, *, batch: int, seed: int, epoch: int, drop_last: bool = False
) -> list[list[int]]:
    """The shuffled order of ``count`` samples in batches; a pure function of its arguments."""
    generator = torch.Generator().manual_seed(stable_seed("order", seed, epoch))
    order = torch.randperm(count, generator=generator).tolist()
    lots = [order[start : start + batch] for start in range(0, count, batch)]
    return lots[:-1] if drop_last and lots and len(lots[-1]) < batch else lots


def sequential_order(count: int, *, batch: int) -> list[list[int]]:
    """0, 1, 2, ... in batches, for evaluation."""
    return [list(range(i, min(i + batch, count))) for i in range(0, count, batch)]


class Loader:
    """A :class:`ImageTensors` read by worker processes that live on between epochs.

    ``workers=0`` reads in this process. The batches do not depend on ``workers``.
    """

    def __init__(self, dataset: ImageTensors, *, workers: int = 0, pin: bool = False):
        self._dataset, self._workers, self._pin = dataset, workers, pin
        self._plan = _BatchSampler()
        self._loader: DataLoader[Any] | None = None

    def epoch(self, order: Sequence[Sequence[int]], *, epoch: int = 0) -> Iterator[Batch]:
        """The batches of ``order``, which may begin anywhere in an epoch (slice it).

        Raises:
            ImageError: an image cannot be read.
            WorkerError: a worker died, or could not hand over a batch.
        """
        if not order:
            return iter(())
        if self._loader is None:
            self._loader = self._start(order)
        self._plan.batches = [[(epoch, i) for i in lot] for lot in order]
        if not self._loader.num_workers:
            return _load_with_one_thread(iter(self._loader))
        return _shorten_worker_errors(self._loader)

    def _start(self, order: Sequence[Sequence[int]]) -> "DataLoader[Any]":
        """The loader, with as many workers as shared memory has room for."""
        workers, ahead = self._workers, 0
        if workers:
            one = self._dataset[order[0][0]][0].nbytes
            size = one * max(len(lot) for lot in order)
            workers, ahead = limit_workers(workers, size, free_shared_memory())
        if workers < self._workers:
            warnings.warn(
                f"{SHARED_MEMORY} has too little room for {self._workers} processes that read "
                f"pictures: {workers or 'none'} instead (slower; changes no result)",
                stacklevel=3,
            )
        return DataLoader(
            self._dataset,
            batch_sampler=self._plan,
            num_workers=workers,
            collate_fn=_collate,
            persistent_workers=workers > 0,
            prefetch_factor=ahead if workers else None,
            pin_memory=self._pin,
            worker_init_fn=start_worker,
        )


def _shorten_worker_errors(loader: "DataLoader[Any]") -> Iterator[Batch]:
    """A worker's error comes with its whole traceback as text; people need its last line."""
    found: Any = None
    try:
        with keep_sigchld_handler():
            found = iter(loader)
        yield from found
    except ImageError as error:
        raise ImageError(str(error).rsplit("ImageError: ", 1)[-1].strip()) from error
    except (RuntimeError, OSError, EOFError) as error:
        line = explain_worker_error(error, getattr(found, "_workers", ()))
        if line is None:
            raise
        raise WorkerError(line) from error


def batches(
    dataset: ImageTensors, *, order: Sequence[Sequence[int]], workers: int = 0, epoch: int = 0
) -> Iterator[Batch]:
    """One pass over ``order``; for many epochs with workers, keep a :class:`Loader`."""
    return Loader(dataset, workers=workers).epoch(order, epoch=epoch)


def measure_loader(
    dataset: ImageTensors, *, batch: int = 64, workers: int = 0, seconds: float = 3.0
) -> float:
    """Images per second of the loader alone, to be read beside the model's.

    Runs through shuffled epochs until ``seconds`` have passed, after a first batch for each worker
    that is not counted: it pays for starting processes and libraries.
    """
    loader = Loader(dataset, workers=workers)
    warm = epoch_order(len(dataset), batch=batch, seed=0, epoch=0)[: max(1, workers)]
    for _ in loader.epoch(warm):
        pass
    done, epoch, start = 0, 1, time.perf_counter()
    while True:
        order = epoch_order(len(dataset), batch=batch, seed=0, epoch=epoch)
        for images, _, _ in loader.epoch(order, epoch=epoch):
            done += len(images)
            passed = time.perf_counter() - start
            if passed >= seconds:
                return done / passed
        epoch += 1


def _load_with_one_thread(found: Iterator[Batch]) -> Iterator[Batch]:
    """Make each batch with one thread, as workers do.

    An image is too small to share out: on a busy machine, waiting for the second thread cost more
    than ten times the work.
    """
    while True:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            batch = next(found)
        except StopIteration:
            return
        finally:
            torch.set_num_threads(threads)
        yield batch


class _BatchSampler:
    """A batch sampler that yields the batches set last."""

    def __init__(self) -> None:
        self.batches: list[list[tuple[int, int]]] = []

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def _collate(samples: list[tuple[Tensor, int, int]]) -> Batch:
    images, labels, places = default_collate(samples)  # in a worker: straight into shared memory
    return images, labels, places
