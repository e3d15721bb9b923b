"""``vitrail models | mixers | reducers``."""

import json

import vitrail
from vitrail.mixers import MixerSpec
from vitrail.reducers import ReducerSpec


def test_models_lists_the_zoo(give) -> None:
    said = give("models", "--json")
    assert (said.status, said.err) == (0, "")
    assert [row["model"] for row in json.loads(said.out)] == vitrail.list_models()


def test_models_for_people_name_the_paper(give) -> None:
    said = give("models", "coat_lite_tiny")
    assert "clustering_coat_lite_tiny" in said.out
    assert "vit_tiny" not in said.out
    assert "Co-Scale" in said.out


def test_models_counts_when_asked(give) -> None:
    (row,) = json.loads(give("models", "pooled_coat_lite_tiny", "--count", "--json").out)
    model = vitrail.create("pooled_coat_lite_tiny", classes=1000)
    assert row["params"] == sum(p.numel() for p in model.parameters())
    assert row["macs"] > 1e8
    assert "M params" in give("models", "pooled_coat_lite_tiny", "--count").out


def test_mixers_and_reducers_list_all_that_is_registered(give) -> None:
    for word, known in (("mixer", MixerSpec.known), ("reducer", ReducerSpec.known)):
        rows = json.loads(give(f"{word}s", "--json").out)
        assert [row[word] for row in rows] == sorted(known)
        assert all(row["about"] for row in rows)
        table = give(f"{word}s").out
        assert all(name in table for name in known)
