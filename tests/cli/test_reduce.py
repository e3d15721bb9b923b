"""``vitrail reduce``: a run with a reducer, and what it says."""

import json
from pathlib import Path


def test_a_run_with_a_reducer(give, tiny_run: Path) -> None:
    said = give("reduce", tiny_run, "--reducer", "cluster(ratio=4)", "-o", "clustered")
    assert said.status == 0, said.err
    assert "newly initialised: nothing: every weight is the plain model's" in said.out
    assert f"vitrail train --from clustered --teacher {tiny_run}" in said.out
    assert give("predict", "clustered", Path(__file__).parent).status == 2  # no pictures there
    found = json.loads(
        give("reduce", tiny_run, "--reducer", "filter", "-o", "filtered", "--json").out
    )
    assert found["params"][1] > found["params"][0] and found["macs"][1] < found["macs"][0]
    assert found["newly_initialised"] == [
        "blocks.0.reducer.score.bias",
        "blocks.0.reducer.score.weight",
    ]


def test_what_is_missing_is_said(give, tiny_run: Path) -> None:
    assert "say which run, which reducer and where to" in give("reduce", tiny_run).line
    again = give("reduce", tiny_run, "--reducer", "pool", "-o", tiny_run)
    assert again.status == 2 and "nothing is overwritten" in again.line


def test_a_run_is_tuned_with_a_reducer_and_its_plain_self(give, tiny_run: Path) -> None:
    """On the same split, from the same weights, heard by logits and by maps."""
    taught = ("--teacher", tiny_run, "--set", "distill.feature=1", "workers=0", "batch=16")
    words = ("--epochs", "1", "--fraction", "0.02", "--out", "tuned", *taught)
    said = give("train", "--from", tiny_run, "--reducer", "filter", *words)
    assert said.status == 0, said.err
    facts, old = (json.loads((run / "run.json").read_text()) for run in (Path("tuned"), tiny_run))
    assert facts["model"].endswith("reducer='filter')") and facts["data"] == old["data"]
    assert (facts["open"], facts["image"]) == (old["open"], 32)
    assert facts["from"]["run"] == str(tiny_run) and facts["teacher"]["name"] == str(tiny_run)
    assert "feature: 1.0" in Path("tuned/recipe.yaml").read_text()
    again = give("train", "--from", "tuned", "--model", "vit_tiny")
    assert "leave out --model" in again.line


def test_the_old_word_works_and_says_the_new_one(give, tiny_run: Path) -> None:
    said = give("create", tiny_run, "--reducer", "pool", "-o", "pooled")
    assert said.status == 0 and said.err.count("vitrail reduce RUN") == 1
    assert (Path("pooled") / "best.safetensors").is_file()
