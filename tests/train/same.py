"""Whether two runs came to the same."""

import json
from pathlib import Path
from typing import Any

import torch

from vitrail.digests import KEY
from vitrail.tasks import load_weights, read_card

CLOCKS = ("seconds", "images_per_s")


def bits(path: Path) -> dict[str, bytes]:
    return {
        name: value.contiguous().view(torch.uint8).numpy().tobytes()
        if value.ndim
        else value.reshape(1).view(torch.uint8).numpy().tobytes()
        for name, value in load_weights(path).items()
    }


def rows(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    left_out = {*CLOCKS, KEY}
    return [{k: v for k, v in json.loads(line).items() if k not in left_out} for line in lines]


def assert_same_to_the_bit(one: Path, two: Path) -> None:
    assert rows(one) == rows(two)
    for name in ("last.safetensors", "best.safetensors"):
        assert bits(one / name) == bits(two / name), name
        assert read_card(one / name) == read_card(two / name)


def largest_difference(one: Path, two: Path) -> float:
    a, b = load_weights(one / "last.safetensors"), load_weights(two / "last.safetensors")
    assert a.keys() == b.keys()
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)
