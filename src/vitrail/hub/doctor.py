"""What ``vitrail doctor`` looks at: versions that fit each other, the machine, the folder.

Wheels of torch and torchvision from different channels (torch for CPU only, torchvision from PyPI)
cannot be imported together: ``operator torchvision::nms does not exist`` (pytorch/vision#9085), and
``import timm`` fails with the same words because timm imports torchvision.
"""

import contextlib
import importlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from vitrail.errors import UserError, printable
from vitrail.limits import usable_memory

EXTRAS = {"pyarrow": "parquet", "tensorboard": "track"}
NEEDED = (
    "timm",
    "numpy",
    "scipy",
    "Pillow",
    "safetensors",
    "PyYAML",
    "rich",
    "tyro",
    "accelerate",
    "torchmetrics",
    "Jinja2",
    "matplotlib",
    "huggingface_hub",
)
CURE = (
    "install both from one channel, for example: pip install --force-reinstall "
    "torch torchvision --index-url https://download.pytorch.org/whl/cpu (or /cu126 for a GPU)"
)
BF16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """One line of the doctor's: ``ok`` False means that something must be mended."""

    about: str
    found: str
    ok: bool = True
    cure: str = ""


def examine(folder: Path | None = None) -> list[Diagnosis]:
    """Look at everything; ``folder`` is where runs would be written (default: here)."""
    look: tuple[Callable[[], Diagnosis], ...] = (
        python,
        torch_itself,
        torchvision_pair,
        packages,
        extras,
        processor,
        memory,
        loader_memory,
        accelerator,
    )
    here = folder or Path.cwd()
    return [*(one() for one in look), writable(here), *old_drafts(here)]


def python() -> Diagnosis:
    """Python 3.11 is the floor."""
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Diagnosis(
        about="python",
        found=found,
        ok=sys.version_info >= (3, 11),
        cure="" if sys.version_info >= (3, 11) else "install Python 3.11 or later",
    )


def torch_itself() -> Diagnosis:
    """Does torch import and multiply, and for which device was it built?"""
    try:
        import torch

        flavour = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
        works = float((torch.ones(2, 2) @ torch.ones(2, 2)).sum()) == 8.0
        return Diagnosis(about="torch", found=f"{torch.__version__}, built for {flavour}", ok=works)
    except (ImportError, OSError) as error:
        found = f"{version_of('torch')}: {error}"
        return Diagnosis(about="torch", found=found, ok=False, cure="pip install torch torchvision")


def torchvision_pair() -> Diagnosis:
    """Do torch and torchvision come from one channel?"""
    problem = torchvision_problem()
    if problem:
        return Diagnosis(
            about="torchvision", found=version_of("torchvision"), ok=False, cure=problem
        )
    return Diagnosis(about="torchvision", found=f"{version_of('torchvision')}, fits torch")


def packages() -> Diagnosis:
    """Every other package that Vitrail needs, with its version."""
    versions = {name: version_of(name) for name in NEEDED}
    missing = [name for name, found in versions.items() if found == "(not installed)"]
    return Diagnosis(
        about="packages",
        found=", ".join(f"{name} {found}" for name, found in versions.items()),
        ok=not missing,
        cure=f"pip install {' '.join(missing)}" if missing else "",
    )


def extras() -> Diagnosis:
    """Optional packages: their absence is no fault."""
    have = [f"{name} {version_of(name)}" for name in EXTRAS if find_spec(name)]
    lack = [f"pip install 'vitrail[{EXTRAS[name]}]'" for name in EXTRAS if not find_spec(name)]
    return Diagnosis(
        about="extras",
        found=", ".join(have) or "none",
        cure="; ".join(lack) and f"optional: {'; '.join(lack)}",
    )


def processor() -> Diagnosis:
    """The CPU, its cores for us, and whether it multiplies bfloat16 by itself."""
    about = read("/proc/cpuinfo")
    name = next(
        (line.split(":", 1)[1].strip() for line in about.splitlines() if "model name" in line),
        platform.processor() or platform.machine(),
    )
    flags = set(next((line for line in about.splitlines() if line.startswith("flags")), "").split())
    fast = [flag for flag in BF16_FLAGS if flag in flags]
    wide = [flag for flag in ("avx2", "avx512f") if flag in flags]
    bf16 = f"bfloat16 in hardware ({', '.join(fast)})" if fast else "no bfloat16 in hardware"
    return Diagnosis(
        about="processor", found=", ".join([name, f"{usable_cores()} cores for us", *wide, bf16])
    )


def memory() -> Diagnosis:
    """Memory of the machine, or of the container where that is less."""
    usable = usable_memory()
    return Diagnosis(about="memory", found=f"{usable / GIB:.1f} GiB" if usable else "unknown")


def loader_memory() -> Diagnosis:
    """Loader processes hand pictures over through /dev/shm; containers often give 64 MB of it."""
    if not Path("/dev/shm").is_dir():
        return Diagnosis(about="shared memory", found="no /dev/shm on this system")
    free = shutil.disk_usage("/dev/shm").free
    small = free < GIB / 4
    return Diagnosis(
        about="shared memory",
        found=f"{free / GIB:.1f} GiB free in /dev/shm",
        cure="small: start the container with --shm-size=2g, or train with --workers 0"
        if small
        else "",
    )


def accelerator() -> Diagnosis:
    """GPUs that torch can use."""
    try:
        import torch
    except (ImportError, OSError):
        return Diagnosis(about="GPU", found="unknown (torch cannot be imported)")
    if torch.cuda.is_available():
        each = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        found = ", ".join(f"{gpu.name} {gpu.total_memory / GIB:.0f} GiB" for gpu in each)
        return Diagnosis(about="GPU", found=found)
    if torch.backends.mps.is_available():
        return Diagnosis(about="GPU", found="Apple (mps)")
    return Diagnosis(about="GPU", found="none: everything runs on the processor")


def writable(folder: Path) -> Diagnosis:
    """Can runs be written here, and is there room?"""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Diagnosis(
            about="this folder",
            found=f"{folder} cannot be written ({error.strerror})",
            ok=False,
            cure="go to a folder of yours, or give --out",
        )
    free = shutil.disk_usage(folder).free / GIB
    return Diagnosis(about="this folder", found=f"{folder} can be written, {free:.0f} GiB free")


def old_drafts(folder: Path) -> list[Diagnosis]:
    """Drafts that earlier versions left where they were killed: nothing in them proves it."""
    with contextlib.suppress(OSError):
        names = sorted(path.name for path in folder.glob(".*.starting") if path.is_dir())
        if names:
            found = (
                f"{len(names)} from an earlier version, it seems, the first {printable(names[0])}"
            )
            return [Diagnosis(about="old drafts", found=f"{found}; delete them if so")]
    return []


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def read(path: str) -> str:
    """A file of the system's, empty where there is none."""
    try:
        return Path(path).read_text()
    except OSError:
        return ""


# ---- torch and torchvision -----------------------------------------------------------------------


def torchvision_problem() -> str | None:
    """One sentence with the cure where torchvision cannot be used; None where it can."""
    try:
        importlib.import_module("torchvision")
    except ImportError as error:
        return f"torchvision {version_of('torchvision')} cannot be imported ({error}): {CURE}"
    except RuntimeError as error:
        both = f"torchvision {version_of('torchvision')} does not fit torch {version_of('torch')}"
        return f"{both} ({error}): {CURE}"
    return None


def require_torchvision() -> None:
    """Raise :class:`UserError` with the cure where torchvision cannot be used."""
    problem = torchvision_problem()
    if problem:
        raise UserError(problem)


def version_of(package: str) -> str:
    """The version of ``package`` as its metadata says, without importing it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"
