"""Operators: the implied matrix of conv-attention, and gradients of attention without it."""

import pytest
import torch
from tests.explain.models import build, pictures

from vitrail.explain import ExplainError
from vitrail.explain.mixing import operator, weighed
from vitrail.explain.record import meetings, parts_of, recording
from vitrail.layers.attend import join_heads, split_heads


def first_step(text: str):  # type: ignore[no-untyped-def]
    model = build(text).eval()
    with torch.no_grad(), recording(model, parts_of(model)) as calls:
        model(pictures())
    return meetings(calls)[0]


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
    found = weighed(step, slopes, answer.detach())(f)
    torch.testing.assert_close(found, wanted @ f, rtol=1e-4, atol=1e-6)


def test_values_that_do_not_make_the_answer_are_refused() -> None:
    step = first_step("vit_tiny")
    wrong = torch.randn_like(step.tokens) + 5
    with pytest.raises(ExplainError, match="do not make what it projects"):
        weighed(step, torch.randn_like(step.tokens), wrong)


def test_prototypes_ask_as_one() -> None:
    """All members of a cluster get the same content; with one token a cluster it is CoaT's."""
    step = first_step("clustering_coat_lite_tiny_qs")
    ones = torch.ones(*step.tokens.shape[:2], 1)
    torch.testing.assert_close(operator(step)(ones), ones, rtol=1e-5, atol=1e-5)
