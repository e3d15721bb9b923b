"""How fast two versions of the code run the same models, timed by turns: eager, compiled, exported.

::

    git worktree add ../old 0972ca9
    python dev/before_after.py ../old/src src                       # old first; minutes a model
    python dev/before_after.py ../old/src src --models coat_lite_tiny --forms eager onnx

Each version has a process of its own, which builds every model from a seed, and compiles and
exports it with that version's own code. Both wait until the other is ready; then one works while
the other waits, old-new, new-old, and so on, with one thread. A round's ratio is the old time over
the new one: above 1, the new code is faster. Logits of the two are compared as well.
``vitrail.cost.time_side_by_side`` is not used: it times within one process, and takes the work of
another one for a disturbance.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SEED, CLASSES = 0, 1000
MODELS = (
    "vit_small", "deit_tiny_distilled", "convit_tiny", "coat_lite_tiny", "coat_lite_small",
    "coat_tiny", "coatnet_nano_rw", "coatnet_0_rw", "mobilevit_xxs", "mobilevit_s", "cmt_ti",
    "cmt_s", "filtervit_v2_xs",
)  # fmt: skip
"""Those of ``benchmarks/peer_models.py``; the old code has no such page."""
FORMS = ("eager", "compiled", "onnx")


# ---- in the process of one version ------------------------------------------------------------


def serve(forms: list[str], image: int, batch: int) -> None:
    """Take commands from stdin, a JSON list each; answer with a line of JSON."""
    import torch

    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to stderr
    ready: dict[tuple[str, str], Callable[[], Any]] = {}
    picture = torch.randn(batch, 3, image, image, generator=torch.Generator().manual_seed(SEED))
    for line in sys.stdin:
        verb, model, form, seconds = json.loads(line)
        found: Any = None
        if verb == "prepare":
            ready |= {(model, f): run for f, run in prepare(model, forms, picture)}
        elif verb == "answer":
            found = torch.as_tensor(ready[model, form]()).double().flatten()[:CLASSES].tolist()
        else:
            found = window(ready[model, form], seconds)
        print(json.dumps(found), file=answers, flush=True)


def prepare(model: str, forms: list[str], picture: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Each form of a model, ready to run on ``picture`` and warm."""
    import torch

    import vitrail

    torch.manual_seed(SEED)
    module = vitrail.create(model, classes=CLASSES, image=picture.shape[-1]).eval()

    def eager() -> Any:
        with torch.inference_mode():
            return module(picture)

    runs = {
        "eager": lambda: eager,
        "compiled": lambda: compiled(module, picture),
        "onnx": lambda: exported(module, model, picture),
    }
    for form in forms:
        run = runs[form]()
        run()
        yield form, run


def compiled(module: Any, picture: Any) -> Callable[[], Any]:
    """``torch.compile``'s result."""
    import torch

    fast = torch.compile(module)

    def run() -> Any:
        with torch.inference_mode():
            return fast(picture)

    return run


def exported(module: Any, model: str, picture: Any) -> Callable[[], Any]:
    """The version's own ONNX file, in ONNX Runtime."""
    import onnxruntime

    from vitrail.data import Preprocess
    from vitrail.export import write_folder
    from vitrail.tasks.card import Card

    image, names = picture.shape[-1], tuple(map(str, range(CLASSES)))
    card = Card(
        model=model, classes=names, image=image, preprocess=Preprocess(image=image).to_dict()
    )
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        write_folder(module, card, Path(folder) / "x", format="onnx")
        session = onnxruntime.InferenceSession(
            str(Path(folder) / "x" / "model.onnx"), settings, ["CPUExecutionProvider"]
        )
    feed = {session.get_inputs()[0].name: picture.numpy()}
    return lambda: session.run(None, feed)[0]


def window(run: Callable[[], Any], seconds: float) -> float:
    """Seconds of one call, over as many as fill a window."""
    calls, began = 0, time.perf_counter()
    while calls == 0 or time.perf_counter() - began < seconds:
        run()
        calls += 1
    return (time.perf_counter() - began) / calls


# ---- beside both ------------------------------------------------------------------------------


class Version:
    """One version of the code, in its process."""

    def __init__(self, source: Path, options: argparse.Namespace) -> None:
        words = [str(options.image), str(options.batch), *options.forms]
        environment = os.environ | {"PYTHONPATH": str(source.resolve()), "OMP_NUM_THREADS": "1"}
        self.cache = tempfile.TemporaryDirectory(prefix="inductor-")
        environment |= {"TORCHINDUCTOR_CACHE_DIR": self.cache.name}
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), "--serve", *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True,
        )  # fmt: skip

    def ask(self, verb: str, model: str, form: str = "", seconds: float = 0.0) -> None:
        """Send a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([verb, model, form, seconds]) + "\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        """The answer."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("one version has ended; its error stands above")
        return json.loads(line)


def ratios(pair: list[Version], model: str, form: str, options: argparse.Namespace) -> list[float]:
    """Old over new, round by round."""
    found = []
    for turn in range(options.rounds):
        seconds = [0.0, 0.0]
        for i in (0, 1) if turn % 2 == 0 else (1, 0):
            pair[i].ask("time", model, form, options.window)
            seconds[i] = pair[i].hear()
        found.append(seconds[0] / seconds[1])
    return found


def difference(pair: list[Version], model: str, form: str) -> float:
    """Of the logits, relative to the largest."""
    for version in pair:
        version.ask("answer", model, form)
    old, new = (version.hear() for version in pair)
    return float(max(abs(a - b) for a, b in zip(old, new, strict=True)) / max(map(abs, old)))


def main(options: argparse.Namespace) -> None:
    """Prepare all, time, print and write."""
    pair = [Version(source, options) for source in (options.old, options.new)]
    for model in options.models:
        for version in pair:
            version.ask("prepare", model)
        for version in pair:
            version.hear()
        print(f"ready: {model}", flush=True)
    rows: list[dict[str, Any]] = []
    print(f"load {os.getloadavg()[0]:.2f}; median, least and most of old / new", flush=True)
    for model in options.models:
        for form in options.forms:
            found = ratios(pair, model, form, options)
            apart = difference(pair, model, form)
            rows.append({"model": model, "form": form, "ratios": found, "difference": apart})
            middle, low, high = statistics.median(found), min(found), max(found)
            print(
                f"{model:22}{form:10}{middle:7.3f} ({low:.3f} to {high:.3f})  logits {apart:.0e}",
                flush=True,
            )
    for form in options.forms:
        medians = [statistics.median(r["ratios"]) for r in rows if r["form"] == form]
        print(
            f"{form}: median over models {statistics.median(medians):.3f}, least {min(medians):.3f}"
        )
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        with contextlib.suppress(KeyboardInterrupt):
            serve(sys.argv[4:], int(sys.argv[2]), int(sys.argv[3]))
        sys.exit()
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--forms", nargs="+", default=FORMS, choices=FORMS)
    parser.add_argument("--image", type=int, default=224)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--window", type=float, default=0.5, help="seconds")
    parser.add_argument("--out", type=Path)
    main(parser.parse_args())
