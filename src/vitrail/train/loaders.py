"""A loader for each part of the dataset, and its speed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vitrail import data
from vitrail.data import ImageDataset, Item
from vitrail.train.display import OnEvent
from vitrail.train.recipe import Recipe
from vitrail.train.sampling import BatchSchedule

_CACHE_LIMIT = 10**9
_WORTH_SAYING = 1000


@dataclass(kw_only=True)
class PartLoaders:
    """A loader for each part, made when it is first asked for and kept."""

    dataset: ImageDataset
    parts: Mapping[str, Sequence[Item]]
    preprocess: data.Preprocess
    recipe: Recipe
    pin: bool
    emit: OnEvent
    loaders: dict[str, data.Loader] = field(default_factory=dict)
    sets: dict[str, data.ImageTensors] = field(default_factory=dict)

    def loader(self, part: str) -> data.Loader:
        """Augmented for the training part, as in prediction for the others."""
        if part not in self.loaders:
            chosen = self.sets[part] = self._set(part, self._cache(part))
            self.loaders[part] = data.Loader(chosen, workers=self.recipe.workers, pin=self.pin)
        return self.loaders[part]

    def _transform(self, part: str) -> Any:
        if part == "train":
            return self.recipe.augment.transform(self.preprocess)
        return self.preprocess.transform()

    def _set(self, part: str, cache: str | None) -> data.ImageTensors:
        transform = self._transform(part)
        items, seed = self.parts[part], self.recipe.seed
        return data.ImageTensors(
            self.dataset, items, transform, seed, cache=cache, limit=_CACHE_LIMIT
        )

    def _cache(self, part: str) -> str | None:
        """Memory, if the recipe allows it and the prepared images are at most 1 GB."""
        items, count = self.parts[part], len(self.parts[part])
        size = data.ImageTensors.cache_bytes(items, self._transform(part))
        if not self.recipe.cache or size > _CACHE_LIMIT:
            return None
        if count >= _WORTH_SAYING:
            line = f"decoding {count:,} {part} pictures once, to keep them in memory (cache)"
            self.emit({"kind": "note", "line": line})
        return "memory"

    def measure_rate(self, batch_schedule: BatchSchedule, seconds: float) -> float:
        """Images per second of the training loader alone, without the model."""
        self.loader("train")
        return data.measure_loader(
            self.sets["train"],
            batch=batch_schedule.microbatch_size,
            workers=self.recipe.workers,
            seconds=seconds,
        )
