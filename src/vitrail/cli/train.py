"""``vitrail train``: from a set of pictures to a trained model."""

from dataclasses import asdict, dataclass

from vitrail.cli.command import Answer
from vitrail.cli.options import TrainOptions


@dataclass(kw_only=True)
class Train(TrainOptions):
    """Train a model on pictures; the run folder holds all that is needed to use it or go on.

    Example: vitrail train photos/
    """

    def run(self) -> Answer:
        """Train, or go on with a stopped run."""
        from vitrail.cli.job import go_on, prepare
        from vitrail.train.display import scored

        if self.resume is not None:
            result = go_on(self.resume, self.set)
        else:
            result = prepare(self).fit()
        facts = asdict(result)
        best = result.best
        known = best.get("accuracy") is not None
        score = f", best in validation: {scored(best)}" if known else ""
        said = f"{result.epochs} epochs in {result.seconds:.0f} s{score}: {result.folder}"
        return Answer(facts, [said, f"next: vitrail predict {result.folder} PICTURES"])
