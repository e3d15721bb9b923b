"""torchvision's data sets by name, offline: ``torchvision:CIFAR10@/data``.

Files must lie where torchvision looks for them; nothing is ever downloaded. Options go into
brackets: ``torchvision:EMNIST(split='letters')@/data``. Classes keep torchvision's own order.
"""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from vitrail.data.dataset import ImageDataset
from vitrail.data.decode import ImageError, to_rgb
from vitrail.data.items import Item
from vitrail.errors import UserError
from vitrail.files import expand
from vitrail.specs import parse_call

_MOST = 100_000_000
#: Where data sets lie when no root is given.
DEFAULT_ROOT = "data"

# How each set with one label an image is asked for its splits: by ``train=True / False``, ...
_BY_FLAG = {"train": {"train": True}, "test": {"train": False}}


def _by_name(*words: str, **others: str) -> dict[str, dict[str, Any]]:
    """... by ``split=word``, where ``others`` are words that differ from ours, ..."""
    return {
        split: {"split": word}
        for split, word in {**dict(zip(words, words, strict=True)), **others}.items()
    }


# ... or not at all.
_WHOLE: dict[str, dict[str, Any]] = {"train": {}}

SETS: dict[str, dict[str, dict[str, Any]]] = {
    "CIFAR10": _BY_FLAG,
    "CIFAR100": _BY_FLAG,
    "CLEVRClassification": _by_name("train", "val"),
    "Caltech101": _WHOLE,
    "Caltech256": _WHOLE,
    "Country211": _by_name("train", "test", val="valid"),
    "DTD": _by_name("train", "val", "test"),
    "EMNIST": _BY_FLAG,
    "EuroSAT": _WHOLE,
    "FER2013": _by_name("train", "test"),
    "FGVCAircraft": _by_name("train", "val", "test"),
    "FakeData": _WHOLE,
    "FashionMNIST": _BY_FLAG,
    "Flowers102": _by_name("train", "val", "test"),
    "Food101": _by_name("train", "test"),
    "GTSRB": _by_name("train", "test"),
    "ImageNet": _by_name("train", "val"),
    "Imagenette": _by_name("train", "val"),
    "KMNIST": _BY_FLAG,
    "MNIST": _BY_FLAG,
    "OxfordIIITPet": _by_name("test", train="trainval"),
    "PCAM": _by_name("train", "val", "test"),
    "QMNIST": _BY_FLAG,
    "RenderedSST2": _by_name("train", "val", "test"),
    "SEMEION": _WHOLE,
    "STL10": _by_name("train", "test"),
    "SUN397": _WHOLE,
    "SVHN": _by_name("train", "test"),
    "StanfordCars": _by_name("train", "test"),
    "USPS": _BY_FLAG,
}


@dataclass(frozen=True)
class TorchvisionStore:
    """Opens each split once per process."""

    name: str
    root: str
    options: tuple[tuple[str, Any], ...]
    _open: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {k: getattr(self, k) for k in ("name", "root", "options")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for key, value in {**state, "_open": {}}.items():
            object.__setattr__(self, key, value)

    def dataset(self, split: str) -> Any:
        """torchvision's own object for a split."""
        if split not in self._open:
            arguments = {**SETS[self.name][split], **dict(self.options)}
            self._open[split] = _construct(self.name, self.root, arguments)
        return self._open[split]

    def image(self, key: str, short_side: int | None) -> Image.Image:
        """``train/000012`` -> image 12 of train."""
        split, _, number = key.partition("/")
        try:
            return to_rgb(self.dataset(split)[int(number)][0])
        except UserError:
            raise
        except Exception as error:  # whatever torchvision and Pillow raise on damaged files
            raise ImageError(f"cannot be decoded ({_one_line(error)})") from error


def open_torchvision(text: str) -> ImageDataset:
    """The set named by ``torchvision:NAME(options)@root``.

    Raises:
        UserError: no such data set, files absent, or not one image with one label.
    """
    call, _, root = text.removeprefix("torchvision:").partition("@")
    name, options = parse_call(call)
    root = str(expand(root or DEFAULT_ROOT))
    if name not in SETS:
        raise UserError(
            f"torchvision:{name} is not known as a set with one label a picture; there are "
            f"{', '.join(SETS)}"
        )
    _check_options(name, options)
    store = TorchvisionStore(name, root, tuple(options.items()))
    items: list[Item] = []
    for split in SETS[name]:
        labels = enumerate(_labels(store.dataset(split), name))
        items += [Item(f"{split}/{i:06d}", label, split) for i, label in labels]
    classes = _classes(store.dataset("train"), max(item.label for item in items) + 1)
    return ImageDataset(text, classes, tuple(items), (), store)


def _check_options(name: str, options: dict[str, Any]) -> None:
    from torchvision import datasets

    parameters = inspect.signature(getattr(datasets, name)).parameters
    ours = {"root", "train", "download", "transform", "target_transform", "transforms", "loader"}
    ours |= {"kwargs", *(key for split in SETS[name].values() for key in split)}
    known = set(parameters) - ours
    needed = {key for key in known if parameters[key].default is inspect.Parameter.empty}
    if lacking := needed - set(options):
        option = sorted(lacking)[0]
        raise UserError(f"torchvision:{name} needs an option: torchvision:{name}({option}=...)")
    if unknown := set(options) - known:
        has = f"it has {', '.join(sorted(known))}" if known else "it has none"
        raise UserError(f"torchvision:{name} has no option {', '.join(sorted(unknown))}; {has}")


def _construct(name: str, root: str, arguments: dict[str, Any]) -> Any:
    from torchvision import datasets

    make = getattr(datasets, name)
    parameters = inspect.signature(make).parameters
    fixed: dict[str, Any] = {"download": False} if "download" in parameters else {}
    if "root" in parameters:
        fixed["root"] = root
    try:
        return make(**fixed, **arguments)
    except Exception as error:  # whatever torchvision raises on absent or damaged files
        reason = str(error).strip().split("\n")[0].split(". You can use download")[0]
        raise UserError(
            f"torchvision:{name} cannot be opened in {root!r} ({reason}); put its files there "
            f"(Vitrail never downloads), or give another folder: torchvision:{name}@FOLDER"
        ) from error


def _labels(dataset: Any, name: str) -> Iterator[int]:
    """Labels without decoding where torchvision keeps them, else by going through the images."""
    count = _length(dataset, name)
    for attribute in ("targets", "labels", "_labels"):
        kept = getattr(dataset, attribute, None)
        if kept is not None and len(kept) == count:
            break
    else:
        kept = (_label(dataset, i, name) for i in range(count))
    for label in kept:
        try:
            yield int(label)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"torchvision:{name} does not give one class to each picture"
            ) from error


def _length(dataset: Any, name: str) -> int:
    """How many images a split has.

    Raises:
        UserError: none, or more than anybody has.
    """
    try:
        count = len(dataset)
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"torchvision:{name} has no length ({_one_line(error)})") from error
    if not 1 <= count <= _MOST:
        raise UserError(f"torchvision:{name} has {count:,} pictures; wanted: 1 to {_MOST:,}")
    return count


def _label(dataset: Any, index: int, name: str) -> Any:
    """The label of an image that torchvision must decode to give it."""
    try:
        return dataset[index][1]
    except Exception as error:  # whatever torchvision and Pillow raise on damaged files
        raise UserError(f"torchvision:{name}, picture {index}: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _classes(dataset: Any, number: int) -> tuple[str, ...]:
    names = getattr(dataset, "classes", None) or getattr(dataset, "categories", None) or ()
    names = [name if isinstance(name, str) else ", ".join(name) for name in names]
    return tuple(names) if len(names) >= number else tuple(str(i) for i in range(number))
