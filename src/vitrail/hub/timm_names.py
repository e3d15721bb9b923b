"""Which of timm's models has the weights for one of ours: what the models' own pages say."""

from vitrail.models.zoo import PAPERS

TIMM_NAMES: dict[str, str] = {
    ours: theirs for paper, _ in PAPERS for ours, theirs in getattr(paper, "TIMM", {}).items()
}
"""Ours -> timm's."""
