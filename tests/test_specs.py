import pytest

from vitrail import create
from vitrail.errors import UserError
from vitrail.mixers import MixerSpec
from vitrail.mixers.conv_attention import ConvAttention, share_heads
from vitrail.models.zoo import text_of
from vitrail.specs import Place, SpecError, parse_call, print_call


def test_text_and_back():
    for text in (
        "conv_attention",
        "conv_attention(windows=(3, 5), shares=(1, 1))",
        "prototype_conv(by='sort', ratio=9)",
    ):
        assert str(MixerSpec.parse(text)) == text
    assert parse_call(print_call("vit", {"patch": 8, "pool": "mean"})) == (
        "vit",
        {"patch": 8, "pool": "mean"},
    )


@pytest.mark.parametrize(
    "text", ["", "1", "a.b(c=1)", "a(1)", "a(b=c)", "a(b=__import__('os'))", "a(**{})", "a; b"]
)
def test_nothing_but_names_and_literals(text):
    with pytest.raises(SpecError):
        parse_call(text)


def test_names_are_unique_and_specs_frozen():
    for name in ("conv_attention", "conv"):
        with pytest.raises(SpecError, match=f"two mixers are called '{name}'"):
            type("Other", (MixerSpec,), {}, name=name)
    with pytest.raises(AttributeError):
        MixerSpec.parse("conv_attention").windows = (1,)
    assert issubclass(SpecError, UserError)


def test_old_names_are_read_and_written_anew():
    options = "(windows=(3, 5), shares=(1, 1))"
    assert str(MixerSpec.parse("conv" + options)) == "conv_attention" + options
    assert "conv" not in MixerSpec.registry()
    text = "coat_lite_tiny(depths=(1, 1, 1, 1), dims=(8, 8, 8, 8), heads=4, mixer={})"
    old, new = (create(text.format(repr(name))) for name in ("conv", "conv_attention"))
    assert old.config == new.config and old.state_dict().keys() == new.state_dict().keys()
    assert "mixer" not in text_of(old)  # it is the paper's own
    vit = create("vit_tiny(depth=1, mixer=' conv (windows=(3,), shares=(1,))')")
    assert "mixer='conv_attention(windows=(3,), shares=(1,))'" in text_of(vit)


def test_old_options_are_read_and_written_anew():
    from vitrail.reducers import ReducerSpec

    spec = ReducerSpec.parse("budget(lost=0.5)")
    assert str(spec) == "budget(max_variance_loss=0.5)" and ReducerSpec.parse(str(spec)) == spec
    with pytest.raises(SpecError, match="gives 'max_variance_loss' twice: 'lost' is its old name"):
        ReducerSpec.parse("budget(lost=0.5, max_variance_loss=0.5)")


@pytest.mark.parametrize(
    ("heads", "dealt"), [(8, (2, 3, 3)), (3, (1, 1, 1)), (16, (4, 6, 6)), (1, (0, 1, 0))]
)
def test_heads_are_dealt_over_windows(heads, dealt):
    pairs = dict(share_heads(ConvAttention(), heads))
    assert tuple(pairs.get(w, 0) for w in (3, 5, 7)) == dealt


def test_a_refusal_names_spec_place_and_remedy():
    place = Place(dim=10, heads=3, grid=(4, 4), name="stage 2")
    with pytest.raises(
        SpecError, match=r"mixer 'softmax' cannot serve stage 2 \(dim 10, heads 3.*; change heads"
    ):
        MixerSpec.parse("softmax").build(place)


def test_what_all_of_a_kind_have_is_said_last():
    from vitrail.reducers import ReducerSpec

    assert str(ReducerSpec.parse("merge(hold=3, keep=0.4)")) == "merge(keep=0.4, hold=3)"
