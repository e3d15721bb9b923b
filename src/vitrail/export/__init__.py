"""Models for use: made fast on this machine, or written as files that need none of their code.

optimize -> a copy that is faster here
to_torch, to_onnx, to_openvino, write_folder -> files, verified
"""

from vitrail.export.files import Exported, to_onnx, to_openvino, to_torch
from vitrail.export.folder import (
    ExportedClassifier,
    holds_export,
    is_exported,
    open_exported,
    open_folder,
    write_folder,
)
from vitrail.export.optimized import Optimized, optimize
from vitrail.export.report import OptimizationReport
from vitrail.export.runtime import open_file
from vitrail.export.verify import ExportError, OutputDifference

__all__ = [
    "ExportError",
    "Exported",
    "OptimizationReport",
    "Optimized",
    "OutputDifference",
    "ExportedClassifier",
    "holds_export",
    "is_exported",
    "open_exported",
    "open_file",
    "open_folder",
    "optimize",
    "to_onnx",
    "to_openvino",
    "to_torch",
    "write_folder",
]
