"""Does this torchvision fit this torch?

Wheels of the two from different channels (torch for CPU only, torchvision from PyPI) cannot be
imported together: ``operator torchvision::nms does not exist`` (pytorch/vision#9085), and
``import timm`` fails with the same words because timm imports torchvision.
"""

import importlib
from importlib.metadata import PackageNotFoundError, version

from vitrail.errors import UserError

CURE = (
    "install both from one channel, for example: pip install --force-reinstall "
    "torch torchvision --index-url https://download.pytorch.org/whl/cpu (or /cu126 for a GPU)"
)


def torchvision_problem() -> str | None:
    """One sentence with the cure where torchvision cannot be used; None where it can."""
    try:
        importlib.import_module("torchvision")
    except ImportError as error:
        return f"torchvision {installed('torchvision')} cannot be imported ({error}): {CURE}"
    except RuntimeError as error:
        both = f"torchvision {installed('torchvision')} does not fit torch {installed('torch')}"
        return f"{both} ({error}): {CURE}"
    return None


def require_torchvision() -> None:
    """Raise :class:`UserError` with the cure where torchvision cannot be used."""
    problem = torchvision_problem()
    if problem:
        raise UserError(problem)


def installed(package: str) -> str:
    """The version of ``package`` as its metadata says, without importing it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"
