"""Our own zoo as a table, built of nothing: ``vitrail models``."""

from collections.abc import Sequence


def catalogue() -> list[dict[str, str]]:
    """Name, mixer and reducer by stage, and the paper, of every model."""
    from vitrail.models.zoo import everything

    return [
        {
            "model": name,
            "mixer": by_stage(entry.config.mixer),
            "reducer": by_stage(entry.config.reducer),
            "paper": (entry.paper.__doc__ or "").strip().splitlines()[0].rstrip("."),
        }
        for name, entry in sorted(everything().items())
    ]


def by_stage(specs: Sequence[str]) -> str:
    """One spec for all stages, or one each."""
    texts = [str(spec) for spec in specs]
    return texts[0] if len(set(texts)) == 1 else ", ".join(texts)
