"""All kinds of trials: inputs first, then broken machines."""

from benchmarks.faults.kinds import (
    archives,
    commands,
    folders,
    names,
    pictures,
    tables,
    texts,
    weights,
)
from benchmarks.faults.trial import Kind, by_name

KINDS: dict[str, Kind] = by_name((
    *pictures.KINDS, *archives.KINDS, *tables.KINDS, *folders.KINDS, *weights.KINDS,
    *commands.KINDS, *texts.KINDS, *names.KINDS,
))  # fmt: skip
