"""``vitrail train``: from a set of pictures to a trained model."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from vitrail.cli.command import FLAG, Answer, Command, shown_as


@dataclass(kw_only=True)
class Train(Command):
    """Train a model on pictures; the run folder holds all that is needed to use it or go on.

    Example: vitrail train photos/
    """

    data: Positional[Annotated[str, shown_as("DATA")]] = ""
    """Folder of class folders, CSV or Parquet table, zip, torchvision:NAME, fashion or scenes."""
    model: str = "coat_lite_tiny"
    """A name of 'vitrail models', with options if wanted, or timm:NAME."""
    mixer: Annotated[tuple[str, ...], shown_as("MIXER ...")] = ()
    """Another way for tokens to meet: one for all stages, or one each (native: as in the paper)."""
    reducer: Annotated[tuple[str, ...], shown_as("REDUCER ...")] = ()
    """Which tokens work: one for all stages, or one each."""
    image: Annotated[int | None, shown_as("N")] = None
    """Size in pixels that the model sees (default: from the pictures, 64 to 224)."""
    epochs: Annotated[int | None, shown_as("N")] = None
    """Passes through the pictures (default: the recipe's)."""
    fraction: float = 1.0
    """Share of the training pictures, the same in every class."""
    seed: int = 0
    """Seed of the split, the fraction and the training."""
    val: float = 0.2
    """Share kept for validation where the set has no split of its own."""
    copies: Annotated[bool, FLAG] = False
    """Count copies of a training picture as often as they are there (for rare classes)."""
    weights: Annotated[Path | None, shown_as("FILE")] = None
    """Start from released weights (.pth or .safetensors)."""
    from_: Annotated[Path | None, arg(name="from", metavar="RUN", help_behavior_hint="")] = None
    """Start from a trained run: its model (--reducer may differ), weights, size and pictures."""
    teacher: Annotated[str | None, shown_as("RUN|timm:NAME")] = None
    """Learn from a trained model too: a run folder, or timm's with its released weights."""
    distill: Annotated[Literal["hard", "soft"] | None, shown_as("hard|soft")] = None
    """How the teacher is heard: its best class (hard, default) or all its probabilities."""
    alpha: Annotated[float | None, shown_as("0..1")] = None
    """What the teacher's word weighs beside the label (default: hard 0.5, soft 0.1)."""
    temperature: Annotated[float | None, shown_as("T")] = None
    """Softens the probabilities of teacher and student (default 3, soft only)."""
    recipe: Annotated[Path | None, shown_as("FILE.yaml")] = None
    """A recipe in YAML; every run folder holds the one it used."""
    set: Annotated[tuple[str, ...], shown_as("KEY=VALUE ...")] = ()
    """Change single values of the recipe: --set lr=0.001 batch=64."""
    out: Annotated[Path | None, shown_as("FOLDER")] = None
    """Run folder to make (default: runs/NAME-DATE; nothing is overwritten)."""
    strict: Annotated[bool, FLAG] = False
    """Stop at broken pictures instead of leaving them out."""
    resume: Annotated[Path | None, shown_as("RUN")] = None
    """Go on with a run that was stopped; takes only --set of what changes no result (workers)."""

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
