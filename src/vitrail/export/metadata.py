"""What an ONNX file says of itself: names of its axes, classes, preprocessing.

Every value in the file's metadata is JSON::

    classes       names, in the order of the logits
    preprocess    image (pixels), mean, std, interpolation, crop, in_chans
    axes          names of the axes of each input and output
    vitrail.card  both of the first, the model's text, its sizes and precision

ONNX Runtime gives them as ``session.get_modelmeta().custom_metadata_map``.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitrail.errors import UserError
from vitrail.schema import parse_json

if TYPE_CHECKING:
    from vitrail.tasks.card import Card

INPUT, OUTPUT = "image", "logits"
AXES = {INPUT: ("batch", "channels", "height", "width"), OUTPUT: ("batch", "classes")}
KEY = "vitrail.card"
FORMAT, VERSION = "vitrail-onnx", 1


@dataclass(frozen=True, kw_only=True)
class FileCard:
    """The card inside a file: what is needed to use it, and where it came from."""

    format: str
    version: int
    classes: tuple[str, ...]
    preprocess: dict[str, Any]
    model: str = ""
    sizes: str = ""
    precision: str = ""
    axes: dict[str, tuple[str, ...]] = field(default_factory=dict)


def metadata_of(card: "Card", *, precision: str, any_size: bool) -> dict[str, str]:
    """The metadata of a file made from a run with this card."""
    fields = {
        "format": FORMAT,
        "version": VERSION,
        "model": card.model,
        "classes": list(card.classes),
        "preprocess": card.preprocess,
        "sizes": "multiples of 32" if any_size else "fixed",
        "precision": precision,
        "axes": AXES,
    }
    values = {"classes": fields["classes"], "preprocess": fields["preprocess"], KEY: fields}
    return {key: json.dumps(value, ensure_ascii=False) for key, value in values.items()}


def read_metadata(metadata: Mapping[str, str], path: Path) -> FileCard:
    """The card in an ONNX file's metadata.

    Raises:
        UserError: none, or not of this form.
    """
    if KEY not in metadata:
        raise UserError(
            f"{str(path)!r} does not say its classes and preprocessing (no {KEY!r} in its "
            "metadata); give a file or folder that 'vitrail export' wrote"
        )
    card: FileCard = parse_json(metadata[KEY], FileCard, f"{KEY!r} in {str(path)!r}")
    if card.format != FORMAT or card.version > VERSION:
        raise UserError(
            f"{str(path)!r} has a card of format {card.format!r}, version {card.version}; this "
            f"Vitrail reads {FORMAT}, version {VERSION}: update it, or export the model again"
        )
    return card


def describe(path: Path, metadata: Mapping[str, str]) -> None:
    """Name the axes of the file at ``path``, and write ``metadata`` into it.

    torch's own notes on each operation go: they hold paths of this machine, and counters that
    differ from export to export. So one model gives the same bytes each time.
    """
    import onnx

    model = onnx.load(path)
    graph = model.graph
    graph.ClearField("value_info")
    for part in (graph, *graph.node, *ends_of(graph), *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    rename_values(graph)
    axes = {v.name: name_axes(v.type.tensor_type.shape.dim, AXES[v.name]) for v in ends_of(graph)}
    values = {"axes": json.dumps(axes), **metadata}
    onnx.helper.set_model_props(model, dict(sorted(values.items())))
    path.write_bytes(model.SerializeToString(deterministic=True))


def ends_of(graph: Any) -> list[Any]:
    """The inputs and outputs of a graph."""
    return [*graph.input, *graph.output]


def rename_values(graph: Any) -> None:
    """Number operations and what passes between them in their order; weights keep their names.

    A graph with graphs inside (loops, branches) stays as it is: those read its names.
    """
    if any(attribute.HasField("g") for node in graph.node for attribute in node.attribute):
        return
    fixed = {value.name for value in (*ends_of(graph), *graph.initializer)}
    names: dict[str, str] = {}
    for number, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{number}"
        for output in node.output:
            if output and output not in fixed:
                names[output] = f"value_{len(names)}"
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]


def name_axes(dims: Sequence[Any], names: Sequence[str]) -> list[str]:
    """Give the axes of no fixed length their names; an output that is no logits has a batch only.

    The names that were given are returned.
    """
    known = list(names) if len(dims) == len(names) else list(names[:1])
    for dim, name in zip(dims, known, strict=False):
        if not dim.HasField("dim_value"):
            dim.dim_param = name
    return known
