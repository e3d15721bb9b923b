"""``vitrail reduce``: a trained run with another reducer, without training."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from vitrail.cli.command import Answer, Command, metavar, table
from vitrail.console import print_stderr
from vitrail.errors import UserError, shell_path

if TYPE_CHECKING:
    from vitrail.hub.reduce import ReducedRun


@dataclass(kw_only=True)
class Reduce(Command):
    """Give a trained model a reducer without training: a new run folder with the same weights.

    Example: vitrail reduce runs/plain --reducer "cluster(ratio=4)" -o runs/clustered
    """

    folder: Positional[Annotated[Path | None, metavar("RUN")]] = None
    """A run folder, or one of its weights files; it is not touched."""
    reducer: Annotated[tuple[str, ...], metavar("REDUCER ...")] = ()
    """Which tokens work: one for all stages, or one each (see 'vitrail reducers')."""
    out: Annotated[Path | None, arg(aliases=("-o",), metavar="FOLDER", help_behavior_hint="")] = (
        None
    )
    """The run folder to make; nothing is overwritten."""

    def run(self) -> Answer:
        """Make it, and say what it costs and what is new."""
        if self.folder is None or not self.reducer or self.out is None:
            raise UserError(
                "say which run, which reducer and where to: "
                'vitrail reduce RUN --reducer "cluster(ratio=4)" -o NEWRUN'
            )
        from vitrail.hub.reduce import reduce_run

        made = reduce_run(self.folder, self.out, self.reducer)
        return Answer(facts(made), [costs(made), *lines(made, self.folder)])


@dataclass(kw_only=True)
class Create(Reduce):
    """The old word for 'vitrail reduce'.

    Example: vitrail create runs/plain --reducer "cluster(ratio=4)" -o runs/clustered
    """

    def run(self) -> Answer:
        """Reduce, and say the new word; beside an error nothing else is said."""
        answer = super().run()
        print_stderr("vitrail: 'vitrail create RUN' is called 'vitrail reduce RUN' now")
        return answer


def facts(made: "ReducedRun") -> dict[str, object]:
    """For JSON."""
    return {
        "folder": str(made.folder),
        "model": made.model,
        "from": made.plain,
        "image": made.image,
        "params": [made.before.params, made.after.params],
        "macs": [made.before.macs, made.after.macs],
        "newly_initialised": made.fresh,
        "dropped": made.dropped,
    }


def costs(made: "ReducedRun") -> object:
    """Parameters and multiply-adds before and after."""
    rows = [
        (text, f"{c.params / 1e6:.2f}", f"{c.macs / 1e9:.3f}", f"{c.macs / made.before.macs:.0%}")
        for text, c in ((made.plain, made.before), (made.model, made.after))
    ]
    return table(("model", "M params", f"GMAC at {made.image} px", ""), rows)


def lines(made: "ReducedRun", source: Path) -> list[str]:
    """What was newly initialised, and what to do next."""
    new = "nothing: every weight is the plain model's"
    if made.fresh:
        some = ", ".join(made.fresh[:3]) + (", ..." if len(made.fresh) > 3 else "")
        new = f"{len(made.fresh)} tensors of the reducer ({some}): fine-tune before use"
    gone = [f"dropped: {len(made.dropped)} tensors of the old reducer"] if made.dropped else []
    return [
        f"newly initialised: {new}",
        *gone,
        f"new run: {made.folder}",
        f"next: vitrail train --from {shell_path(made.folder)} --teacher {shell_path(source)}",
    ]
