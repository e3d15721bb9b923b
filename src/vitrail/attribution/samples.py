"""Pictures to score explanations on, and where their objects are.

source -> Pictures -> those the model answers rightly -> Samples (images, classes, masks)

Masks come from the made-up scenes (``scenes(...)``), or from a folder beside the pictures::

    DATA/images/CLASS/one.jpg          the pictures, laid out as for training
    DATA/masks/CLASS/one.png           as large as the upright picture; not 0 is object
    DATA/boxes.csv                     path,x0,y0,x1,y1 in pixels, ends exclusive; a line a box,
                                       path as below images/ (CLASS/one.jpg)

Masks win over boxes; several boxes of a picture are joined. Without either, only the scores that
need no place can be had.
"""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from vitrail.attribution.preserve import device_of
from vitrail.data import History, ImageDataset, Item, Preprocess, open_dataset
from vitrail.data.decode import ImageError, decode_values
from vitrail.data.files import read_regular
from vitrail.data.items import normalize_nfc
from vitrail.data.scenes import SceneStore
from vitrail.data.transforms import crop_thin
from vitrail.errors import UserError
from vitrail.files import expand
from vitrail.schema import read_text

if TYPE_CHECKING:
    from vitrail.data.scenes import Scenes

Box = tuple[int, int, int, int]
MaskOf = Callable[[Item, tuple[int, int]], Image.Image | None]
"""From a picture and its (width, height) to its mask (mode L, not 0 is object), or None."""
AT_ONCE = 16
Example = tuple[Item, Tensor, Tensor | None]


@dataclass(frozen=True)
class Samples:
    """What methods are scored on.

    ``images`` ``(N, C, H, W)`` normalised; ``target`` ``(N,)`` their classes, all answered rightly;
    ``masks`` ``(N, H, W)`` bool, the object, or None where nothing is known; ``keys`` their names;
    ``seen`` how many pictures were looked at to find them.
    """

    images: Tensor
    target: Tensor
    masks: Tensor | None
    keys: tuple[str, ...]
    seen: int

    def __len__(self) -> int:
        return len(self.keys)

    def first(self, count: int) -> "Samples":
        """The first ``count`` of them."""
        masks = None if self.masks is None else self.masks[:count]
        return Samples(
            self.images[:count], self.target[:count], masks, self.keys[:count], self.seen
        )


def open_truth(
    source: str, *, val: float = 0.2, seed: int = 0, history: History | None = None
) -> tuple[ImageDataset, MaskOf]:
    """The pictures of a source, and what knows their masks.

    ``history`` is what the runs to be scored have seen: their pictures keep their parts.

    Raises:
        UserError: a source that cannot be opened, or a ``boxes.csv`` that cannot be read.
    """
    folder = expand(source)
    if not (folder / "images").is_dir():
        pictures = open_dataset(source, val=val, seed=seed, history=history)
        if isinstance(pictures.store, SceneStore):
            return pictures, scene_masks(pictures.store.scenes)
        return pictures, lambda item, size: None
    boxes = read_boxes(folder / "boxes.csv") if (folder / "boxes.csv").is_file() else {}
    pictures = open_dataset(folder / "images", val=val, seed=seed, history=history)
    return pictures, folder_masks(folder / "masks", boxes)


def scene_masks(scenes: "Scenes") -> MaskOf:
    """The shape that names a scene's class: the last one, which lies on top."""

    def mask(item: Item, size: tuple[int, int]) -> Image.Image:
        split, _, number = item.key.partition("/")
        scene = scenes.scene(split, int(number))
        return Image.fromarray((scene.instances == len(scene.labels)).astype(np.uint8) * 255)

    return mask


def folder_masks(masks: Path, boxes: Mapping[str, Sequence[Box]]) -> MaskOf:
    """A picture's own mask, else its boxes, else nothing."""

    def mask(item: Item, size: tuple[int, int]) -> Image.Image | None:
        path = (masks / item.key).with_suffix(".png")
        if path.is_file():
            return read_mask(path, size)
        own = boxes.get(normalize_nfc(item.key))
        return boxes_to_mask(own, size) if own else None

    return mask


def read_mask(path: Path, size: tuple[int, int]) -> Image.Image:
    """A mask file, refused where it does not lie over its picture.

    Raises:
        UserError: not a picture, or of another size.
    """
    try:
        mask = decode_values(read_regular(path))
    except ImageError as error:
        raise UserError(f"cannot read the mask {str(path)!r}: {error}") from error
    if mask.size != size:
        raise UserError(
            f"the mask {str(path)!r} is {mask.width} x {mask.height} px, its picture "
            f"{size[0]} x {size[1]} (upright); make them alike"
        )
    values = np.asarray(mask if mask.mode in ("1", "L", "P", "I;16") else mask.convert("L"))
    return Image.fromarray((values != 0).astype(np.uint8) * 255)


def read_boxes(path: Path) -> dict[str, list[Box]]:
    """``boxes.csv`` by picture.

    Raises:
        UserError: a missing column, or a line that is no box.
    """
    found: dict[str, list[Box]] = {}
    try:
        rows = csv.DictReader(io.StringIO(read_text(path).removeprefix("\ufeff"), newline=""))
        missing = {"path", "x0", "y0", "x1", "y1"} - set(rows.fieldnames or ())
        if missing:
            raise UserError(f"{path} lacks {', '.join(sorted(missing))}; it has path,x0,y0,x1,y1")
        for number, row in enumerate(rows, start=2):
            box = _box(row, f"{path}, line {number}")
            found.setdefault(normalize_nfc(row["path"]), []).append(box)
    except csv.Error as error:
        raise UserError(f"{path} is not a CSV file that can be read ({error})") from error
    return found


def _box(row: Mapping[str, str], where: str) -> Box:
    """One line's box.

    Raises:
        UserError: no numbers, or nothing inside.
    """
    try:
        x0, y0, x1, y1 = (round(float(row[name])) for name in ("x0", "y0", "x1", "y1"))
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{where}: x0, y0, x1, y1 must be numbers") from None
    if x0 >= x1 or y0 >= y1:
        raise UserError(f"{where}: the box {x0},{y0},{x1},{y1} is empty")
    return x0, y0, x1, y1


def boxes_to_mask(boxes: Sequence[Box], size: tuple[int, int]) -> Image.Image:
    """Boxes as a mask of (width, height)."""
    mask = Image.new("L", size)
    draw = ImageDraw.Draw(mask)
    for x0, y0, x1, y1 in boxes:
        draw.rectangle((x0, y0, x1 - 1, y1 - 1), fill=255)
    return mask


def resize_mask(mask: Image.Image, preprocess: Preprocess) -> Tensor:
    """A mask as the model's input lies: resized by nearest pixels, cropped; ``(H, W)`` bool."""
    from torchvision.transforms import InterpolationMode, v2

    resized = v2.Resize(preprocess.resize_side, InterpolationMode.NEAREST)
    cropped = v2.CenterCrop(preprocess.image)(resized(crop_thin(mask)))
    return torch.from_numpy(np.asarray(cropped) != 0)


def gather(
    model: nn.Module,
    pictures: ImageDataset,
    items: Sequence[Item],
    mask_of: MaskOf,
    preprocess: Preprocess,
    *,
    count: int,
    seed: int = 0,
) -> Samples:
    """``count`` pictures, drawn by ``seed``, that the model answers rightly.

    A map of a mistake has no place where it ought to lie, so mistakes are left out; so are pictures
    without a mask, if others have one, or whose object lies outside the crop.

    Raises:
        UserError: not one picture serves.
    """
    draw = torch.randperm(len(items), generator=torch.Generator().manual_seed(seed)).tolist()
    kept: list[Example] = []
    seen = 0
    for start in range(0, len(draw), AT_ONCE):
        some = [items[i] for i in draw[start : start + AT_ONCE]]
        sizes, tensors = [], []
        for item in some:  # one decoded picture at a time
            picture = pictures.read(item)
            sizes.append(picture.size)
            tensors.append(preprocess.transform()(picture))
        images = torch.stack(tensors)
        seen += len(some)
        right = answers(model, images).eq(torch.tensor([item.label for item in some]))
        for i in right.nonzero().flatten().tolist():
            mask = mask_of(some[i], sizes[i])
            kept.append(
                (some[i], images[i], None if mask is None else resize_mask(mask, preprocess))
            )
        if len(_with_object(kept)) >= count:
            break
    return _samples(_with_object(kept)[:count], seen, device_of(model))


def answers(model: nn.Module, images: Tensor) -> Tensor:
    """The class that a model gives each picture, ``(B,)`` on the CPU."""
    from vitrail.tasks.classify import probabilities

    return probabilities(model, images).argmax(1)


def _with_object(kept: Sequence[Example]) -> list[Example]:
    """Those with an object in sight, or all, where no object is known."""
    known = any(mask is not None for _, _, mask in kept)
    return [one for one in kept if not known or (one[2] is not None and bool(one[2].any()))]


def _samples(some: Sequence[Example], seen: int, device: torch.device) -> Samples:
    if not some:
        raise UserError(
            f"of {seen} pictures the model answers none rightly that shows its object, so there is "
            "nothing to score; train it longer, or look whether DATA has the run's classes"
        )
    masks = [mask for _, _, mask in some if mask is not None]
    return Samples(
        torch.stack([image for _, image, _ in some]).to(device),
        torch.tensor([item.label for item, _, _ in some], device=device),
        torch.stack(masks).to(device) if masks else None,
        tuple(item.key for item, _, _ in some),
        seen,
    )
