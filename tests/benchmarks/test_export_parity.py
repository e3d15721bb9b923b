"""The sweep over all exports asks every model that can be exported."""

from tests.contracts.structures import HASHED, WIRINGS
from tests.export.small import distinct

import vitrail
from benchmarks import export_parity


def test_every_model_with_static_shapes_is_asked() -> None:
    asked = [name for names in distinct().values() for name in names]
    assert sorted(asked) == [n for n in vitrail.list_models() if not n.endswith(HASHED)]
    assert set(WIRINGS) <= set(asked)


def test_all_ways_are_asked_and_what_is_refused_is_said(monkeypatch) -> None:
    def refuse(way, model, any_size):
        raise export_parity.ExportError(f"no {way}")

    monkeypatch.setattr(export_parity, "differences", refuse)
    rows = list(export_parity.rows(export_parity.Options(models=("cct_2",))))
    assert [(row["way"], row["problem"]) for row in rows[:3]] == [
        ("optimize", "no optimize"),
        ("onnx", "no onnx"),
        ("torch", "no torch"),
    ]
