"""A copy of a model made fast for inference on pictures of one size, and proof that it agrees.

model -> capture -> fold (constants, norms, projections) -> precision, memory order
      -> CPU kernels, or torch.compile with frozen weights where that is faster -> verify -> report
"""

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from vitrail.cost import Timing, machine, ratio, time_side_by_side
from vitrail.cost.host import has_bfloat16
from vitrail.export.attention import split_attention
from vitrail.export.fold import (
    fold_batch_norms,
    fold_constants,
    fold_identities,
    fold_layer_norms,
    fuse_projections,
    materialise_constants,
)
from vitrail.export.graph import capture, copy_graph, first_line, tensors_of
from vitrail.export.kernels import (
    can_pack,
    pack_convolutions,
    pack_linears,
    slice_feed_forwards,
    to_channels_last,
)
from vitrail.export.quant import quantize_linears
from vitrail.export.report import OptimizationReport, StepResult
from vitrail.export.verify import ExportError, batches_like, compare, require

Precision = Literal["float32", "bf16", "int8"]
Compile = bool | Literal["auto"]
Call = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class OptimizationStep:
    """A rewriting of the graph: ``apply`` gives how many of ``what`` it changed."""

    name: str
    what: str
    apply: Callable[[GraphModule], int]


FOLDING = (
    OptimizationStep("constants", "tables computed once", fold_constants),
    OptimizationStep("identities", "x + conv(x) folded into depthwise weights", fold_identities),
    OptimizationStep("batch norms", "folded into weights", fold_batch_norms),
    OptimizationStep("layer norms", "affine parts folded into linear layers", fold_layer_norms),
    OptimizationStep("projections", "groups of products made one", fuse_projections),
    OptimizationStep(
        "precision", "constants cast, or given memory of their own", materialise_constants
    ),
)
CHANNELS_LAST = OptimizationStep("layout", "kernels laid out channels-last", to_channels_last)
SPLIT_ATTENTION = OptimizationStep(
    "attention", "taken apart, for products in bfloat16", split_attention
)
INT8_LINEARS = OptimizationStep("int8", "linear layers in 8 bits", quantize_linears)
KERNELS = (
    OptimizationStep("slices", "feed-forwards packed, in slices of the cache", slice_feed_forwards),
    OptimizationStep("linear layers", "packed", pack_linears),
    OptimizationStep("kernels", "convolutions packed, with what follows them", pack_convolutions),
)
TYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "int8": torch.float32}
TOLERANCES = {"float32": 1e-4, "bf16": 0.06, "int8": 0.12}
"""The largest difference, as a share of the largest output, that is taken for rounding."""


ROUNDS, ROUNDS_TO_CHOOSE = 6, 4
WINDOW_S, WARMUP_S = 0.3, 1.0


class Optimized(nn.Module):
    """Inference only, for pictures of one size in batches of any; ``report`` says what was done."""

    report: OptimizationReport

    def __init__(self, graph: GraphModule, run: Call | None, example: Tensor, dtype: torch.dtype):
        super().__init__()
        self.graph_module = graph
        self.example_shape = tuple(example.shape)
        self.dtype = dtype
        self._compiled = run
        super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> what the model gives, in the type of ``x``.

        Raises:
            ExportError: pictures of another size.
        """
        if x.dim() != 4 or x.shape[1:] != self.example_shape[1:]:
            wanted = " x ".join(str(side) for side in self.example_shape[1:])
            raise ExportError(
                f"optimised for pictures of {wanted} (channels, height, width), not "
                f"{tuple(x.shape)}; resize them, or optimise for that size"
            )
        compiled = self._compiled is not None and x.shape[0] == self.example_shape[0]
        run = self._compiled if compiled else self.graph_module
        with torch.no_grad():
            result: Tensor = run(x.to(self.dtype))  # type: ignore[misc]
        return result.to(x.dtype)

    def train(self, mode: bool = True) -> "Optimized":
        """Refuse training.

        Raises:
            ExportError: always, but for ``train(False)``.
        """
        if mode:
            raise ExportError(
                "an optimised model is for inference: its norms are folded away; train the "
                "original and optimise it again"
            )
        return self


def optimize(
    model: nn.Module,
    example: Tensor,
    precision: Precision = "float32",
    compile: Compile = "auto",
    tolerance: float | None = None,
    measure: bool = False,
) -> Optimized:
    """Make a copy of ``model`` fast for pictures like ``example``.

    Args:
        model: any module from pictures to one tensor; left as it is, its mode included.
        example: ``(B, C, H, W)``; the copy takes this size, in batches of any.
        precision: ``"bf16"`` computes in bfloat16, ``"int8"`` has linear layers in 8 bits. A CPU
            that lacks the instructions serves both, slowly: there is a warning for bfloat16.
        compile: ``"auto"`` compiles and keeps the result where it is faster here. What is
            compiled serves batches of the example's number; others run uncompiled, int8 always.
        tolerance: how far outputs may move, as a share of the largest (:data:`TOLERANCES`).
        measure: time every step against the original, interleaved; see ``report``.

    Raises:
        ExportError: the model cannot be captured, or the outputs do not agree.
    """
    check(precision, compile, example)
    original = copy.deepcopy(model).eval()
    log = OptimizationLog(original, example, precision)
    here = example.device.type == "cpu" and can_pack(TYPES[precision])
    own = {"int8": (INT8_LINEARS,), "bf16": (SPLIT_ATTENTION,) if here else ()}
    for step in (*FOLDING, CHANNELS_LAST, *own.get(precision, ())):
        log.apply(step)
    folded = copy_graph(log.graph)
    for step in KERNELS if here else ():
        log.apply(step)
    asked = compile if precision != "int8" else False  # ranges are read as numbers: no one graph
    run = log.compile(folded, must=compile is True) if asked else None
    timings = log.time_steps(measure, auto=asked == "auto" and run is not None)
    keep = run is not None and (asked is True or log.compiled_is_faster(timings))
    made = Optimized(log.graph, run if keep else None, example, TYPES[precision])
    allowed = TOLERANCES[precision] if tolerance is None else tolerance
    made.report = log.report(original, made, allowed, timings)
    require(made.report.differences, allowed, f"the optimised {type(model).__name__}")
    return made


def check(precision: str, compile: Any, example: Tensor) -> None:
    """Refuse requests that have no meaning.

    Raises:
        ExportError: an unknown precision or choice, or an example that is no batch of pictures.
    """
    if precision not in TYPES:
        raise ExportError(f"no precision {precision!r}; there are {', '.join(TYPES)}")
    if compile not in (True, False, "auto"):
        raise ExportError(f"compile={compile!r}: it is True, False or 'auto'")
    if precision == "int8" and example.device.type != "cpu":
        raise ExportError("int8 is for the CPU; on a GPU choose precision 'bf16'")
    if example.dim() != 4:
        raise ExportError(f"the example is {tuple(example.shape)}, not (B, C, H, W)")
    if precision == "bf16" and not has_bfloat16(str(example.device)):
        warnings.warn(
            "no bfloat16 in hardware here: precision 'bf16' halves the weights, but is slower than "
            "'float32'",
            stacklevel=3,
        )


class OptimizationLog:
    """The steps taken so far, and the graph after each, ready to be timed against each other."""

    def __init__(self, original: nn.Module, example: Tensor, precision: str) -> None:
        self.name = type(original).__name__
        self.precision, self.example = precision, example
        self.graph = capture_in_precision(original, example, precision)
        self.given = example.to(TYPES[precision])
        self.done = [StepResult(name="original", changed=0, what="")]
        self.calls: dict[str, Call] = {"original": original}

    def apply(self, step: OptimizationStep) -> None:
        """Apply a step to the graph; the graph before it is kept for timing."""
        self.graph = copy_graph(self.graph)
        changed = step.apply(self.graph)
        self.done.append(StepResult(name=step.name, changed=changed, what=step.what))
        if self.precision != "bf16" or step not in FOLDING[:-1]:  # weights are cast by the last
            self.calls[step.name] = self.graph

    def compile(self, graph: GraphModule, must: bool) -> Call | None:
        """The graph compiled with its weights frozen; None where it cannot be and need not.

        Raises:
            ExportError: it must be compiled, and the compiler fails.
        """
        from torch._dynamo.exc import TorchDynamoException
        from torch._inductor.exc import InductorError

        run = torch.compile(graph, dynamic=False, options={"freezing": True})
        try:
            with torch.no_grad():
                run(self.given)
        except (TorchDynamoException, InductorError, RuntimeError) as error:
            if must:
                raise ExportError(f"torch.compile fails here ({first_line(error)})") from error
            self.done.append(
                StepResult(name="compile", changed=0, what=first_line(error), kept=False)
            )
            return None
        self.done.append(StepResult(name="compile", changed=1, what="graph, its weights frozen"))
        self.calls["compile"] = run
        return run

    def time_steps(self, measure: bool, auto: bool) -> dict[str, Timing]:
        """The steps side by side: all, or the last two where one of them must be chosen."""
        names = list(self.calls) if measure else list(self.calls)[-2:] if auto else []
        if not names:
            return {}
        runs = {name: self.call(name) for name in names}
        rounds = ROUNDS if measure else ROUNDS_TO_CHOOSE
        return time_side_by_side(runs, rounds=rounds, window_s=WINDOW_S, warmup_s=WARMUP_S)

    def call(self, name: str) -> Callable[[], object]:
        """One step's graph on the example."""
        run, x = self.calls[name], self.example if name == "original" else self.given

        def once() -> object:
            with torch.no_grad():
                return run(x)

        return once

    def compiled_is_faster(self, timings: dict[str, Timing]) -> bool:
        """Whether the compiled graph beat the last step before it."""
        *_, last, fast = timings
        return ratio(timings[fast], timings[last]).median > 1

    def report(
        self, original: nn.Module, made: Optimized, allowed: float, timings: dict[str, Timing]
    ) -> OptimizationReport:
        """What was done, with the outputs of ``made`` beside the original's."""
        batches = dict.fromkeys((len(self.example), 1, 3))
        height, width = self.example.shape[2:]
        pictures = batches_like(self.example, batches, [(height, width)])
        with torch.no_grad():
            differences = compare(original, made, pictures)
        kept = made._compiled is not None
        steps = [with_timing(d, timings) for d in self.done]
        steps = [replace(s, kept=kept) if s.name == "compile" else s for s in steps]
        return OptimizationReport(
            model=self.name,
            precision=self.precision,
            example=tuple(self.example.shape),
            steps=tuple(steps),
            differences=differences,
            tolerance=allowed,
            megabytes=megabytes(made),
            compiled=kept,
            quiet=all(t.quiet for t in timings.values()) if timings else None,
            machine=machine() if timings else None,
        )


def capture_in_precision(
    original: nn.Module, example: Tensor, precision: str, sizes: Mapping[int, Any] | None = None
) -> GraphModule:
    """The graph to begin with; in another precision, over the original's own weights.

    The model is captured in the precision it will compute in, so its own casts are the right
    ones; steps then fold weights that nobody has rounded yet.
    """
    dtype = TYPES[precision]
    model = original if dtype == torch.float32 else copy.deepcopy(original).to(dtype)
    return capture(model, example.to(dtype), dict(tensors_of(original)), sizes)


def with_timing(done: StepResult, timings: dict[str, Timing]) -> StepResult:
    """A step with what the clock said of it, where it was timed."""
    own, first = timings.get(done.name), timings.get("original")
    if own is None:
        return done
    timed = replace(done, ms=1e3 * own.median)
    if first is None or own is first:
        return timed
    gain = ratio(own, first)
    return replace(timed, speedup=gain.median, low=gain.low, high=gain.high)


def megabytes(made: nn.Module) -> float:
    """What the constants weigh."""
    return sum(t.numel() * t.element_size() for t in made.buffers()) / 2**20
