"""What a reducer hands over beside the working tokens: the way back.

A :class:`Plan` knows which tokens of the full sequence ``(B, N, C)`` each working token
``(B, K, C)`` stands for. Class tokens (``extra`` of them, in front) always stand for themselves.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from vitrail.layers.grid import Grid


@dataclass(frozen=True)
class Plan(ABC):
    """How working tokens and full tokens belong together.

    Attributes:
        grid: the full grid ``(H, W)``; ``N = extra + H * W``.
        extra: class tokens in front.
    """

    grid: Grid
    extra: int

    @property
    def single(self) -> bool:
        """Whether every working token stands for itself alone, so that sizes say nothing."""
        return False

    @property
    def exact(self) -> bool:
        """Whether what is carried back and reduced again is what it was.

        Tokens at work may then go on to the next block as they are (``hold``).
        """
        return False

    @property
    @abstractmethod
    def sizes(self) -> Tensor:
        """``(B, K)`` float: how many tokens each working token stands for; rows sum to N."""

    @abstractmethod
    def reduce(self, x: Tensor) -> Tensor:
        """``(B, N, E)`` -> ``(B, K, E)``: the same reduction applied to another tensor."""

    @abstractmethod
    def restore(self, update: Tensor) -> Tensor:
        """``(B, K, E)`` -> ``(B, N, E)``: carry what the working tokens learned back to all."""

    def reduce_grid(self, x: Tensor) -> Tensor:
        """``(B, H * W, E)`` -> ``(B, K - extra, E)``: :meth:`reduce` without class tokens."""
        ahead = x.new_zeros(x.shape[0], self.extra, x.shape[2])
        return self.reduce(torch.cat((ahead, x), 1))[:, self.extra :]

    def restore_grid(self, update: Tensor) -> Tensor:
        """``(B, K - extra, E)`` -> ``(B, H * W, E)``: :meth:`restore` without class tokens."""
        ahead = update.new_zeros(update.shape[0], self.extra, update.shape[2])
        return self.restore(torch.cat((ahead, update), 1))[:, self.extra :]

    @property
    def assignment(self) -> Tensor | None:
        """``(B, H * W)`` int: the working token each grid token belongs to, or None."""
        return None

    @property
    def importance(self) -> Tensor | None:
        """``(B, H * W)``: the score each grid token was chosen by, or None."""
        return None
