"""What a model's first weights are and what became of them: found before, recorded after loading.

word -> Weights (a file, and what is known of it) -> loaded into the model -> Origin
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from vitrail.models.reader import choice
from vitrail.models.weights import LoadReport
from vitrail.schema import convert
from vitrail.tensors import file_digest

NON_COMMERCIAL = re.compile(
    r"(^|[-_ ])nc([-_ ]|$)|non-?commercial|^apple-amlr$|^seer-license$", re.IGNORECASE
)
"""Licences that forbid commercial use, under the names by which the hub and timm know them."""
MOST_NAMES = 20
"""Names of tensors that a record lists before it counts the rest."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A file of weights that was found and not read yet.

    Attributes:
        file: its path, perhaps with ``#raw`` behind it.
        source: words that find it again: ``timm:NAME.TAG``, ``OWNER/NAME``, a path.
        place: where it was found: ``"weights folder"``, ``"cache"``, ``"net"``, ``"file"``.
        revision: commit of the repository on the hub.
        licence: as its publisher names it; empty where nobody says.
        classes: that its head knows, where its publisher says so.
        preprocess: fields of :class:`vitrail.data.Preprocess` that it was trained with.
    """

    file: str
    source: str
    place: str
    revision: str = ""
    licence: str = ""
    classes: int | None = None
    preprocess: Mapping[str, Any] = field(default_factory=dict)

    @property
    def image(self) -> int | None:
        """Pixels it was trained at, where that is known."""
        return self.preprocess.get("image")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a model's first weights came from, and what became of each tensor.

    ``sha256`` is of the file. ``loaded`` counts the model's tensors that came from it; ``resized``
    are those of them that were fitted to another size; ``new`` are the model's own, random ones;
    ``left_out`` are the file's that the model has no use for. Long lists are cut.
    """

    source: str
    place: str
    sha256: str
    loaded: int
    resized: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    revision: str = ""
    licence: str = ""
    preprocess: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def create(cls, weights: Weights, report: LoadReport) -> "Origin":
        """The record of weights that were loaded."""
        path, _ = choice(weights.file)
        return cls(
            source=weights.source,
            place=weights.place,
            sha256=file_digest(Path(path)),
            loaded=report.loaded,
            resized=shorten(report.resized),
            new=shorten(report.new),
            left_out=shorten(report.left_out),
            revision=weights.revision,
            licence=weights.licence,
            preprocess=dict(weights.preprocess),
        )

    @property
    def is_non_commercial(self) -> bool:
        """Whether the licence forbids commercial use."""
        return is_non_commercial(self.licence)

    @property
    def lines(self) -> list[str]:
        """What is said when a training begins: what was loaded, and a licence that binds."""
        parts = [f"{self.loaded} tensors loaded"]
        named = (("resized", self.resized), ("new", self.new), ("left out", self.left_out))
        parts += [f"{what}: {summarise(names)}" for what, names in named if names]
        where = f"{self.source} ({self.place}; licence {self.licence or 'not stated'})"
        found = [f"starts from {where}: {'; '.join(parts)}"]
        if self.is_non_commercial:
            found.append(
                f"the licence of {self.source} is {self.licence}: neither it nor what is trained "
                "from it may be used commercially"
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Any, where: str) -> "Origin":
        """The inverse of :meth:`to_dict`.

        Raises:
            UserError: something else stands there.
        """
        found: Origin = convert(cls, values, where, extra_keys=True)
        return found


def is_non_commercial(licence: str) -> bool:
    """Whether a licence, under the name of the hub or of timm, forbids commercial use."""
    return NON_COMMERCIAL.search(licence) is not None


def shorten(names: tuple[str, ...]) -> tuple[str, ...]:
    """The first names, and how many more there are."""
    more = len(names) - MOST_NAMES
    return names if more <= 0 else (*names[:MOST_NAMES], f"... and {more} more")


def summarise(names: tuple[str, ...]) -> str:
    """A few names on one line."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def origin_of(model: nn.Module) -> Origin | None:
    """The record of a model that :func:`vitrail.create` loaded weights into."""
    found = getattr(model, "weights_origin", None)
    return found if isinstance(found, Origin) else None


def record_origin(model: nn.Module, origin: Origin) -> None:
    """Let a model know where its weights came from."""
    setattr(model, "weights_origin", origin)  # noqa: B010
