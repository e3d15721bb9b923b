"""Odd command lines: every command with every option, and values that make no sense."""

import dataclasses
import random
import shutil
from typing import Any

from benchmarks.faults.stage import IMAGE, RECIPE, TINY
from benchmarks.faults.trial import Kind, Trial

NUMBERS = ("-1", "0", "1", "-0", "nan", "inf", "-inf", "1e9", "1e999", "0x10", "1_0", "١٢",
           "", " ",
           "abc", "1.5", "99999999999999999999", "1/2", "²")  # fmt: skip
SHORT = ("-1", "0", "nan", "inf", "", "abc", "1.5", "-inf", "²", "--")
"""For numbers that say how long something takes: no large ones."""
TEXTS = ("", " ", "x", "nope", "-", "--", "=", "[/red]", "\x1b[31mred\x1b[0m", "a\nb", "ä" * 500,
         "../../nope", "//nope", ".", "/dev/null", "/dev/zero", "~", "~nope", "*", "[",
         "\u202ex", "run",
         "photos",
         "picture.png", "recipe.yaml", "fifo", "missing/x", "x\x00y", "\udcff", "$(x)", "timm:nope",
         "timm:", "torchvision:nope", "official:x", "none", "None", "null", "{}",
         "all")  # fmt: skip
MODELS = (
    "vit_tiny(", "vit_tiny)", "vit_tiny()", "vit_tiny(patch=0)", "vit_tiny(dim=0)",
    "vit_tiny(heads=0)", "vit_tiny(classes=3)", "vit_tiny(depth=100000)", "vit_tiny(dim=10**9)",
    "vit_tiny(dim=1000000000)", "vit_tiny(heads=5)", "vit_tiny(patch=-8)", "vit_tiny(patch='x')",
    "vit_tiny(depth=None)", "vit_tiny(depth=[])", "vit_tiny(depth=1.5)", "vit_tiny(x=1)",
    "vit_tiny(1)", "vit_tiny(depth=1, depth=2)", "vit_tiny(mixer='nope')", "vit_tiny(**{})",
    "vit_tiny(mixer='window(size=0)')", "vit_tiny(reducer='cluster(ratio=100000)')",
    "vit_tiny(reducer='cluster(ratio=-1)')", "vit_tiny(image=8)", "vit_tiny(drop_path=2)",
    "__import__('os')", "coat_lite_tiny(depth=0)", "cmt_ti(x)",
    "timm:vit_tiny_patch16_224(depth=1)",
)  # fmt: skip
SLOW = {"epochs", "count", "steps", "rounds", "window", "seeds", "seconds", "threads", "batch"}
LEAVE_OUT = {
    "suite",
    "compiled",
    "growth",
    "roofline",
    "against",
    "train_step",
    "no_memory",
}


def command(trial: Trial) -> None:
    """One command line with one to three odd things in it."""
    from vitrail.cli.app import COMMANDS

    lay_out(trial)
    chance = trial.chance
    name = chance.choice((*COMMANDS, "train", "study", "completion", "--version", ""))
    words = [name, *usual(name, trial)] if name else []
    known = COMMANDS.get(name)
    for _ in range(chance.choice((1, 1, 2, 3))):
        words = odd(words, known, chance)
    if name == "study":  # a study that could run would take a minute
        words += ["--models", TINY, "vit_tiny(patch=0)"]
    if name == "cost":
        words += ["--no-memory"]
    trial.command(*words[:60], alone=name not in ("check", "predict", "explain"))


def lay_out(trial: Trial) -> None:
    """What words may point at."""
    (trial.folder / "photos").symlink_to(trial.stage.photos)
    shutil.copytree(trial.stage.of("run"), trial.folder / "run")
    shutil.copy(trial.stage.good()[0], trial.folder / "picture.png")
    (trial.folder / "recipe.yaml").write_text("epochs: 1\n")


def usual(name: str, trial: Trial) -> list[Any]:
    """What makes a command quick and good."""
    train = ["photos", "--model", TINY, "--image", IMAGE, "--epochs", 1, "--val", 0.3, "--out",
             "out",
             "--set", *RECIPE]  # fmt: skip
    usual_words: dict[str, list[Any]] = {
        "check": ["photos", "--val", 0.3],
        "train": train,
        "reduce": ["run", "--reducer", "cluster(ratio=4)", "-o", "made"],
        "create": ["run", "--reducer", "cluster(ratio=4)", "-o", "made"],
        "study": [chance_data(trial.chance), "--epochs", 1, "--image", IMAGE],
        "cost": [TINY, "--image", IMAGE, "--rounds", 1, "--window", 0.01, "--batch", 1],
        "predict": ["run", "picture.png"],
        "explain": ["run", "picture.png", "--method", "gradcam", "--out", "maps"],
        "export": ["run", "--format", "torch", "--out", "exported"],
        "completion": ["bash"],
    }
    return usual_words.get(name, [])


def chance_data(chance: random.Random) -> str:
    """A set for a study."""
    return chance.choice(("photos", "nope/"))


def odd(words: list[Any], command: Any, chance: random.Random) -> list[Any]:
    """The words with one odd thing: an option's value, a lost, doubled or strange word."""
    act = chance.random()
    if command is not None and act < 0.7:
        return words + option(chance.choice(dataclasses.fields(command)), chance)
    at = chance.randrange(len(words) + 1)
    if act < 0.78 and at < len(words):
        return words[:at] + words[at + 1 :]
    if act < 0.86:
        return words[:at] + [chance.choice(TEXTS)] + words[at:]
    if act < 0.94 and 0 < at < len(words) and words[at - 1] not in ("--epochs", "--rounds"):
        return words[:at] + [chance.choice((*TEXTS, *NUMBERS[:4], *MODELS))] + words[at + 1 :]
    return words + words[at : at + 2]


def option(field: Any, chance: random.Random) -> list[str]:
    """An option of a command with an odd value, or several."""
    from vitrail.cli.command import option as spelt

    if field.name in LEAVE_OUT:
        return []
    name = spelt(field.name)
    kind = str(field.type)
    pool: tuple[str, ...] = TEXTS
    if "int" in kind or "float" in kind:
        pool = SHORT if field.name in SLOW else NUMBERS
    elif field.name in ("model", "models", "mixer", "reducer"):
        pool = (*MODELS, *TEXTS)
    elif field.name == "set":
        pool = settings(chance)
    values = [chance.choice(pool) for _ in range(chance.choice((1, 1, 1, 0, 2)))]
    if chance.random() < 0.1:
        return [f"{name}={values[0] if values else ''}"]
    return [name, *values]


def settings(chance: random.Random) -> tuple[str, ...]:
    """Changes of the recipe, odd ones."""
    from vitrail.train import Recipe

    names = [f.name for f in dataclasses.fields(Recipe) if f.name not in SLOW]
    values = (
        *SHORT,
        "true",
        "[]",
        "{}",
        "null",
        "[1, 2]",
        "{a: 1}",
        ".nan",
        "&a [*a]",
        "!!python/x y",
    )
    pairs = [f"{chance.choice(names)}={chance.choice(values)}" for _ in range(6)]
    return (*pairs, "nope=1", "augment.nope=1", "augment=1", "=", "lr", "lr=", "a.b.c=1")


KINDS = (
    Kind(name="command-lines", about="every command, odd options, values and words",
         attempt=command, needs=("run",), weight=3.0, seconds=150, memory=2 << 30),
)  # fmt: skip
