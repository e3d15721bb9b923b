"""``vitrail study``: several models trained alike on the same pictures, and a report."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from vitrail.cli.command import Answer, Command


@dataclass(kw_only=True)
class Study(Command):
    """Compare models: each is trained with the same recipe and budget; report.html says the rest.

    What is done is skipped when the same command is given again, so a stopped study goes on.
    Example: vitrail study fashion --models vit_tiny coat_lite_tiny --fractions 0.1 1
    """

    data: Positional[str]
    """Folder of class folders, CSV or Parquet table, zip, torchvision:NAME, fashion or scenes."""
    models: tuple[str, ...] = ("vit_tiny", "coat_lite_tiny", "clustering_coat_lite_tiny")
    """Names, with options if wanted, and baselines such as timm:resnet18."""
    fractions: tuple[float, ...] = (0.1, 1.0)
    """Shares of the training pictures, nested."""
    seeds: tuple[int, ...] = (0,)
    """One training for each seed."""
    out: Path = Path("vitrail-study")
    """Folder of the study."""

    def run(self) -> Answer:
        """Run what is not done yet, then report."""
        raise NotImplementedError
