"""All kinds of trials: inputs first, then broken machines."""

from benchmarks.faults.kinds import (
    archives,
    breaks,
    commands,
    disks,
    folders,
    names,
    pictures,
    races,
    tables,
    texts,
    weights,
)
from benchmarks.faults.trial import Kind, by_name

KINDS: dict[str, Kind] = by_name(
    kind
    for part in (
        pictures, archives, tables, folders, weights, commands, texts, names,
        breaks, races, disks,
    )
    for kind in part.KINDS
)  # fmt: skip
