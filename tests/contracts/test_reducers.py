"""Every registered reducer keeps the laws."""

import pytest
import torch
from tests.contracts.structures import is_ours

from vitrail.reducers import ReducerSpec
from vitrail.specs import Place, SpecError
from vitrail.testing import DrawLaws, ReducerLaws, SelectionLaws, SoftLaws, same


class TestAll(ReducerLaws):
    specs = ["all"]
    identities = ["all"]


class TestPool(ReducerLaws):
    specs = ["pool", "pool(size=3)"]
    identities = ["pool(size=1)"]


class TestCluster(ReducerLaws):
    specs = ["cluster", "cluster(ratio=9)", "cluster(ratio=2)", "cluster(ratio=6)"]
    identities = ["cluster(ratio=1)"]


class TestKMeans(ReducerLaws):
    specs = ["cluster(by='kmeans', steps=2)", "cluster(ratio=3, by='kmeans')"]
    identities = ["cluster(ratio=1, by='kmeans')"]


class TestSort(ReducerLaws):
    specs = ["cluster(by='sort')", "cluster(by='sort', ratio=3)"]


class TestHash(ReducerLaws):
    specs = ["cluster(by='e2lsh', rounds=2, width=4.0)"]
    traces = False


class TestMerge(ReducerLaws):
    specs = ["merge", "merge(keep=0.2)"]
    identities = ["merge(keep=1.0)"]


class TestDensityPeaks(ReducerLaws):
    specs = ["dpc_knn", "dpc_knn(ratio=3, neighbours=4)", "dpc_knn(ratio=2.5)"]
    identities = ["dpc_knn(ratio=1)"]


class TestBudget(ReducerLaws):
    specs = ["budget", "budget(menu=(1, 4, 9), max_variance_loss=0.8)"]
    traces = False
    identities = ["budget(menu=(1,))", "budget(menu=(1, 4), max_variance_loss=0.0)"]


class TestSoftClusters(SoftLaws):
    specs = ["paca", "paca(clusters=5)"]


class TestFilter(DrawLaws):
    specs = ["filter", "filter(keep=0.1)"]
    identities = ["filter(keep=1.0)"]


class TestRandom(DrawLaws):
    specs = ["random", "random(keep=0.6)"]
    identities = ["random(keep=1.0)"]


def test_all_are_under_law():
    kinds = (ReducerLaws, SelectionLaws, DrawLaws, SoftLaws)
    laws = [law for kind in kinds for law in kind.__subclasses__()]
    tested = {ReducerSpec.parse(s).name for law in laws for s in law.specs}
    assert tested >= {n for n, spec in ReducerSpec.known.items() if is_ours(spec)}
    suites = [law for law in laws if law.specs]
    assert [law.traces for law in suites] == [
        ReducerSpec.parse(law.specs[0]).static for law in suites
    ]


@pytest.mark.parametrize(
    "text",
    [
        "cluster(by='mean')",
        "pool(size=0)",
        "cluster(by='e2lsh', width=0)",
        "filter(keep=0.0)",
        "filter(noise=-1.0)",
        "random(keep=1.5)",
        "merge(keep=0.0)",
        "dpc_knn(ratio=0)",
        "dpc_knn(neighbours=0)",
        "paca(clusters=0)",
        "budget(menu=())",
        "budget(menu=(4, 8))",
        "budget(menu=(16, 4))",
        "budget(max_variance_loss=1.5)",
    ],
)
def test_what_cannot_be_is_refused_in_words(text):
    place = Place(dim=8, heads=2, grid=(8, 8), name="stage 1")
    with pytest.raises(SpecError, match="cannot serve stage 1 .*; "):
        ReducerSpec.parse(text).build(place)


def test_clusters_lose_less_than_cells():
    """Reference page C6: window destinations lose about half the variance of 2x2 cells."""
    torch.manual_seed(1)
    smooth = torch.nn.functional.interpolate(torch.randn(4, 12, 12, 12), (32, 32), mode="bicubic")
    smooth = torch.where(smooth[:, :1] > 0, smooth, -smooth.flip(1))  # edges between regions
    x = smooth.permute(0, 2, 3, 1).reshape(4, 1024, 12)
    place = Place(dim=12, heads=3, grid=(32, 32))

    def lost(text):
        z, plan = ReducerSpec.parse(text).build(place)(x, (32, 32), same)
        return ((plan.restore(z) - x).square().sum() / x.square().sum()).item()

    assert lost("cluster") < 0.8 * lost("pool")
    assert lost("cluster(by='kmeans')") < lost("cluster")
    assert lost("cluster(by='sort')") > lost("cluster")
    assert lost("merge(keep=0.25)") < lost("pool")
    assert lost("dpc_knn") < lost("pool")
