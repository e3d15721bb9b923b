"""``vitrail models | mixers | reducers``: what there is."""

from dataclasses import MISSING, dataclass
from typing import Annotated, Any

from tyro.conf import Positional

from vitrail.cli.command import FLAG, Answer, Command, metavar, table
from vitrail.console import track_items
from vitrail.errors import unknown


@dataclass(kw_only=True)
class Models(Command):
    """List the backbones: how their tokens meet, which of them work, and the paper.

    Example: vitrail models coat --count
    """

    like: Positional[Annotated[str, metavar("TEXT")]] = ""
    """Only names that contain this."""
    count: Annotated[bool, FLAG] = False
    """Also count parameters and multiply-adds of one picture, with 1000 classes."""
    image: int = 224
    """Size in pixels at which they are counted."""

    def run(self) -> Answer:
        """List, and count if asked to."""
        from vitrail.hub import catalogue

        every = catalogue()
        rows: list[dict[str, Any]] = [row for row in every if self.like in row["model"]]
        if not rows:
            raise unknown("model", self.like, [row["model"] for row in every])
        if self.count:
            rows = [
                row | count_costs(row["model"], self.image) for row in track_items("counting", rows)
            ]
        shown = [(*list(row.values())[:4], *cost_cells(row)) for row in rows]
        head = ["model", "mixer", "reducer", "paper", "M params", "G multiply-adds"]
        title = f"{len(rows)} backbones; any of timm's too, as timm:NAME"
        return Answer(rows, [title, table(head if self.count else head[:4], shown, left=4)])


def count_costs(model: str, image: int) -> dict[str, int]:
    """Parameters and multiply-adds, for JSON."""
    from vitrail.hub.catalogue import count_on_meta

    found = count_on_meta(model, image)
    return {"params": found.params, "macs": found.macs}


def cost_cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Millions of parameters and billions of multiply-adds, where counted."""
    return (f"{row['params'] / 1e6:.2f}", f"{row['macs'] / 1e9:.3f}") if "params" in row else ()


@dataclass(kw_only=True)
class Mixers(Command):
    """List the mixers: how tokens meet.

    Example: vitrail mixers
    """

    def run(self) -> Answer:
        """Every registered mixer with its options."""
        from vitrail.mixers import MixerSpec

        return list_specs("mixer", MixerSpec.registry())


@dataclass(kw_only=True)
class Reducers(Command):
    """List the reducers: which tokens work.

    Example: vitrail reducers
    """

    def run(self) -> Answer:
        """Every registered reducer with its options."""
        from vitrail.reducers import ReducerSpec

        return list_specs("reducer", ReducerSpec.registry())


def list_specs(kind: str, known: dict[str, Any]) -> Answer:
    """Names, options with defaults, and the first line of each spec's docstring."""
    rows: list[dict[str, Any]] = [
        {
            kind: name,
            "options": {f.name: default_of(f) for f in spec.options()},
            "about": (spec.__doc__ or "").strip().splitlines()[0],
        }
        for name, spec in sorted(known.items())
    ]
    shown = [
        (r[kind], ", ".join(f"{k}={v!r}" for k, v in r["options"].items()), r["about"])
        for r in rows
    ]
    note = f'vitrail.create("coat_lite_tiny", {kind}="{rows[0][kind]}")' if rows else ""
    return Answer(rows, [table((kind, "options", "what it is"), shown, left=3), note])


def default_of(field: Any) -> Any:
    """A dataclass field's default; None where a value must be given."""
    return None if field.default is MISSING else field.default
