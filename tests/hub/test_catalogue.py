"""Our own zoo as a table."""

import torch

import vitrail
from vitrail.cost import count
from vitrail.hub import catalogue
from vitrail.hub.catalogue import count_on_meta


def test_the_catalogue_is_the_zoo() -> None:
    rows = catalogue()
    assert [row["model"] for row in rows] == vitrail.list_models()
    by_name = {row["model"]: row for row in rows}
    assert by_name["vit_tiny"]["mixer"] == "softmax"
    assert "cluster" in by_name["clustering_coat_lite_tiny"]["reducer"]
    assert "Xu et al." in by_name["coat_tiny"]["paper"]


def test_counts_on_the_meta_device_are_those_of_a_real_run() -> None:
    names = ("cmt_ti", "coat_lite_tiny", "clustering_coat_lite_tiny_qf")  # the last reads a value
    for name in names:
        real = count(vitrail.create(name, classes=1000, image=64), 64)
        found = count_on_meta(name, 64)
        assert (found.params, found.macs) == (real.params, real.macs), name


def test_the_largest_model_is_counted_without_its_memory(monkeypatch) -> None:
    made = []
    real = torch.nn.Parameter.__new__

    def watch(cls, data=None, requires_grad=True):
        made.append(data.device.type)
        return real(cls, data, requires_grad)

    monkeypatch.setattr(torch.nn.Parameter, "__new__", watch)
    assert count_on_meta("coatnet_7", 224).params > 2.4e9
    assert made and set(made) == {"meta"}
