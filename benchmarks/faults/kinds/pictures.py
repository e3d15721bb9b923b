"""Damaged pictures of every format that Pillow writes here, read as the product reads them."""

import io
import json
import os
import random
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.faults.capture import heard
from benchmarks.faults.damage import damaged, with_png_checks
from benchmarks.faults.stage import picture
from benchmarks.faults.trial import Kind, Trial
from benchmarks.faults.verdict import Fault

MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16")
SIZES = ((24, 16), (1, 1), (7, 90), (64, 64))
TIFF = ("raw", "tiff_lzw", "tiff_deflate", "packbits", "jpeg", "group3", "group4", "zstd", "webp")
ENDING = {"JPEG": ".jpg", "JPEG2000": ".jp2", "TIFF": ".tif"}
AT_ONCE = 16


@cache
def seeds() -> dict[str, bytes]:
    """A small picture of every format, mode and option that can be written, by ``FORMAT mode``."""
    with open(os.devnull, "wb") as away, heard(away, away):  # noqa: PTH123 - libraries complain
        return written_in_all_ways()


def written_in_all_ways() -> dict[str, bytes]:
    """What :func:`seeds` keeps."""
    Image.init()
    found: dict[str, bytes] = {}
    chance = random.Random(7)
    for size in SIZES:
        for mode in MODES:
            image = in_mode(picture(chance).resize(size), mode)
            for kind in Image.SAVE:
                for name, options in ways(kind, image):
                    data = written(image, kind, options)
                    if data:
                        found[f"{kind} {mode} {name} {size[0]}x{size[1]}"] = data
    return found


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    """A picture in any of Pillow's modes."""
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    if mode == "LAB":
        return Image.merge("LAB", image.split())
    if mode == "PA":
        return image.convert("RGBA").quantize(16).convert("PA")
    return image.convert(mode)


def ways(kind: str, image: Image.Image) -> list[tuple[str, dict[str, Any]]]:
    """The options with which a format is written."""
    more = [image.rotate(90 * i) for i in range(1, 3)]
    several = ("several", {"save_all": True, "append_images": more})
    plain: list[tuple[str, dict[str, Any]]] = [("plain", {})]
    if kind == "TIFF":
        return [(way, {"compression": way}) for way in TIFF] + [several]
    if kind == "JPEG":
        exif = Image.Exif()
        exif[0x0112] = 6
        return [*plain, ("progressive", {"progressive": True}), ("turned", {"exif": exif})]
    if kind in ("GIF", "WEBP", "PNG", "AVIF"):
        return [*plain, several]
    return plain


def written(image: Image.Image, kind: str, options: dict[str, Any]) -> bytes:
    """The file, or nothing where Pillow cannot write it."""
    held = io.BytesIO()
    try:
        image.save(held, kind, **options)
    except Exception:  # a mode that this writer lacks, a handler that is not installed
        return b""
    return held.getvalue()


def harmed(chance: random.Random) -> tuple[str, bytes]:
    """A damaged picture: its seed's name and its bytes."""
    name = chance.choice(names())
    data = damaged(seeds()[name], chance, alike(name.split()[0]))
    if name.startswith("PNG") and chance.random() < 0.5:
        data = with_png_checks(data)
    return name, data


@cache
def names() -> tuple[str, ...]:
    """The seeds' names; formats that are opened stand there more often."""
    from vitrail.data.decode import FORMATS

    often = [name for name in seeds() if name.split()[0] in FORMATS]
    return (*seeds(), *often, *often)


@cache
def alike(kind: str) -> tuple[bytes, ...]:
    """All seeds of one format."""
    return tuple(data for name, data in seeds().items() if name.split()[0] == kind)


def decoded(trial: Trial) -> None:
    """One picture through the readers themselves: what is looked at must be what is decoded."""
    from vitrail.data.decode import ImageError, decode, probe

    name, data = harmed(trial.chance)
    trial.file(f"picture{ENDING.get(name.split()[0], '.png')}", data)
    try:
        size = probe(data)
    except ImageError:
        size = None
    try:
        found = decode(data, short_side=trial.chance.choice((None, 8)))
    except ImageError as error:
        if size:
            raise Fault("looked at and found good, then not decoded", f"{name}: {error}") from error
        return
    if found.mode != "RGB" or min(found.size) < 1:
        raise Fault("decoded to something else than RGB", f"{name}: {found}")
    found.tobytes()


def commands(trial: Trial) -> None:
    """Sixteen damaged pictures among good ones, through check, predict or explain."""
    good = trial.stage.good()
    for number, source in enumerate(good):
        trial.file(f"photos/{'ab'[number % 2]}/good-{number}.png", source.read_bytes())
    for i in range(AT_ONCE):
        name, data = harmed(trial.chance)
        ending = ENDING.get(name.split()[0], trial.chance.choice((".png", ".jpg", ".tiff")))
        trial.file(f"photos/{trial.chance.choice('ab')}/{i}{ending}", data)
    trial.inputs = AT_ONCE
    trial.chance.choice((check, predict, predict, explain))(trial)


def check(trial: Trial) -> None:
    """``vitrail check``: good pictures stay, each other one is counted or has its line."""
    said = trial.command("check", "photos", "--json", "--val", "0.3")
    if said.status != 0:
        raise Fault("good pictures were lost by damaged ones", said.tail())
    found = said.json()
    count = sum(v for row in found["classes"] for v in row.values() if isinstance(v, int))
    lines = {problem["where"] for problem in found["problems"]}
    if count + len(lines) < AT_ONCE + 3:
        raise Fault("pictures left out without a word", said.tail())


def predict(trial: Trial) -> None:
    """``vitrail predict``: the good pictures get the answers that they get alone."""
    said = trial.command("predict", trial.stage.of("run"), "photos", "--json", allowed=(0, 1))
    rows = {Path(row["picture"]).name: row for row in said.json()}
    if len(rows) < AT_ONCE:
        raise Fault("pictures left out without a word", said.tail())
    for number, wanted in enumerate(trial.stage.note("run")["answers"]):
        if rows.get(f"good-{number}.png", {}).get("top") != wanted["top"]:
            raise Fault("a good picture has another answer beside damaged ones", said.tail())


def explain(trial: Trial) -> None:
    """``vitrail explain``: every good picture is explained."""
    words = ("explain", trial.stage.of("run"), "photos", "--out", "maps", "--json")
    said = trial.command(*words, "--method", "gradcam", allowed=(0, 1, 2))
    if said.status == 2 and "are zero everywhere" in said.err:
        return  # nothing speaks for the answer on the very first picture: said, nothing written
    text = json.dumps(said.json())
    if not all(f"good-{number}.png" in text for number in range(3)):
        raise Fault("a good picture is not explained beside damaged ones", said.tail())


def large(trial: Trial) -> None:
    """Honest but large or thin pictures, many at once: memory must not follow them."""
    thin = trial.chance.choice(((12_000, 8_000), (60_000, 40), (40, 60_000), (9_000, 6_000)))
    grey = Image.new("RGB", thin, trial.chance.choice(("navy", "white", "olive")))
    held = io.BytesIO()
    ending = trial.chance.choice((".jpg", ".png", ".tif"))
    grey.save(held, {".jpg": "JPEG", ".png": "PNG", ".tif": "TIFF"}[ending],
              **({"compression": "tiff_lzw"} if ending == ".tif" else {}))  # fmt: skip
    trial.inputs = 6
    for i in range(trial.inputs):
        trial.file(f"photos/{'ab'[i % 2]}/{i}{ending}", held.getvalue() + bytes([i] * (i + 1)))
    trial.chance.choice((
        lambda: trial.command("check", "photos"),
        lambda: trial.command("predict", trial.stage.of("run"), "photos"),
    ))()  # fmt: skip


KINDS = (
    Kind(name="pictures", about="one damaged picture, decoded", attempt=decoded, weight=2.0,
         seconds=20, warm_up=names),
    Kind(name="picture-sets", about="damaged pictures among good ones: check, predict, explain",
         attempt=commands, needs=("run",), weight=2.0, seconds=60,
         warm_up=names),
    Kind(name="large-pictures", about="large and thin pictures, and what memory they take",
         attempt=large, needs=("run",), weight=0.3, seconds=90, memory=1 << 30),
)  # fmt: skip
