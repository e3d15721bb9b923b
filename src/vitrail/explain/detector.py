"""Why a detector calls what is in a box so: a box of its choice, as a classifier of the image."""

from typing import Any

import torch
from torch import Tensor, nn


class BoxLogits(nn.Module):
    """The logits a torchvision detector gives one box, ``(B, C, H, W)`` -> ``(B, classes)``.

    A detector's score stands behind a softmax and a choice among thousands of boxes; a box it has
    found has logits, which every method explains like a classifier's::

        found = detector([image])[0]
        explain(BoxLogits(detector, found["boxes"][0]), image, "lrp", target=int(found["labels"][0]))

    The box is held fixed: what is explained is what is in it, not where it lies. Gradients flow
    through the backbone and the box head alone. For Faster R-CNN and its like (``transform``,
    ``backbone``, ``roi_heads``).
    """

    def __init__(self, detector: Any, box: Tensor) -> None:
        super().__init__()
        self.detector = detector
        self.register_buffer("box", box.detach().reshape(1, 4), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """The same box in every image, in pixels ``(left, top, right, bottom)``."""
        label = torch.ones(1, dtype=torch.long, device=images.device)
        aims = [{"boxes": self.box, "labels": label} for _ in images]
        batch, aims = self.detector.transform(list(images), aims)
        maps = self.detector.backbone(batch.tensors)
        maps = {"0": maps} if isinstance(maps, Tensor) else maps
        heads = self.detector.roi_heads
        boxes = [aim["boxes"] for aim in aims]
        logits: Tensor = heads.box_predictor(
            heads.box_head(heads.box_roi_pool(maps, boxes, batch.image_sizes))
        )[0]
        return logits
