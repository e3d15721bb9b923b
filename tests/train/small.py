"""A tiny real training: eighty pictures of clothes, a two-block ViT behind a normalised stem."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import vitrail
from vitrail import data, train
from vitrail.data import ImageDataset, Item
from vitrail.tasks import Card

TEXT = "vit_tiny(depth=2, dim=32, heads=2, patch=4)"
IMAGE = 16


class Stemmed(nn.Module):
    """Batch norm (running statistics) and drop path (chance in forward) in one model."""

    def __init__(self, classes: int, norm: bool = True) -> None:
        super().__init__()
        layers = [nn.Conv2d(3, 3, 3, padding=1, bias=False)] + [nn.BatchNorm2d(3)] * norm
        self.stem = nn.Sequential(*layers)
        self.body = vitrail.create(TEXT, classes=classes, image=IMAGE, drop_path=0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.stem(x))


def build(classes: int = 10, norm: bool = True, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return Stemmed(classes, norm)


@cache
def clothes() -> tuple[ImageDataset, dict[str, tuple[Item, ...]]]:
    pictures = data.open_dataset("fashion")
    shares = {"train": 0.05, "val": 0.05}
    return pictures, {
        part: data.take_fraction(pictures.split(part), share, 0) for part, share in shares.items()
    }


def card() -> Card:
    pictures, _ = clothes()
    preprocess = data.Preprocess(image=IMAGE, crop=1.0).to_dict()
    return Card(model=TEXT, classes=pictures.classes, image=IMAGE, preprocess=preprocess)


def recipe(**changes: Any) -> train.Recipe:
    plain = train.Recipe(epochs=2, batch=16, workers=0, ema=0.9, mix_share=0.8)
    return replace(plain, **changes)


def fit(out: Path, made: train.Recipe, *, norm: bool = True, **options: Any) -> train.Result:
    pictures, parts = clothes()
    settings: dict[str, Any] = {"card": card(), "parts": parts, "progress": False} | options
    return train.fit(build(norm=norm), pictures, made, out, **settings)
