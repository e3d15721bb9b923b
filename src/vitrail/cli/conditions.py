"""Under which conditions ``vitrail cost`` measures, and where the figures hold."""

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitrail.cli.options import CostOptions
from vitrail.errors import UserError

if TYPE_CHECKING:
    from vitrail.cost import Counterparts, Settings


def counterparts_for(options: CostOptions) -> "Counterparts":
    """The builder of all texts, and the counterparts that ``--against`` may name.

    The authors' layout of CMT is not installed: it stands beside the benchmarks of a checkout.

    Raises:
        UserError: it is asked for, and there is no checkout here.
    """
    from vitrail.cost import Counterparts
    from vitrail.hub.baselines import TIMM
    from vitrail.hub.timm_names import TIMM_NAMES

    if not any(text.startswith("official") for text in (*options.models, options.against or "")):
        timm = {ours: TIMM + theirs for ours, theirs in TIMM_NAMES.items()}
        return Counterparts(texts={"timm": timm})
    try:
        found: Counterparts = import_module("benchmarks.peer_models").COUNTERPARTS
    except (ImportError, AttributeError) as error:
        raise UserError(
            "official layouts are not installed; in a checkout of Vitrail they are there: "
            "python -m vitrail cost cmt_s --against official"
        ) from error
    return found


def all_settings(options: CostOptions) -> "list[Settings]":
    """The conditions of every report."""
    lists = (options.image or (224,), options.batch or (8,), options.threads or (None,))
    return [
        replace(base_settings(options), image=image, batch=batch, threads=threads)
        for image, batch, threads in product(*lists)
    ]


def base_settings(options: CostOptions) -> "Settings":
    """The conditions that all reports share."""
    import torch

    from vitrail.cost import Settings

    gpu = "cuda" if torch.cuda.is_available() else "cpu"
    return Settings(
        classes=options.classes,
        precision=options.precision,
        graph="compiled" if options.compiled else "eager",
        device=gpu if options.device == "auto" else options.device,
        rounds=options.rounds,
        window_s=options.window,
        warmup_s=4 * options.window,
        checkpointing=options.checkpointing,
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


PICTURES = (".svg", ".png", ".pdf")
"""What figures can be written as."""


def refuse_picture(path: Path) -> None:
    """Said before anything is measured for a picture that could then not be written.

    Raises:
        UserError: a file is there, its folder is not, or it is not an SVG, PNG or PDF.
    """
    if path.suffix.lower() not in PICTURES:
        raise UserError(f"name the picture *.svg, *.png or *.pdf, not {path.name!r}")
    if path.exists():
        raise UserError(f"{str(path)!r} exists; choose another name for the picture")
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {str(path.parent)!r} for the picture; make it first")
