"""Counts against published totals and closed forms."""

import pytest
import timm
import torch
from torch import nn

from vitrail import cost

# timm's name, parameters, GMAC at 224 px (torch's counter, 1000 classes, attention included)
KNOWN = (
    ("vit_tiny_patch16_224", 5_717_416, 1.254),
    ("coat_lite_tiny", 5_721_960, 1.589),
    ("coat_tiny", 5_498_540, 4.316),
    ("coatnet_0_224", 25_036_820, 4.547),
)


@pytest.mark.parametrize(("name", "params", "gmacs"), KNOWN)
def test_known_totals(name: str, params: int, gmacs: float) -> None:
    counted = cost.count(timm.create_model(name), 224)
    assert counted.params == params
    assert counted.macs / 1e9 == pytest.approx(gmacs, abs=6e-4)


def test_vit_closed_form() -> None:
    """Patches, 12 blocks of (qkv, two products, projection, feed-forward), head."""
    tokens, dim = 197, 192
    block = tokens * dim * (3 * dim + dim + 8 * dim) + 2 * tokens * tokens * dim
    assert cost.count(timm.create_model("vit_tiny_patch16_224"), 224).macs == (
        196 * 768 * dim + 12 * block + dim * 1000
    )


@pytest.mark.parametrize("fused", [True, False])
def test_attention_counts_the_same_fused_or_not(fused: bool) -> None:
    model = timm.create_model("vit_tiny_patch16_224", depth=1)
    model.blocks[0].attn.fused_attn = fused
    part = cost.count(model, 224).by_module["blocks.0.attn"]
    assert part.macs == 4 * 197 * 192 * 192 + 2 * 197 * 197 * 192


class OnTokens(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x.flatten(2).transpose(1, 2))


def test_fast_path_of_the_encoder_layer_hides_nothing() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True)
    tokens = 6 * 4
    counted = cost.count(OnTokens(layer), (6, 4), in_chans=8)
    assert counted.macs == tokens * (4 * 8 * 8 + 2 * 8 * 16) + 2 * tokens * tokens * 8
    assert torch.backends.mha.get_fastpath_enabled()


class Gives(nn.Module):
    """A part that gives its own parameter, as CMT's bias table does at its own size."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.ones(3, 5))

    def forward(self) -> torch.Tensor:
        return self.table


class Reads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part, self.fixed = Gives(), nn.Parameter(torch.ones(2), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3)) @ self.part()


def test_a_part_that_gives_its_parameter_is_counted() -> None:
    model = Reads()
    assert cost.count(model, 8).macs == 3 * 5
    assert [p.requires_grad for p in model.parameters()] == [False, True]


def test_grouped_convolution_on_an_oblong_picture() -> None:
    conv = nn.Conv2d(6, 12, 3, stride=2, padding=1, groups=3)
    counted = cost.count(nn.Sequential(conv), (16, 10), in_chans=6)
    assert counted.macs == 8 * 5 * 12 * (6 // 3) * 9
    assert counted.activation_bytes == 4 * 8 * 5 * 12


class Twice(nn.Module):
    """One linear layer under two names, called once through each, inside an uncalled list."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.rest = nn.ModuleList([nn.ModuleDict({"again": self.first, "own": nn.Linear(4, 2)})])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.rest[0]["own"](self.rest[0]["again"](x))


def test_shared_modules_and_containers() -> None:
    counted = cost.count(Twice(), (1, 4), in_chans=1)
    assert counted.params == 20 + 10
    assert counted.macs == 2 * 16 + 8
    assert counted.by_module["first"].macs == 2 * 16
    assert counted.by_module["rest.0.own"].macs == 8
    assert counted.by_module["rest.0.own"].kind == "Linear"
    assert set(counted.to_depth(1)) == {"first", "rest"}


def test_parts_add_up() -> None:
    counted = cost.count(timm.create_model("vit_tiny_patch16_224", depth=2), 224)
    assert sum(part.macs for part in counted.to_depth(1).values()) == counted.macs
    block = counted.by_module["blocks.0"]
    assert counted.by_module["blocks"].macs == 2 * block.macs
    assert counted.by_module["blocks"].params == 2 * block.params


def test_nothing_is_left_changed() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout())
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    cost.count(model, 8)
    assert [m.training for m in model] == [True, False, True]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.grad is None for p in model.parameters())


def test_double_precision_model() -> None:
    counted = cost.count(nn.Conv2d(3, 2, 1).double(), 4)
    assert counted.activation_bytes == 8 * 2 * 16
