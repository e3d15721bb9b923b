"""Folders that Vitrail wrote, one file of them changed: runs, exports, timm's, studies.

A refusal is held; an answer is held only if it is the answer of the folder as it was, or if the
change says something else that is allowed (another name of a class).
"""

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.faults.damage import damaged, flip
from benchmarks.faults.stage import Stage
from benchmarks.faults.trees import changed, json_text
from benchmarks.faults.trial import Kind, Trial
from benchmarks.faults.verdict import Fault
from vitrail.digests import KEY

Change = Callable[[Path, Trial], bool]
"""Changes a file; True where every answer must be refused or stay what it was."""
NEEDS = ("run", "stopped", "reduced", "onnx", "torch", "timm")


def folder(trial: Trial, names: tuple[str, ...] = NEEDS) -> None:
    """One changed folder, one command on it."""
    name = trial.chance.choice(names)
    copy = trial.folder / name
    shutil.copytree(trial.stage.of(name), copy)
    files = sorted(p for p in copy.rglob("*") if p.is_file() and p.name != ".lock")
    path = trial.chance.choice(files)
    strict = trial.chance.choice(changes_of(path))(path, trial)
    act = trial.chance.choice(ACTS[name])
    act(trial, copy, strict)


def changes_of(path: Path) -> list[Change]:
    """The changes that suit a file."""
    special: list[Change] = [gone, special_file]
    if path.suffix in (".json", ".jsonl", ".yaml"):
        return [tree, tree, tree, tree, tree, hidden_code, bits, harmed, *special]
    if path.suffix == ".safetensors":
        return [header, header, header, bits, bits, harmed, *special]
    return [bits, harmed, *special]


def bits(path: Path, trial: Trial) -> bool:
    """A few bits flipped: the answer may not change without a word."""
    data = path.read_bytes()
    if data:
        path.write_bytes(flip(bytearray(data), trial.chance))
    return path.suffix in (".safetensors", ".onnx", ".pt2", ".json")


def harmed(path: Path, trial: Trial) -> bool:
    """Any damage."""
    path.write_bytes(damaged(path.read_bytes() or b"x", trial.chance))
    return False


def gone(path: Path, trial: Trial) -> bool:
    """The file is missing."""
    path.unlink()
    return False


def special_file(path: Path, trial: Trial) -> bool:
    """Something else stands in its place: a folder, a pipe, a link to itself, an endless device."""
    path.unlink()
    kind = trial.chance.choice(("folder", "pipe", "loop", "zero", "empty"))
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "empty":
        path.touch()
    else:
        path.symlink_to(path.name if kind == "loop" else "/dev/zero")
    return False


def tree(path: Path, trial: Trial) -> bool:
    """Right syntax, wrong shape."""
    store(path, changed(load(path), trial.chance), trial.chance)
    return False


def hidden_code(path: Path, trial: Trial) -> bool:
    """A record of a plug-in that names a file which nobody asked for."""
    script = trial.file("stranger.py", canary_code(trial.stage))
    value = load(path)
    if isinstance(value, dict):
        record = plugin_record(script, trial.chance)
        value["plugins"] = [record]
        if isinstance(value.get("training"), dict):
            value["training"]["plugins"] = [record]
        if isinstance(value.get("model"), str):
            value["model"] = "vit_tiny(patch=8, dim=24, heads=3, depth=1, mixer='swirl')"
        value["file"] = trial.chance.choice(("../stranger.py", str(script), value.get("file")))
    store(path, value, trial.chance)
    return False


def plugin_record(script: Path, chance: random.Random) -> dict[str, Any]:
    """What a run would say of a plug-in, with the right digest."""
    ways = (str(script), f"/proc/self/cwd/{script.name}", f"run/../{script.name}", script.name)
    digest = hashlib.sha256(script.read_bytes()).hexdigest()
    return {
        "file": script.name,
        "path": chance.choice(ways),
        "sha256": digest,
        "names": ["mixer swirl"],
    }


def canary_code(stage: Stage) -> bytes:
    """Python that shows that it was run."""
    return f"open({str(stage.canary)!r}, 'w').close()\n".encode()


def header(path: Path, trial: Trial) -> bool:
    """The JSON at the head of a safetensors file: tensors' shapes, types, places, and the card."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    value = json.loads(data[8 : 8 + size])
    facts = value.get("__metadata__", {})
    if facts and trial.chance.random() < 0.6:
        key = trial.chance.choice(sorted(facts))
        try:
            inner = json.loads(facts[key])
        except ValueError:
            facts[key] = trial.chance.choice(("", "x", "{}", "[]", "null", "1e999"))
        else:
            if isinstance(inner, dict) and trial.chance.random() < 0.2:
                script = trial.file("stranger.py", canary_code(trial.stage))
                inner.setdefault("extra", {})["plugins"] = [plugin_record(script, trial.chance)]
                inner["model"] = "vit_tiny(patch=8, dim=24, heads=3, depth=1, mixer='swirl')"
            else:
                inner = changed(inner, trial.chance)
            facts[key] = json_text(inner)
    else:
        value = changed(value, trial.chance)
    text = json_text(value).encode("utf-8", "backslashreplace")
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])
    return False


def load(path: Path) -> Any:
    """The value of a JSON, JSON lines or YAML file, without digests that would refuse a change."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".yaml":
        import yaml

        return yaml.safe_load(text)
    if path.suffix == ".jsonl":
        return [bare(json.loads(line)) for line in text.splitlines() if line]
    return bare(json.loads(text))


def bare(value: Any) -> Any:
    """A JSON value without the digest of what it said."""
    return {k: v for k, v in value.items() if k != KEY} if isinstance(value, dict) else value


def store(path: Path, value: Any, chance: random.Random) -> None:
    """Write it back, numbers that JSON lacks included."""
    try:
        if path.suffix == ".yaml" and chance.random() < 0.8:
            import yaml

            text = yaml.safe_dump(value, allow_unicode=True)
        elif path.suffix == ".jsonl" and isinstance(value, list):
            text = "\n".join(map(json_text, value))
        else:
            text = json_text(value)
    except RecursionError:
        text = "[" * 5000 + "]" * 5000
    path.write_bytes(text.encode("utf-8", "surrogatepass"))


# ---- what is done with it -----------------------------------------------------------------------


def predict(trial: Trial, folder: Path, strict: bool) -> None:
    """Predict the good pictures."""
    good = trial.stage.good()
    said = trial.command("predict", folder, *good, "--json", allowed=(0, 1, 2))
    answers = trial.stage.note(folder.name)["answers"]
    if said.status == 0 and strict and answers:
        wanted = [row["top"] for row in answers]
        found = [row.get("top") for row in said.json()]
        if not alike(found, wanted):
            raise Fault("another answer after flipped bits, without a word", said.tail())


def alike(found: list[Any], wanted: list[Any]) -> bool:
    """The same classes, and probabilities as near as exported files promise."""
    return all(near(one or [], other) for one, other in zip(found, wanted, strict=True))


def near(one: list[Any], other: list[Any]) -> bool:
    """Whether two answers on one picture are the same."""
    return len(one) == len(other) and all(
        a["class"] == b["class"] and abs(a["probability"] - b["probability"]) < 1e-3
        for a, b in zip(one, other, strict=True)
    )


def explain(trial: Trial, folder: Path, strict: bool) -> None:
    """Explain one picture."""
    good = trial.stage.good()[0]
    trial.command(
        "explain", folder, good, "--method", "gradcam", "--out", "maps", allowed=(0, 1, 2)
    )


def create(trial: Trial, folder: Path, strict: bool) -> None:
    """Make a run with clusters of it."""
    trial.command("create", folder, "--reducer", "pool", "-o", "made")


def start(trial: Trial, folder: Path, strict: bool) -> None:
    """Train from it."""
    words = trial.stage.train_words("again", epochs=1)
    words = [word for word in words if word != words[3]]  # without --model's value
    words.remove("--model")
    trial.command(*words, "--from", folder)


def teach(trial: Trial, folder: Path, strict: bool) -> None:
    """Train with it as the teacher."""
    trial.command(*trial.stage.train_words("again", epochs=1), "--teacher", folder)


def go_on(trial: Trial, folder: Path, strict: bool) -> None:
    """Go on with a training; a stopped one would take long, so its epochs are few by now."""
    trial.command("train", "--resume", folder)


def export(trial: Trial, folder: Path, strict: bool) -> None:
    """Export it once more."""
    trial.command("export", folder, "--format", "torch", "--out", "out")


def study(trial: Trial, folder: Path, strict: bool) -> None:
    """Look at a study again: nothing is left to run, the report is written anew."""
    trial.command("study", "--resume", folder)


RUN = (predict, predict, predict, explain, create, start, teach)
ACTS: dict[str, tuple[Callable[[Trial, Path, bool], None], ...]] = {
    "run": (*RUN, export, go_on),
    "stopped": (go_on, go_on, predict),
    "reduced": RUN,
    "onnx": (predict,),
    "torch": (predict,),
    "timm": (predict, start),
    "study": (study,),
}

KINDS = (
    Kind(name="folders", about="runs, exports, timm's with one changed file, and every command",
         attempt=folder, needs=NEEDS, weight=4.0, seconds=60),
    Kind(name="study-folders", about="studies with one changed file, gone on with",
         attempt=partial(folder, names=("study",)), needs=("study",), seconds=60),
)  # fmt: skip
