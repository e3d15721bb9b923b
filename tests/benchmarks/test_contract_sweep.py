"""The sweep's own work: which models, what is printed, what counts as a failure."""

import pytest

from benchmarks import contract_sweep as sweep


def test_models_by_pattern_and_size() -> None:
    assert sweep.select_models(["mobilevit_*", "vit_large"], 100.0) == [
        "mobilevit_s",
        "mobilevit_xs",
        "mobilevit_xxs",
    ]


def test_a_line_a_model_and_failures_in_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(build: object) -> None:
        raise AssertionError("logits differ\nby 3")

    points = {"compiles": lambda build: None, "exports": fails}
    monkeypatch.setattr(sweep, "POINTS", points)
    names = ["mobilevit_xxs", "clustering_coat_lite_tiny_qf"]
    assert sweep.sweep(names, list(points)) == [
        "mobilevit_xxs: exports: AssertionError: logits differ by 3"
    ]
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["seconds", "compiles", "exports"]
    assert lines[1] == ["mobilevit_xxs", "0.0", "no"]
    assert lines[2] == ["clustering_coat_lite_tiny_qf", "-", "-"]
