"""``vitrail export``: a trained run as files that need neither the run nor the model's code."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from vitrail.cli.command import FLAG, Answer, Command, metavar, table
from vitrail.console import status_bar
from vitrail.errors import UserError, shell_path
from vitrail.files import resolve_path

if TYPE_CHECKING:
    from vitrail.export import Exported


@dataclass(kw_only=True)
class Export(Command):
    """Write a trained run as a folder for use elsewhere: model, classes, preprocessing, proof.

    The file is run beside the run's own model on several batches before anything is kept.
    Example: vitrail export runs/photos-1 --format onnx --out photos-onnx
    """

    folder: Positional[Annotated[str, arg(metavar="RUN")]]
    """A run, a job of a study, a folder of save_timm, the weights file of one, or timm:NAME."""
    format: Literal["onnx", "torch", "openvino"] = "onnx"
    """onnx: for ONNX Runtime; openvino: the same file, run by OpenVINO; torch: a torch.export
    program (.pt2)."""
    out: Annotated[Path | None, metavar("FOLDER")] = None
    """The new folder (default: beside the run, its name with the format behind it)."""
    precision: Literal["float32", "bf16", "int8"] = "float32"
    """float32; bf16 (torch, openvino); int8 linear layers (onnx only)."""
    any_size: Annotated[bool, FLAG] = False
    """Serve pictures of other sizes too, in multiples of 32; not every model can."""
    tolerance: Annotated[float | None, metavar("SHARE")] = None
    """Largest difference allowed, as a share of the largest output (default: by precision)."""
    verify: Annotated[bool, FLAG] = False
    """Show every batch on which file and run were compared, not only the worst."""

    def run(self) -> Answer:
        """Export, verified."""
        from vitrail.export import write_folder
        from vitrail.hub import open_run

        if self.tolerance is not None and self.tolerance <= 0:
            raise UserError(f"--tolerance must be above 0, not {self.tolerance}")
        run = open_run(self.folder, device="cpu")
        out = self.out or beside(Path(self.folder), self.format)
        with status_bar("exporting") as step:
            step(run.card.model)
            made = write_folder(
                run.model,
                run.card,
                out,
                format=self.format,
                precision=self.precision,
                any_size=self.any_size,
                tolerance=self.tolerance,
            )
        return Answer(export_data(made, out), export_lines(made, out, every=self.verify))


def beside(run: Path, format: str) -> Path:
    """The folder that nobody named: ``runs/photos-1`` -> ``runs/photos-1-onnx``."""
    folder = run.parent if run.is_file() else run
    folder = resolve_path(folder)
    return folder.with_name(f"{folder.name}-{format}")


def export_data(made: "Exported", out: Path) -> dict[str, Any]:
    """The export as JSON."""
    worst = made.worst.to_dict()
    batches = [d.to_dict() for d in made.differences]
    return {**asdict(made), "folder": str(out), "differences": batches, "worst": worst}


def export_lines(made: "Exported", out: Path, every: bool) -> list[Any]:
    """The export for people."""
    worst = made.worst
    size = out_bytes(out) / 2**20
    lines: list[Any] = [
        f"{out}: {made.format}, {made.precision}, {size:.1f} MB, batches of any number, "
        f"sizes {made.sizes}",
        f"largest difference from the run: {worst.largest:.1e} ({worst.relative:.1e} of the "
        f"largest output, {made.tolerance:.1e} allowed) over {len(made.differences)} batches",
        f"next: vitrail predict {shell_path(out)} PICTURES",
    ]
    if every:
        rows = [
            (f"{d.batch} x {d.height} x {d.width}", f"{d.largest:.1e}", f"{d.relative:.1e}",
             f"{d.agree:.0%}")
            for d in made.differences
        ]  # fmt: skip
        lines.insert(1, table(("batch", "difference", "of the largest", "same class"), rows))
    return lines


def out_bytes(folder: Path) -> int:
    """What a folder's files weigh."""
    return sum(path.stat().st_size for path in folder.iterdir())
