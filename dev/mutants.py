"""Mutants: one wrong line at a time, and whether the tests notice.

``python dev/mutants.py``                     all, one after the other; a broken run goes on
``python dev/mutants.py --only linear tau``   those whose name holds one of these words
``python dev/mutants.py --near``              a quick look: only the test files near each line
``python dev/mutants.py --check``             only looks that every text is found exactly once
``python dev/mutants.py --tests-of 0972ca9``  the tests as they were then, on the present code

a temporary worktree -> one text replaced -> pytest -x on the tests near it, then of its room
                     -> killed by a test that passes without it, survived, or undecided

A mutant is found by its text wherever that stands in ``src/vitrail``, so files may move; where a
text is gone, or stands twice, nothing is run until the table below is brought up to date.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = Path("src/vitrail")
RESULTS = ROOT / "build" / "mutants.jsonl"
LIMIT_S = 900


@dataclass(frozen=True)
class Mutant:
    """``old`` becomes ``new`` in the one place where it stands.

    ``near`` names test files, ``"soft"`` for any ``test_soft.py``: they are run first.
    """

    name: str
    room: str
    near: str
    old: str
    new: str


# Test files by room, in the order in which they are run; those that are not there are left out.
LAWS = ("tests/contracts/test_reducers.py", "tests/contracts/test_mixers.py")
TESTS = {
    "tokens": ("tests/tokens", "tests/layers", "tests/reducers", *LAWS),
    "layers": ("tests/layers", "tests/mixers", "tests/parity", *LAWS),
    "mixers": ("tests/mixers", "tests/contracts/test_mixers.py", "tests/parity"),
    "reducers": ("tests/reducers", "tests/contracts/test_reducers.py", "tests/parity"),
    "models": ("tests/models", "tests/parity", "tests/contracts/test_backbones.py"),
    "train": ("tests/train", "tests/tasks"),
    "study": ("tests/study",),
}

# fmt: off
MUTANTS = (
    # tokens: plans, assignment, selection, hashing
    Mutant("mean of a cluster", "tokens", "assignment matching", "summed / sizes.clamp(min=1)", "summed / sizes.clamp(min=2)"),
    Mutant("soft mean", "tokens", "soft", "(self.weights.to(x.dtype).mT @ x) / mass", "(self.weights.to(x.dtype).mT @ x) * mass"),
    Mutant("worst instead of best", "tokens", "selection", "score.sort(dim=1, descending=True, stable=True)", "score.sort(dim=1, descending=False, stable=True)"),
    Mutant("how many are kept", "tokens", "selection", "math.ceil(keep * places - 1e-6)", "math.floor(keep * places - 1e-6)"),
    Mutant("lattice row", "tokens", "selection", "(2 * row + 1) * height // (2 * rows)", "(2 * row) * height // (2 * rows)"),
    Mutant("gate dropped", "tokens", "selection", "chosen * self.gate.to(chosen.dtype).unsqueeze(2)", "chosen * 1"),
    Mutant("padding may win", "tokens", "assignment", "likeness.masked_fill(outside, -torch.inf)", "likeness.masked_fill(outside, torch.inf)"),
    Mutant("k-means distance", "tokens", "assignment", "- 2 * (x @ centres.mT)", "+ 2 * (x @ centres.mT)"),
    Mutant("runs of the sort", "tokens", "assignment", "* clusters // tokens\n    return torch.empty_like", "% clusters\n    return torch.empty_like"),
    Mutant("angular buckets", "tokens", "hashing lsh", "torch.cat((along, -along), -1)", "torch.cat((along, along), -1)"),
    Mutant("pairs compared", "tokens", "matching", "(n - n // 2) * (n // 2)", "n * (n // 2)"),
    # layers: grid, windows, position, attention
    Mutant("cells at the rim", "layers", "grid", "-(-grid[0] // down), -(-grid[1] // right)", "grid[0] // down, -(-grid[1] // right)"),
    Mutant("shift the other way", "layers", "windows window", "x.roll((-self.shift[0], -self.shift[1]), (1, 2))", "x.roll((self.shift[0], self.shift[1]), (1, 2))"),
    Mutant("half of a window's mask", "layers", "windows window", "tile.unsqueeze(2) != tile.unsqueeze(1)", "tile.unsqueeze(2) > tile.unsqueeze(1)"),
    Mutant("resized positions", "layers", "position", "image = F.interpolate(image, size=new, **RESIZE[how])", "image = F.interpolate(image, size=new)"),
    Mutant("sine and cosine", "layers", "position cct", "torch.stack((angle.sin(), angle.cos()), -1)", "torch.stack((angle.cos(), angle.sin()), -1)"),
    Mutant("scale of narrow heads", "layers", "conv originals", "(mass.mT * v.shape[-1] ** 0.5)", "(mass.mT * v.shape[-1])"),
    Mutant("position without input", "layers", "position originals", "return x + self.proj(x)", "return self.proj(x)"),
    # mixers
    Mutant("linear kernel", "mixers", "linear", "torch.where(x > 0, x + 1, x.clamp(max=0).exp())", "torch.where(x > 0, x, x.clamp(max=0).exp())"),
    Mutant("linear sizes", "mixers", "linear", "(plan.sizes / plan.sizes.sum(1, keepdim=True)).to(k.dtype)", "(plan.sizes.clamp(0, 1) / plan.sizes.shape[1]).to(k.dtype)"),
    Mutant("which blocks shift", "mixers", "window", "shift if index % 2 else 0", "0 if index % 2 else shift"),
    Mutant("lsh looks ahead", "mixers", "lsh", "torch.cat((runs.roll(1, 3), runs), 4)", "torch.cat((runs.roll(-1, 3), runs), 4)"),
    Mutant("gate of positions", "mixers", "convit", "self.gate.sigmoid().to(like.dtype)", "(-self.gate).sigmoid().to(like.dtype)"),
    Mutant("signs of offsets", "mixers", "coatnet", "places.sign() * places.abs().log1p()", "places.abs().log1p()"),
    Mutant("bias of extra tokens", "mixers", "cmt", "return F.pad(bias, (extra, 0, extra, 0)) if extra else bias", "return F.pad(bias, (0, extra, extra, 0)) if extra else bias"),
    Mutant("sizes of keys", "mixers", "clustered", "attend(queries, k, v, key_bias(plan, q))", "attend(queries, k, v)"),
    Mutant("heads of a window", "mixers", "conv originals", "round(heads * sum(spec.shares[: i + 1]) / total)", "round(heads * spec.shares[i] / total)"),
    Mutant("reach of offsets", "mixers", "deformable", "self.reach * self.point(self.act(context)).tanh()", "self.reach * self.point(self.act(context))"),
    Mutant("points outside", "mixers", "deformable", "(centres(coarse, offsets) + offsets * cell).clamp(-1, 1)", "centres(coarse, offsets) + offsets * cell"),
    # reducers
    Mutant("budget from the wrong side", "reducers", "budget", "coarsest(torch.stack(losses, 1) <= self.max_variance_loss)", "coarsest(torch.stack(losses, 1) >= self.max_variance_loss)"),
    Mutant("soft over tokens", "reducers", "soft", "logits[..., : min(self.clusters, grid[0] * grid[1])].softmax(2)", "logits[..., : min(self.clusters, grid[0] * grid[1])].softmax(1)"),
    Mutant("gate in evaluation", "reducers", "select", "straight_through_gate(score.gather(1, index).sigmoid()) if self.training else None", "straight_through_gate(score.gather(1, index).sigmoid())"),
    Mutant("size of a pool's cells", "reducers", "pooling", "plan = GridPooling(grid=grid, extra=extra, side=self.size, like=x)", "plan = GridPooling(grid=grid, extra=extra, side=self.size + 1, like=x)"),
    # models
    Mutant("vit's token", "models", "originals vit_layouts", "self.norm(x.mean(1)) if self.cls is None else x[:, 0]", "self.norm(x.mean(1)) if self.cls is None else x[:, 1]"),
    Mutant("cvt's gelu", "models", "cvt", "return x * torch.sigmoid(1.702 * x)", "return x * torch.sigmoid(1.7 * x)"),
    Mutant("deit's two heads", "models", "deit", "(label + teacher) / 2", "(label + 2 * teacher) / 3"),
    Mutant("mobilevit's order", "models", "mobilevit", "torch.cat((x, self.narrow(y)), 1)", "torch.cat((self.narrow(y), x), 1)"),
    Mutant("cct's pooling", "models", "cct", "self.weigh(x).softmax(1)", "self.weigh(x).softmax(2)"),
    # train and tasks
    Mutant("ema at the start", "train", "ema", "(min(decay, (1 + n) / (10 + n)))(", "(decay)("),
    Mutant("share of mixing", "train", "mixup fit", "float(torch.rand(())) >= share", "float(torch.rand(())) < share"),
    Mutant("warm-up", "train", "optim", "warmup_lr_init=min(recipe.lr * _FIRST, recipe.min_lr)", "warmup_lr_init=recipe.lr"),
    Mutant("how far the schedule is", "train", "optim", "round(done * self.total)", "round(done * done * self.total)"),
    Mutant("one seed for all steps", "train", "sampling", 'f"{seed}/{step}/{slot}"', 'f"{seed}/{slot}"'),
    Mutant("slots of two processes", "train", "sampling", "part * self.world + self.rank", "part + self.rank"),
    Mutant("loss of a part", "train", "fit", "loss = self._loss(images, labels) / len(microbatches)", "loss = self._loss(images, labels)"),
    Mutant("ema not updated", "train", "fit", "self.ema.update_parameters(self.unwrapped)", "self.ema.eval()"),
    Mutant("patience", "train", "fit", "recipe.patience <= progress.epochs_since_best", "recipe.patience < progress.epochs_since_best"),
    Mutant("temperature", "train", "distill", "distance * how.tau**2", "distance * how.tau"),
    Mutant("alpha", "train", "distill", "(1 - how.alpha) * loss(label_logits, targets)", "how.alpha * loss(label_logits, targets)"),
    Mutant("class weights", "train", "balance objective", "shares = shares * weights", "shares = shares * 1"),
    Mutant("recall", "train", "classify", "confusion.diagonal()[seen].double() / confusion.sum(1)[seen]", "confusion.diagonal()[seen].double() / confusion.sum(0)[seen].clamp(min=1)"),
    # study
    Mutant("wilson", "study", "stats", "(z / 2 / count) ** 2", "(z / count) ** 2"),
    Mutant("mcnemar", "study", "stats", "binomtest(only_a, unlike, 0.5)", "binomtest(only_b, unlike, 0.4)"),
    Mutant("holm", "study", "stats", "(len(ps) - rank) * ps[i]", "len(ps) * ps[i]"),
    Mutant("pareto", "study", "stats", "points[i][1] > points[front[-1]][1]", "points[i][1] >= points[front[-1]][1]"),
    Mutant("crossed residual", "study", "stats", "by_seed[:, None] - by_picture[None, :] + value", "by_seed[:, None] - by_picture[None, :]"),
    Mutant("ranking", "study", "analyse", "key=lambda c: -c.score.value", "key=lambda c: c.score.value"),
    Mutant("equal pictures", "study", "run", "round(recipe.epochs / job.share)", "round(recipe.epochs * job.share)"),
    Mutant("seed of a share", "study", "run whole", 'take_fraction(self.pictures.split("train"), job.share, job.seed)', 'take_fraction(self.pictures.split("train"), job.share, 0)'),
    Mutant("seed of a job", "study", "run whole", "replace(self.recipe_from(job.arm), seed=job.seed)", "replace(self.recipe, seed=0)"),
    Mutant("verdict", "study", "analyse", 'return "better" if value > 0 else "worse"', 'return "worse" if value > 0 else "better"'),
)
# fmt: on


@dataclass(frozen=True)
class Outcome:
    """How one mutant fared; ``word`` is killed, survived or undecided."""

    name: str
    change: str
    tests: str
    word: str
    by: str
    seconds: float


def main() -> int:
    """Run what is asked for; the exit status is 1 where a mutant survived or a text is gone."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the worktree is taken away, too
    words = arguments()
    chosen = [m for m in MUTANTS if not words.only or any(word in m.name for word in words.only)]
    problems = [problem for mutant in chosen if (problem := trouble(mutant, ROOT))]
    print(*problems, sep="\n", end="\n" if problems else "")
    if words.check or problems:
        print(f"{len(chosen)} mutants, {len(problems)} to bring up to date")
        return int(bool(problems))
    known, tests = read(words.out), (words.tests_of or "present") + " near" * words.near
    with worktree(words.tests_of) as place:
        for number, mutant in enumerate(chosen, start=1):
            done = known.get((mutant.name, change(mutant), tests))
            done = done or attempt(mutant, place, tests, words)
            append(words.out, done)
            known[done.name, done.change, done.tests] = done
            print(f"{number:3}/{len(chosen)} {line(done)}", flush=True)
    outcomes = [known[m.name, change(m), tests] for m in chosen]
    print(summary(outcomes))
    return int(any(outcome.word != "killed" for outcome in outcomes))


def arguments() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[], help="words in the names")
    parser.add_argument("--near", action="store_true", help="only the test files near each")
    parser.add_argument("--check", action="store_true", help="only look for the texts")
    parser.add_argument("--tests-of", help="a commit whose tests are run instead of the present")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds for one mutant")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where outcomes are kept")
    return parser.parse_args()


# ---- texts ---------------------------------------------------------------------------------------


def places(mutant: Mutant, root: Path) -> list[Path]:
    """The files that hold the mutant's text, one entry for each time."""
    files = sorted((root / SOURCE).rglob("*.py"))
    return [file for file in files for _ in range(file.read_text("utf-8").count(mutant.old))]


def trouble(mutant: Mutant, root: Path) -> str:
    """Why a mutant cannot be made; empty if it can."""
    found = places(mutant, root)
    if len(found) != 1:
        where = ", ".join(str(file.relative_to(root)) for file in found) or "nowhere"
        return f"{mutant.name}: {mutant.old!r} stands {where}; it must stand once"
    if not all(tests_of(mutant, root)):
        return f"{mutant.name}: no test file near it ({mutant.near}), or none of its room"
    return ""


def tests_of(mutant: Mutant, root: Path) -> tuple[list[str], list[str]]:
    """The test files near it, and those of its room; what is not there is left out."""
    near = (root / "tests").rglob("test_*.py")
    stems = [f"test_{word}" for word in mutant.near.split()]
    first = [str(file.relative_to(root)) for file in sorted(near) if file.stem in stems]
    return first, [name for name in TESTS[mutant.room] if (root / name).exists()]


def change(mutant: Mutant) -> str:
    """The change on one line, which tells an outcome of an older table from the present."""
    return f"{mutant.old} -> {mutant.new}"


# ---- running -------------------------------------------------------------------------------------


@contextmanager
def worktree(tests_of: str | None) -> Iterator[Path]:
    """A worktree of the present commit beside this one, with another commit's tests if asked."""
    place = ROOT.parent / f".mutants-{os.getpid()}"
    git(ROOT, "worktree", "add", "--detach", "--quiet", str(place), "HEAD")
    try:
        if tests_of:
            git(place, "rm", "-rq", "tests")
            git(place, "checkout", "--quiet", tests_of, "--", "tests")
        yield place
    finally:
        git(ROOT, "worktree", "remove", "--force", str(place))


def git(place: Path, *words: str) -> None:
    """Run git in a folder."""
    subprocess.run(["git", "-C", str(place), *words], check=True)


def attempt(mutant: Mutant, place: Path, tests: str, words: argparse.Namespace) -> Outcome:
    """Make the mutant, run its tests, take it back."""
    problem = trouble(mutant, place)
    if problem:
        raise SystemExit(problem)
    (file,) = places(mutant, place)
    whole, began = file.read_text("utf-8"), time.monotonic()
    file.write_text(whole.replace(mutant.old, mutant.new), "utf-8")
    try:
        for some in tests_of(mutant, place)[: 1 if words.near else 2]:
            word, by = run_tests(place, some, words.limit)
            if word != "survived":
                break
    finally:
        file.write_text(whole, "utf-8")
    if word == "killed" and run_tests(place, [by], words.limit)[0] != "survived":
        word, by = "undecided", f"{by} fails without the mutant, too"
    seconds = round(time.monotonic() - began, 1)
    return Outcome(mutant.name, change(mutant), tests, word, by, seconds)


def run_tests(place: Path, tests: Sequence[str], limit: float) -> tuple[str, str]:
    """killed and by which test, survived, or undecided."""
    path = os.pathsep.join((str(place / "src"), os.environ.get("PYTHONPATH", "")))
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider"]
    try:
        done = subprocess.run(
            [*command, *tests],
            cwd=place,
            env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "undecided", f"nothing failed within {limit:g} s"
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    if done.returncode == 0:
        return "survived", ""
    return "killed", failed[1] if failed else f"pytest ended with {done.returncode}"


# ---- outcomes ------------------------------------------------------------------------------------


def read(file: Path) -> dict[tuple[str, str, str], Outcome]:
    """Outcomes of earlier runs that need not be found again."""
    if not file.exists():
        return {}
    outcomes = [Outcome(**json.loads(text)) for text in file.read_text("utf-8").splitlines()]
    return {(o.name, o.change, o.tests): o for o in outcomes if o.word != "undecided"}


def append(file: Path, outcome: Outcome) -> None:
    """Keep an outcome, once."""
    if outcome in read(file).values():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(asdict(outcome)) + "\n")


def line(outcome: Outcome) -> str:
    """An outcome for people."""
    by = f" by {outcome.by}" if outcome.by else ""
    return f"{outcome.name}: {outcome.word}{by} ({outcome.seconds:.0f} s)"


def summary(outcomes: Sequence[Outcome]) -> str:
    """How many were killed, and who was not."""
    counts = Counter(outcome.word for outcome in outcomes)
    left = [f"  {line(outcome)}" for outcome in outcomes if outcome.word != "killed"]
    total = ", ".join(f"{counts[word]} {word}" for word in ("killed", "survived", "undecided"))
    return "\n".join([f"{len(outcomes)} mutants: {total}", *left])


if __name__ == "__main__":
    sys.exit(main())
