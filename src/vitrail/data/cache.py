"""Prepared images kept in memory: one flat tensor of bytes, shared with worker processes.

Forked workers see the same pages; spawned ones get the tensor through torch's shared memory.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_CHUNK = 64  # images asked for before the limit is looked at again


@dataclass(frozen=True)
class ImageCache:
    """``data`` holds all images end to end; ``starts`` ``(n + 1,)``, ``shapes`` ``(n, 3)``."""

    data: Tensor
    starts: Tensor
    shapes: Tensor

    @classmethod
    def fill(
        cls, count: int, prepared: Callable[[int], np.ndarray], limit: int | None = None
    ) -> "ImageCache | None":
        """Prepare images 0 .. count - 1 in threads and keep them.

        None where they would take more than ``limit`` bytes; no more than that is ever held.
        """
        arrays: list[np.ndarray] = []
        held = 0
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, count, _CHUNK):
                for array in pool.map(prepared, range(start, min(start + _CHUNK, count))):
                    held += array.size
                    if limit is not None and held > limit:
                        return None
                    arrays.append(array)
        shapes = torch.tensor([a.shape for a in arrays], dtype=torch.int32).view(-1, 3)
        sizes = torch.tensor([0, *(a.size for a in arrays)], dtype=torch.int64)
        starts = sizes.cumsum(0)
        data = torch.empty(int(starts[-1]), dtype=torch.uint8)
        flat = data.numpy()
        for i, array in enumerate(arrays):
            flat[starts[i] : starts[i + 1]] = array.ravel()
            arrays[i] = np.empty(0)  # give the memory back as we go
        return cls(data, starts, shapes)

    def __getitem__(self, i: int) -> np.ndarray:
        start, end = self.starts[i : i + 2].tolist()
        return self.data[start:end].numpy().reshape(self.shapes[i].tolist())

    @property
    def bytes(self) -> int:
        """Memory held."""
        return self.data.numel()
