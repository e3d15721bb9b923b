"""Relevance adds up in every model, follows its definition in small ones, or is refused."""

import pytest
import torch
import torch.nn.functional as F
from tests.contracts.structures import kinds
from tests.contracts.test_backbones import narrow
from torch import nn

import vitrail
from vitrail.attribution import ExplainError, explain
from vitrail.mixers import MixerSpec
from vitrail.reducers import ReducerSpec
from vitrail.specs import SpecError

PLAIN = {"conv": "zero", "linear": "zero"}


def options(name: str) -> dict:
    """The smallest model that is wired like the variant."""
    return {"classes": 5, "image": 64, **narrow(name, "native", "native")}


def shaken(model: nn.Module, seed: int = 0) -> nn.Module:
    """Biases, norms and statistics drawn: else nothing would be added, and nothing tested."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.dim() < 2 and tensor.is_floating_point():
                tensor.add_(0.2 * torch.randn(tensor.shape, generator=draw).to(tensor))
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_var.abs_().add_(0.2)
    return model.eval()


def perturbed_model(name: str) -> nn.Module:
    torch.manual_seed(0)
    return shaken(vitrail.create(name, **options(name)))


def pictures(count: int = 2, side: int = 64) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def residual(found) -> torch.Tensor:
    """What is missing, as a part of the score or of what makes it up."""
    check = found.check
    return check["residual"].abs() / torch.stack(
        [check[name].abs() for name in ("score", "input", "bias")]
    ).amax(0)


@pytest.mark.parametrize("name", kinds())
def test_picture_and_biases_together_are_the_score(name):
    """Double precision, two images of one batch, each by itself; single precision to rounding."""
    model, x = perturbed_model(name).double(), pictures()
    found = explain(model, x.double(), method="lrp", target=[1, 3], **PLAIN)
    assert found.check["residual"].abs().max() < 1e-9
    assert (found.check["bias"].abs() > 1e-6).all(), "nothing was added, so nothing was tested"
    torch.testing.assert_close(
        found.map.sum((1, 2)), found.check["input"].float(), rtol=1e-3, atol=1e-5
    )
    assert residual(explain(model.float(), x, method="lrp", target=[1, 3], **PLAIN)).max() < 1e-4
    assert residual(explain(model, x, method="lrp", target=[1, 3])).max() < 1e-3  # gamma


class Net(nn.Module):
    """Convolution, ReLU, pooling, linear; with or without biases."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1, bias=bias),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3, bias=bias),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        )
        self.head = nn.Linear(32, 4, bias=bias)

    def forward(self, x):
        return self.head(self.features(x))


def test_without_biases_lrp_0_is_input_times_gradient():
    torch.manual_seed(0)
    net, x = Net(bias=False).eval(), pictures(2, 12)
    found = explain(net, x, method="lrp", target=2, **PLAIN)
    x.requires_grad_()
    (grad,) = torch.autograd.grad(net(x)[:, 2].sum(), x)
    torch.testing.assert_close(found.map, (x * grad).sum(1).detach())
    assert not found.check["bias"].any()


def test_epsilon_is_the_loop_by_hand():
    """A two-layer network, the rule written from its equation, biases in the denominator."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    x = pictures(1, 2).double()
    found = explain(net, x, "lrp", 1, linear="epsilon(eps=0.25)")
    first, last = net[1], net[3]
    hidden = net[:3](x)[0].detach()
    logits = net(x)[0].detach()

    def back(values, weight, sums, relevance):
        kept = relevance / (sums + 0.25 * sums.sign())
        return torch.stack([(values[i] * weight[:, i] * kept).sum() for i in range(len(values))])

    top = torch.zeros(3).double().index_fill(0, torch.tensor(1), logits[1].item())
    middle = back(hidden, last.weight, logits, top)
    pixels = back(x.flatten(), first.weight, net[:2](x)[0].detach(), middle)
    torch.testing.assert_close(found.native[0], pixels.view(3, 2, 2).sum(0).float())


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("epsilon(eps=1e-9)", "Epsilon"),
        ("gamma(gain=0.25)", "Gamma"),
        ("alphabeta(alpha=1.0)", "Alpha1_Beta0_"),
    ],
)
def test_captum_agrees_on_a_plain_network(ours, theirs):
    """Its rules, where it has them: convolutions, ReLU, pooling; without biases, which it adds."""
    attr = pytest.importorskip("captum.attr")
    rules = pytest.importorskip("captum.attr._utils.lrp_rules")
    torch.manual_seed(0)
    net, x = Net(bias=False).eval().double(), pictures(2, 12).double().abs()
    best = net(x).max(1)
    assert (best.values > 0).all()  # its gamma knows positive outputs only
    found = explain(net, x, "lrp", conv=ours, linear=ours)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.rule = getattr(rules, f"{theirs}Rule")()
        elif isinstance(module, nn.Flatten):
            module.rule = rules.EpsilonRule()
    wanted = attr.LRP(net).attribute(x, target=best.indices).sum(1).detach()
    torch.testing.assert_close(found.native, wanted.float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "resnet18", "convnext_atto", "coat_lite_tiny", "mobilevit_xxs"]
)
def test_timms_own_models_conserve_too(name):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    sized = {"img_size": 64} if name.startswith(("vit", "coat")) else {}
    model = shaken(timm.create_model(name, num_classes=5, **sized)).double()
    found = explain(model, pictures().double(), method="lrp", target=2, **PLAIN)
    assert found.check["residual"].abs().max() < 1e-9
    assert (found.check["bias"].abs() > 1e-6).all()


def test_torchs_own_transformer_layer_conserves():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Conv2d(3, 16, 8, 8)
            self.layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
            self.head = nn.Linear(16, 3)

        def forward(self, x):
            return self.head(self.layer(self.embed(x).flatten(2).mT).mean(1))

    torch.manual_seed(0)
    found = explain(shaken(Net()).double(), pictures(2, 32).double(), "lrp", 1, **PLAIN)
    assert found.check["residual"].abs().max() < 1e-12


class Odd(nn.Module):
    """Calls one function on what depends on the picture."""

    def __init__(self, do):
        super().__init__()
        self.do = do

    def forward(self, x):
        return self.do(x)


def net_of(do):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 8), Odd(do), nn.Linear(8, 3)).double().eval()


@pytest.mark.parametrize(
    "do",
    [
        lambda x: torch.fft.fft(x).real,
        lambda x: torch.linalg.inv(x[:, :1, None] + 1.0)[:, 0] + x,
        lambda x: x + torch.special.i1(x),
        lambda x: F.batch_norm(x, None, None, training=True),
    ],
    ids=["fft", "inverse", "bessel", "batch statistics"],
)
def test_what_has_no_rule_is_refused_by_module(do):
    with pytest.raises(ExplainError, match=r"rule.*module '2', Odd"):
        explain(net_of(do), pictures(2, 4).double(), "lrp", 0)


CONST = torch.linspace(-1, 1, 8).double()


def half_in_place(x):
    y = x.clone()
    y[:, 4:].addcmul_(x[:, :4], x[:, 4:])
    return y


def overwrites_a_part(x):
    y = x * 2
    y[:, 2:4] = CONST[:2]
    y[:, 0] = x[:, 5]
    return y


def written_into_zeros(x):
    y = x.new_zeros(x.shape)
    y[:, 3:].copy_(x[:, 3:])
    return y


@pytest.mark.parametrize(
    "do",
    [
        lambda x: x * x,
        lambda x: x**2 / (1 + x.square().sum(1, keepdim=True)).sqrt(),
        lambda x: torch.einsum("bi,bj,bk->bi", x, x, x),
        lambda x: F.silu(x.clone(), inplace=True) + F.relu6(x) + x.tanh() + F.softplus(x),
        lambda x: x * torch.sigmoid(1.702 * x) - x.clamp(min=0.1) + 3,
        lambda x: 2 - x + CONST,
        lambda x: torch.where(x > 0, x, CONST).masked_fill(x < -0.5, 0.7),
        lambda x: torch.lerp(x, CONST.expand_as(x), 0.3),
        lambda x: torch.maximum(x, CONST),
        lambda x: torch.cat((x[:, :4], CONST[None, :4].expand(2, -1)), 1),
        lambda x: F.pad(x[:, 1:], (0, 1), value=0.5),
        lambda x: torch.addmm(CONST, x, torch.eye(8).double() * 3),
        lambda x: F.layer_norm(x.view(2, 2, 4), (2, 4), CONST.view(2, 4), CONST.view(2, 4)).flatten(
            1
        ),
        lambda x: F.group_norm(x.view(2, 4, 2), 2, CONST[:4], CONST[4:]).flatten(1),
        lambda x: F.instance_norm(x.view(2, 2, 4), weight=CONST[:2]).flatten(1),
        lambda x: F.rms_norm(x, (8,), CONST) + F.normalize(x, dim=1),
        lambda x: x / x.norm(dim=1, keepdim=True) + x * x.std() + x.topk(8).values,
        lambda x: (x.exp_() if False else x.clone().mul_(3).add_(CONST)) * x.amax(1, True),
        lambda x: (x.clone() - 1).exp_() * x,
        lambda x: x.softmax(1) * x,
        half_in_place,
        overwrites_a_part,
        written_into_zeros,
        lambda x: (
            F.grid_sample(x.view(2, 1, 2, 4), x.view(2, 1, 4, 2).tanh(), align_corners=False)
            .expand(2, 2, 1, 4)
            .flatten(1)
        ),
        lambda x: x.index_add(1, torch.tensor([0, 0]), x[:, 5:7]).index_select(1, torch.arange(8)),
    ],
)
def test_every_rule_conserves(do):
    found = explain(net_of(do), pictures(2, 4).double(), "lrp", 0, **PLAIN)
    assert found.check["residual"].abs().max() < 1e-12


def test_a_target_behind_a_softmax_is_refused_with_the_cure():
    with pytest.raises(ExplainError, match="give a target that reads logits"):
        explain(net_of(lambda x: x), pictures(2, 4).double(), "lrp", lambda y: y.softmax(1)[:, 0])


def test_attention_may_be_explained_through_queries_and_keys():
    """Half through values, a quarter each beside: other maps, and not conserved, as published."""
    model, x = perturbed_model("vit_tiny"), pictures()
    given = explain(model, x, "lrp", 1, **PLAIN)
    through = explain(model, x, "lrp", 1, attention="attnlrp", **PLAIN)
    assert not torch.allclose(given.map, through.map, rtol=0.05)
    assert through.map.isfinite().all()
    with pytest.raises(vitrail.errors.UserError, match="attention rule 'rollout'"):
        explain(model, x, "lrp", 1, attention="rollout")


def test_rules_change_gradients_only():
    """The score with rules is the score without: else the call refuses by itself."""
    model, x = perturbed_model("coat_lite_tiny").double(), pictures().double()
    found = explain(model, x, "lrp", 0)
    torch.testing.assert_close(found.check["score"], model(x)[:, 0].detach(), rtol=1e-9, atol=1e-9)


def test_spelled_out_and_fused_attention_agree():
    """The rules of softmax and matrix products are those of the fused kernel."""

    def attend(fused):
        def do(x):
            q, k, v = (x * s for s in (CONST, CONST.flip(0), 2.0))
            q, k, v = (t.view(2, 1, 4, 2) for t in (q, k, v))
            if fused:
                return F.scaled_dot_product_attention(q, k, v).flatten(1)
            return ((q @ k.mT * 2**-0.5).softmax(-1) @ v).flatten(1)

        return do

    x = pictures(2, 4).double()
    for attention in ("constant", "attnlrp"):
        maps = [
            explain(net_of(attend(fused)), x, "lrp", 0, attention=attention, **PLAIN).native
            for fused in (True, False)
        ]
        torch.testing.assert_close(*maps)


def test_what_does_not_add_up_is_refused_unless_the_rule_lets_go():
    """A module that hides a constant from torch: its share is missing."""

    class Hidden(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x + 1

        @staticmethod
        def backward(ctx, grad):
            return grad

    net, x = net_of(Hidden.apply), pictures(2, 4).double()
    with pytest.raises(ExplainError, match="relevances miss the score by"):
        explain(net, x, "lrp", 0)
    assert explain(net, x, "lrp", 0, linear="epsilon").check["residual"].abs().min() > 1e-3


def placed(mixer: str, reducer: str) -> nn.Module | None:
    """The first small model that takes both; what none takes is for other tests."""
    for name in ("vit_tiny", "coat_lite_tiny"):
        try:
            torch.manual_seed(0)
            widths = narrow(name, mixer, reducer)
            return shaken(vitrail.create(name, classes=5, image=64, **widths))
        except SpecError:
            continue
    return None


@pytest.mark.parametrize(
    ("mixer", "reducer"),
    [(m, "all") for m in sorted(MixerSpec.known)]
    + [("softmax", r) for r in sorted(ReducerSpec.known) if r != "all"],
)
def test_every_mixer_and_every_reducer_conserves(mixer, reducer):
    model = placed(mixer, reducer)
    assert model is not None
    found = explain(model.double(), pictures().double(), "lrp", [1, 3], **PLAIN)
    assert found.check["residual"].abs().max() < 1e-9
    assert (found.check["bias"].abs() > 1e-6).all()
