"""Result files of this folder; their shape is the library's, as `vitrail cost` writes them too."""

from pathlib import Path

from vitrail.bench.contract import FORMAT, TOP, Bar, Record, against, faults, row, stamp

__all__ = ["FORMAT", "RESULTS", "TOP", "Bar", "Record", "against", "faults", "row", "stamp"]

RESULTS = Path(__file__).parent / "results"
