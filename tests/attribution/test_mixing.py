"""Operators: the implied matrix of conv-attention, and gradients of attention without it."""

import pytest
import torch
from tests.attribution.models import build, pictures

from vitrail.attribution import ExplainError
from vitrail.attribution.mixing import gradient_operator, operator
from vitrail.attribution.record import MixerCall, mixer_calls, parts_of, projection, recording
from vitrail.layers.attend import join_heads, split_heads
from vitrail.mixers import MixerSpec
from vitrail.specs import Place
from vitrail.testing import case


def first_step(text: str):  # type: ignore[no-untyped-def]
    model = build(text).eval()
    with torch.no_grad(), recording(model, parts_of(model)) as calls:
        model(pictures())
    return mixer_calls(calls)[0]


def test_conv_attention_content_is_the_positive_query_on_softmaxed_keys() -> None:
    """The class token has no convolution: its row is the content alone, written out."""
    step = first_step("coat_lite_tiny")
    q, k, _ = step.mixer.qkv(step.tokens).chunk(3, 2)
    q, k = (split_heads(t, step.mixer.heads) for t in (q, k.softmax(1)))
    matrix = (q.clamp(min=0) + 1e-6) @ k.mT
    row = (matrix / matrix.sum(-1, keepdim=True)).mean(1)[:, 0]
    tokens = step.tokens.shape[1]
    found = operator(step)(torch.eye(tokens).expand(2, -1, -1).unbind(2)[5].unsqueeze(2))
    torch.testing.assert_close(found[:, 0, 0], row[:, 5].detach(), rtol=1e-3, atol=1e-6)


def test_implied_matrix_weighed_by_its_gradient() -> None:
    """Against autograd on the matrix that ``explain`` forms."""
    step = first_step("coat_lite_tiny")
    _, _, v = step.mixer.qkv(step.tokens).chunk(3, 2)
    matrix = step.mixer.explain(step.tokens, step.grid)["content"].detach().requires_grad_()
    slopes = torch.randn_like(v)
    answer = join_heads(matrix @ split_heads(v.detach(), step.mixer.heads))
    (grad,) = torch.autograd.grad((answer * slopes).sum(), matrix)
    wanted = (matrix * grad).clamp(min=0).mean(1).detach()
    f = torch.rand(2, step.tokens.shape[1], 1)
    found = gradient_operator(step, slopes, answer.detach())(f)
    torch.testing.assert_close(found, wanted @ f, rtol=1e-4, atol=1e-6)


def test_values_that_do_not_make_the_answer_are_refused() -> None:
    step = first_step("vit_tiny")
    wrong = torch.randn_like(step.tokens) + 5
    with pytest.raises(ExplainError, match="do not make what it projects"):
        gradient_operator(step, torch.randn_like(step.tokens), wrong)


def alone(text: str, extra: int) -> MixerCall:
    """One mixer at work on a grid, outside any model."""
    torch.manual_seed(0)
    place = Place(dim=32, heads=8, grid=(6, 8), extra=extra)
    spec = MixerSpec.parse(text)
    mixer, shared = spec.build(place).eval(), spec.build_shared(place)
    with torch.no_grad():
        for p in mixer.parameters():
            p.add_(torch.randn_like(p) * 0.2)
        x = torch.randn(2, place.tokens, 32)
        out = mixer(x, place.grid, shared)
    return MixerCall("here", mixer, x, place.grid, shared, None, None, out, x, None, {})


ALL = [*MixerSpec.known, "relative(after=True)", "prototype_softmax(by='window')", "sliding"]


@pytest.mark.parametrize("text", ALL)
def test_every_mixer_mixes_by_means(text: str) -> None:
    """Rows are not negative and sum to one; weighed by a gradient, they are not negative."""
    for extra in (0, 1):
        with case(extra):
            mixes_by_means(alone(text, extra))


def mixes_by_means(step: MixerCall) -> None:
    tokens = step.tokens.shape[1]
    mix = operator(step)
    matrix = torch.stack([mix(torch.eye(tokens)[i].expand(2, -1)[..., None]) for i in (0, 5, 20)])
    assert matrix.min() > -1e-6
    ones = torch.ones(2, tokens, 1)
    torch.testing.assert_close(mix(ones), ones, rtol=1e-5, atol=1e-5)
    with recording(step.mixer, {"proj": projection(step.mixer) or step.mixer}) as calls:
        step.mixer(step.tokens, step.grid, step.shared)
    joined = calls[-1].args[0] if projection(step.mixer) else step.output
    weight = gradient_operator(step, torch.randn_like(joined), joined.detach())(ones)
    assert weight.min() >= 0 and weight.max() > 0
