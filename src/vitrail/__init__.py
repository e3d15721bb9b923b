"""Vision backbones that marry convolution and attention, on your own pictures.

The whole way, from a folder with a folder of pictures for each class to probabilities::

    import torch
    import vitrail

    result = vitrail.fit("photos", epochs=20)        # trains, and keeps all in runs/photos-DATE
    print(result.run, result.classes, result.best["accuracy"])

    images = torch.rand(2, 3, 300, 400)              # colours from 0 to 1; PIL images serve too
    probabilities = result.predict(images)           # (2, classes)

    classifier = vitrail.load(result.run)            # at another time, in another process
    probabilities = classifier.predict(images)

Which models there are, and what they cost on this machine::

    print(vitrail.list_models())
    print(vitrail.measure(["vit_tiny", "timm:resnet18"], image=224, batch=8, memory=False))

Which backbone suits these pictures, on this machine: ``choice = vitrail.choose("photos",
minutes=10)``, then ``print(choice)``; ``vitrail.fit("photos", model=choice.winner)`` trains it.

A model alone, another way for its tokens to work, and where a trained one looks::

    model = vitrail.create("vit_tiny", classes=5, image=64, reducer="cluster(ratio=4)")
    logits = model(torch.randn(2, 3, 64, 64))        # (2, 5)
    found = vitrail.explain(classifier.model, classifier.prepare(images), method="saliency")
    print(found.map.shape)                           # (2, height, width), values for each pixel

On the command line: ``vitrail train photos/``, then ``vitrail predict RUN PICTURES``.
``help(vitrail.fit)`` and so on say more; ``vitrail --help`` lists the commands.
"""

# Names are fetched at first use, so that ``vitrail --help`` does not wait for torch.

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitrail.attribution import explain
    from vitrail.errors import UserError
    from vitrail.hub.measure import measure
    from vitrail.hub.resolve import create
    from vitrail.hub.runs import load
    from vitrail.mixers import MixerSpec
    from vitrail.models import Backbone, list_models
    from vitrail.reducers import ReducerSpec
    from vitrail.specs import Place
    from vitrail.study.choose.choice import choose
    from vitrail.train.setup import fit

__version__ = "0.1.0"

__all__ = [
    "Backbone",
    "MixerSpec",
    "Place",
    "ReducerSpec",
    "UserError",
    "__version__",
    "choose",
    "create",
    "explain",
    "fit",
    "list_models",
    "load",
    "measure",
]

_HOMES = {
    "Backbone": "vitrail.models",
    "MixerSpec": "vitrail.mixers",
    "Place": "vitrail.specs",
    "ReducerSpec": "vitrail.reducers",
    "UserError": "vitrail.errors",
    "choose": "vitrail.study.choose.choice",
    "create": "vitrail.hub.resolve",
    "explain": "vitrail.attribution.base",
    "fit": "vitrail.train.setup",
    "list_models": "vitrail.models",
    "load": "vitrail.hub.runs",
    "measure": "vitrail.hub.measure",
}


def __getattr__(name: str) -> Any:
    """PEP 562: import what is asked for, when it is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'vitrail' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
