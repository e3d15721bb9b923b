"""Where a figure was measured: without it no timing means anything to anyone else."""

import os
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import torch


def machine() -> dict[str, object]:
    """The machine, its software and its settings, ready for JSON."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "memory_gb": memory_gb(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions("torch", "timm", "numpy", "vitrail"),
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "float32_matmul": torch.get_float32_matmul_precision(),
        "cudnn_tf32": torch.backends.cudnn.allow_tf32,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "mkldnn": torch.backends.mkldnn.is_available(),
    }


def versions(*packages: str) -> dict[str, str | None]:
    """Installed versions; None for what is not installed as a package."""
    found: dict[str, str | None] = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def cpu_name(info: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name as it gives itself, or the architecture."""
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def memory_gb() -> float | None:
    """Main memory in GB, where the system tells."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1)


def has_bfloat16(device: str = "cpu", info: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the device multiplies bfloat16 in hardware, as far as the system tells."""
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return not flags(info).isdisjoint(("avx512_bf16", "amx_bf16", "bf16"))


def overflows_in_8_bits(info: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether sums of 8-bit products overflow: x86 before VNNI adds pairs of them in 16 bits."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    return flags(info).isdisjoint(("avx512_vnni", "avx_vnni"))


def flags(info: Path) -> set[str]:
    """The words that tell what the processor can do; none where the system does not tell."""
    return set(info.read_text().split()) if info.exists() else set()
