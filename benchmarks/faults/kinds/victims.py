"""The commands that write, as they are broken off: what they write, and when it is whole.

A victim is a command in a folder of its own. After whatever was done to it, the command that a
person would give next must succeed, its result must be what an undisturbed one gave, and nothing
half may lie about. Beside it lie folders of the user's whose names look like drafts of ours.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from benchmarks.faults import children
from benchmarks.faults.stage import Stage, study_words
from benchmarks.faults.verdict import Fault, Said, judge
from vitrail.files import MARK

MINE = (".out.starting", ".out.1-0badcafe.vitrail-tmp", ".photos.vitrail-tmp")
"""Folders of the user's."""
LEFT = re.compile(r"\.vitrail-(tmp|draft)$|\.starting$|\.part$|\.tmp$|^checkpoint\.safetensors$")
LIMIT_S = 600.0
"""A command that takes longer hangs; alone it takes seconds, on a busy machine minutes."""

Words = Callable[[Stage, Path], Sequence[Any]]


@dataclass(frozen=True)
class Victim:
    """A command that writes.

    Attributes:
        name: for the table.
        words: the command, which writes to ``out``.
        again: the command that goes on after a break, given the folder as it is.
        facts: what must be the same, broken off or not, as a value for JSON.
        needs: what the stage must have.
        out: what it writes.
    """

    name: str
    words: Words
    again: Words
    facts: Callable[[Path], Any]
    needs: tuple[str, ...] = ()
    out: str = "out"
    prepare: Callable[[Stage, Path], None] = lambda stage, out: None

    def undisturbed(self, stage: Stage) -> tuple[float, Any]:
        """How long the command takes when nobody disturbs it, and the facts; found out once."""
        note = f"undisturbed-{self.name}"
        with stage.alone(note):  # another job may be finding it out
            if not (stage.root / f"{note}.json").exists():
                stage.write_note(note, self._found_out(stage, stage.of(note)))
        seconds, facts = stage.note(note)
        return seconds, facts

    def _found_out(self, stage: Stage, folder: Path) -> list[Any]:
        """Run the command to its end, in a folder that is gone afterwards: seconds and facts."""
        shutil.rmtree(folder, ignore_errors=True)  # of one that failed
        place = lay_out(folder)
        self.prepare(stage, place / self.out)
        child = children.spawn(self.words(stage, place / self.out), place)
        said = child.told(LIMIT_S)
        if said.status != 0:
            raise Fault("fails undisturbed", said.tail())
        seconds = children.now() - child.began
        facts = self.facts(place / self.out)
        shutil.rmtree(place)
        return [seconds, facts]

    def goes_on(self, stage: Stage, place: Path) -> Said:
        """Give the next command; all must be well after it.

        Raises:
            Fault: it fails, its result is another, something half is left or lost.
        """
        out = place / self.out
        words = self.again(stage, out)
        if words:
            said = judge(children.finish(words, place, LIMIT_S))
            if said.status != 0:
                raise Fault(
                    f"the next command fails ({' '.join(map(str, words[:2]))})", said.tail()
                )
        else:
            said = Said((), 0, "", "")
        self.same(stage, out, said)
        nothing_left(place)
        return said

    def same(self, stage: Stage, out: Path, said: Said) -> None:
        """The result is what an undisturbed command gives.

        Raises:
            Fault: it is another, or cannot be read.
        """
        wanted = self.undisturbed(stage)[1]
        try:
            found = json.loads(json.dumps(self.facts(out)))
        except Exception as error:
            raise Fault(f"half a result: {error!r}"[:150], said.tail()) from error
        if found != wanted:
            raise Fault("another result than undisturbed", f"{found}\nnot {wanted}\n{said.tail()}")


def lay_out(place: Path) -> Path:
    """A folder for a command, with the user's folders in it."""
    place.mkdir(parents=True)
    for name in MINE:
        (place / name).mkdir()
        (place / name / "thesis.txt").write_text("mine")
    return place


def nothing_left(place: Path) -> None:
    """No drafts and no checkpoints lie about; the user's folders are there.

    Raises:
        Fault: something is left over, or lost.
    """
    for name in MINE:
        if not (place / name / "thesis.txt").exists():
            raise Fault("a folder of the user's was deleted", name)
    left = [
        str(path.relative_to(place))
        for path in place.rglob("*")
        if LEFT.search(path.name) and path.relative_to(place).parts[0] not in MINE
    ]
    if left:
        raise Fault("drafts are left behind", ", ".join(sorted(left)))


def digest(path: Path) -> str:
    """A file's contents in short."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def tensors(path: Path) -> str:
    """The tensors of a file in short, whatever else it says."""
    found = hashlib.sha256()
    with safe_open(path, "np") as file:
        for name in sorted(file.keys()):
            found.update(name.encode() + file.get_tensor(name).tobytes())
    return found.hexdigest()[:16]


# ---- the victims --------------------------------------------------------------------------------


def train(stage: Stage, out: Path) -> list[Any]:
    """Several epochs with many checkpoints."""
    return stage.train_words(out, epochs=6)


def train_on(stage: Stage, out: Path) -> list[Any]:
    """Go on with it; begin anew where there is no run yet; nothing where it had ended."""
    if (out / "result.json").exists() and not (out / "checkpoint.safetensors").exists():
        return []
    return ["train", "--resume", out] if (out / "run.json").exists() else train(stage, out)


def run_facts(out: Path) -> Any:
    """A run's weights, and how well it did."""
    result = json.loads((out / "result.json").read_text())
    names = ("best.safetensors", "last.safetensors")
    rows = (out / "metrics.jsonl").read_text().splitlines()
    return [tensors(out / name) for name in names] + [len(rows), result.get("scores")]


def train_with_workers(stage: Stage, out: Path) -> list[Any]:
    """With two processes that read."""
    return [w if w != "workers=0" else "workers=2" for w in train(stage, out)]


def workers_on(stage: Stage, out: Path) -> list[Any]:
    """As :func:`train_on`."""
    words = train_on(stage, out)
    return words if words[1:2] == ["--resume"] or not words else train_with_workers(stage, out)


def create(stage: Stage, out: Path) -> list[Any]:
    """Another reducer."""
    return ["create", stage.of("run"), "--reducer", "cluster(ratio=4)", "-o", out]


def names_in(out: Path) -> list[str]:
    """What lies in a folder; a kill in the moment of naming may leave the draft's empty mark."""
    return sorted(p.name for p in out.iterdir() if p.name != MARK)


def created_facts(out: Path) -> Any:
    """A made run's weights and files."""
    weights = sorted(out.glob("*.safetensors"))
    return [names_in(out), [tensors(p) for p in weights]]


def explain(stage: Stage, out: Path) -> list[Any]:
    """Maps of three pictures by two methods."""
    methods = ("--method", "gradcam", "occlusion")
    return ["explain", stage.of("run"), *stage.good(), *methods, "--out", out]


def maps_facts(out: Path) -> Any:
    """The names of all files; each must hold something."""
    files = sorted(p for p in out.rglob("*") if p.is_file() and p.name != MARK)
    return [[p.name, p.stat().st_size > 0] for p in files]


def export(stage: Stage, out: Path) -> list[Any]:
    """To ONNX."""
    return ["export", stage.of("run"), "--format", "onnx", "--out", out]


def exported_facts(out: Path) -> Any:
    """The files, and the classes that the card tells."""
    return [
        names_in(out),
        json.loads((out / "card.json").read_text())["classes"],
    ]


def cost(stage: Stage, out: Path) -> list[Any]:
    """How cost grows, drawn."""
    from benchmarks.faults.stage import TINY

    sizes = ("--image", 32, 64, "--rounds", 1, "--window", 0.01, "--batch", 1, "--no-memory")
    return ["cost", TINY, *sizes, "--growth", out]


def picture_facts(out: Path) -> Any:
    """Whether the drawing is whole."""
    return out.read_text().rstrip().endswith("</svg>")


def measured(stage: Stage, out: Path) -> None:
    """A study whose costs are measured, and nothing else."""
    out.mkdir()
    for name in ("plan.yaml", "study.json", "costs.json"):
        if (stage.of("study") / name).exists():
            shutil.copy(stage.of("study") / name, out / name)


def study(stage: Stage, out: Path) -> list[Any]:
    """Two models."""
    return study_words(stage, out)


def study_facts(out: Path) -> Any:
    """The runs' weights; the report must be whole."""
    if not (out / "report.html").read_text().rstrip().endswith("</html>"):
        raise ValueError("the report is not whole")
    runs = sorted(out.rglob("best.safetensors"))
    return [[str(p.relative_to(out)), tensors(p)] for p in runs]


def choose(stage: Stage, out: Path) -> list[Any]:
    """Among two, one of which keeps the limit: who wins does not hang on the machine's hurry."""
    from benchmarks.faults.stage import TINY

    pool = (TINY, TINY.replace("dim=24", "dim=48"))
    limits = ("--max-params", 40_000, "--minutes", 0.3, "--weights", "none")
    return ["choose", "scenes(count=240, size=32)", "--pool", *pool, *limits, "--out", out]


def choice_facts(out: Path) -> Any:
    """Who was chosen, why the other was not, and how good; the page must be whole."""
    page = (out / "choose.html").read_text()
    if not page.rstrip().endswith("</html>"):
        raise ValueError("the page is not whole")
    said = json.loads((out / "choose.json").read_text())
    answers = [[e["left"], [r["right"] for r in e["rounds"]]] for e in said["entries"]]
    winner = said["winner"]
    return [names_in(out), said["phase"], winner, said["estimate"], answers, f">{winner}<" in page]


def once_more(words: Words) -> Words:
    """The same command, if it has not written its result."""
    return lambda stage, out: [] if out.exists() else words(stage, out)


VICTIMS = (
    Victim("train", train, train_on, run_facts),
    Victim("train-workers", train_with_workers, workers_on, run_facts),
    Victim("create", create, once_more(create), created_facts, ("run",)),
    Victim("explain", explain, once_more(explain), maps_facts, ("run",)),
    Victim("export", export, once_more(export), exported_facts, ("run",)),
    Victim("cost", cost, once_more(cost), picture_facts, (), "out.svg"),
    Victim("choose", choose, choose, choice_facts),
    Victim("study", study, study, study_facts, ("study",), prepare=measured),
)
