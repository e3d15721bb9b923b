"""Models against others: ``vitrail cost coat_lite_tiny --against timm``.

models -> the counterpart of each -> same weights, logits agree -> all timed by turns -> ratios
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from vitrail.cost.candidates import Settings, forward, time_interleaved
from vitrail.cost.same_weights import Agreement, Counterparts, pair
from vitrail.cost.timing import Ratio, Timing, ratio

Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Versus:
    """One model and another; ``speed`` is how many times faster ours is, within rounds."""

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
    known: Counterparts | None = None,
    tell: Tell = print,
    on_step: Tell | None = None,
) -> tuple[Versus, ...]:
    """Time models against others, all in one interleaved run.

    Args:
        models: our model texts.
        against: a word of ``known`` for the counterpart of each, or one model text for all.
        settings: the conditions, the same for both sides.
        known: counterparts by word, and the builder of all texts.
        tell: takes a line on each pair's logits, before anything is timed.
        on_step: told after each window.

    Raises:
        UserError: no counterpart, a model that cannot be built, or logits that differ.
    """
    settings, known = settings or Settings(), known or Counterparts()
    others = {model: known.find(model, against) for model in models}
    built = {model: pair(model, other, settings, known) for model, other in others.items()}
    for model, found in built.items():
        tell(f"{model} and {others[model]}: {describe_agreement(found.agreement)}")
    calls = {}
    for model, found in built.items():
        calls[f"{model}, ours"] = forward(found.ours, settings, batch=settings.batch)
        calls[f"{model}, theirs"] = forward(found.theirs, settings, batch=settings.batch)
    timings = time_interleaved(calls, settings, on_step)
    return tuple(
        Versus(
            model=model,
            against=others[model],
            agreement=found.agreement,
            settings=settings,
            ours=timings[f"{model}, ours"],
            theirs=timings[f"{model}, theirs"],
            speed=ratio(timings[f"{model}, ours"], timings[f"{model}, theirs"]),
        )
        for model, found in built.items()
    )


def describe_agreement(agreement: Agreement | None) -> str:
    """What is known of the logits, for people."""
    if agreement is None:
        return "different networks, each with weights of its own; logits are not compared"
    return f"same weights, {agreement}"
