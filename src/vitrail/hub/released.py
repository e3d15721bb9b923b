"""Weights that timm released for a model: from a folder, the hub's cache or the net, in this order.

model -> timm's name and tag -> FOLDER/NAME.TAG.safetensors | the cache | the net -> Weights
"""

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vitrail.errors import UserError, unknown
from vitrail.hub.baselines import TIMM
from vitrail.hub.fetch import NotAvailable, fetch, find_cached, revision_of
from vitrail.hub.origin import Weights
from vitrail.hub.timm_names import TIMM_NAMES
from vitrail.models.zoo import configure, entry
from vitrail.specs import parse_call

FOLDER = "VITRAIL_WEIGHTS"
"""Names the folder of weights for machines without a network."""
IMAGENET_SETS = {1000: "imagenet-1k", 11821: "imagenet-12k", 21841: "imagenet-22k"}
"""Classes of a head -> timm's name of the set that it was trained on."""
ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".npz")
INTERPOLATIONS = ("bicubic", "bilinear", "nearest", "lanczos")


def find_released(model: str, name: str = "", folder: str | Path | None = None) -> Weights:
    """The file of timm's weights ``name`` (``NAME`` or ``NAME.TAG``), by default of our
    model's counterpart, or of timm's model itself with its default tag.

    Args:
        model: its text.
        name: timm's name, where it is not the model's own.
        folder: of files named by timm's name and tag, ``coat_lite_tiny.in1k.safetensors``; by
            default the one that ``VITRAIL_WEIGHTS`` names.

    Raises:
        NotAvailable: timm has none for the model, or they cannot be had now.
        UserError: no such model in timm, no such folder, or a damaged file.
    """
    config = timm_config(model, name)
    tagged = ".".join(filter(None, (config["architecture"], config.get("tag"))))
    path, place = find_in_weights_folder(tagged, folder), "weights folder"
    if path is None:
        path, place = find_cached(config), "cache"
    if path is None:
        path, place = fetch(config), "net"
    return Weights(
        file=str(path),
        source=f"{TIMM}{tagged}",
        place=place,
        revision=revision_of(path),
        licence=config.get("license") or "",
        classes=config["num_classes"],
        preprocess=preprocess_from_timm(config),
    )


def counterpart_of(model: str) -> str:
    """timm's name for a model; empty where it has none."""
    if model.startswith(TIMM):
        return model.removeprefix(TIMM)
    return TIMM_NAMES.get(parse_call(model)[0], "")


def timm_config(model: str, name: str = "") -> dict[str, Any]:
    """timm's description of its weights ``name``, by default of our model's counterpart.

    Raises:
        NotAvailable: timm has none for this model.
        UserError: no such model in timm.
    """
    from vitrail.hub.doctor import require_torchvision

    name = name or counterpart_of(model)
    if not name:
        raise NotAvailable(
            f"timm has no weights for {model!r}; those of a model with the same parts can be "
            "named: weights='timm:coat_lite_tiny'"
        )
    require_torchvision()
    import timm

    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if config is None or not timm.is_model(name):
        raise unknown("timm model", name, timm.list_models(pretrained=True))
    described: dict[str, Any] = config.to_dict()
    return described


def find_in_weights_folder(tagged: str, folder: str | Path | None = None) -> Path | None:
    """``NAME.TAG`` with an ending of weights in the folder, or a folder of that name in it.

    Raises:
        UserError: the folder that was named is not there.
    """
    named = folder if folder is not None else os.environ.get(FOLDER)
    if not named:
        return None
    where = Path(named)
    if not where.is_dir():
        how = "the weights folder" if folder is not None else FOLDER
        raise UserError(
            f"{how} {str(where)!r} is no folder; put files named by timm's tag into it, such as "
            f"{tagged}.safetensors"
        )
    inner = [where / tagged / file for file in ("model.safetensors", "pytorch_model.bin")]
    places = [*(where / f"{tagged}{ending}" for ending in ENDINGS), *inner]
    return next((path for path in places if path.is_file()), None)


def preprocess_from_timm(config: Mapping[str, Any]) -> dict[str, Any]:
    """How timm prepares pictures for these weights, as fields of our ``Preprocess``."""
    how = config.get("interpolation")
    return {
        "image": int(config["input_size"][-1]),
        "mean": list(config["mean"]),
        "std": list(config["std"]),
        "crop": float(config.get("crop_pct") or 0.875),
        "interpolation": how if how in INTERPOLATIONS else "bicubic",
    }


def preprocess_of_model(model: str) -> dict[str, Any]:
    """What timm's default weights of a model were trained with; nothing where it has none."""
    if not model:
        return {}
    try:
        return preprocess_from_timm(timm_config(model))
    except UserError:
        return {}


def require_same_parts(model: str) -> None:
    """Refuse a model of ours whose options leave no place for its released weights.

    Reducers, image size, classes and channels may differ. Nothing is read, no memory is taken.

    Raises:
        NotAvailable: some of its parts have other names or shapes than the paper's.
    """
    if model.startswith(TIMM):
        return
    name = parse_call(model)[0]
    found = entry(name)
    with torch.device("meta"):
        pair = (found.model(found.config), found.model(configure(model, classes=None)))
    paper, own = (
        {n: t.shape for n, t in m.state_dict().items() if not n.startswith("head.")} for m in pair
    )
    differ = [n for n in {**paper, **own} if paper.get(n) != own.get(n) and ".reducer." not in n]
    if differ:
        raise NotAvailable(
            f"the released weights of {name} do not fit {model}, whose {differ[0]} is another"
        )


def released_classes(count: int) -> tuple[str, ...]:
    """Names of the classes that a released head of so many knows, in the order of its logits.

    ImageNet's own, where its sets have as many classes; else their numbers. A name that stands for
    two classes carries WordNet's number too.
    """
    from timm.data import ImageNetInfo

    if count not in IMAGENET_SETS:
        return tuple(map(str, range(count)))
    known = ImageNetInfo(IMAGENET_SETS[count])
    names = [known.index_to_description(i).partition(",")[0] for i in range(count)]
    often = Counter(names)
    return tuple(
        name if often[name] == 1 else f"{name} ({known.index_to_label_name(i)})"
        for i, name in enumerate(names)
    )
