"""Windows and grid attention against the papers' code in timm, and against a mask over all."""

import pytest
import torch

from vitrail.layers.attend import attend, join_heads, split_heads
from vitrail.mixers import MixerSpec
from vitrail.specs import Place, SpecError


def built(text, **place):
    mixer = MixerSpec.parse(text).build(Place(dim=24, heads=3, **place)).eval()
    with torch.no_grad():
        mixer.offsets.table.normal_()
    return mixer


def load(mixer, qkv, proj, table):
    """The weights of timm's attention; its table is ``(offsets, heads)``."""
    mixer.qkv.load_state_dict(qkv.state_dict())
    mixer.proj.load_state_dict(proj.state_dict())
    with torch.no_grad():
        mixer.offsets.table.copy_(table.T.unflatten(1, mixer.offsets.table.shape[1:]))


@pytest.mark.parametrize("index", [0, 1])
def test_windows_are_swins(index):
    from timm.models.swin_transformer import SwinTransformerBlock

    block = SwinTransformerBlock(24, (12, 8), 3, window_size=4, shift_size=2 * index).eval()
    torch.nn.init.normal_(block.attn.relative_position_bias_table)
    mixer = built("window(size=4)", grid=(12, 8), index=index)
    load(mixer, block.attn.qkv, block.attn.proj, block.attn.relative_position_bias_table)
    x = torch.randn(2, 96, 24)
    wanted = block._attn(x.unflatten(1, (12, 8))).flatten(1, 2)
    torch.testing.assert_close(mixer(x, (12, 8)), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("kind", "text"), [("grid", "grid(size=4)"), ("block", "window(size=4)")])
def test_grid_and_blocks_are_maxvits(kind, text):
    from timm.models.maxxvit import MaxxVitTransformerCfg, PartitionAttentionCl

    config = MaxxVitTransformerCfg(
        dim_head=8, rel_pos_type="bias", window_size=(4, 4), grid_size=(4, 4), head_first=False
    )
    paper = PartitionAttentionCl(24, kind, config).eval()
    table = paper.attn.rel_pos.relative_position_bias_table
    torch.nn.init.normal_(table)
    mixer = built(text, grid=(12, 8))
    load(mixer, paper.attn.qkv, paper.attn.proj, table)
    x = torch.randn(2, 96, 24)
    wanted = paper._partition_attn(x.unflatten(1, (12, 8))).flatten(1, 2)
    torch.testing.assert_close(mixer(x, (12, 8)), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("text", ["window(size=4, shift=1)", "grid(size=4)"])
@pytest.mark.parametrize("grid", [(7, 10), (3, 5), (1, 9), (8, 4)])
def test_any_grid_is_softmax_attention_under_a_mask(text, grid):
    """Places share a tile or not, said here in one line a paper, without folding anything."""
    mixer, (height, width) = built(text, grid=(8, 8), index=1), grid
    with torch.no_grad():
        mixer.offsets.table.zero_()
    tile = {
        "window": lambda i, side: (i - (1 if side > 4 else 0)) // 4,
        "grid": lambda i, side: i % -(-side // 4),
    }[text.split("(")[0]]
    of = [(tile(i, height), tile(j, width)) for i in range(height) for j in range(width)]
    together = torch.tensor([[a == b for b in of] for a in of])
    x = torch.randn(2, height * width, 24)
    q, k, v = (split_heads(t, 3) for t in mixer.qkv(x).chunk(3, 2))
    wanted = mixer.proj(join_heads(attend(q, k, v, together)))
    torch.testing.assert_close(mixer(x, grid), wanted, rtol=1e-5, atol=1e-6)


def test_a_window_over_all_is_attention_with_offsets():
    relative = MixerSpec.parse("relative").build(Place(dim=24, heads=3, grid=(5, 5)))
    mixer = built("window(size=5)", grid=(5, 5), index=1)
    with torch.no_grad():
        relative.offsets.table.copy_(mixer.offsets.table)
    relative.load_state_dict(mixer.state_dict())
    x = torch.randn(2, 25, 24)
    torch.testing.assert_close(mixer(x, (5, 5)), relative(x, (5, 5)), rtol=1e-5, atol=1e-6)


def test_windows_stay_apart_until_the_next_block_shifts_them():
    x = torch.randn(1, 64, 24)
    moved = x.clone()
    moved[:, 0] += 1  # the first token of an 8 x 8 grid
    reached = []
    for index in (0, 1):
        mixer = built("window(size=4)", grid=(8, 8), index=index)
        seen = (mixer(x, (8, 8)) - mixer(moved, (8, 8))).abs().amax(2).unflatten(1, (8, 8))[0]
        reached.append((seen > 1e-6).nonzero().amax(0).tolist())
    assert reached == [[3, 3], [1, 1]]


def test_masks_do_not_keep_windows_off_the_fused_kernel():
    from torch.nn.attention import SDPBackend, sdpa_kernel

    for grid in ((8, 8), (7, 9)):
        mixer, x = (
            built("window(size=4)", grid=grid, index=1),
            torch.randn(2, grid[0] * grid[1], 24),
        )
        with torch.no_grad(), sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            mixer(x, grid)  # raises where the kernel cannot serve


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("window(size=0)", "a tile has no places; use size=7"),
        ("window(size=4, shift=4)", "shift by less than their size; try shift=0"),
        ("grid(size=0)", "a tile has no places"),
    ],
)
def test_options_without_meaning_are_refused(text, said):
    with pytest.raises(SpecError, match=said):
        built(text, grid=(8, 8))


def test_scattered_tokens_are_refused_with_the_remedy():
    with pytest.raises(SpecError, match="left the grid.*; use mixer 'softmax'.*reducer 'pool'"):
        built("window", grid=(8, 8), scattered=True)
