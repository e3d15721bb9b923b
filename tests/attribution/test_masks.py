"""Masks of filters, clusters and chance: what they show and where they lie on the picture."""

import pytest
import torch
from tests.attribution.models import build, pictures

import vitrail
from vitrail.attribution.centres import centres, map_to_image
from vitrail.models.filtervit import FilterBlock


def filtervit(name: str = "filtervit_xs", **options: object) -> torch.nn.Module:
    return vitrail.create(name, classes=3, **options).eval()


def test_centres_of_the_stem_without_padding_are_the_references() -> None:
    """At 224 px: cell i of 110 lies at 2 i + 2, of 55 at 4 i + 2, of 28 at 8 i + 2."""
    model = vitrail.create("filtervit_xs", classes=2)
    for count, stride in ((110, 2), (55, 4), (28, 8)):
        rows, columns = centres(model, (count, count), (224, 224))
        assert torch.equal(rows, stride * torch.arange(count) + 2.0)
        assert torch.equal(rows, columns)


def test_a_centre_is_where_the_first_layers_look() -> None:
    """By the gradient of one cell: the middle of the pixels it sees."""
    for name, size in (("filtervit_xxs", (72, 64)), ("filtervit_v2_xxs", (72, 64))):
        model = filtervit(name)
        x = torch.zeros(1, 3, *size, requires_grad=True)
        seen = model.first(model.stem(x))
        block = model.early["0"] if name == "filtervit_xxs" else None
        down = block.conv if block is not None else model.stages[0].down
        seen = model.early["first"].conv(seen) if block is not None else seen
        seen = seen if block is not None else down(seen)
        i, j = 4, 6
        (grad,) = torch.autograd.grad(seen[0, :, i, j].pow(2).sum() + seen[0, :, i, j].sum(), x)
        at = grad[0].abs().sum(0).nonzero().float()
        rows, columns = centres(model, (seen.shape[2], seen.shape[3]), size)
        middle = (at.amin(0) + at.amax(0)) / 2
        assert (rows[i], columns[j]) == (middle[0], middle[1])


def test_pictures_of_other_sizes_go_through_the_pool_of_xs() -> None:
    model = vitrail.create("filtervit_xs", classes=2)
    rows, _ = centres(model, (55, 55), (448, 448))
    assert rows[0] == pytest.approx(3.0, abs=1.1) and rows[-1] < 448
    assert ((rows[1:] - rows[:-1]) - 8).abs().max() < 2.1


def test_laying_out_between_centres() -> None:
    maps = torch.tensor([[[0.0, 1.0, 4.0]]])
    where = (torch.tensor([0.0]), torch.tensor([1.0, 3.0, 5.0]))
    smooth = map_to_image(maps, where, (2, 7), smooth=True)[0, 1]
    assert smooth.tolist() == [0.0, 0.0, 0.5, 1.0, 2.5, 4.0, 4.0]
    nearest = map_to_image(maps, where, (2, 7), smooth=False)[0, 1]
    assert nearest.tolist() == [0.0, 0.0, 1.0, 1.0, 4.0, 4.0, 4.0]


def test_filters_show_what_they_chose() -> None:
    model, images = build("filtervit_xxs"), pictures()
    found = vitrail.explain(model, images, method="filter_mask")
    filters = {n: m for n, m in model.named_modules() if isinstance(m, FilterBlock)}
    assert list(found.layers) == list(filters)
    for name, layer in found.layers.items():
        mask, gate = layer.tensors["mask"], layer.tensors["gate"]
        assert (mask.flatten(1).sum(1) == layer.tensors["indices"].shape[1]).all()
        assert gate.min() >= 0.4576 and gate.max() < 1
        chosen, rest = gate[mask], gate[~mask]
        assert chosen.min() >= rest.min() and chosen.mean() > rest.mean(), name
    assert found.map.mean() == pytest.approx(1.0, abs=0.2)  # chance is one
    assert (found.check["border"] <= 1).all()
    assert not found.class_specific


def test_reducers_that_filter_or_draw_are_told_apart() -> None:
    found = vitrail.explain(build("filtervit_v2_xxs"), pictures(), method="filter_mask")
    assert [layer.kind for layer in found.layers.values()] == ["filter", "random"]
    scores = next(iter(found.layers.values())).tensors
    chosen = scores["score"][scores["mask"].bool()]
    assert chosen.min() >= scores["score"][~scores["mask"].bool()].min()


@pytest.mark.parametrize("text", ["dropoutvit_xs", "filtervit_v2_xxs"])
def test_draws_are_uniform(text: str) -> None:
    """Over many draws every place works as often as chance says (within five deviations)."""
    draws = 30
    found = vitrail.explain(build(text), pictures(1), method="dropout_frequency", draws=draws)
    for layer in found.layers.values():
        assert layer.kind == "random"
        share = layer.tensors["mask"].mean()
        deviation = (share * (1 - share) / draws).sqrt()
        assert (layer.tensors["mask"] - share).abs().max() < 5 * deviation
    one, two = (
        vitrail.explain(build(text), pictures(1), method="dropout_frequency", draws=1, seed=s).map
        for s in (0, 1)
    )
    assert not torch.equal(one, two)


def test_clusters_show_labels_sizes_and_distances() -> None:
    found = vitrail.explain(build("clustering_coat_lite_tiny"), pictures(), method="cluster_map")
    assert [layer.kind for layer in found.layers.values()] == ["cluster"] * 3
    for layer in found.layers.values():
        labels, sizes = layer.tensors["labels"], layer.tensors["sizes"]
        assert labels.shape == (2, *layer.grid)
        for image in range(2):
            counted = labels[image].flatten().bincount(minlength=sizes.shape[1])
            assert torch.equal(counted.float(), sizes[image])
        torch.testing.assert_close(layer.tensors["fineness"].mean((1, 2)), torch.ones(2))
        alone = sizes.gather(1, labels.flatten(1)).unflatten(1, layer.grid) == 1
        distance = layer.tensors["distance"]
        assert distance[alone].abs().max() < 1e-4 and distance[~alone].min() > 0


@pytest.mark.parametrize("reducer", ["merge", "dpc_knn", "paca(clusters=6)"])
def test_other_reducers_that_cluster_are_shown(reducer: str) -> None:
    model = vitrail.create("vit_tiny", depth=1, dim=48, patch=8, image=64, reducer=reducer)
    found = vitrail.explain(model, pictures(), method="cluster_map")
    (layer,) = found.layers.values()
    assert layer.tensors["labels"].shape == (2, 9, 7)
    torch.testing.assert_close(layer.tensors["fineness"].mean((1, 2)), torch.ones(2))


def test_prototype_mixers_cluster_head_by_head() -> None:
    found = vitrail.explain(build("clustering_coat_lite_tiny_qf"), pictures(), method="cluster_map")
    first = next(iter(found.layers.values()))
    assert first.tensors["labels"].shape == (2, 8, *first.grid)
