"""``vitrail create``: a run with a reducer, and what it says."""

import json
from pathlib import Path


def test_a_run_with_a_reducer(give, tiny_run: Path) -> None:
    said = give("create", tiny_run, "--reducer", "cluster(ratio=4)", "-o", "clustered")
    assert said.status == 0, said.err
    assert "newly initialised: nothing: every weight is the plain model's" in said.out
    assert f"vitrail train --from clustered --teacher {tiny_run}" in said.out
    assert give("predict", "clustered", Path(__file__).parent).status == 2  # no pictures there
    found = json.loads(
        give("create", tiny_run, "--reducer", "filter", "-o", "filtered", "--json").out
    )
    assert found["params"][1] > found["params"][0] and found["macs"][1] < found["macs"][0]
    assert found["newly_initialised"] == [
        "blocks.0.reducer.score.bias",
        "blocks.0.reducer.score.weight",
    ]


def test_what_is_missing_is_said(give, tiny_run: Path) -> None:
    assert "say which run, which reducer and where to" in give("create", tiny_run).line
    again = give("create", tiny_run, "--reducer", "pool", "-o", tiny_run)
    assert again.status == 2 and "nothing is overwritten" in again.line
