"""Which of timm's models has the weights for one of ours (equal outputs: ``tests/parity``)."""

COUNTERPARTS = {  # ours -> timm's
    "vit_tiny": "vit_tiny_patch16_224",
    "vit_small": "vit_small_patch16_224",
    "vit_base": "vit_base_patch16_224",
    "vit_large": "vit_large_patch16_224",
    "coat_lite_tiny": "coat_lite_tiny",
    "coat_lite_mini": "coat_lite_mini",
    "coat_lite_small": "coat_lite_small",
    "coat_lite_medium": "coat_lite_medium",
    "coat_tiny": "coat_tiny",
    "coat_mini": "coat_mini",
    "coat_small": "coat_small",
}
