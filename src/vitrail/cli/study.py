"""``vitrail study``: several models trained alike on the same pictures, and a report."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional

from vitrail.cli.command import FLAG, Answer, Command, metavar
from vitrail.errors import UserError
from vitrail.files import resolve_path

if TYPE_CHECKING:
    from vitrail.study import StudyPlan


@dataclass(kw_only=True)
class Study(Command):
    """Compare models trained alike on the same pictures; ends in a table and report.html.

    The same command again goes on where a study stopped, and may add models, shares and seeds.
    Example: vitrail study photos/ --models vit_tiny coat_lite_tiny timm:resnet18
    """

    data: Positional[Annotated[str, metavar("DATA")]] = ""
    """Folder of class folders, CSV or Parquet table, zip, torchvision:NAME, fashion or scenes."""
    models: Annotated[tuple[str, ...], metavar("MODEL ...")] = ()
    """Names, with options if wanted, or timm:NAME (default: a ViT, a CoaT, a Clustering CoaT)."""
    weights: Annotated[tuple[str, ...], metavar("WORD ...")] = ()
    """Train every model from each: none (default), auto, timm:NAME, OWNER/NAME, a file or a run."""
    weights_folder: Annotated[Path | None, metavar("FOLDER")] = None
    """Released weights without a network: files named by timm's tag (default: VITRAIL_WEIGHTS)."""
    fractions: Annotated[tuple[float, ...], metavar("SHARE ...")] = ()
    """Shares of the training pictures, each inside the next (default: 0.1 1)."""
    seeds: Annotated[tuple[int, ...], metavar("N ...")] = ()
    """Every model is trained once with each (default: 0)."""
    budget: Annotated[Literal["epochs", "images", "seconds"] | None, metavar("WHAT")] = None
    """What all trainings have alike: epochs (default), images seen, or seconds."""
    seconds: Annotated[float | None, metavar("S")] = None
    """Seconds of each training, with --budget seconds."""
    epochs: Annotated[int | None, metavar("N")] = None
    """Passes through the pictures (default: what suits the set)."""
    image: Annotated[int | None, metavar("N")] = None
    """Size in pixels that the models see (default: 96; fashion 32)."""
    val: Annotated[float | None, metavar("SHARE")] = None
    """Share kept for validation where the set has no split of its own (default: 0.2)."""
    copies: Annotated[bool, FLAG] = False
    """Count copies of a training picture as often as they are there (for rare classes)."""
    recipe: Annotated[Path | None, metavar("FILE.yaml")] = None
    """A recipe in YAML, in full or in part."""
    set: Annotated[tuple[str, ...], metavar("KEY=VALUE ...")] = ()
    """Change single values of the recipe: --set lr=0.001 batch=64."""
    out: Path = Path("vitrail-study")
    """Folder of the study."""
    resume: Annotated[Path | None, metavar("STUDY")] = None
    """Go on with the study in this folder; takes no other option."""

    def run(self) -> Answer:
        """Run what is not done yet, then report."""
        from vitrail import study

        if self.resume:
            done = study.resume(self.resume)
        else:
            done = study.run(plan_from_options(self), self.out)
        results = study.StudyResults.load(done.out)
        failed = [f"failed: {failure.message}" for failure in done.failures]
        where = f"report: {resolve_path(done.report)}"
        data = {
            "study": str(done.out),
            "report": str(done.report),
            "rows": done.rows,
            "failures": [vars(failure) for failure in done.failures],
        }
        return Answer(data, [study.terminal_table(results), *failed, where], done.status)


def plan_from_options(options: Study) -> "StudyPlan":
    """The plan that was typed; what was not typed is left to what suits the data."""
    if not options.data:
        raise UserError("say what to compare on: vitrail study photos/ (or fashion, to try it)")
    from vitrail.study import StudyPlan

    given = {name: getattr(options, name) for name in ("fractions", "seeds", "image", "val")}
    given |= {
        "arms": options.models,
        "weights": options.weights,
        "budget": options.budget,
        "seconds": options.seconds,
    }
    folder = options.weights_folder
    given |= {
        "copies": options.copies or None,
        "weights_folder": None if folder is None else str(resolve_path(folder)),
    }
    typed = {name: value for name, value in given.items() if value not in (None, ())}
    return StudyPlan.of(options.data, recipe=recipe_changes(options), **typed)


def recipe_changes(options: Study) -> Mapping[str, Any]:
    """What the recipe file, --set and --epochs change."""
    from vitrail.cli.settings import changes_of
    from vitrail.yaml_text import merge, read_yaml

    changes = changes_of(options.set)
    if "seed" in changes:
        raise UserError("a study trains with the seeds of --seeds; leave seed out of --set")
    said = changes | ({} if options.epochs is None else {"epochs": options.epochs})
    return merge(read_yaml(options.recipe, "recipe") if options.recipe else {}, said)
