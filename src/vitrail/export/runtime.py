"""Run what was exported, without the model's code.

.onnx -> ONNX Runtime, or OpenVINO      .pt2 -> torch
"""

import logging
import mmap
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from torch import Tensor

from vitrail.errors import UserError
from vitrail.export.operators import bound_sizes
from vitrail.export.pt2 import safe_archive
from vitrail.export.steps import Endless, refuse_endless
from vitrail.export.verify import Answer, ExportError
from vitrail.limits import usable_memory

REFUSED = (
    "Fail",
    "InvalidArgument",
    "InvalidGraph",
    "InvalidProtobuf",
    "NotImplemented",
    "RuntimeException",
)
"""What ONNX Runtime raises for files and pictures that it cannot run; they have no base."""
ENDINGS = {"onnx": ".onnx", "torch": ".pt2", "openvino": ".onnx"}
"""By format; OpenVINO reads ONNX as it is, and is asked for by name."""
FATAL = 4
"""ONNX Runtime's level of messages: lesser ones repeat its errors, with names out of the file."""
HINTS = {"float32": "f32", "bf16": "bf16"}
"""How OpenVINO calls the precisions that it computes in."""
READERS = (
    "torch.export",
    "torch.export.pt2_archive._package",
    "torch._export.serde.serialize",
)
"""Torch's loggers that speak while a program is read."""
SAYS_NOTHING = re.compile(r"Check '.*' failed at|Exception from|FrontEnd API failed|Loading input")
"""Lines with which OpenVINO's errors begin."""


def need(package: str, extra: str = "export") -> Any:
    """A package of an extra.

    Raises:
        ExportError: it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ExportError(
            f"{package} is not installed; pip install 'vitrail[{extra}]' brings it"
        ) from error


def open_file(
    path: str | Path,
    threads: int | None = None,
    *,
    kind: str | None = None,
    precision: str = "float32",
) -> Answer:
    """A function from pictures ``(B, C, H, W)`` to outputs, for an exported file.

    Args:
        path: an ``.onnx`` or ``.pt2`` file.
        threads: of ONNX Runtime or OpenVINO; those of torch if None.
        kind: the format it was written as; by its ending if None.
        precision: what OpenVINO computes in; other files say it themselves.

    Raises:
        UserError: no such file, another ending, or a damaged file.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no exported file {str(path)!r}")
    if path.suffix not in ENDINGS.values():
        raise UserError(
            f"{str(path)!r} ends in neither {' nor '.join(sorted({*ENDINGS.values()}))}"
        )
    if path.suffix == ENDINGS["torch"]:
        return open_torch(path)
    if kind == "openvino":
        return open_openvino(path, threads, precision)
    return open_onnx(path, threads)


def open_onnx(path: Path, threads: int | None = None) -> Answer:
    """An ONNX Runtime session on the CPU."""
    return answer_of(session_of(path, threads), path)


def session_of(path: Path, threads: int | None = None) -> Any:
    """The file in ONNX Runtime, on the CPU.

    Raises:
        ExportError: ONNX Runtime is not installed.
        UserError: the file is damaged.
    """
    runtime = need("onnxruntime")
    refuse_unsafe(path)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = FATAL
    limit_memory(runtime)
    options.add_session_config_entry("session.use_env_allocators", "1")
    try:
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except refusals(runtime) as error:
        raise UserError(f"cannot read {str(path)!r} as ONNX: {first_line(error)}") from error


@cache
def limit_memory(runtime: Any) -> None:
    """ONNX Runtime takes no more than the machine has; a few bytes in a file can ask for any."""
    most = usable_memory()
    if most:
        kinds = (runtime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, runtime.OrtMemType.DEFAULT)
        about = runtime.OrtMemoryInfo("Cpu", *kinds)
        runtime.create_and_register_allocator(about, runtime.OrtArenaCfg({"max_mem": most}))


def refusals(runtime: Any) -> tuple[type[Exception], ...]:
    """The errors of ONNX Runtime, and what it raises for answers of types that NumPy has not."""
    state = runtime.capi.onnxruntime_pybind11_state
    return (RuntimeError, *(getattr(state, name) for name in REFUSED))


def answer_of(session: Any, path: Path) -> Answer:
    """A session as a function from pictures to its one output."""
    check_ends(path, session.get_inputs(), session.get_outputs())
    name = session.get_inputs()[0].name
    runtime = need("onnxruntime")
    refused, options = refusals(runtime), runtime.RunOptions()
    options.log_severity_level = FATAL

    def answer(pictures: Tensor) -> Tensor:
        try:
            (result,) = session.run(None, {name: pictures.detach().cpu().float().numpy()}, options)
        except refused as error:
            raise unfit(path, pictures, error) from error
        return numbers_of(result, path)

    return answer


def numbers_of(result: Any, path: Path) -> Tensor:
    """An output as a tensor.

    Raises:
        UserError: it holds no numbers, or whole ones, which are no logits.
    """
    try:
        found = torch.from_numpy(result)
    except TypeError as error:
        raise UserError(f"{path.name} answers with no numbers; export it again") from error
    if not found.is_floating_point():
        raise UserError(f"{path.name} answers with {found.dtype}, no logits; export it again")
    return found


def open_openvino(path: Path, threads: int | None, precision: str) -> Answer:
    """The file in OpenVINO on the CPU, compiled anew for every shape of pictures it meets: for
    shapes it knows it is faster."""
    core = core_of(need("openvino", "openvino"))
    refuse_unsafe(path)
    wishes = {
        "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "PERFORMANCE_HINT": "LATENCY",
    }
    model = read_by_openvino(path)
    compiled: dict[tuple[int, ...], Any] = {}

    def answer(pictures: Tensor) -> Tensor:
        shape = tuple(pictures.shape)
        try:
            if shape not in compiled:
                fitted = model.clone()
                fitted.reshape(list(shape))
                compiled[shape] = core.compile_model(fitted, "CPU", wishes)
            result = compiled[shape](pictures.detach().cpu().float().numpy())[0]
        except RuntimeError as error:
            raise unfit(path, pictures, error) from error
        return numbers_of(result.copy(), path)

    return answer


@cache
def core_of(openvino: Any) -> Any:
    """OpenVINO's core, which is kept until the process ends.

    With its first compilation the CPU's plug-in gives the calling thread a stack for signals, and
    frees it with itself. Where another thread lets go of it last (Python's garbage collection may
    run in any), the thread keeps a stack that is no more, and its next signal, such as Ctrl-C, ends
    the process in a segmentation fault (seen with OpenVINO 2026.4).
    """
    return openvino.Core()


def read_by_openvino(path: Path) -> Any:
    """OpenVINO's model of an ONNX file, read as ONNX alone.

    Its usual reader goes by what a file holds, not by its name: it would take a network of its
    own in XML, with weights from a file beside it, or another library's, and prints what it cannot
    read to the terminal.

    Raises:
        UserError: the file is no ONNX, or has not one input and one output.
    """
    frontends = need("openvino.frontend", "openvino")
    failures = [value for name, value in vars(frontends).items() if name.endswith("Failure")]
    frontend = frontends.FrontEndManager().load_by_framework("onnx")
    try:
        model = frontend.convert(frontend.load(str(path)))
    except (RuntimeError, *failures) as error:
        raise UserError(f"cannot read {str(path)!r} as ONNX: {first_line(error)}") from error
    check_ends(path, model.inputs, model.outputs)
    return model


def check_ends(path: Path, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
    """What answers for pictures has one input and one output.

    Raises:
        UserError: it has others.
    """
    if (len(inputs), len(outputs)) != (1, 1):
        raise UserError(
            f"cannot read {str(path)!r} as a classifier: it has {len(inputs)} inputs and "
            f"{len(outputs)} outputs, where one has one each; export it again"
        )


OUTSIDE = re.compile(rb"(?:\x0a|\x8a\x80*\x00)(?:\x08|\x88\x80*\x00)location")
"""How an ONNX file says that a tensor lies in another file, in all spellings of its format."""


def refuse_unsafe(path: Path) -> None:
    """An ONNX file brings its weights inside; one that names other files could read any.

    Raises:
        UserError: it names one, asks for steps without end, or cannot be read.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            named = OUTSIDE.search(data) is not None
            refuse_endless(data)
    except Endless as error:
        raise UserError(f"{str(path)!r} is not opened: {error}; export the model again") from error
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {str(path)!r} as ONNX: {error}") from error
    if named:
        raise UserError(
            f"{str(path)!r} is not opened: it takes weights from other files; ask for one that "
            "holds them (vitrail export writes such)"
        )


def open_torch(path: Path) -> Answer:
    """A program of torch.export's; what could run from inside the file is refused."""
    if not is_zipfile(path):
        raise UserError(f"cannot read {str(path)!r} as a torch.export program: it is no archive")
    archive = safe_archive(path)
    try:
        with errors_kept() as kept:
            module = torch.export.load(archive).module(check_guards=False)
            bound_sizes(module)
    except Exception as error:  # torch's own reader fails in many ways on a damaged program
        raise UserError(
            f"cannot read {str(path)!r} as a torch.export program: {first_line((*kept, error)[0])}"
        ) from error

    def answer(pictures: Tensor) -> Tensor:
        try:
            with torch.no_grad():
                result = module(pictures)
        except Exception as error:  # a program's arithmetic on sizes fails in as many ways
            raise unfit(path, pictures, error) from error
        if not isinstance(result, Tensor) or not result.is_floating_point():
            raise UserError(f"{path.name} answers with no numbers; export it again")
        return result

    return answer


@contextmanager
def errors_kept() -> Iterator[list[BaseException]]:
    """Errors that torch's reader of programs would print with their traceback, in a list instead.

    It logs why it failed, and then raises another error that says no more than "see above".
    """
    kept: list[BaseException] = []

    def keep(record: logging.LogRecord) -> bool:
        kept.extend(filter(None, (record.exc_info or (None, None))[1:2]))
        return False

    loggers = [logging.getLogger(name) for name in READERS]
    for logger in loggers:
        logger.addFilter(keep)
    try:
        yield kept
    finally:
        for logger in loggers:
            logger.removeFilter(keep)


def unfit(path: Path, pictures: Tensor, error: Exception) -> UserError:
    """The error for pictures that a file does not take."""
    return UserError(
        f"{path.name} cannot run pictures {tuple(pictures.shape)}: {first_line(error)}"
    )


def first_line(error: BaseException) -> str:
    """An error's first line that says something, shortened."""
    lines = [line for line in str(error).strip().splitlines() if not SAYS_NOTHING.match(line)]
    return (lines or [type(error).__name__])[0][:160]
