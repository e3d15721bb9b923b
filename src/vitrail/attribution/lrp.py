"""Layer-wise relevance propagation: how much each pixel, and each bias, adds to a score.

::

    found = explain(model, images, method="lrp", target=3)
    found.map.sum((1, 2)) + found.check["bias"]          # the score, to rounding

While the model runs, every torch function it calls is replaced by one with the same value and
another gradient (:mod:`vitrail.attribution.lrp_rules`), such that *relevance = activation x
gradient* follows the rules of Bach et al. (PLOS ONE 10(7), 2015) for linear layers
(:mod:`vitrail.attribution.lrp_linear`) and, for attention, norms and products, those of Ali et al.
(ICML 2022, attention held constant: "CP") or Achtibat et al. (ICML 2024, "AttnLRP"). One backward
pass then gives everything. No model is named here: what a rule is missing for is refused with the
name of the module that called it.

The network with its rules is homogeneous: its score is the sum of relevances of the picture and
of everything that is added on the way (biases, shifts of norms, class tokens, positions). So
``input + bias = score`` holds on any weights, and shows at once where a rule is wrong.

LRP is claimed by a patent; see ``docs/explanation/lrp.md``.
"""

import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vitrail.attribution.base import Case, MethodResult, Need, method
from vitrail.attribution.lrp_call import ConstantLedger, FunctionCall, NoRuleError, Rules, name_of
from vitrail.attribution.lrp_linear import LinearRule
from vitrail.attribution.lrp_rules import ATTENTIONS, RULES, missing_rule
from vitrail.attribution.preserve import ExplainError
from vitrail.errors import unknown

FORWARD_RTOL = 1e-3
"""How far the logits with rules may be from those without, as a part of their size: above this
an operation must have run otherwise than the model meant it to."""
BALANCE_RTOL = 1e-3
"""How much of the largest of score, pixels and constants may be missing; rounding in single
precision takes about 1e-6 (``python -m benchmarks.lrp_conservation``)."""


@method("lrp", class_specific=True, signed=True, needs={Need.GRADIENT})
def lrp(
    case: Case,
    *,
    conv: str = "gamma(gain=0.25)",
    linear: str = "gamma(gain=0.05)",
    attention: str = "constant",
) -> MethodResult:
    """Layer-wise relevance propagation: shares of the score, pixel by pixel, with a sign.

    Args:
        case: what is asked.
        conv: rule of convolutions: zero, epsilon, gamma, zplus or alphabeta, with options.
        linear: rule of linear layers.
        attention: ``"constant"`` (attention weights are given, relevance goes through values) or
            ``"attnlrp"`` (through queries and keys as well; does not conserve).

    Raises:
        ExplainError: an operation without a rule, or a target that no rule reaches.
    """
    rules = Rules(conv=LinearRule.parse(conv), linear=LinearRule.parse(linear), attention=attention)
    if attention not in ATTENTIONS:
        raise unknown("attention rule", attention, ATTENTIONS)
    images = case.images.requires_grad_()
    relevance = Relevance(case.model, rules, len(images))
    with relevance:
        score = case.goal(case.model(images))
    check_forward(score, case.score)
    (grad,) = torch.autograd.grad(score.sum(), images)
    native = (images * grad).detach().sum(1)
    check = balance(score, native, relevance.ledger.total)
    if rules.conserve and native.dtype in (torch.float32, torch.float64):
        check_balance(check)
    return MethodResult(native=native, check=check)


def balance(score: Tensor, native: Tensor, bias: Tensor) -> dict[str, Tensor]:
    """What pixels and constants add up to, and what is missing from the score; each ``(B,)``."""
    given, value = native.sum((1, 2), dtype=torch.float64), score.detach().double()
    return {"score": value, "input": given, "bias": bias, "residual": given + bias - value}


def check_balance(check: dict[str, Tensor]) -> None:
    """Refuse a map that does not add up, where the rules promise that it does.

    Raises:
        ExplainError: more is missing than rounding takes.
    """
    size = torch.stack([check[name].abs() for name in ("score", "input", "bias")]).amax(0)
    missing = check["residual"].abs() / size.clamp(min=torch.finfo(torch.float64).tiny)
    if (missing > BALANCE_RTOL).any():
        raise ExplainError(
            f"lrp: relevances miss the score by {float(missing.max()):.1e} of its size; explain "
            "the images one by one, and if that does not help, some module computes with torch "
            "in a way that hides what depends on the picture"
        )


def check_forward(score: Tensor, wanted: Tensor | None) -> None:
    """Refuse scores that no rule reaches, or that the rules have changed.

    Raises:
        ExplainError: what to ask for instead.
    """
    if not score.requires_grad:
        raise ExplainError(
            "lrp: no relevance can flow from this target to the picture: a softmax or sigmoid on "
            "the way is held constant by the rules; give a target that reads logits"
        )
    if wanted is not None:
        apart = float((score.detach() - wanted).abs().max())
        if apart > FORWARD_RTOL * max(1.0, float(wanted.abs().max())):
            raise ExplainError(
                f"lrp: with the rules in place the score is off by {apart:.1e}; the model's "
                "answer must not differ from call to call, nor with gradients on"
            )


class Relevance(TorchFunctionMode):
    """While entered, torch functions on what depends on the picture follow their rules."""

    def __init__(self, model: Any, rules: Rules, images: int) -> None:
        super().__init__()
        self.model, self.rules = model, rules
        like = next(iter(model.parameters()), None) if isinstance(model, nn.Module) else None
        self.ledger = ConstantLedger(images, torch.device("cpu") if like is None else like.device)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Apply the rule of one call; attributes such as ``shape`` and ``mT`` are as they are."""
        if getattr(func, "__name__", "") == "__get__":
            return func(*args)
        return self.dispatch(func, args, kwargs or {})

    def dispatch(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """By its rule where an argument depends on the picture, else as torch does it."""
        call = FunctionCall(
            name=name_of(func),
            func=func,
            args=args,
            kwargs=kwargs,
            rules=self.rules,
            ledger=self.ledger,
            dispatch=self.dispatch,
        )
        if not torch.is_grad_enabled() or not call.live:
            return call.evaluate()
        try:
            return RULES.get(call.name, missing_rule)(call)
        except NoRuleError as refusal:
            raise ExplainError(f"lrp: {refusal} (in {self.running_module()})") from None

    def running_module(self) -> str:
        """The innermost module that is running."""
        names = {}
        if isinstance(self.model, nn.Module):
            names = {id(module): name for name, module in self.model.named_modules()}
        frame = sys._getframe()
        while frame is not None:
            module = frame.f_locals.get("self")
            if isinstance(module, nn.Module) and id(module) in names:
                return f"module {names[id(module)] or 'the model'!r}, {type(module).__name__}"
            frame = frame.f_back  # type: ignore[assignment]
        return "no module, at the target"
