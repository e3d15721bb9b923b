"""A head that comes with weights knows classes by name: its rows follow names, not places."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.errors import UserError, printable
from vitrail.models.reader import choice
from vitrail.tasks.card import read_card


def classes_of(file: str | Path) -> tuple[str, ...]:
    """The classes that weights were trained for, by their card; none where they have no card."""
    try:
        return read_card(choice(file)[0]).classes
    except UserError:
        return ()


def match_head(model: nn.Module, classes: Sequence[str], old: Sequence[str]) -> None:
    """Give each class the row of the head that knew it by name; new names get new rows.

    A head of another number of classes is new anyway. One line says what was changed.
    """
    if len(old) != len(classes) or tuple(old) == tuple(classes):
        return
    place = {name: row for row, name in enumerate(old)}
    new = [name for name in classes if name not in place]
    with torch.no_grad():
        for layer in last_layers(model, len(classes)):
            for tensor in (layer.weight, layer.bias):
                if isinstance(tensor, Tensor):
                    tensor.copy_(rows_by_name(tensor, classes, place))
    if new:
        shown = ", ".join(printable(repr(name)) for name in new[:3]) + (", …" if new[3:] else "")
        line = f"the head is new for {len(new)} of {len(classes)} classes ({shown})"
    else:
        line = "the weights know the classes in another order: the head follows their names"
    warnings.warn(line, stacklevel=2)


def rows_by_name(tensor: Tensor, classes: Sequence[str], place: dict[str, int]) -> Tensor:
    """The rows ``place[name]`` of ``tensor`` in the order of ``classes``; others begin small."""
    rows = torch.zeros_like(tensor)
    if tensor.dim() > 1:
        nn.init.trunc_normal_(rows, std=0.02)
    for row, name in enumerate(classes):
        if name in place:
            rows[row] = tensor[place[name]]
    return rows


def last_layers(model: nn.Module, classes: int) -> list[nn.Linear]:
    """The layers that give the logits; a model that is distilled has two."""
    giver: Any = getattr(model, "get_classifier", nn.Identity)
    found = giver()
    heads = found if isinstance(found, tuple) else (found,)
    layers: list[nn.Linear] = []
    for head in heads:
        own = [m for m in head.modules() if isinstance(m, nn.Linear) and m.out_features == classes]
        layers += own[-1:] if isinstance(head, nn.Sequential) else own
    return layers
