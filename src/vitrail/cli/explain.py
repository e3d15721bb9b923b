"""``vitrail explain``: where in pictures a run's answers lie, and how far to trust such maps."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from vitrail.cli.command import Answer, Command, shown_as
from vitrail.errors import UserError


@dataclass(kw_only=True)
class Explain(Command):
    """Draw where in pictures a run's answers lie; or score how far such maps can be trusted.

    Writes overlays, sheets of what the layers chose, raw maps (.npz) and JSON into a new folder.
    Example: vitrail explain runs/photos-1 new/*.jpg --method gradcam rollout --out maps
    With --score: every method beside four baselines, on pictures whose objects may be known.
    Example: vitrail explain runs/scenes-1 --score "scenes(count=200)"
    """

    folder: Positional[Annotated[str, arg(metavar="RUN")]]
    """A run folder, or a .safetensors file of one."""
    pictures: Positional[Annotated[tuple[str, ...], shown_as("PICTURES ...")]] = ()
    """Files, folders (searched through) and patterns such as "new/**/*.png"."""
    method: Annotated[tuple[str, ...], shown_as("NAME ...")] = ()
    """Methods, or all (default: occlusion; with --score all)."""
    beside: Annotated[tuple[str, ...], shown_as("RUN ...")] = ()
    """More runs: also draws a sheet of methods by models for each picture."""
    target: Annotated[str | None, shown_as("CLASS")] = None
    """The class to explain, by name or number (default: the predicted one)."""
    set: Annotated[tuple[str, ...], shown_as("METHOD.KEY=VALUE ...")] = ()
    """Options of methods: --set rise.masks=1000 occlusion.window=24."""
    score: Annotated[str | None, shown_as("DATA")] = None
    """Score on this set: as for training, or a folder with images/ and masks/ or boxes.csv."""
    part: Annotated[str | None, shown_as("PART")] = None
    """Part of DATA to score on: train, val, test or all (default: test, else val)."""
    count: int = 64
    """Pictures to score on, all answered rightly."""
    steps: int = 56
    """Steps of insertion and deletion."""
    seed: int = 0
    """Of methods that draw, and of the choice of pictures."""
    out: Annotated[Path | None, arg(aliases=["-o"], metavar="FOLDER", help_behavior_hint="")] = None
    """A folder that is empty or not there yet (default: explanations/NAME-DATE)."""

    def run(self) -> Answer:
        """Draw, or score."""
        from vitrail.cli import maps, scoring

        if self.count < 1 or self.steps < 1:
            raise UserError("--count and --steps must be 1 or more")
        if self.score is None:
            return maps.drawn(self)
        if self.pictures:
            raise UserError(
                f"--score takes its pictures from {self.score!r}: leave out {self.pictures[0]!r}, "
                "or leave out --score"
            )
        return scoring.scored(self)
