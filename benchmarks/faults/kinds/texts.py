"""Texts of models, mixers and reducers: made by grammar, odd in one place or garbled."""

import dataclasses
import random
import string
from functools import cache, partial
from typing import Any

import torch

from benchmarks.faults.trial import Kind, Trial
from benchmarks.faults.verdict import Fault

ODD = ("0", "-1", "1", "2", "3", "7", "100000", "10**9", "1e9", "0.5", "-0.5", "2.0", "True",
       "None",
       "''", "'x'", "'native'", "[]", "()", "(1,)", "(0, 0)", "{}", "{1: 2}", "nan", "float('nan')",
       "9" * 30, "'\\x1b[31m'", "'[/red]'", "b'x'", "1j", "...", "lambda: 0", "-(-1)")  # fmt: skip
NOISE = string.punctuation + string.digits + "abc \n\t\x00äé\u202e"
MOST_PARAMETERS = 10**8
SIZES = (32, 32, 64, 33, 8)


@cache
def registry() -> dict[str, dict[str, Any]]:
    """All models, mixers and reducers with the classes of their options."""
    from vitrail import list_models
    from vitrail.mixers import MixerSpec
    from vitrail.models.zoo import entry
    from vitrail.reducers import ReducerSpec

    return {
        "model": {name: type(entry(name).config) for name in list_models()},
        "mixer": dict(MixerSpec.registry()),
        "reducer": dict(ReducerSpec.registry()),
    }


def call(kind: str, name: str, chance: random.Random, small: dict[str, str]) -> str:
    """``name(option=value, ...)`` with at most two odd values."""
    fields = [f.name for f in dataclasses.fields(registry()[kind][name]) if f.init]
    options = {key: value for key, value in small.items() if key in fields}
    for _ in range(chance.choice((0, 1, 1, 2))):
        key = chance.choice([*fields, "nope", "classes"])
        options[key] = odd(key, chance)
    inside = ", ".join(f"{key}={value}" for key, value in options.items())
    return f"{name}({inside})" if inside or chance.random() < 0.5 else name


def odd(key: str, chance: random.Random) -> str:
    """A value, often one of the right kind for mixers and reducers."""
    if key in ("mixer", "reducer") and chance.random() < 0.8:
        return repr(call(key, chance.choice(sorted(registry()[key])), chance, {}))
    return chance.choice(ODD)


def garbled(text: str, chance: random.Random) -> str:
    """A text with characters lost, doubled or strange."""
    made = list(text)
    for _ in range(chance.choice((1, 2, 5))):
        at = chance.randrange(len(made) + 1)
        act = chance.random()
        if act < 0.4 and at < len(made):
            del made[at]
        elif act < 0.8:
            made.insert(at, chance.choice(NOISE))
        else:
            made[at:at] = made[: chance.randrange(8)] * chance.choice((1, 50))
    return "".join(made)


def text(trial: Trial) -> None:
    """Fifty texts read, as models, mixers and reducers."""
    from vitrail.errors import UserError
    from vitrail.mixers import MixerSpec
    from vitrail.models.zoo import configure
    from vitrail.reducers import ReducerSpec

    readers: dict[str, Any] = {
        "model": configure,
        "mixer": MixerSpec.parse,
        "reducer": ReducerSpec.parse,
    }
    trial.inputs = 50
    for _ in range(trial.inputs):
        kind = trial.chance.choice(("model", "mixer", "reducer"))
        made = call(kind, trial.chance.choice(sorted(registry()[kind])), trial.chance, {})
        if trial.chance.random() < 0.5:
            made = garbled(made, trial.chance)
        try:
            readers[kind](made)
        except UserError as error:
            one_line(made, error)
        except Exception as error:
            error.add_note(f"reading {kind} {made!r}")
            raise


def one_line(made: str, error: Exception) -> None:
    """An error says what is wrong in one harmless line.

    Raises:
        Fault: it holds line breaks or control characters.
    """
    found = str(error)
    if any(ord(c) < 32 and c != "\n" for c in found) or "\n" in found.strip():
        raise Fault("an error with line breaks or control characters", f"{made!r}: {found!r}")


def model(trial: Trial) -> None:
    """A small model with odd options: refused, or it answers with the right shape."""
    import vitrail
    from vitrail.errors import UserError

    chance = trial.chance
    name = chance.choice(buildable())
    image, classes = chance.choice(SIZES), chance.choice((3, 3, 3, 0, 1, -1))
    made = call("model", name, chance, tiny(name))
    try:
        built = vitrail.create(made, classes=classes, image=image).eval()
    except UserError as error:
        one_line(made, error)
        return
    except Exception as error:
        error.add_note(f"create({made!r}, classes={classes}, image={image})")
        raise
    try:
        with torch.inference_mode():
            found = built(torch.zeros(1, built.in_chans, image, image))
    except UserError as error:
        one_line(made, error)
        return
    except Exception as error:
        error.add_note(f"forward of {made!r}, classes={classes}, image={image}")
        raise
    if built.classes != classes or classes > 0 and tuple(found.shape) != (1, classes):
        raise Fault("another count of classes", f"{made!r}: {tuple(found.shape)}, not {classes}")


@cache
def buildable() -> list[str]:
    """Models that a trial has the memory for."""
    from vitrail.models.limits import exact_count
    from vitrail.models.zoo import everything

    return sorted(
        name
        for name, entry in everything().items()
        if exact_count(partial(entry.model, entry.config)) < MOST_PARAMETERS
    )


@cache
def tiny(name: str) -> dict[str, str]:
    """Options that make any model small, of those whose form it has."""
    config = registry()["model"][name]
    if any(f.name == "heads" for f in dataclasses.fields(config)) and name.startswith("vit_"):
        return {"depth": "1", "dim": "24", "heads": "3", "patch": "8"}
    return {"depth": "1"} if name.startswith(("deit", "convit")) else {}


KINDS = (
    Kind(name="texts", about="texts of models, mixers, reducers: read", attempt=text, seconds=20),
    Kind(name="models", about="small models with odd options: refused, or they answer",
         attempt=model, weight=1.5, seconds=60, memory=3 << 30),
)  # fmt: skip
