"""``vitrail train``: from a set of pictures to a trained model."""

from dataclasses import asdict, dataclass

from vitrail.cli.command import Answer
from vitrail.cli.options import TrainOptions
from vitrail.errors import shell_path


@dataclass(kw_only=True)
class Train(TrainOptions):
    """Train a model on pictures; the run folder holds all that is needed to use it or go on.

    Example: vitrail train photos/
    """

    def run(self) -> Answer:
        """Train, or go on with a stopped run."""
        from vitrail.cli.settings import changes_of
        from vitrail.train.display import describe_scores
        from vitrail.train.processes import leave_group
        from vitrail.train.setup import fit

        result = fit(
            self.data,
            model=None if self.model == TrainOptions.model else self.model,
            mixer=self.mixer,
            reducer=self.reducer,
            image=self.image,
            epochs=self.epochs,
            fraction=self.fraction,
            seed=self.seed,
            val=self.val,
            copies=self.copies,
            strict=self.strict,
            weights=self.weights,
            weights_folder=self.weights_folder,
            start_from=self.from_,
            tune=self.tune,
            teacher=self.teacher,
            distill=self.distill,
            alpha=self.alpha,
            temperature=self.temperature,
            recipe=self.recipe,
            changes=changes_of(self.set),
            out=self.out,
            resume_from=self.resume,
        )
        leave_group()
        facts = asdict(result)
        best = result.best
        known = best.get("accuracy") is not None
        score = f", best in validation: {describe_scores(best)}" if known else ""
        said = f"{result.epochs} epochs in {result.seconds:.0f} s{score}: {result.folder}"
        return Answer(facts, [said, f"next: vitrail predict {shell_path(result.folder)} PICTURES"])
