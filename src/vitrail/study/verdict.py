"""The verdict of a study in plain words, as sure as the numbers allow and no surer."""

from collections.abc import Mapping, Sequence

from vitrail.study.analyse import Analysis, Cell
from vitrail.study.plan import split_start
from vitrail.study.record import ArmCost


def percent(value: float, digits: int = 1) -> str:
    """``0.8312`` -> ``"83.1 %"``."""
    return f"{100 * value:.{digits}f}\u00a0%"


def share_text(share: float) -> str:
    """``0.1`` -> ``"10 %"``; ``0.005`` -> ``"0.5 %"``."""
    return f"{100 * share:g}\u00a0%"


def amount(value: float, unit: str = "") -> str:
    """``1.59e9`` -> ``"1.59 G"``: three figures and a prefix."""
    for scale, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= scale:
            return f"{value / scale:#.3g}".rstrip(".") + f"\u00a0{prefix}{unit}"
    return f"{value:.3g}\u00a0{unit}".rstrip("\u00a0")


def duration(seconds: float) -> str:
    """``754`` -> ``"12 min 34 s"``; under a second in ms."""
    if seconds < 1:
        return f"{1000 * seconds:.3g}\u00a0ms"
    if seconds < 90:
        return f"{seconds:.3g}\u00a0s"
    if round(seconds) < 600:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes}\u00a0min {rest}\u00a0s"
    minutes = round(seconds / 60)
    return f"{minutes}\u00a0min" if minutes < 120 else f"{minutes / 60:.1f}\u00a0h"


def join_names(names: Sequence[str]) -> str:
    """``["a", "b", "c"]`` -> ``"a, b and c"``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def headline(analysis: Analysis) -> str:
    """One sentence: who is ahead with the most data, and whether that is more than luck."""
    if not analysis.cells:
        return "No arm has finished, so there is nothing to compare yet."
    share = analysis.shares[-1]
    ranking, rivals = analysis.ranking(share), analysis.rivals(share)
    best = f"{ranking[0].arm} reaches {_reach(ranking[0], analysis.metric_words)}"
    if len(ranking) == 1:
        return f"{best}; it is the only arm, so there is no comparison."
    if not rivals:
        return f"{best} and is ahead of every other arm by more than chance explains."
    if len(rivals) == len(ranking) - 1:
        return f"{best}, but no arm can be told from another with confidence on this evidence."
    return f"{best}; {join_names(rivals)} cannot be told from it with confidence."


def details(analysis: Analysis, costs: Mapping[str, ArmCost]) -> list[str]:
    """The sentences below the headline: the others, the small share, the price, the caveat."""
    if not analysis.cells:
        return []
    found = _behind(analysis) + _small_share(analysis) + _price(analysis, costs)
    return [*found, *_starts(analysis), _caveat(analysis)]


def _reach(cell: Cell, metric: str) -> str:
    a = cell.score
    return (
        f"{percent(a.value)} {metric} with {share_text(cell.share)} of the training pictures "
        f"(95\u00a0% interval {100 * a.low:.1f} to {100 * a.high:.1f})"
    )


def _behind(analysis: Analysis) -> list[str]:
    share = analysis.shares[-1]
    ranking, said = analysis.ranking(share), []
    for cell in ranking[1:]:
        pair = analysis.versus(share, ranking[0].arm, cell.arm)
        if pair is None or pair.verdict != "better":
            continue
        d = pair.difference
        said.append(
            f"{cell.arm} is {100 * d.value:.1f} points behind "
            f"({100 * d.low:.1f} to {100 * d.high:.1f}, p = {pair.adjusted:.2g})"
        )
    return [f"With the most data {join_names(said)}."] if said else []


def _small_share(analysis: Analysis) -> list[str]:
    if len(analysis.shares) < 2 or not analysis.ranking(analysis.shares[0]):
        return []
    share = analysis.shares[0]
    ranking, rivals = analysis.ranking(share), analysis.rivals(share)
    first = f"With only {share_text(share)} ({ranking[0].train_count} pictures) {ranking[0].arm}"
    reach = f"at {percent(ranking[0].score.value)}"
    if len(ranking) == 1:
        return [f"{first} stands {reach}."]
    if not rivals:
        return [f"{first} leads {reach}, clear of the others."]
    return [f"{first} leads {reach}, not distinguishable from {join_names(rivals)}."]


def _price(analysis: Analysis, costs: Mapping[str, ArmCost]) -> list[str]:
    """The cheapest arm among those that cannot be told from the best."""
    share = analysis.shares[-1]
    best = analysis.ranking(share)[0].arm
    level = [arm for arm in (best, *analysis.rivals(share)) if arm in costs]
    if best not in costs or len(costs) < 2:
        return []
    cheap = min(level, key=lambda arm: costs[arm].macs)
    quick = min(level, key=lambda arm: costs[arm].latency)
    if cheap == quick == best:
        return [f"Of the arms level with it, {best} is also the cheapest."] if level[1:] else []
    parts = [
        f"{cheap} needs the fewest multiply-adds ({amount(costs[cheap].macs)} against "
        f"{amount(costs[best].macs)} of {best})"
        if cheap != best
        else f"{best} needs the fewest multiply-adds ({amount(costs[best].macs)})",
        f"{quick} answers fastest ({duration(costs[quick].latency)} a picture)",
    ]
    return [f"Among the arms level at the top, {join_names(parts)}."]


def _starts(analysis: Analysis) -> list[str]:
    """Unlike starts are named wherever they stand in one table."""
    if len({split_start(arm)[1] for arm in analysis.arms}) < 2:
        return []
    return [
        "Arms named with 'from' start from trained weights, the others from scratch: between them "
        "the start is compared too, not the architecture alone, and the recipe that suits it."
    ]


def _caveat(analysis: Analysis) -> str:
    cell = analysis.ranking(analysis.shares[-1])[0]
    if len(cell.seeds) == 1:
        return (
            "One seed was run: the intervals show the luck of the test pictures only, another "
            "seed could order close arms differently. Three seeds or more would tell."
        )
    return (
        f"{len(cell.seeds)} seeds were run; the intervals cover the luck of the seed and that of "
        "the test pictures."
    )
