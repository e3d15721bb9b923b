"""LSH attention: Kitaev, Kaiser, Levskaya, "Reformer: The Efficient Transformer", ICLR 2020
(arXiv 2001.04451), section 2.

Tokens that point the same way fall into the same bucket, and only those meet::

    b_r(i) = argmax([q_i R_r; -q_i R_r])           the bucket of round r
    sort by bucket, cut into runs of equal length; look at one's own run and the one before
    l_ij   = q_i . q_j / (|q_j| sqrt(d))           queries are keys, the latter of length one
    y_i    = softmax_j(l_ij + log m_ij) v_j        m_ij: in how many rounds i and j met

No token attends to itself unless it is alone. The rounds' answers, weighted by the exponential of
their log-sum-exp, add up to the last line: a pair that meets often counts often (the paper divides
by ``m``). Deviations, beside that: planes are drawn once and kept, not anew for each batch; class
tokens are keys of all tokens and attend to all.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.layers.attend import attend, attention_weights, join_heads, split_heads
from vitrail.layers.grid import Grid
from vitrail.layers.plan import Plan
from vitrail.mixers.base import Mixer, MixerSpec
from vitrail.mixers.softmax import check_heads
from vitrail.specs import Place
from vitrail.tokens.hashing import AngularBuckets


@dataclass(frozen=True, kw_only=True)
class Lsh(MixerSpec, name="lsh"):
    """Reformer's attention: tokens meet those that fall into the same hash bucket.

    ``rounds`` hashes into ``buckets`` each (if not given, one for a run's tokens of the grid the
    model is built for), sorted and cut into runs of ``run`` tokens. Served at any grid and for
    scattered tokens: nothing here knows where a token lies. Costs less than softmax only where
    there are more than ``2 rounds run`` tokens, and sorting besides.
    """

    rounds: int = 4
    buckets: int | None = None
    run: int = 64

    def bucket_count(self, place: Place) -> int:
        """Even, as each plane has two sides; or one."""
        tokens = place.grid[0] * place.grid[1]
        count = -(-tokens // self.run) if self.buckets is None else self.buckets
        return count + count % 2 if count > 1 else 1

    def build(self, place: Place) -> "LshAttention":
        """Serves every place whose heads divide its channels, without padding."""
        check_heads(self, place)
        if place.padded:
            raise self.refuse(
                place,
                "padding would move its runs, so that pictures see their neighbours",
                "use mixer 'softmax', or a reducer with a fixed count, such as 'cluster'",
            )
        if min(self.rounds, self.run, 1 if self.buckets is None else self.buckets) < 1:
            raise self.refuse(place, "an option is below one", "try rounds=4, run=64")
        return LshAttention(place, self.rounds, self.bucket_count(place), self.run)

    def macs(self, place: Place, working: int | None = None) -> int:
        """Three projections, the hashes, two products of each token with two runs a round."""
        tokens = place.tokens if working is None else working
        count, buckets = tokens - place.extra, self.bucket_count(place)
        runs = Runs(count, self.run)
        hashed = self.rounds * count * (buckets // 2)
        inside = self.rounds * runs.places * (runs.keys + place.extra) + place.extra * tokens
        return 3 * tokens * place.dim**2 + (hashed + 2 * inside) * place.dim


@dataclass(frozen=True)
class Runs:
    """A line of ``tokens`` cut into runs of at most ``longest``."""

    tokens: int
    longest: int

    @property
    def count(self) -> int:
        """How many."""
        return -(-self.tokens // self.longest)

    @property
    def length(self) -> int:
        """Of each; the last is filled up."""
        return min(self.tokens, self.longest)

    @property
    def places(self) -> int:
        """In all runs."""
        return self.count * self.length

    @property
    def keys(self) -> int:
        """Keys of a query: those of its run, and of the run before if there is another."""
        return self.length * min(self.count, 2)

    def cut(self, line: Tensor, fill: float = 0) -> Tensor:
        """``(B, heads, rounds, tokens, ...)`` -> ``(B, heads, rounds, runs, length, ...)``."""
        trailing = (0, 0) * (line.dim() - 4)
        line = F.pad(line, (*trailing, 0, self.places - self.tokens), value=fill)
        return line.unflatten(3, (self.count, self.length))

    def with_previous(self, runs: Tensor) -> Tensor:
        """Each run after the one before it, the first after the last: the keys of the run."""
        return runs if self.count < 2 else torch.cat((runs.roll(1, 3), runs), 4)


class LshAttention(Mixer):
    """Multi-head attention among tokens of one bucket; ``qk`` projects to queries and keys."""

    def __init__(self, place: Place, rounds: int, buckets: int, run: int) -> None:
        super().__init__()
        self.heads, self.rounds, self.run = place.heads, rounds, run
        self.qk = nn.Linear(place.dim, place.dim)
        self.v = nn.Linear(place.dim, place.dim)
        self.proj = nn.Linear(place.dim, place.dim)
        several = AngularBuckets(place.dim // place.heads, rounds, buckets)
        self.hash = several if buckets > 1 else None

    def buckets(self, q: Tensor) -> Tensor:
        """``(B, heads, N, d)`` -> ``(B, heads, rounds, N)`` int, without gradient."""
        if self.hash is None:
            alone = torch.zeros(q.shape[:3], dtype=torch.long, device=q.device)
            return alone.unsqueeze(2).expand(-1, -1, self.rounds, -1)
        return self.hash(q.detach())

    def forward(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Tensor:
        """See :class:`~vitrail.mixers.base.Mixer`."""
        q, v = (split_heads(t, self.heads) for t in (self.qk(x), self.v(x)))
        extra = x.shape[1] - grid[0] * grid[1] if plan is None else plan.extra
        k, counts = F.normalize(q, dim=3), Counts.from_plan(plan, q)
        mixed = self.attend_in_runs(q, k, v, counts, extra)
        if extra:
            first = attend(q[:, :, :extra], k, v, counts.bias(extra))
            mixed = torch.cat((first, mixed), 2)
        return self.proj(join_heads(mixed))

    def attend_in_runs(
        self, q: Tensor, k: Tensor, v: Tensor, counts: "Counts", extra: int
    ) -> Tensor:
        """All rounds: ``(B, heads, E + N, d)`` each -> ``(B, heads, N, d)``."""
        runs = Runs(q.shape[2] - extra, self.run)
        bucket = self.buckets(q[:, :, extra:])
        order = bucket.argsort(dim=3, stable=True)
        queries, keys, values = (runs.cut(sort_tokens(t[:, :, extra:], order)) for t in (q, k, v))
        keys, values = (
            prepend_class_tokens(t[:, :, :extra], runs.with_previous(in_runs))
            for t, in_runs in ((k, keys), (v, values))
        )
        bias = F.pad(
            bias_in_runs(runs, bucket, order, counts.without_class_tokens(extra)), (extra, 0)
        )
        logits = (queries @ keys.mT) * q.shape[3] ** -0.5 + bias
        mixed = (logits.softmax(5) @ values).flatten(3, 4)[:, :, :, : runs.tokens]
        weight = logits.logsumexp(5).flatten(3)[..., : runs.tokens]
        back = order.argsort(3)
        shares = weight.gather(3, back).softmax(2).unsqueeze(4)
        return (shares * mixed.gather(3, back.unsqueeze(4).expand_as(mixed))).sum(2)

    def explain(
        self, x: Tensor, grid: Grid, shared: nn.Module | None = None, plan: Plan | None = None
    ) -> Mapping[str, Tensor]:
        """``attention`` ``(B, heads, K, K)``: rows sum to one; ``values``; ``buckets`` by round."""
        q = split_heads(self.qk(x), self.heads)
        extra = x.shape[1] - grid[0] * grid[1] if plan is None else plan.extra
        bucket = self.buckets(q[:, :, extra:])
        runs = Runs(bucket.shape[3], self.run)
        run = bucket.argsort(dim=3, stable=True).argsort(3) // runs.length
        mine, other = run.unsqueeze(4), run.unsqueeze(3)
        in_reach = (mine == other) | ((mine - 1) % runs.count == other)
        met = (in_reach & (bucket.unsqueeze(4) == bucket.unsqueeze(3))).sum(2)
        met = F.pad(met, (extra, 0, extra, 0), value=self.rounds)
        bias = met.to(q.dtype).log() + Counts.from_plan(plan, q).bias(x.shape[1])
        weights = attention_weights(q, F.normalize(q, dim=3), bias)
        values = split_heads(self.v(x), self.heads)
        return {"attention": weights, "values": values, "buckets": bucket}


@dataclass(frozen=True)
class Counts:
    """How often a token counts as a key: for others ``log n``, for itself ``log(n - 1)``.

    Both ``(B or 1, K)``. One that stands for itself alone counts nothing to itself: a number that
    is large and negative, not infinite, so that where nothing else is there, it is what is left.
    """

    others: Tensor
    itself: Tensor

    @classmethod
    def from_plan(cls, plan: Plan | None, like: Tensor) -> "Counts":
        """From the working tokens' sizes, for queries ``(B, heads, K, d)``."""
        lowest = torch.finfo(like.dtype).min / 2
        if plan is None or plan.single:
            nothing = like.new_zeros(1, like.shape[2])
            return cls(nothing, nothing + lowest)
        sizes = plan.sizes.float()
        more = sizes - 1  # below zero for the smallest soft clusters
        twins = torch.where(more > 0, more.clamp(min=1e-6).log(), lowest)
        return cls(sizes.log().to(like.dtype), twins.to(like.dtype))

    def without_class_tokens(self, extra: int) -> "Counts":
        """Those of the grid's tokens."""
        return Counts(self.others[:, extra:], self.itself[:, extra:])

    def bias(self, queries: int) -> Tensor:
        """The bias from the first tokens to all: ``(B or 1, 1, queries, K)``."""
        same = torch.eye(queries, self.others.shape[1], device=self.others.device)
        bias = torch.where(same.bool(), self.itself.unsqueeze(1), self.others.unsqueeze(1))
        return bias.unsqueeze(1)


def sort_tokens(x: Tensor, order: Tensor) -> Tensor:
    """``(B, heads, N, d)`` in the order of each round -> ``(B, heads, rounds, N, d)``."""
    index = order.unsqueeze(4).expand(-1, -1, -1, -1, x.shape[3])
    return x.unsqueeze(2).expand(-1, -1, order.shape[2], -1, -1).gather(3, index)


def prepend_class_tokens(first: Tensor, runs: Tensor) -> Tensor:
    """Class tokens ``(B, heads, E, d)`` in front of the keys of every run."""
    every = first[:, :, None, None].expand(-1, -1, *runs.shape[2:4], -1, -1)
    return torch.cat((every, runs), 4) if first.shape[2] else runs


def bias_in_runs(runs: Runs, bucket: Tensor, order: Tensor, counts: Counts) -> Tensor:
    """``(B, heads, rounds, runs, length, keys)``: minus infinity between
    different buckets, else the logarithm of how often the key counts.

    Places that fill up the last run are a bucket of their own: they see only each other.
    """
    token, own_bucket = runs.cut(order, -1), runs.cut(bucket.gather(3, order), -1)
    key_token, key_bucket = (
        runs.with_previous(token).unsqueeze(4),
        runs.with_previous(own_bucket).unsqueeze(4),
    )
    others, itself = (
        runs.with_previous(
            runs.cut(c[:, None, None].expand(order.shape).gather(3, order))
        ).unsqueeze(4)
        for c in (counts.others, counts.itself)
    )
    bias = torch.where(token.unsqueeze(5) == key_token, itself, others)
    return bias.masked_fill(own_bucket.unsqueeze(5) != key_bucket, -torch.inf)
