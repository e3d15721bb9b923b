"""Names in the authors' FilterViT checkpoints, and ours."""

RENAMES = (  # the authors' name -> ours
    (r"^first_conv\.0\.layer1\.0\.", "stem.conv."),
    (r"^first_conv\.0\.layer1\.1\.", "stem.norm."),
    (r"^first_conv\.1\.", "first."),
    (r"^first_ConvFormer\.", "early.first."),
    (r"^leaky_att_network\.", "early."),
    (r"^network\.", "late."),
    (r"\.leaky_attention\.conv\.layer1\.", ".score."),
    (r"\.leaky_attention\.", "."),
    (r"\.conv_block\.", ".conv."),
    (r"\.block\.exp_1x1\.block\.", ".expand."),
    (r"\.block\.conv_3x3\.block\.", ".depthwise."),
    (r"\.block\.red_1x1\.block\.", ".project."),
    (r"\.trans\.", ".layers."),
    (r"\.self_attn\.in_proj_", ".mixer.qkv."),
    (r"\.self_attn\.out_proj\.", ".mixer.proj."),
    (r"\.linear(\d)\.", r".fc\1."),
    (r"^mlp_head\.", "head."),
)
