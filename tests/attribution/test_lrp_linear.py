"""Each rule for linear layers against a loop that says it word by word."""

import pytest
import torch
import torch.nn.functional as F

from vitrail.attribution.lrp_linear import LinearRule
from vitrail.specs import SpecError


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def propagated(rule: str, x: torch.Tensor, weight: torch.Tensor, given: torch.Tensor):
    """Relevance ``given`` ``(B, J)`` of ``x W`` brought to ``x``."""
    x = x.clone().requires_grad_()
    y = LinearRule.parse(rule).apply(F.linear, x, weight, None)
    (grad,) = torch.autograd.grad(y, x, given / y.detach())
    return (x * grad).detach()


def zero(parts: torch.Tensor) -> torch.Tensor:
    return parts / parts.sum()


def epsilon(parts: torch.Tensor) -> torch.Tensor:
    z = parts.sum()
    return parts / (z + 0.3 * z.sign())


def gamma(parts: torch.Tensor) -> torch.Tensor:
    more = torch.where(parts.sign() == parts.sum().sign(), 1.4 * parts, parts)
    return more / more.sum()


def zplus(parts: torch.Tensor) -> torch.Tensor:
    more = torch.where(parts.sign() == parts.sum().sign(), parts, 0)
    return more / more.sum()


def alphabeta(parts: torch.Tensor) -> torch.Tensor:
    up, down = parts.clamp(min=0), parts.clamp(max=0)
    return 2 * up / up.sum() - down / down.sum()


CASES = {
    "zero": zero,
    "epsilon(eps=0.3)": epsilon,
    "gamma(gain=0.4)": gamma,
    "zplus": zplus,
    "alphabeta(alpha=2.0)": alphabeta,
}


@pytest.mark.parametrize("rule", CASES)
def test_a_rule_is_what_its_equation_says(rule):
    x, weight, given = drawn(3, 6), drawn(4, 6, seed=1), drawn(3, 4, seed=2)
    wanted = torch.zeros_like(x)
    for b in range(3):
        for j in range(4):
            wanted[b] += CASES[rule](x[b] * weight[j]) * given[b, j]
    torch.testing.assert_close(propagated(rule, x, weight, given), wanted)


@pytest.mark.parametrize("rule", ["zero", "gamma", "zplus"])
def test_conserving_rules_conserve_in_any_convolution(rule):
    weight, bias = drawn(6, 2, 3, 3), drawn(6, seed=3)
    x = drawn(2, 4, 7, 5, seed=1).requires_grad_()

    def layer(x, weight, bias):
        return F.conv2d(x, weight, bias, stride=2, padding=1, groups=2)

    y = LinearRule.parse(rule).apply(layer, x, weight, bias)
    torch.testing.assert_close(y, layer(x, weight, bias))
    assert LinearRule.parse(rule).conserves
    given = drawn(*y.shape, seed=2)
    (grad,) = torch.autograd.grad(y, x, given)
    without = y.detach() - bias[:, None, None]
    torch.testing.assert_close((x * grad).sum(), (given * without).sum())


def test_outputs_of_nothing_give_nothing_and_no_nan():
    x = torch.zeros(1, 3, requires_grad=True)
    for rule in CASES:
        y = LinearRule.parse(rule).apply(F.linear, x, torch.ones(2, 3), torch.ones(2))
        assert torch.autograd.grad(y.sum(), x)[0].isfinite().all()


def test_impossible_options_are_refused():
    for text, message in (
        ("gamma(gain=-1)", "gain is zero or more"),
        ("alphabeta(alpha=0.5)", "alpha is one or more"),
        ("delta", "no relevance rule 'delta'; there are alphabeta"),
    ):
        with pytest.raises(SpecError, match=message):
            LinearRule.parse(text)
