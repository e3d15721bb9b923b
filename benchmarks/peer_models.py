"""The models that others have too, where they are implemented, and what we promise of each."""

from dataclasses import dataclass

from benchmarks.contract import Bar
from benchmarks.modes import OURS, PEER
from benchmarks.official_cmt import OFFICIAL
from vitrail.cost import Counterparts
from vitrail.hub.baselines import TIMM
from vitrail.hub.timm_names import TIMM_NAMES

COUNTERPARTS = Counterparts(
    build="benchmarks.official_cmt:build",
    texts={
        "timm": {ours: TIMM + theirs for ours, theirs in TIMM_NAMES.items()},
        "official": OFFICIAL,
    },
)


@dataclass(frozen=True)
class Peer:
    """One of our models and its yardstick: ``timm``, ``official``, or a model text."""

    model: str
    family: str
    against: str = "timm"

    @property
    def other(self) -> str:
        """The yardstick's text."""
        return COUNTERPARTS.find(self.model, self.against)


# fmt: off
PEERS = (
    Peer("vit_small",           "vit"),
    Peer("deit_tiny_distilled", "vit"),
    Peer("convit_tiny",         "convit"),
    Peer("coat_lite_tiny",      "coat"),
    Peer("coat_lite_small",     "coat"),
    Peer("coat_tiny",           "coat"),
    Peer("coatnet_nano_rw",     "coatnet"),
    Peer("coatnet_0_rw",        "coatnet"),
    Peer("mobilevit_xxs",       "mobilevit"),
    Peer("mobilevit_s",         "mobilevit"),
    Peer("cmt_ti",              "cmt",       "official"),
    Peer("cmt_s",               "cmt",       "official"),
    Peer("filtervit_v2_xs",     "filtervit", "filtervit_xs"),  # corrected beside faithful
)
# fmt: on
HYBRIDS = ("convit", "coat", "coatnet", "mobilevit", "cmt")
ALL = ("vit", *HYBRIDS)


def bar(at_least: float, mode: str, against: str, families: tuple[str, ...], image: int = 0) -> Bar:
    """A promise on some families, at one size or at all."""
    sizes = {"image": (image,)} if image else {}
    return Bar(
        arm=OURS,
        graph=mode,
        against=f"{PEER} {against}",
        at_least=at_least,
        where={"family": families, **sizes},
    )


BARS = (
    bar(1.3, "eager", "eager", ("convit", "coat", "mobilevit"), 224),
    bar(1.05, "eager", "eager", ("coatnet", "cmt"), 224),
    bar(1.0, "eager", "eager", ("vit",), 224),
    bar(1.3, "eager", "eager", HYBRIDS, 512),
    bar(1.0, "optimised", "compiled", ALL, 224),
    bar(1.2, "optimised", "compiled", ALL, 512),
    bar(1.8, "bf16", "eager", ALL),
    bar(3.0, "eager", "eager", ("filtervit",), 224),
)
