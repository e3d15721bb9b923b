"""Scores on made-up maps and models whose values can be worked out by hand."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from vitrail.attribution import ExplainError
from vitrail.attribution.base import Case, Method, MethodResult, Need, method
from vitrail.attribution.samples import Samples
from vitrail.attribution.scores import (
    SCORES,
    Curve,
    MapSource,
    MethodScores,
    ScoreSettings,
    class_contrast,
    deletion,
    insertion,
    max_sensitivity,
    places,
    randomisation,
    score,
    versus,
)
from vitrail.attribution.scores.curves import change
from vitrail.attribution.scores.format import cells, header, lines, markdown
from vitrail.attribution.scores.rank import gaussian_blur, order, ranks, spearman, ssim
from vitrail.attribution.scores.stability import ends, redraw
from vitrail.attribution.scores.table import chance
from vitrail.errors import UserError

SIDE = 8
OBJECT = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
OBJECT[:, 2:4, 2:6] = True  # 8 of 64 pixels
IMAGE = torch.ones(1, 1, SIDE, SIDE)
FIRST = torch.zeros(1, dtype=torch.long)


class Share(nn.Module):
    """Probability of class 0 = the mean of the object's pixels; of class 1 = the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> Tensor:
        share = (images[:, 0] * OBJECT).sum((1, 2)) / OBJECT.sum()
        share = share.clamp(1e-6, 1 - 1e-6)
        return torch.stack((share.log(), (1 - share).log()), 1)


# ---- order, ranks, likeness ---------------------------------------------------------------------


def test_order_is_by_value_and_fair_among_equals() -> None:
    assert order(torch.tensor([[[0.1, 0.9], [0.5, -2.0]]])).tolist() == [[1, 2, 0, 3]]
    even = order(torch.zeros(2, 4, 4), seed=1)
    assert sorted(even[0].tolist()) == list(range(16)) != even[0].tolist()
    assert torch.equal(even[0], even[1])
    assert not torch.equal(even, order(torch.zeros(2, 4, 4), seed=2))


def test_ranks_share_ties() -> None:
    assert ranks(torch.tensor([[3.0, 1.0, 3.0, 2.0]])).tolist() == [[2.5, 0, 2.5, 1]]


def test_spearman_is_scipys_ties_and_all() -> None:
    from scipy.stats import spearmanr

    draw = torch.Generator().manual_seed(0)
    one, other = torch.randint(0, 9, (2, 3, 6, 7), generator=draw).float()
    wanted = [spearmanr(a.flatten(), b.flatten())[0] for a, b in zip(one, other, strict=True)]
    assert spearman(one, other).tolist() == pytest.approx(wanted, abs=1e-6)
    assert spearman(one, -one).tolist() == pytest.approx([-1] * 3)
    assert spearman(one, torch.ones_like(one)).tolist() == [0, 0, 0]


def test_ssim_is_one_for_the_same_and_falls() -> None:
    draw = torch.Generator().manual_seed(0)
    maps = gaussian_blur(torch.rand(2, 1, 24, 24, generator=draw), 7, 2.0)[:, 0]
    assert ssim(maps, 3 * maps + 1).tolist() == pytest.approx([1, 1], abs=1e-5)
    assert float(ssim(maps, maps.flip(1, 2)).max()) < 0.5


def test_ssim_is_its_formula_window_by_window() -> None:
    draw = torch.Generator().manual_seed(0)
    one, other = (m - m.min() for m in torch.rand(2, 1, 13, 15, generator=draw))
    one, other = one / one.max(), other / other.max()
    bell = torch.exp(-((torch.arange(11) - 5.0) ** 2) / (2 * 1.5**2))
    weights = torch.outer(bell, bell) / bell.sum() ** 2
    wide = [nn.functional.pad(m[None], (5,) * 4, mode="replicate")[0, 0] for m in (one, other)]
    found = []
    for i, j in ((i, j) for i in range(13) for j in range(15)):
        a, b = (w[i : i + 11, j : j + 11] for w in wide)
        ma, mb = (weights * a).sum(), (weights * b).sum()
        va, vb = (weights * (a - ma) ** 2).sum(), (weights * (b - mb) ** 2).sum()
        vab = (weights * (a - ma) * (b - mb)).sum()
        alike = (2 * ma * mb + 1e-4) * (2 * vab + 9e-4)
        found.append(alike / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4)))
    assert float(ssim(one, other)) == pytest.approx(float(torch.stack(found).mean()), abs=1e-4)


def test_blur_keeps_constants_and_mass() -> None:
    assert torch.allclose(gaussian_blur(torch.full((1, 3, 9, 9), 2.0), 11, 5.0), torch.tensor(2.0))
    point = torch.zeros(1, 1, 31, 31)
    point[..., 15, 15] = 1
    spread = gaussian_blur(point, 11, 5.0)
    assert float(spread.sum()) == pytest.approx(1)
    assert torch.allclose(spread, spread.flip(2, 3))
    assert int((spread > 0).sum()) == 121


# ---- insertion and deletion ---------------------------------------------------------------------


def test_area_is_the_reference_formula() -> None:
    assert float(Curve(torch.tensor([[1.0, 0.5, 0.0]])).area) == 0.5
    assert float(Curve(torch.tensor([[1.0, 1.0, 0.0, 0.0]])).area) == 0.5


@pytest.mark.parametrize(("maps", "area"), [(OBJECT.float(), 4 / 64), (-OBJECT.float(), 60 / 64)])
def test_deletion_of_a_right_and_a_wrong_map(maps: Tensor, area: float) -> None:
    """The probability falls in a line over the object's 8 of 64 pixels: first, or last."""
    curve = deletion(Share(), IMAGE, maps, FIRST, steps=64)
    assert curve.values.shape == (1, 65)
    assert float(curve.area) == pytest.approx(area, abs=1e-4)


def test_insertion_puts_the_picture_back() -> None:
    into_zero = change(
        Share(), torch.zeros_like(IMAGE), IMAGE, OBJECT.float(), FIRST, steps=64, seed=0
    )
    assert float(into_zero.area) == pytest.approx(60 / 64, abs=1e-4)
    image = IMAGE * OBJECT
    curve = insertion(Share(), image, OBJECT.float(), FIRST, steps=8, window=7, sigma=4.0)
    start = float((gaussian_blur(image, 7, 4.0)[0, 0] * OBJECT[0]).sum()) / 8
    assert curve.values[0, 0] == pytest.approx(start, abs=1e-5)
    assert curve.values[0, 1:].tolist() == pytest.approx([1.0] * 8, abs=1e-4)


def test_curves_of_a_picture_do_not_depend_on_its_batch() -> None:
    draw = torch.Generator().manual_seed(0)
    images, maps = torch.rand(3, 1, 8, 8, generator=draw), torch.rand(3, 8, 8, generator=draw)
    target = torch.tensor([0, 1, 0])
    whole = deletion(Share(), images, maps, target, steps=5).values
    alone = deletion(Share(), images[1:2], maps[1:2], target[1:2], steps=5).values
    assert torch.allclose(whole[1:2], alone, atol=1e-6)


# ---- place --------------------------------------------------------------------------------------


def test_pointing_shares_ties_and_allows_tolerance() -> None:
    inside, near = torch.zeros(1, SIDE, SIDE), torch.zeros(1, SIDE, SIDE)
    inside[0, 3, 3] = 1
    near[0, 4, 6] = 1
    maps, masks = torch.cat((inside, near, torch.ones_like(near))), OBJECT.expand(3, -1, -1)
    assert places.pointing(maps, masks).tolist() == [1, 0, 8 / 64]
    assert places.pointing(maps, masks, tolerance=1).tolist() == [1, 1, 4 * 6 / 64]


def test_energy_counts_positive_values_only() -> None:
    maps = torch.where(OBJECT, 2.0, -1.0)
    maps[0, 0, :4] = 4.0  # 16 inside, 16 outside
    assert float(places.energy(maps, OBJECT)) == pytest.approx(0.5)
    assert float(places.energy(-torch.ones(1, SIDE, SIDE), OBJECT)) == pytest.approx(8 / 64)


def test_rank_accuracy() -> None:
    maps = OBJECT.float()
    maps[0, 2, 2:4] = -1  # two of eight are last
    maps[0, 7, 6:] = 2  # and two others come first
    assert float(places.rank_accuracy(maps, OBJECT)) == 6 / 8


def test_segmentation_of_a_half_right_map() -> None:
    maps = torch.zeros(1, SIDE, SIDE)
    maps[0, 2:4, 4:8] = 1  # 4 of the object's 8, and 4 others
    found = {name: float(v) for name, v in places.segmentation(maps, OBJECT).items()}
    assert found["accuracy"] == pytest.approx(56 / 64)
    assert found["iou"] == pytest.approx((4 / 12 + 52 / 60) / 2)
    assert found["f1"] == pytest.approx(8 / 16)


def test_ap_and_auc_are_torchmetrics_ties_and_all() -> None:
    from torchmetrics.functional.classification import binary_auroc, binary_average_precision

    draw = torch.Generator().manual_seed(0)
    maps = torch.randint(0, 12, (3, SIDE, SIDE), generator=draw).float() / 12
    masks = torch.rand(3, SIDE, SIDE, generator=draw) < 0.3
    found = places.segmentation(maps, masks)
    for i in range(3):
        ap = binary_average_precision(maps[i].flatten(), masks[i].flatten().long())
        auc = binary_auroc(maps[i].flatten(), masks[i].flatten().long())
        assert float(found["ap"][i]) == pytest.approx(float(ap), abs=1e-5)
        assert float(found["auc"][i]) == pytest.approx(float(auc), abs=1e-5)
    even = places.segmentation(torch.ones(1, SIDE, SIDE), OBJECT)
    assert (float(even["ap"]), float(even["auc"])) == (8 / 64, 0.5)


# ---- stability and randomisation ----------------------------------------------------------------


def first_channel(model: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    return images[:, 0]


def of_the_class(model: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    """The head's row of the target, signed: opposite for the two classes of ``net``."""
    return model[-1].weight[target].detach().view(-1, SIDE, SIDE)


@pytest.fixture
def net() -> nn.Module:
    draw = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten(), nn.Linear(SIDE**2, 2)).eval()
    with torch.no_grad():
        model[-1].weight[0] = torch.randn(SIDE**2, generator=draw)
        model[-1].weight[1] = -model[-1].weight[0]
    return model


def test_sensitivity_of_a_map_that_is_the_picture(net: nn.Module) -> None:
    """|d| / |x| with |d| at most 0.2 a pixel, and 0.2 / sqrt(3) on average."""
    images = torch.ones(2, 1, SIDE, SIDE)
    target = torch.zeros(2, dtype=torch.long)
    found = max_sensitivity(first_channel, net, images, target, radius=0.2, draws=8)
    assert all(0.2 / 3**0.5 < v < 0.2 for v in found.tolist())
    still = max_sensitivity(of_the_class, net, images, target, radius=0.2, draws=2)
    assert still.tolist() == [0, 0]


def test_contrast_is_none_for_one_map_and_two_for_opposites(net: nn.Module) -> None:
    images = torch.rand(2, 1, SIDE, SIDE)
    assert class_contrast(first_channel, net, images).tolist() == pytest.approx([0, 0])
    assert class_contrast(of_the_class, net, images).tolist() == pytest.approx([2, 2])


def test_randomisation_tells_who_looks_at_the_weights(net: nn.Module) -> None:
    images, target = torch.rand(2, 1, SIDE, SIDE), torch.zeros(2, dtype=torch.long)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    blind = randomisation(first_channel, net, images, target, steps=3)
    assert [step.module for step in blind] == ["2", "0"]
    assert blind[0].share == pytest.approx(130 / 132) and blind[-1].share == 1
    for step in blind:
        assert step.signed.tolist() == pytest.approx([1, 1])
        assert step.ssim.tolist() == pytest.approx([1, 1], abs=1e-5)
    seeing = randomisation(of_the_class, net, images, target, steps=3, seed=9)
    assert max(abs(v) for v in seeing[0].signed.tolist()) < 0.4
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_a_random_model_without_a_map_is_noted(net: nn.Module) -> None:
    def only(model: nn.Module, images: Tensor, target: Tensor) -> Tensor:
        if model is not net:
            raise ExplainError("dead")
        return images[:, 0]

    steps = randomisation(only, net, torch.rand(2, 1, SIDE, SIDE), torch.zeros(2).long(), steps=2)
    assert [step.problem for step in steps] == ["dead", "dead"]
    assert steps[0].signed.isnan().all()


def test_the_cascade_begins_with_the_head_and_ends_with_all() -> None:
    assert ends(13, 5) == [1, 4, 7, 10, 13]
    assert ends(2, 6) == [1, 2]
    assert ends(1, 6) == [1]


def test_redrawn_weights_keep_their_size() -> None:
    layer = nn.Linear(100, 100)
    layer.weight.data.mul_(3).add_(1)
    layer.requires_grad_(False)
    mean, spread = float(layer.weight.mean()), float(layer.weight.std())
    before = layer.weight.clone()
    assert redraw(layer, torch.Generator().manual_seed(0)) == 10100
    assert float(layer.weight.mean()) == pytest.approx(mean, abs=0.05)
    assert float(layer.weight.std()) == pytest.approx(spread, rel=0.05)
    assert float((layer.weight - before).abs().mean()) > spread / 2


# ---- the table ----------------------------------------------------------------------------------


@pytest.fixture
def toys(own_methods: dict[str, Method]) -> Iterator[None]:
    """Methods of this test's own: saliency, one that promises a sum, and one that refuses some."""

    @method("saliency", class_specific=True, needs={Need.GRADIENT})
    def saliency(case: Case) -> MethodResult:
        """Size of the gradient."""
        images = case.images.requires_grad_()
        score = case.goal(case.model(images)).sum()
        return MethodResult(native=torch.autograd.grad(score, images)[0].abs().amax(1))

    @method("summing", class_specific=True, signed=True)
    def summing(case: Case) -> MethodResult:
        """A map that misses a tenth of the score."""
        even = torch.ones_like(case.images[:, 0])
        return MethodResult(native=even, check={"residual": 0.1 * case.score})

    @method("picky", class_specific=False)
    def picky(case: Case) -> MethodResult:
        """Refuses pictures that begin bright."""
        if (case.images[:, 0, 0, 0] > 0.5).any():
            raise ExplainError("too bright")
        return MethodResult(native=case.images[:, 0])

    yield


@pytest.fixture
def samples() -> Samples:
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(6, 1, SIDE, SIDE, generator=draw)
    images[:, :, 0, 0] = torch.tensor([0.1, 0.9, 0.1, 0.1, 0.9, 0.1]).view(6, 1)
    masks = OBJECT.expand(6, -1, -1)
    return Samples(images, torch.zeros(6, dtype=torch.long), masks, tuple("abcdef"), 9)


QUICK = ScoreSettings(steps=4, few=3, draws=1, cascade=2, batch=4)


def test_every_score_of_a_method(net: nn.Module, samples: Samples, toys: None) -> None:
    row = score(net, MapSource("saliency"), samples, QUICK)
    assert set(row.scores) == set(SCORES) - {"completeness"}
    assert len(row.scores["pointing"]) == 6 and len(row.scores["contrast"]) == 3
    assert row.kind == "specific" and row.seconds > 0 and len(row.cascade) == 2
    gone = deletion(net, samples.images, MapSource("saliency")(net, *both(samples)),
                    samples.target, steps=4)  # fmt: skip
    assert row.mean("deletion") == pytest.approx(float(gone.area.mean()), abs=1e-5)
    assert MethodScores.from_dict(row.to_dict()) == row


def both(samples: Samples) -> tuple[Tensor, Tensor]:
    return samples.images, samples.target


def test_completeness_is_what_is_missing(net: nn.Module, samples: Samples, toys: None) -> None:
    row = score(net, MapSource("summing"), samples, QUICK)
    assert row.scores["completeness"] == pytest.approx([0.1] * 3)


def test_pictures_without_a_map_get_an_even_one(
    net: nn.Module, samples: Samples, toys: None
) -> None:
    maker = MapSource("picky", batch=3)
    maps = maker(net, *both(samples))
    assert maker.refused == 2 and maker.kind == "agnostic"
    assert maps[1].eq(0).all() and maps[0].any()
    bright = samples.images.clone()
    bright[:, :, 0, 0] = 1
    with pytest.raises(UserError, match="too bright"):
        maker(net, bright, samples.target)


@pytest.mark.parametrize("name", ["random", "centre", "edges"])
def test_baselines_are_scored_without_the_model(
    name: str, net: nn.Module, samples: Samples, toys: None
) -> None:
    row = score(net, MapSource(name), samples, QUICK)
    assert row.kind == "baseline" and "contrast" not in row.scores and "ap" in row.scores


def test_without_masks_only_what_needs_no_place(
    net: nn.Module, samples: Samples, toys: None
) -> None:
    blind = Samples(samples.images, samples.target, None, samples.keys, 9)
    assert "pointing" not in score(net, MapSource("random"), blind, QUICK).scores
    assert chance(blind) == {} and chance(samples)["energy"] == 8 / 64


def method_scores(method: str, values: list[float], **more: object) -> MethodScores:
    scores = {"energy": values, "deletion": values}
    return MethodScores(method=method, kind="specific", scores=scores, **more)  # type: ignore[arg-type]


def test_differences_are_paired_and_know_which_way_is_better() -> None:
    low, high = (
        method_scores("centre", [0.1, 0.5, 0.3] * 5),
        method_scores("good", [0.2, 0.6, 0.4] * 5),
    )
    ahead = versus(high, low, "energy")
    assert ahead and ahead.verdict == "better" and ahead.value == pytest.approx(0.1)
    assert versus(high, low, "deletion").verdict == "worse"
    mixed = method_scores("mixed", [0.2, 0.4, 0.3] * 5)
    assert versus(mixed, low, "energy").verdict == "not distinguishable"
    assert versus(high, low, "iou") is None
    assert versus(high, method_scores("centre", [0.1]), "energy") is None


def test_tables_mark_what_beats_the_centre() -> None:
    rows = [
        method_scores("centre", [0.1, 0.5, 0.3] * 5),
        method_scores("good", [0.2, 0.6, 0.4] * 5, refused=1, seconds=0.002),
    ]
    assert header(rows) == ["method", "class", "deletion ↓", "energy ↑", "ms"]
    assert cells(rows)[1] == ["good (1 without a map)", "specific", "0.400 -", "0.400 +", "2"]
    told = lines(rows, run="r")
    assert [line["score"] for line in told] == ["deletion", "energy"] * 2
    assert told[3]["run"] == "r" and told[3]["low"] > 0 and told[3]["pictures"] == 15
    none = MethodScores(method="lrp", kind="specific", scores={}, problem="no rule for x")
    text = markdown([*rows, none])
    assert "| good (1 without a map) | specific | 0.400 - | 0.400 + | 2 |" in text
    assert "- `lrp` cannot: no rule for x" in text
