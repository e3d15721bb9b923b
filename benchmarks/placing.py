"""Where benchmarks put a reducer: wherever there are many tokens."""

from vitrail.models import Backbone

PLAIN = "all"


def many(model: Backbone, reducer: str) -> tuple[str, ...]:
    """The reducer for each stage: a ViT's one, all but the last (few tokens) of a pyramid.

    One each, where it says so: ``"cluster(ratio=9); cluster; all; all"``.
    """
    if ";" in reducer:
        return tuple(each.strip() for each in reducer.split(";"))
    stages = len(model.config.reducer)
    last = (PLAIN,) if stages > 1 else ()
    return (reducer,) * (stages - len(last)) + last
