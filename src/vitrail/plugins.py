"""Models, mixers and reducers of other packages, found by their entry points.

A package offers them in its ``pyproject.toml``; nothing is imported until a name is looked up::

    [project.entry-points."vitrail.models"]
    swirl = "swirl.model:Swirl"            # a Backbone; its module holds CONFIGS (and RENAMES)
    [project.entry-points."vitrail.mixers"]
    swirl = "swirl.mixer"                  # importing it registers its specs
"""

import warnings
from functools import cache
from importlib.metadata import entry_points
from typing import Any

GROUPS = ("vitrail.models", "vitrail.mixers", "vitrail.reducers")


@cache
def load_group(group: str) -> dict[str, Any]:
    """What the entry points of one group name, loaded once; a broken one is left out, with a line.

    Importing a stranger's code can fail in any way, and must not keep a user from our own names.
    """
    loaded = {}
    for point in entry_points(group=group):
        try:
            loaded[point.name] = point.load()
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            package = point.dist.name if point.dist else point.value
            warnings.warn(
                f"the plug-in {point.name!r} of {package} ({group}) is left out: {reason}; "
                f"update {package}, or remove it",
                stacklevel=3,
            )
    return loaded
