"""Images per second of the loader alone: workers x cache, default augmentation.

PYTHONPATH=src python benchmarks/loader_speed.py [SOURCE] [--image 128] [--seconds 5]

Rounds are interleaved, so that a busy moment of the machine hits all settings alike; the median
of three rounds is printed.
"""

import argparse
import os
import statistics

from vitrail.data import Augment, ImageTensors, Preprocess, measure_loader, open_dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", nargs="?", default="scenes(size=160, count=600)")
    parser.add_argument("--image", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    pictures = open_dataset(arguments.source)
    transform = Augment().transform(Preprocess(image=arguments.image))
    sets = {
        cache: ImageTensors(pictures, pictures.split("train"), transform, 0, cache=cache)
        for cache in (None, "memory")
    }
    speeds: dict[tuple[str | None, int], list[float]] = {}
    for _ in range(3):
        for cache, data in sets.items():
            for workers in arguments.workers:
                speed = measure_loader(data, workers=workers, seconds=arguments.seconds / 3)
                speeds.setdefault((cache, workers), []).append(speed)
    print(f"{arguments.source}, {arguments.image} px, {os.cpu_count()} cores: images per second")
    for (cache, workers), found in speeds.items():
        spread = f"{min(found):.0f} to {max(found):.0f}"
        median = statistics.median(found)
        print(f"cache {cache or 'none':>6}, {workers} workers: {median:7.0f}   ({spread})")


if __name__ == "__main__":
    main()
