"""Made-up labelled scenes of any size: shapes among smaller shapes on textured grounds.

The **largest** shape names the scene's class; its place, turn, colour and texture say nothing.
Boxes and masks of all shapes are known, so one scene serves classification, detection and
segmentation. Each scene is a pure function of (seed, split, number).

``difficulty`` (0 easy .. 1 hard) sets contrast, texture, noise, strokes, and how many smaller
shapes there are and how nearly as large. The default is set so that a good model is clearly
better than a poor one; the experiment is in ``docs/reference/data.md``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from PIL import Image, ImageDraw

from vitrail.data.dataset import ImageDataset
from vitrail.data.items import Item, content_digest, stable_seed
from vitrail.errors import UserError
from vitrail.specs import parse_call, print_call

SUPERSAMPLE = 4
LARGEST, MOST = 4096, 10_000_000


@dataclass(frozen=True)
class Scene:
    """One scene.

    ``image`` uint8 ``(S, S, 3)``; ``label`` the class; ``boxes`` int64 ``(K, 4)`` as x0, y0, x1, y1
    in pixels, ends exclusive, around what is visible; ``labels`` int64 ``(K,)``; ``instances``
    uint8 ``(S, S)``: 0 is ground, k + 1 is shape k.
    """

    image: np.ndarray
    label: int
    boxes: np.ndarray
    labels: np.ndarray
    instances: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """uint8 ``(S, S)``: 0 is ground, class + 1 elsewhere."""
        values = np.array([0, *(self.labels + 1)], np.uint8)
        return values[self.instances]


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """A set of scenes: ``count`` to train with, a fifth as many each to validate and to test."""

    size: int = 64
    count: int = 2000
    classes: int = 6
    seed: int = 0
    difficulty: float = 0.2

    def __post_init__(self) -> None:
        if not 2 <= self.classes <= len(SHAPES):
            raise UserError(f"scenes have 2 to {len(SHAPES)} classes, not {self.classes}")
        if self.size < 16:
            raise UserError(f"scenes need a size of 16 pixels or more, not {self.size}")
        if self.size > LARGEST:
            raise UserError(f"scenes have a size of at most {LARGEST} pixels, not {self.size}")
        if not 0 <= self.difficulty <= 1:
            raise UserError(f"difficulty goes from 0 to 1, not {self.difficulty}")
        if self.count < self.classes:
            raise UserError(f"count must be {self.classes} (one a class) or more, not {self.count}")
        if self.count > MOST:
            raise UserError(f"count must be at most {MOST:,}, not {self.count}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """``"scenes(size=96)"`` -> ``Scenes(size=96)``.

        Raises:
            UserError: an unknown option or a value that cannot be.
        """
        _, options = parse_call(text)
        known = [field.name for field in fields(cls)]
        for option, value in options.items():
            if option not in known:
                raise UserError(f"scenes has no option {option!r}; it has {', '.join(known)}")
            whole = option != "difficulty"
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                number = "a whole number" if whole else "a number"
                raise UserError(f"scenes: {option} must be {number}, not {value!r}")
        return cls(**options)

    def __str__(self) -> str:
        mine = {f.name: getattr(self, f.name) for f in fields(self)}
        changed = {f.name: mine[f.name] for f in fields(self) if mine[f.name] != f.default}
        return print_call("scenes", changed)

    def counts(self) -> dict[str, int]:
        """Number of scenes by split."""
        rest = max(self.classes, self.count // 5)
        return {"train": self.count, "val": rest, "test": rest}

    def scene(self, split: str, index: int) -> Scene:
        """Scene ``index`` of a split; its class is ``index`` modulo ``classes``."""
        rng = np.random.default_rng(stable_seed("scene", self.seed, split, index))
        return _draw(rng, self, index % self.classes)

    def dataset(self) -> ImageDataset:
        """All of them as a set; images are made when they are read."""
        items = tuple(
            Item(
                key := f"{split}/{index:06d}",
                index % self.classes,
                split,
                content_digest(f"{self!r} {key}".encode()),
                (self.size, self.size),
            )
            for split, number in self.counts().items()
            for index in range(number)
        )
        classes = tuple(SHAPES)[: self.classes]
        return ImageDataset(str(self), classes, items, (), SceneStore(self))


@dataclass(frozen=True)
class SceneStore:
    """Images that are made when asked for."""

    scenes: Scenes

    def image(self, key: str, short_side: int | None) -> Image.Image:
        """``train/000012`` -> scene 12 of train."""
        split, _, number = key.partition("/")
        return Image.fromarray(self.scenes.scene(split, int(number)).image)


# ---- shapes: outlines in the unit circle, turned by ``angle`` -----------------------------------

Points = list[tuple[float, float]]
Painter = Callable[[ImageDraw.ImageDraw, float, float], None]  # canvas, radius, angle


def _ellipse(draw: ImageDraw.ImageDraw, x: float, y: float, r: float, fill: int) -> None:
    draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)


def _polygon(outline: Points) -> Painter:
    def paint(draw: ImageDraw.ImageDraw, r: float, angle: float) -> None:
        c, s = r * math.cos(angle), r * math.sin(angle)
        draw.polygon([(r + c * x - s * y, r + s * x + c * y) for x, y in outline], fill=255)

    return paint


def _disc(draw: ImageDraw.ImageDraw, r: float, angle: float) -> None:
    _ellipse(draw, r, r, 0.9 * r, 255)


def _ring(draw: ImageDraw.ImageDraw, r: float, angle: float) -> None:
    _ellipse(draw, r, r, r, 255)
    _ellipse(draw, r, r, 0.55 * r, 0)


def _crescent(draw: ImageDraw.ImageDraw, r: float, angle: float) -> None:
    _ellipse(draw, r, r, r, 255)
    x, y = r * (1 + 0.45 * math.cos(angle)), r * (1 + 0.45 * math.sin(angle))
    _ellipse(draw, x, y, 0.8 * r, 0)


def _regular(corners: int, inner: float = 1.0) -> Points:
    """A regular polygon; with ``inner`` below 1, a star."""
    step = math.pi / corners
    radii = (1.0, inner) if inner < 1 else (1.0,)
    turns = corners * len(radii)
    return [
        (radii[i % len(radii)] * math.cos(i * 2 * step / len(radii)),
         radii[i % len(radii)] * math.sin(i * 2 * step / len(radii)))
        for i in range(turns)
    ]  # fmt: skip


_CROSS: Points = [
    (-0.3, -0.95), (0.3, -0.95), (0.3, -0.3), (0.95, -0.3), (0.95, 0.3), (0.3, 0.3),
    (0.3, 0.95), (-0.3, 0.95), (-0.3, 0.3), (-0.95, 0.3), (-0.95, -0.3), (-0.3, -0.3),
]  # fmt: skip
_ARROW: Points = [
    (1.0, 0.0), (0.1, 0.75), (0.1, 0.3), (-0.95, 0.3), (-0.95, -0.3), (0.1, -0.3), (0.1, -0.75),
]  # fmt: skip

#: Class names in order, and how each is painted.
SHAPES: dict[str, Painter] = {
    "disc": _disc,
    "square": _polygon(_regular(4)),
    "triangle": _polygon(_regular(3)),
    "star": _polygon(_regular(5, inner=0.45)),
    "ring": _ring,
    "cross": _polygon(_CROSS),
    "crescent": _crescent,
    "arrow": _polygon(_ARROW),
}


# ---- drawing ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Level:
    """What difficulty means, in numbers; colours in 0..1, lengths in shares of the size."""

    contrast: float
    texture: float
    noise: float
    strokes: int
    others: tuple[int, int]
    largest_other: float

    @classmethod
    def of(cls, difficulty: float) -> "_Level":
        def between(easy: float, hard: float) -> float:
            return easy + (hard - easy) * difficulty

        return cls(
            contrast=between(0.7, 0.2),
            texture=between(0.02, 0.2),
            noise=between(0.0, 0.08),
            strokes=round(between(0, 16)),
            others=(round(between(0, 3)), round(between(1, 6))),
            largest_other=between(0.5, 0.85),
        )


def _draw(rng: np.random.Generator, scenes: Scenes, label: int) -> Scene:
    level, size = _Level.of(scenes.difficulty), scenes.size
    ground_colour = rng.uniform(0.25, 0.75, 3)
    image = _texture(rng, size, ground_colour, level.texture)
    _strokes(rng, image, level)
    labels, circles = _plan(rng, scenes, label, level)
    instances = np.zeros((size, size), np.uint8)
    for number, (kind, circle) in enumerate(zip(labels, circles, strict=True), start=1):
        colour = _other_colour(rng, ground_colour, level.contrast)
        _paint(rng, image, instances, kind, circle, colour, level.texture, number)
    image += level.noise * rng.standard_normal(image.shape, np.float32)
    pixels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    boxes, labels, instances = _visible(instances, labels)
    return Scene(pixels, label, boxes, labels, instances)


def _plan(
    rng: np.random.Generator, scenes: Scenes, label: int, level: _Level
) -> tuple[np.ndarray, list[tuple[float, float, float]]]:
    """Classes and circles (x, y, radius in pixels) of all shapes; the largest last, on top."""
    size = scenes.size
    radius = rng.uniform(0.2, 0.3) * size
    main = (*rng.uniform(radius, size - radius, 2), radius)
    circles = [main]
    for _ in range(rng.integers(level.others[0], level.others[1], endpoint=True)):
        for _ in range(10):  # a free place, if one is found soon
            r = radius * rng.uniform(0.35, level.largest_other)
            x, y = rng.uniform(r, size - r, 2)
            if all(math.hypot(x - a, y - b) > 0.85 * (r + c) for a, b, c in circles):
                circles.append((x, y, r))
                break
    labels = np.array([*rng.integers(0, scenes.classes, len(circles) - 1), label], np.int64)
    return labels, [*circles[1:], main]


def _texture(
    rng: np.random.Generator, size: int, colour: np.ndarray, strength: float
) -> np.ndarray:
    """Smooth noise in three octaves around a colour: float32 ``(size, size, 3)``."""
    image = np.empty((size, size, 3), np.float32)
    image[:] = colour
    for cells, weight in ((3, 1.0), (7, 0.7), (17, 0.5)):
        grid = rng.normal(0, 1, (cells, cells)).astype(np.float32)
        smooth = Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC)
        tint = rng.uniform(0.5, 1.0, 3).astype(np.float32)
        image += strength * weight * np.asarray(smooth)[:, :, None] * tint
    return image


def _strokes(rng: np.random.Generator, image: np.ndarray, level: _Level) -> None:
    """Short lines that are no shapes."""
    size = image.shape[0]
    canvas = Image.new("F", (size, size))
    draw = ImageDraw.Draw(canvas)
    for _ in range(level.strokes):
        x, y = rng.uniform(0, size, 2)
        turn, length = rng.uniform(0, math.pi), rng.uniform(0.1, 0.3) * size
        shade = level.contrast * rng.choice([-0.8, 0.8])
        end = (x + length * math.cos(turn), y + length * math.sin(turn))
        draw.line((x, y, *end), fill=shade, width=max(1, size // 32))
    image += np.asarray(canvas)[:, :, None]


def _other_colour(rng: np.random.Generator, ground: np.ndarray, contrast: float) -> np.ndarray:
    """A colour at distance ``contrast`` (largest channel) from the ground's."""
    way = rng.uniform(-1, 1, 3)
    way /= np.abs(way).max()
    return ground + contrast * np.where(np.abs(ground + contrast * way - 0.5) > 0.5, -way, way)


def _paint(
    rng: np.random.Generator,
    image: np.ndarray,
    instances: np.ndarray,
    kind: int,
    circle: tuple[float, float, float],
    colour: np.ndarray,
    texture: float,
    number: int,
) -> None:
    x, y, r = circle
    cover = _cover(list(SHAPES.values())[kind], r, rng.uniform(0, 2 * math.pi))
    side, size = cover.shape[0], image.shape[0]
    left, top = int(round(x - side / 2)), int(round(y - side / 2))
    window = np.s_[max(0, top) : min(size, top + side), max(0, left) : min(size, left + side)]
    inner = np.s_[
        max(0, -top) : max(0, -top) + window[0].stop - window[0].start,
        max(0, -left) : max(0, -left) + window[1].stop - window[1].start,
    ]
    piece, fill = cover[inner], _texture(rng, side, colour, texture)[inner]
    image[window] += piece[:, :, None] * (fill - image[window])
    instances[window][piece > 0.5] = number


def _cover(painter: Painter, radius: float, angle: float) -> np.ndarray:
    """The shape's coverage of each pixel, 0..1, in the square around its circle."""
    side = math.ceil(2 * radius)
    canvas = Image.new("L", (side * SUPERSAMPLE, side * SUPERSAMPLE))
    painter(ImageDraw.Draw(canvas), radius * SUPERSAMPLE, angle)
    return np.asarray(canvas.reduce(SUPERSAMPLE), np.float32) / 255


def _visible(
    instances: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes around the visible pixels, without shapes that are covered wholly."""
    boxes, kept = [], []
    renumbered = np.zeros_like(instances)
    for number in range(1, len(labels) + 1):
        rows, columns = np.nonzero(instances == number)
        if not len(rows):
            continue
        kept.append(labels[number - 1])
        renumbered[rows, columns] = len(kept)
        boxes.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    return np.array(boxes, np.int64), np.array(kept, np.int64), renumbered
