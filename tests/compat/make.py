"""Makes what ``test_compat.py`` opens; run once, by commit 0972ca9, and never again.

::

    cd tests/compat
    PYTHONPATH=../../../old/src OMP_NUM_THREADS=1 python make.py made

A finished run whose mixer is a plug-in, a plain one and its exports, a run stopped in its second
epoch, a small study, and ``expected.json``: what that version answered; packed as ``made.tar.gz``.
"""

import json
import shutil
import sys
import tarfile
from pathlib import Path
from typing import Any

import torch
import vitrail.cli.job as job

from vitrail import explain, plugins, study
from vitrail.cli import main
from vitrail.data import open_pictures
from vitrail.export import open_folder
from vitrail.hub import open_run

HERE = Path(__file__).parent
MODEL = (
    "coat_lite_tiny(depths=(1, 1, 1, 1), dims=(8, 16, 16, 24), heads=4, "
    "mixer=('native', 'native', 'swirl', 'native'), "
    "reducer=('cluster(ratio=4)', 'cluster(ratio=4)', 'all', 'all'))"
)
PLAIN = "vit_tiny(patch=8, dim=24, heads=3, depth=2, reducer='random(keep=0.5)')"
SETTINGS = ("workers=0", "batch=16", "mixup=0", "cutmix=0")
TRAIN = ("--image", "32", "--epochs", "2", "--fraction", "0.03", "--set", *SETTINGS)
METHODS = {"run": ("lrp", "cluster_map"), "plain": ("rollout", "saliency", "filter_mask")}
QUICK = {"epochs": 1, "batch": 16, "mixup": 0.0, "cutmix": 0.0, "workers": 0}


def train(name: str, model: str, out: Path) -> None:
    assert main(["train", "fashion", "--model", model, "--out", str(out / name), *TRAIN]) == 0


def stopped(out: Path) -> None:
    """A run that was interrupted in its second epoch."""
    whole = job.fit

    def fit(*args: Any, **options: Any) -> Any:
        epochs = []

        def stop(event: dict[str, Any]) -> None:
            epochs.append(event["kind"] == "epoch")
            if any(epochs[:-1]):
                raise KeyboardInterrupt

        return whole(*args, **{**options, "on_event": stop})

    job.fit = fit
    assert main(["train", "fashion", "--model", PLAIN, "--out", str(out / "stopped"), *TRAIN])
    job.fit = whole


def answers(folder: Path) -> dict[str, Any]:
    """What the runs say of the first images of the sample."""
    sample = open_pictures("fashion")
    images = [sample.read(item) for item in sample.split("test")[:4]]
    found: dict[str, Any] = {}
    for name, methods in METHODS.items():
        run = open_run(folder / name, device="cpu")
        x = torch.stack([run.preprocess.transform()(image) for image in images])
        found[name] = run.predict(images).tolist()
        for method in methods:
            maps = explain(run.model, x, method=method, target=3).map
            found[f"{name} {method}"] = maps[:, ::8, ::8].tolist()
    for name in ("torch", "onnx"):
        found[name] = open_folder(folder / name).predict(images).tolist()
    return found


def resumed(folder: Path, to: Path) -> dict[str, Any]:
    """The last epoch of a copy of the stopped run, trained to its end."""
    shutil.copytree(folder / "stopped", to)
    assert main(["train", "--resume", str(to)]) == 0
    last = json.loads((to / "metrics.jsonl").read_text().splitlines()[-1])
    return {key: last[key] for key in ("epoch", "train_loss", "val_loss", "accuracy")}


def make(out: Path) -> None:
    plugins.use(HERE / "swirl.py")
    train("run", MODEL, out)
    train("plain", PLAIN, out)
    stopped(out)
    for kind in ("torch", "onnx"):
        words = ["export", str(out / "plain"), "--format", kind, "--out", str(out / kind)]
        assert main(words) == 0
    arms = (PLAIN, "cct_2_3x2(dim=24, depth=1)")
    recipe = {**QUICK, "augment": {"rand_augment": None}}
    plan = study.Plan(data="fashion", arms=arms, fractions=(0.02,), recipe=recipe, image=32)
    done = study.run(plan, out / "study", progress=False)
    expected = answers(out)
    expected["resumed"] = resumed(out, out / "resumed")
    expected["study"] = [
        {key: row[key] for key in ("arm", "accuracy", "params", "macs")} for row in done.rows
    ]
    shutil.rmtree(out / "resumed")
    (out / "expected.json").write_text(json.dumps(expected))
    with tarfile.open(out.with_suffix(".tar.gz"), "w:gz") as packed:
        packed.add(out, "made")


if __name__ == "__main__":
    torch.set_num_threads(1)
    make(Path(sys.argv[1]))
