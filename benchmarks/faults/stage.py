"""What trials begin from: a few photos, a tiny trained run, and all that commands make of it."""

import contextlib
import fcntl
import importlib
import io
import json
import os
import random
import signal
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.faults import children
from benchmarks.faults.verdict import Said

TINY = "vit_tiny(patch=8, dim=24, heads=3, depth=1)"
IMAGE = 32
CLASSES = ("cat", "dog", "Grüße & more")
EACH = 8
RECIPE = ("batch=8", "workers=0", "mixup=0", "cutmix=0", "checkpoint_steps=2")
HEAVY = (
    "accelerate", "jinja2", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg",
    "onnx", "onnxruntime", "onnxscript", "pyarrow.parquet", "scipy.stats", "timm", "timm.optim",
    "timm.scheduler.cosine_lr", "torch._dynamo", "torch.distributed.checkpoint.state_dict",
    "torch.export", "torch.onnx", "torchmetrics.functional.classification",
    "torchvision.transforms.v2", "tyro", "vitrail.cli.app", "vitrail.cost", "vitrail.attribution",
    "vitrail.attribution.draw", "vitrail.export.files", "vitrail.hub.save", "vitrail.study",
    "vitrail.study.choose.choice", "vitrail.train",
)  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """The folders of a harness run.

    ``canary`` is a file that only code hidden in an input would make; ``trials`` holds a folder
    for every trial that runs or found a fault.
    """

    root: Path

    @property
    def trials(self) -> Path:
        """Where trials have their folders."""
        return self.root / "trials"

    @property
    def canary(self) -> Path:
        """The file that must never appear."""
        return self.root / "canary"

    @property
    def photos(self) -> Path:
        """A folder of class folders."""
        return self.root / "photos"

    def good(self) -> list[Path]:
        """Pictures that every run here knows how to read, in a fixed order."""
        return sorted(self.photos.glob("*/*.png"))[:3]

    def of(self, name: str) -> Path:
        """What was made under ``name``."""
        return self.root / name

    def note(self, name: str) -> Any:
        """A fact that was written down while the stage was set."""
        return json.loads((self.root / f"{name}.json").read_text())

    def write_note(self, name: str, value: Any) -> None:
        """Write a fact down."""
        (self.root / f"{name}.json").write_text(json.dumps(value))

    @contextlib.contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """While the block runs, no other process has ``name``; whoever wants it waits."""
        with (self.root / f"{name}.lock").open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield

    def set(self, needs: Iterable[str]) -> None:
        """Make what is needed and not there yet."""
        self.trials.mkdir(parents=True, exist_ok=True)
        if not self.photos.is_dir():
            write_photos(self.photos)
        for name in needs:
            if not (self.root / f"{name}.json").exists():
                for first in AFTER.get(name, ()):
                    self.set([first])
                began = time.monotonic()
                MAKERS[name](self)
                seconds = time.monotonic() - began
                self.write_note(name, {"seconds": seconds, "answers": self.answers(name)})

    def answers(self, name: str) -> Any:
        """What is predicted on the good pictures with the folder ``name``, if it can predict."""
        if name in ("stopped", "study"):
            return None
        words: list[Any] = ["predict", self.of(name), *self.good(), "--json"]
        return must(children.finish(words, self.root)).json()

    def train_words(self, out: str | Path, *more: str, epochs: int = 2, seed: int = 0) -> list[Any]:
        """A short training on the photos."""
        options = [*RECIPE, *(word for word in more if not word.startswith("-"))]
        return [
            "train", self.photos, "--model", TINY, "--image", IMAGE, "--epochs", epochs,
            "--out", out, "--seed", seed, "--val", 0.3, "--set", *options,
        ]  # fmt: skip


def warm_up() -> None:
    """Import what commands import late, so that a forked child starts at once."""
    import torch

    torch.set_num_threads(1)
    for name in HEAVY:
        try:
            importlib.import_module(name)
        except ImportError:
            continue


def use_home(folder: Path) -> None:
    """Nothing of the user's is read or written: caches and trust are this run's own."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        os.environ[name] = str(folder)
    os.environ["HF_HUB_OFFLINE"] = "1"


def picture(chance: random.Random, side: int = 40) -> Image.Image:
    """Soft colours that differ from picture to picture."""
    luck = np.random.default_rng(chance.getrandbits(32))
    small = luck.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


def write_photos(folder: Path) -> None:
    """Three classes of eight pictures."""
    chance = random.Random(0)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for i in range(EACH):
            picture(chance).save(folder / name / f"{i}.png")


def zipped(folder: Path, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A folder as a zip."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", method) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return held.getvalue()


def must(said: Said) -> Said:
    """What a command said, where it has to be well; else the harness cannot begin."""
    if said.status != 0:
        raise SystemExit(f"the stage cannot be set:\n{said.tail()}")
    return said


def _run(stage: Stage) -> None:
    must(children.finish(stage.train_words(stage.of("run")), stage.root))


def _stopped(stage: Stage) -> None:
    """A training that somebody stopped soon: its checkpoint is there."""
    out = stage.of("stopped")
    child = children.spawn(stage.train_words(out, epochs=40), stage.root)
    until = time.monotonic() + 300
    while not (out / "checkpoint.safetensors").exists() and time.monotonic() < until:
        time.sleep(0.01)
    child.send(signal.SIGINT)
    status = child.end(300)
    if status != 130 or not (out / "checkpoint.safetensors").exists():
        raise SystemExit(f"the stage cannot be set:\n{child.said(status).tail()}")


def _reduced(stage: Stage) -> None:
    words: list[Any] = [
        "create",
        stage.of("run"),
        "--reducer",
        "cluster(ratio=4)",
        "-o",
        stage.of("reduced"),
    ]
    must(children.finish(words, stage.root))


def _exported(format: str) -> Callable[[Stage], None]:
    def make(stage: Stage) -> None:
        words: list[Any] = [
            "export",
            stage.of("run"),
            "--format",
            format,
            "--out",
            stage.of(format),
        ]
        must(children.finish(words, stage.root))

    return make


def _timm(stage: Stage) -> None:
    """The run as timm's and transformers' folder, made in a process of its own."""
    pid = os.fork()
    if pid == 0:
        try:
            from vitrail.hub.save import save_timm

            save_timm(stage.of("run"), stage.of("timm"))
            os._exit(0)
        finally:
            os._exit(1)
    if os.waitpid(pid, 0)[1]:
        raise SystemExit("the stage cannot be set: save_timm failed")


STUDY = (
    "study", "--models", TINY, "vit_tiny(patch=16, dim=24, heads=3, depth=1)", "--fractions", "1",
    "--epochs", "2", "--image", str(IMAGE), "--val", "0.3", "--set", *RECIPE,
)  # fmt: skip


def study_words(stage: Stage, out: str | Path) -> list[Any]:
    """A study of two tiny models."""
    return [STUDY[0], stage.photos, *STUDY[1:], "--out", out]


def _study(stage: Stage) -> None:
    must(children.finish(study_words(stage, stage.of("study")), stage.root))


MAKERS: dict[str, Callable[[Stage], None]] = {
    "run": _run,
    "stopped": _stopped,
    "reduced": _reduced,
    "onnx": _exported("onnx"),
    "torch": _exported("torch"),
    "timm": _timm,
    "study": _study,
}
AFTER = {"reduced": ("run",), "onnx": ("run",), "torch": ("run",), "timm": ("run",)}
