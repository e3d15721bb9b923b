"""Who may be chosen: our zoo, a curated list of timm's models with a reason for each, or patterns.

The list is short on purpose: one or two of each kind and size that people ship, with weights that
may be used commercially. Names are timm's; their default tags say which weights are meant.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from vitrail.errors import UserError, unknown
from vitrail.hub.baselines import TIMM, architecture_of
from vitrail.hub.resolve import is_path
from vitrail.models.zoo import configure, list_models

# fmt: off
CURATED = {
    "mobilenetv3_small_100":       "the least that serves: 2.5 million parameters, made for phones",
    "mobilenetv3_large_100":       "phones' usual choice; fast on processors",
    "mobilenetv4_conv_small":      "plain convolutions chosen for every kind of phone chip",
    "mobilenetv4_conv_medium":     "the same, larger; close to small transformers in accuracy",
    "tf_efficientnet_lite0":       "no squeeze-and-excitation, ReLU6: quantises well",
    "tf_efficientnet_lite1":       "the same, a step larger",
    "tf_efficientnet_lite2":       "the same, two steps larger",
    "efficientnet_b0":             "few multiply-adds for its accuracy; a common baseline",
    "efficientnetv2_rw_t":         "trains faster than EfficientNet at the same accuracy",
    "resnet18":                    "the plainest of all; fast, and every tool knows it",
    "resnet50":                    "the baseline of the field, with a modern training",
    "regnety_016":                 "regular widths; fast on GPUs",
    "convnext_atto":               "a modern convolution for small machines",
    "convnext_nano":               "pre-trained on ImageNet-12k: features that transfer well",
    "convnext_tiny":               "the same, larger",
    "repvit_m1_1":                 "a phone's transformer layout, all in convolutions",
    "efficientformerv2_s0":        "a transformer searched for a phone's latency",
    "edgenext_small":              "depthwise convolutions and attention over channels",
    "tiny_vit_5m_224":             "a small hybrid taught by a large one on ImageNet-22k",
    "tiny_vit_11m_224":            "the same, larger",
    "levit_128s":                  "a convolutional stem, then few tokens: low latency",
    "vit_tiny_patch16_224":        "the plain transformer, pre-trained on ImageNet-21k",
    "vit_small_patch16_224":       "the same, larger: the usual start of fine-tuning",
    "vit_base_patch16_clip_224":   "pre-trained on pictures with text: strong frozen features",
    "vit_small_patch14_dinov2":    "pre-trained without labels: strong features, dear at 518 px",
    "deit3_small_patch16_224":     "a plain transformer trained with a strong recipe",
    "swin_tiny_patch4_window7_224": "attention in windows: also a backbone for detectors",
    "caformer_s18":                "convolutions first, attention later; accurate for its size",
}
"""timm's name -> why it is in the pool."""

OURS = {
    "coat_lite_tiny":        "CoaT-Lite: convolution gives attention its positions",
    "coat_lite_small":       "the same, larger",
    "clustering_coat_lite_tiny": "CoaT-Lite on clusters of alike tokens",
    "coatnet_0_rw":          "CoAtNet: convolution stages first, relative attention after",
    "cmt_ti":                "CMT: local convolution in every block, keys and values reduced",
    "mobilevit_xs":          "MobileViT: a mobile network with attention inside",
    "filtervit_v2_xs":       "FilterViT: a convolution scores pixels, attention runs on the best",
    "vit_tiny":              "the plain transformer, as the papers' yardstick",
    "vit_small":             "the same, larger",
}
"""Our zoo's part of the pool, with what each stands for."""
# fmt: on


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model and where it starts.

    Attributes:
        model: text, as :func:`vitrail.create` takes it.
        weights: word for where it starts; ``"auto"`` are released ones.
        reason: why it is in the pool.
    """

    model: str
    weights: str = "auto"
    reason: str = ""


def default_pool() -> tuple[Candidate, ...]:
    """The curated models of timm's, then ours."""
    theirs = (Candidate(model=TIMM + name, reason=why) for name, why in CURATED.items())
    ours = (Candidate(model=name, reason=why) for name, why in OURS.items())
    return (*theirs, *ours)


def pool_of(words: Sequence[str]) -> tuple[Candidate, ...]:
    """The candidates that words name: models, calls, or patterns such as ``timm:convnext*``.

    Raises:
        UserError: a pattern that fits nothing, or a word that names no model.
    """
    if not words:
        return default_pool()
    known = {candidate.model: candidate for candidate in default_pool()}
    named = dict.fromkeys(name for word in words for name in expand(word))
    return tuple(known.get(name, Candidate(model=name)) for name in named)


def expand(word: str) -> Iterable[str]:
    """The names that a word means; one without ``*`` or ``?`` is itself.

    A pattern of timm's means its models with released weights.

    Raises:
        UserError: it fits nothing.
    """
    if not set(word) & set("*?"):
        check_name(word)
        return [word]
    names = timm_names() if word.startswith(TIMM) else our_names()
    found = [name for name in names if fnmatchcase(name, word)]
    if not found:
        raise unknown("model that fits", word, names)
    return found


def check_name(word: str) -> None:
    """A word must name a model; whether it can be built here shows later.

    Raises:
        UserError: it does not.
    """
    if word.startswith(TIMM):
        architecture_of(word.removeprefix(TIMM))
    elif is_path(word):
        raise UserError(
            f"{word!r} is a path, and candidates are models by name; what starts from a run is "
            "trained: vitrail train DATA --from RUN"
        )
    else:
        configure(word, classes=0)


def timm_names() -> list[str]:
    """timm's models that have released weights, as ``timm:NAME``."""
    import timm

    return [TIMM + name for name in timm.list_models() if timm.is_model_pretrained(name)]


def our_names() -> list[str]:
    """Our zoo."""
    return list(list_models())


def check_pool(pool: Sequence[Candidate]) -> None:
    """A choice needs two.

    Raises:
        UserError: fewer.
    """
    if len(pool) < 2:
        names = ", ".join(candidate.model for candidate in pool) or "none"
        raise UserError(
            f"there is nothing to choose: candidates are {names}; name more with --pool, or train "
            "it: vitrail train DATA --model NAME"
        )
