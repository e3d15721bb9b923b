"""Models against a rival: ``vitrail cost coat_lite_tiny --against timm``.

models -> the rival of each -> same weights, logits agree -> all of them timed by turns -> ratios
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from vitrail.bench.twins import Agreement, pair, rival
from vitrail.cost import Ratio, Settings, Timing, ratio
from vitrail.cost.arms import by_turns, compiling, forward

Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Versus:
    """One model and its rival; ``speed`` is how many times faster ours is, within rounds."""

    model: str
    against: str
    agreement: Agreement | None
    settings: Settings
    ours: Timing
    theirs: Timing
    speed: Ratio

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        batch = self.settings.batch
        return {
            "model": self.model,
            "against": self.against,
            "agreement": asdict(self.agreement) if self.agreement else None,
            "settings": asdict(self.settings),
            "images_per_s": self.ours.rate(batch),
            "their_images_per_s": self.theirs.rate(batch),
            "speed": asdict(self.speed),
            "ours": self.ours.to_dict(),
            "theirs": self.theirs.to_dict(),
        }


def versus(
    models: Sequence[str],
    against: str,
    settings: Settings | None = None,
    *,
    tell: Tell = print,
    on_step: Tell | None = None,
) -> tuple[Versus, ...]:
    """Time models against their rivals, all in one interleaved run.

    Args:
        models: our model texts.
        against: ``timm`` or ``official`` for the counterpart of each, or one arm for all.
        settings: the conditions, the same for both sides.
        tell: takes a line on each pair's logits, before anything is timed.
        on_step: told after each window.

    Raises:
        UserError: no counterpart, a model that cannot be built, or logits that differ.
    """
    settings = settings or Settings()
    pairs = {model: (rival(model, against), settings) for model in models}
    built = {model: pair(model, theirs, settings) for model, (theirs, _) in pairs.items()}
    for model, found in built.items():
        tell(f"{model} and {pairs[model][0]}: {said(found.agreement)}")
    calls = {}
    for model, found in built.items():
        calls[f"{model}, ours"] = forward(found.ours, settings, batch=settings.batch)
        calls[f"{model}, theirs"] = forward(found.theirs, settings, batch=settings.batch)
    with compiling(settings):
        timings = by_turns(calls, settings, on_step)
    return tuple(
        Versus(
            model=model,
            against=pairs[model][0],
            agreement=found.agreement,
            settings=settings,
            ours=timings[f"{model}, ours"],
            theirs=timings[f"{model}, theirs"],
            speed=ratio(timings[f"{model}, ours"], timings[f"{model}, theirs"]),
        )
        for model, found in built.items()
    )


def said(agreement: Agreement | None) -> str:
    """What is known of the logits, for people."""
    if agreement is None:
        return "different networks, each with weights of its own; logits are not compared"
    return f"same weights, {agreement}"
