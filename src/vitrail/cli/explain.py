"""``vitrail explain``: where in pictures a run's answers lie, and how far to trust such maps."""

from dataclasses import dataclass

from vitrail.cli.command import Answer
from vitrail.cli.options import ExplainOptions
from vitrail.errors import UserError


@dataclass(kw_only=True)
class Explain(ExplainOptions):
    """Draw where in pictures a run's answers lie; or score how far such maps can be trusted.

    Writes overlays, sheets of what the layers chose, raw maps (.npz) and JSON into a new folder.
    Example: vitrail explain runs/photos-1 new/*.jpg --method gradcam rollout --out maps
    With --score: every method beside four baselines, on pictures whose objects may be known.
    Example: vitrail explain runs/scenes-1 --score "scenes(count=200)"
    """

    def run(self) -> Answer:
        """Draw, or score."""
        from vitrail.cli import maps, scoring

        if self.count < 1 or self.steps < 1:
            raise UserError("--count and --steps must be 1 or more")
        if self.score is None:
            return maps.draw_explanations(self)
        if self.pictures:
            raise UserError(
                f"--score takes its pictures from {self.score!r}: leave out {self.pictures[0]!r}, "
                "or leave out --score"
            )
        return scoring.score_runs(self)
