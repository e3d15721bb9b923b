"""Under which conditions ``vitrail cost`` measures, and where the figures hold."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitrail.cli.measure import Cost
    from vitrail.cost import Settings

BUILD = "vitrail.bench:build"
"""How models become modules here; memory is measured in fresh processes that need it by name."""


def settings(wanted: "Cost") -> "list[Settings]":
    """The conditions of every report."""
    lists = (wanted.image or (224,), wanted.batch or (8,), wanted.threads or (None,))
    return [
        replace(base(wanted), image=image, batch=batch, threads=threads)
        for image, batch, threads in product(*lists)
    ]


def base(wanted: "Cost") -> "Settings":
    """The conditions that all reports share."""
    import torch

    from vitrail.cost import Settings

    gpu = "cuda" if torch.cuda.is_available() else "cpu"
    return Settings(
        classes=wanted.classes,
        precision=wanted.precision,
        graph="compiled" if wanted.compiled else "eager",
        device=gpu if wanted.device == "auto" else wanted.device,
        rounds=wanted.rounds,
        window_s=wanted.window,
        warmup_s=4 * wanted.window,
        checkpointing=wanted.checkpointing,
    )


def machine_line(machine: Mapping[str, Any]) -> str:
    """Where and when the figures hold."""
    return (
        f"1 MAC = 2 FLOPs. {machine['cpu']}, {machine['usable_cores'] or machine['cores']} cores, "
        f"{machine['gpu'] or 'no GPU'}, torch {machine['versions']['torch']}, {machine['date']}"
    )


def megabytes(value: int | None) -> str:
    """Peak memory for people."""
    return "" if value is None else f"{value / 2**20:.0f}"
