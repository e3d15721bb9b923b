"""A model as one file that needs none of its code, checked before it gets its name.

model -> capture -> fold -> torch.export program -> .pt2, or ONNX -> run it -> compare -> rename
"""

import copy
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vitrail.errors import UserError
from vitrail.export.graph import program_of
from vitrail.export.metadata import INPUT, OUTPUT, describe
from vitrail.export.optimized import FOLDING, TOLERANCES, TYPES, capture_in_precision
from vitrail.export.runtime import ENDINGS, first_line, need, open_file
from vitrail.export.verify import (
    ExportError,
    OutputDifference,
    batches_like,
    compare,
    require,
    worst,
)
from vitrail.files import draft_folder, write_bytes, write_error

if TYPE_CHECKING:
    from torch.export import ExportedProgram

STRIDE = 32
"""Where sizes are dynamic, sides are multiples of this: every model's coarsest stride."""
BATCHES = (1, 2, 5)
"""Numbers of pictures at which a file is tried."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A file, what it takes, and how near it is to its original.

    ``sizes`` is ``"fixed"`` or ``"multiples of 32"``.
    """

    path: Path
    format: str
    precision: str
    example: tuple[int, ...]
    sizes: str
    tolerance: float
    differences: tuple[OutputDifference, ...]

    @property
    def worst(self) -> OutputDifference:
        """The batch on which the file is furthest from its original."""
        return worst(self.differences)


Save = Callable[["ExportedProgram", Path], None]


@dataclass(frozen=True, eq=False)
class Format:
    """A kind of file, called with what is to go into it.

    Attributes:
        name: as the command line says it.
        needs: packages, each with the extra that brings it.
        saves: how each precision is written.
    """

    name: str
    needs: tuple[tuple[str, str], ...]
    saves: Mapping[str, Save]

    def __call__(
        self,
        model: nn.Module,
        example: Tensor,
        path: str | Path,
        *,
        precision: str = "float32",
        any_size: bool = False,
        tolerance: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Exported:
        """Write ``path``, checked by running it against the model.

        Args:
            model: any module from pictures to one tensor; left as it is.
            example: ``(B, C, H, W)`` float32; batches of any number are served.
            path: must not exist; ``.onnx`` or, for torch, ``.pt2``.
            precision: one of ``saves``; inputs and outputs are float32 in all.
            any_size: serve pictures of other sizes too, in multiples of 32 pixels.
            tolerance: how far outputs may be from the model's, as a share of the largest.
            metadata: texts for an ``.onnx`` to carry (:mod:`vitrail.export.metadata`).

        Raises:
            ExportError: a package is missing, the model cannot be captured, or the file's outputs
                do not agree.
            UserError: the file is there already, or cannot be written.
        """
        for package, extra in self.needs:
            need(package, extra)
        order = Order(self, Path(path), example, precision, any_size, tolerance, metadata or {})
        return write_file(model, order)


@dataclass(frozen=True)
class Order:
    """What is wanted."""

    format: "Format"
    path: Path
    example: Tensor
    precision: str
    any_size: bool
    tolerance: float | None
    metadata: Mapping[str, str]

    @property
    def largest_difference(self) -> float:
        """The difference that is taken for rounding."""
        return TOLERANCES[self.precision] if self.tolerance is None else self.tolerance

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Heights and widths at which the file is tried."""
        height, width = self.example.shape[2:]
        more = [(height + STRIDE, width + 2 * STRIDE), (height + 2 * STRIDE, width + STRIDE)]
        return [(height, width), *(more if self.any_size else [])]


def check(order: Order) -> None:
    """Refuse what cannot be, before any work.

    Raises:
        ExportError: a precision that the format does not serve, an example that is no pictures.
        UserError: the file is there.
    """
    serves = order.format.saves
    if order.precision not in serves:
        raise ExportError(
            f"precision {order.precision!r} cannot go into a {order.format.name} file; "
            f"there are {' and '.join(serves)}"
        )
    if order.example.dim() != 4:
        raise ExportError(f"the example is {tuple(order.example.shape)}, not (B, C, H, W)")
    if order.any_size and any(side % STRIDE for side in order.example.shape[2:]):
        raise ExportError(f"for sizes of any multiple of {STRIDE}, the example must be one")
    if order.path.exists():
        raise UserError(f"{str(order.path)!r} exists; choose another name")
    ending = ENDINGS[order.format.name]
    if order.path.suffix != ending:
        raise UserError(f"name the file *{ending}, not {order.path.name!r}")


def write_file(model: nn.Module, order: Order) -> Exported:
    """Capture, save under another name, run, compare, and only then give the file its name."""
    check(order)
    kind = order.format.name
    original = copy.deepcopy(model).eval().cpu()
    program = folded_program(original, order)
    try:
        with draft_folder(order.path) as aside:
            draft = aside.path / order.path.name
            order.format.saves[order.precision](program, draft)
            if draft.suffix == ENDINGS["onnx"]:
                describe(draft, order.metadata)
            pictures = batches_like(order.example, BATCHES, order.sizes)
            with torch.no_grad(), one_size_advised(order.any_size):
                answer = open_file(draft, kind=kind, precision=order.precision)
                differences = compare(original, answer, pictures)
            require(differences, order.largest_difference, f"the {kind} file")
            draft.replace(order.path)
    except OSError as error:
        raise write_error(order.path, error) from error
    return Exported(
        path=order.path,
        format=kind,
        precision=order.precision,
        example=tuple(order.example.shape),
        sizes=f"multiples of {STRIDE}" if order.any_size else "fixed",
        tolerance=order.largest_difference,
        differences=differences,
    )


def folded_program(original: nn.Module, order: Order) -> "ExportedProgram":
    """The model captured, folded, and captured again as a program that can be saved.

    Raises:
        ExportError: torch.export cannot follow the model, or not for any size.
    """
    from torch.export import Dim

    sizes = {2: STRIDE * Dim("rows", min=2), 3: STRIDE * Dim("columns", min=2)}
    dynamic: dict[int, Any] = sizes if order.any_size else {}
    inside = order.precision == "bf16" and order.format.name == "torch"
    precision = "bf16" if inside else "float32"
    with one_size_advised(order.any_size):
        graph = capture_in_precision(original, order.example, precision, dynamic)
        for step in FOLDING:
            step.apply(graph)
        return program_of(Cast(graph, TYPES[precision]), order.example, dynamic)


@contextmanager
def one_size_advised(any_size: bool) -> Iterator[None]:
    """Where any size was asked for, a refusal says what to ask for instead.

    Raises:
        ExportError: in place of every UserError inside.
    """
    try:
        yield
    except UserError as error:
        if not any_size:
            raise
        raise ExportError(f"for pictures of any size: {error}; export it for one size") from error


class Cast(nn.Module):
    """A graph of another precision between float32 pictures and float32 outputs."""

    def __init__(self, graph: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.inner, self.dtype = graph, dtype

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> ``(B, K)``."""
        result: Tensor = self.inner(x.to(self.dtype))
        return result.float()


def save_onnx(program: "ExportedProgram", draft: Path) -> None:
    """By torch's exporter, weights inside the file.

    Raises:
        ExportError: ONNX has no counterpart of one of the model's operators.
    """
    try:
        made = torch.onnx.export(
            program,
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        cause = first_line(error.__cause__ or error)
        raise ExportError(f"torch cannot write this model as ONNX: {cause}") from error
    assert made is not None
    made.save(draft, external_data=False)


def save_int8(program: "ExportedProgram", draft: Path) -> None:
    """The same, then linear layers in 8 bits by ONNX Runtime's tool.

    Weights get 7 bits: the file may go to a processor on which sums of products overflow with 8.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    plain = draft.with_name("float32.onnx")
    save_onnx(program, plain)
    model = onnx.load(plain)
    model.graph.ClearField("value_info")  # torch's exporter leaves shapes of weights it has turned
    quantize_dynamic(model, draft, per_channel=True, reduce_range=True, weight_type=QuantType.QInt8)


def save_torch(program: "ExportedProgram", draft: Path) -> None:
    """As ``torch.export`` keeps it; in memory first, as its own writer aborts on a full disk."""
    content = io.BytesIO()
    torch.export.save(program, content)
    write_bytes(draft, content.getvalue())


ONNX = (("onnx", "export"), ("onnxscript", "export"))

to_torch = Format("torch", (), {"float32": save_torch, "bf16": save_torch})
"""A ``.pt2`` that ``torch.export.load`` opens without the model's code."""
to_onnx = Format(
    "onnx", (*ONNX, ("onnxruntime", "export")), {"float32": save_onnx, "int8": save_int8}
)
"""An ``.onnx`` for ONNX Runtime, ``image`` -> ``logits``; int8 is dynamic, by its own tool."""
to_openvino = Format(
    "openvino", (*ONNX, ("openvino", "openvino")), {"float32": save_onnx, "bf16": save_onnx}
)
"""The same ``.onnx``, run by OpenVINO, which is faster on the CPUs it was made for
(``benchmarks.runtimes``) and computes in the precision asked for; the file stays float32."""
