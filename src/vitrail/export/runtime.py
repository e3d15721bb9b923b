"""Run what was exported: ONNX Runtime for ``.onnx``, torch for ``.pt2``; no model's code needed."""

from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from torch import Tensor

from vitrail.errors import UserError
from vitrail.export.verify import Answer, ExportError

REFUSED = (
    "Fail",
    "InvalidArgument",
    "InvalidGraph",
    "InvalidProtobuf",
    "NotImplemented",
    "RuntimeException",
)
"""What ONNX Runtime raises for files and pictures that it cannot run; they have no base."""
ENDINGS = {"onnx": ".onnx", "torch": ".pt2"}


def need(package: str) -> Any:
    """A package of the extra ``export``.

    Raises:
        ExportError: it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ExportError(
            f"{package} is not installed; pip install 'vitrail[export]' brings it"
        ) from error


def open_file(path: str | Path, threads: int | None = None) -> Answer:
    """A function from pictures ``(B, C, H, W)`` to outputs, for an exported file.

    Raises:
        UserError: no such file, another ending, or a damaged file.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no exported file {str(path)!r}")
    if path.suffix == ENDINGS["onnx"]:
        return open_onnx(path, threads)
    if path.suffix == ENDINGS["torch"]:
        return open_torch(path)
    raise UserError(f"{str(path)!r} ends in neither {' nor '.join(ENDINGS.values())}")


def open_onnx(path: Path, threads: int | None = None) -> Answer:
    """An ONNX Runtime session on the CPU."""
    runtime = need("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 3
    state = runtime.capi.onnxruntime_pybind11_state
    refused = tuple(getattr(state, name) for name in REFUSED)
    try:
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except refused as error:
        raise UserError(f"cannot read {str(path)!r} as ONNX: {first_line(error)}") from error
    name = session.get_inputs()[0].name

    def answer(pictures: Tensor) -> Tensor:
        try:
            (result,) = session.run(None, {name: pictures.detach().cpu().float().numpy()})
        except refused as error:
            raise unfit(path, pictures, error) from error
        return torch.from_numpy(result)

    return answer


def open_torch(path: Path) -> Answer:
    """A program of torch.export's."""
    if not is_zipfile(path):
        raise UserError(f"cannot read {str(path)!r} as a torch.export program: it is no archive")
    try:
        program = torch.export.load(path)
    except (RuntimeError, ValueError, OSError, KeyError) as error:
        raise UserError(
            f"cannot read {str(path)!r} as a torch.export program: {first_line(error)}"
        ) from error
    module = program.module(check_guards=False)

    def answer(pictures: Tensor) -> Tensor:
        try:
            with torch.no_grad():
                result: Tensor = module(pictures)
        except RuntimeError as error:
            raise unfit(path, pictures, error) from error
        return result

    return answer


def unfit(path: Path, pictures: Tensor, error: Exception) -> UserError:
    """The error for pictures that a file does not take."""
    return UserError(
        f"{path.name} cannot run pictures {tuple(pictures.shape)}: {first_line(error)}"
    )


def first_line(error: BaseException) -> str:
    """An error's first line, shortened."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
