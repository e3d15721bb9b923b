"""How far apart are a poor and a good model on the made-up scenes, by difficulty?

PYTHONPATH=src python benchmarks/scenes_difficulty.py [--epochs 12] [--levels 0.1 0.3]

Trains, on the same scenes (64 px, 6 classes, 2,000 to train with, 400 to test on): a linear model
on pixels, a poor convnet (three narrow layers) and a good one (five wider layers), with AdamW,
one-cycle learning rate and mirrored batches. Prints test accuracy; chance is 16.7 %.
"""

import argparse
import time

import torch
from torch import Tensor, nn

from vitrail.data import ImageTensors, Preprocess
from vitrail.data.scenes import Scenes


def tensors(scenes: Scenes, split: str) -> tuple[Tensor, Tensor]:
    pictures = scenes.dataset()
    transform = Preprocess(image=scenes.size, crop=1.0).transform()
    samples = ImageTensors(pictures, pictures.split(split), transform, seed=0)
    images, labels, _ = zip(*(samples[i] for i in range(len(samples))), strict=True)
    return torch.stack(images), torch.tensor(labels)


def convnet(classes: int, *stages: tuple[int, int]) -> nn.Module:
    """3x3 conv, batch norm, ReLU for each (width, stride); mean over places; linear."""
    layers: list[nn.Module] = []
    before = 3
    for width, stride in stages:
        layers += [nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)]
        layers += [nn.ReLU()]
        before = width
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes)]
    return nn.Sequential(*layers, *head)


def poor(classes: int) -> nn.Module:
    return convnet(classes, (8, 2), (16, 2), (16, 2))


def good(classes: int) -> nn.Module:
    return convnet(classes, (24, 2), (48, 2), (96, 2), (96, 1), (192, 2))


def linear(classes: int) -> nn.Module:
    return nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(3 * 32 * 32, classes))


def accuracy(model: nn.Module, data: dict[str, tuple[Tensor, Tensor]], epochs: int) -> float:
    images, labels = data["train"]
    rate = 1e-4 if len(model) == 3 else 3e-3  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.05)
    steps = epochs * (len(images) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps)
    for _ in range(epochs):
        for lot in torch.randperm(len(images))[: len(images) // 64 * 64].split(64):
            batch = images[lot].flip(-1) if torch.rand(()) < 0.5 else images[lot]
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(batch), labels[lot], label_smoothing=0.1).backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.inference_mode():
        images, labels = (part.split(100) for part in data["test"])
        right = [model(x).argmax(1) == y for x, y in zip(images, labels, strict=True)]
    return float(torch.cat(right).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--levels", type=float, nargs="+", default=[0.1, 0.2, 0.3, 0.5])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print("difficulty  model   test accuracy  seconds")
    for level in arguments.levels:
        scenes = Scenes(difficulty=level)
        data = {split: tensors(scenes, split) for split in ("train", "test")}
        for make in (linear, poor, good):
            torch.manual_seed(0)
            start = time.perf_counter()
            share = accuracy(make(scenes.classes), data, arguments.epochs)
            seconds = time.perf_counter() - start
            print(f"{level:10} {make.__name__:>7} {share:14.1%} {seconds:8.0f}", flush=True)


if __name__ == "__main__":
    main()
