"""Our own zoo as a table."""

import vitrail
from vitrail.hub import catalogue


def test_the_catalogue_is_the_zoo() -> None:
    rows = catalogue()
    assert [row["model"] for row in rows] == vitrail.list_models()
    by_name = {row["model"]: row for row in rows}
    assert by_name["vit_tiny"]["mixer"] == "softmax"
    assert "cluster" in by_name["clustering_coat_lite_tiny"]["reducer"]
    assert "Xu et al." in by_name["coat_tiny"]["paper"]
