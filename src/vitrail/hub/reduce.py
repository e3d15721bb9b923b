"""A trained plain model is given a reducer, without training: same weights, fewer tokens at work.

run folder -> card and weights -> the same model with another reducer -> new run folder

Nothing in the old folder is touched. What a reducer learns (``filter``'s score, ``paca``'s
convolutions) is new, and named; the others learn nothing and need no training, though a little
distillation from the plain model gives back much of what they cost:
``vitrail train --from NEW --teacher OLD``.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import copyfile
from typing import TYPE_CHECKING, Any

from vitrail.digests import add_digest
from vitrail.errors import UserError
from vitrail.files import (
    atomic_folder,
    refuse_non_utf8_name,
    refuse_occupied,
    resolve_path,
    write_text,
)
from vitrail.hub.baselines import TIMM
from vitrail.hub.locate import WEIGHTS, run_of, weights_of
from vitrail.hub.names import one_or_each, with_options
from vitrail.hub.plugin_records import card_extra
from vitrail.hub.resolve import create_from_card, read_fitting_card
from vitrail.plugins import copy_plugins
from vitrail.schema import read_json

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vitrail.cost import Count
    from vitrail.models import Backbone
    from vitrail.tasks.card import Card

COPIED_FILES = ("recipe.yaml", "manifest.json", "problems.csv")
"""What a new run folder has of the old one as it is; figures of the plain model it has not."""


@dataclass(frozen=True, kw_only=True)
class ReducedRun:
    """What came of it.

    Attributes:
        folder: the new run.
        model: text of the new model; ``plain`` that of the old one.
        before: parameters and multiply-adds of the old model, at the run's image size.
        after: of the new one.
        fresh: names of tensors that no weights were there for.
        dropped: names of the old reducer's, which are not needed any more.
    """

    folder: Path
    model: str
    plain: str
    image: int
    before: "Count"
    after: "Count"
    fresh: tuple[str, ...]
    dropped: tuple[str, ...]


def give_reducer(model: "nn.Module", reducer: str | Sequence[str]) -> "Backbone":
    """A backbone with the weights of ``model`` and another reducer, one for all stages or each.

    What the reducer learns begins anew; tables of position are resized where it leaves another
    grid. ``model`` is not touched; mode and device are its own.

    Raises:
        UserError: not a backbone of Vitrail's.
        SpecError: a reducer that cannot serve its place.
    """
    from vitrail.models.backbone import Backbone
    from vitrail.models.zoo import entry, name_of, per_stage

    if not isinstance(model, Backbone):
        raise UserError(f"{type(model).__name__} is no backbone of Vitrail's: it takes no reducer")
    native = entry(name_of(model)).config.reducer
    chosen = per_stage(one_or_each(reducer), native)
    given = type(model)(replace(model.config, reducer=chosen))
    load_plain(given, model.state_dict())
    like = next(model.parameters())
    return given.to(like.device, like.dtype).train(model.training)


def load_plain(model: "nn.Module", state: "Mapping[str, Tensor]") -> tuple[list[str], list[str]]:
    """Load a model's weights into the same with another reducer; names that are fresh and left.

    Raises:
        UserError: they differ in more than the reducer.
    """
    from vitrail.models import load_into
    from vitrail.models.weights import REDUCERS

    own = {n: t for n, t in model.state_dict().items() if REDUCERS in n}
    old = {n: t for n, t in state.items() if REDUCERS in n}
    same = {n for n, t in own.items() if n in old and old[n].shape == t.shape}
    kept = {n: t for n, t in state.items() if n not in old}
    load_into(model, kept | own | {n: old[n] for n in same})  # type: ignore[arg-type]
    learned = {n for n, _ in model.named_parameters()}
    return sorted((set(own) - same) & learned), sorted(set(old) - same)


def reduce_run(source: str | Path, out: str | Path, reducer: str | Sequence[str]) -> ReducedRun:
    """Write a new run folder: the run ``source`` with a reducer, ready to predict and to tune.

    Args:
        source: a run folder, or one file of weights.
        out: a folder that does not exist yet, or an empty one.
        reducer: one for all stages, or one each.

    Raises:
        UserError: no run, a model of timm's, or something is at ``out`` already.
        SpecError: a reducer that cannot serve the model.
    """
    from vitrail.cost import count
    from vitrail.tasks.card import load_weights, read_card, save_weights

    source, out = Path(source), Path(out)
    refuse_non_utf8_name(out)
    refuse_occupied(out)
    weights, source = weights_of(source), run_of(source)
    source = source if weights.name in WEIGHTS and source.is_dir() else weights
    text = with_reducer(read_card(weights).model, reducer)
    card = read_fitting_card(weights, source)
    old, new = build_from_seed(card), build_from_seed(replace(card, model=text))
    origin = {"run": str(resolve_path(source)), "model": card.model, "command": sys.argv}
    with atomic_folder(out) as draft:
        for path in [source] if source.is_file() else [source / n for n in WEIGHTS]:
            if not path.is_file():
                continue
            fresh, dropped = load_plain(new, load_weights(path))
            name = WEIGHTS[0] if source.is_file() else path.name
            said = replace(card, model=text, extra=card_extra(text) | {"from": origin})
            save_weights(draft / name, new.state_dict(), said)
        copy_run_files(source, draft, {"model": text, "from": origin, **card_extra(text)})
        copy_plugins(card_extra(text).get("plugins", ()), draft)
    return ReducedRun(
        folder=out,
        model=text,
        plain=card.model,
        image=card.image,
        before=count(old, card.image, card.in_chans),
        after=count(new, card.image, card.in_chans),
        fresh=tuple(fresh),
        dropped=tuple(dropped),
    )


def with_reducer(text: str, reducer: str | Sequence[str]) -> str:
    """A model's text with another reducer.

    Raises:
        UserError: it is timm's own.
    """
    if text.startswith(TIMM):
        raise UserError(f"{text} is timm's own: a reducer works with our models only")
    return with_options(text, {"reducer": one_or_each(reducer)})


def build_from_seed(card: "Card") -> "nn.Module":
    """The model of a card, its first weights always the same."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return create_from_card(card).eval()


def copy_run_files(source: Path, draft: Path, changed: dict[str, Any]) -> None:
    """Of a run folder what holds for the new run too; ``run.json`` with what changed."""
    if source.is_file():
        return
    for name in COPIED_FILES:
        if (source / name).is_file() and not (source / name).is_symlink():
            copyfile(source / name, draft / name)
    if (source / "run.json").is_file():
        facts = read_json(source / "run.json", dict[str, Any]) | changed
        text = json.dumps(add_digest(facts), indent=1, ensure_ascii=False)
        write_text(draft / "run.json", text + "\n")
