"""``vitrail models | mixers | reducers``: what there is."""

from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any

from tyro.conf import Positional

from vitrail.cli.command import FLAG, Answer, Command, shown_as, table
from vitrail.errors import unknown


@dataclass(kw_only=True)
class Models(Command):
    """List the backbones, with parameters and multiply-adds.

    Example: vitrail models coat
    """

    like: Positional[Annotated[str, shown_as("TEXT")]] = ""
    """Only names that contain this."""
    image: int = 224
    """Size in pixels at which multiply-adds are counted."""
    names: Annotated[bool, FLAG] = False
    """Names alone (fast: nothing is built)."""

    def run(self) -> Answer:
        """List, and count each model unless names suffice."""
        from vitrail.hub import model_names

        every = model_names()
        chosen = [name for name in every if self.like in name]
        if not chosen:
            raise unknown("model", self.like, every)
        if self.names:
            return Answer(chosen, chosen)
        from vitrail.cli.measure import counted

        rows = counted(tuple(chosen), (self.image,))
        shown = [(r["model"], f"{r['params'] / 1e6:.2f}", f"{r['macs'] / 1e9:.3f}") for r in rows]
        title = f"{len(rows)} backbones at {self.image} px, 1000 classes (vitrail.create(name))"
        return Answer(rows, [table(title, ("model", "M parameters", "G multiply-adds"), shown)])


@dataclass(kw_only=True)
class Mixers(Command):
    """List the mixers: how tokens meet.

    Example: vitrail mixers
    """

    def run(self) -> Answer:
        """Every registered mixer with its options."""
        from vitrail.mixers import MixerSpec

        return specs("mixer", MixerSpec.known)


@dataclass(kw_only=True)
class Reducers(Command):
    """List the reducers: which tokens work.

    Example: vitrail reducers
    """

    def run(self) -> Answer:
        """Every registered reducer with its options."""
        from vitrail.reducers import ReducerSpec

        return specs("reducer", ReducerSpec.known)


def specs(kind: str, known: dict[str, Any]) -> Answer:
    """Names, options with defaults, and the first line of each spec's docstring."""
    rows = [
        {
            kind: name,
            "options": {f.name: default_of(f) for f in fields(spec)},
            "about": (spec.__doc__ or "").strip().splitlines()[0],
        }
        for name, spec in sorted(known.items())
    ]
    shown = [
        (r[kind], ", ".join(f"{k}={v!r}" for k, v in r["options"].items()), r["about"])
        for r in rows
    ]
    note = f'vitrail.create("coat_lite_tiny", {kind}="{rows[0][kind]}")' if rows else ""
    return Answer(rows, [table(f"{kind}s", (kind, "options", "what it is"), shown, left=3), note])


def default_of(field: Any) -> Any:
    """A dataclass field's default; None where a value must be given."""
    return None if field.default is MISSING else field.default
