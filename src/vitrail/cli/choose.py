"""``vitrail choose``: which backbone suits these pictures, within minutes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from vitrail.cli.command import Answer, Command, metavar

SAME = (
    "data", "minutes", "pool", "weights", "weights_folder", "max_ms", "max_mb", "max_params",
    "batch", "val", "seed", "out",
)  # fmt: skip
"""Options that ``vitrail.choose`` calls by the same names."""


@dataclass(kw_only=True)
class Choose(Command):
    """Find the backbone that suits these pictures, on this machine, within minutes.

    Ends in a table, choose.html and the command that trains the choice; Ctrl-C gives the best so
    far, and the same command goes on.
    Example: vitrail choose photos/ --max-ms 30
    """

    data: Positional[Annotated[str, metavar("DATA")]] = ""
    """Folder of class folders, CSV or Parquet table, zip, torchvision:NAME, fashion or scenes."""
    minutes: float = 10.0
    """For everything: reading, timing, probing, fine-tuning."""
    pool: Annotated[tuple[str, ...], metavar("MODEL ...")] = ()
    """Candidates: names, calls, or patterns such as 'timm:convnext*' (default: a curated list)."""
    weights: Annotated[str, metavar("WORD")] = "auto"
    """Where candidates start: auto (released weights if they can be had) or none."""
    weights_folder: Annotated[Path | None, metavar("FOLDER")] = None
    """Released weights without a network: files named by timm's tag (default: VITRAIL_WEIGHTS)."""
    max_ms: Annotated[float | None, metavar("MS")] = None
    """The most milliseconds of a batch, on this machine."""
    max_mb: Annotated[float | None, metavar("MB")] = None
    """The most megabytes of float32 weights."""
    max_params: Annotated[float | None, metavar("N")] = None
    """The most parameters."""
    batch: int = 1
    """Pictures in the batch whose time counts."""
    val: float = 0.2
    """Share kept for comparing where the set has no validation part of its own."""
    seed: int = 0
    """Of split, rounds and trials."""
    out: Path = Path("vitrail-choice")
    """Folder of the choice."""

    def run(self) -> Answer:
        """Choose, and say what was found."""
        from vitrail.study.choose.answer import sentences, table
        from vitrail.study.choose.choice import choose

        choice = choose(**{name: getattr(self, name) for name in SAME})
        parts = [table(choice.state), *sentences(choice.state)]
        parts += [f"to train it: {choice.command}", f"page: {choice.page}"]
        return Answer(choice.to_dict(), parts)
