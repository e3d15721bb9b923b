"""The two runtimes on a model too small to measure anything."""

import json
from pathlib import Path

import pytest

from benchmarks import contract, runtimes


def test_both_runtimes_answer_alike_and_are_timed_side_by_side(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is no dependency of Vitrail")
    options = runtimes.Options(
        models=("vit_tiny(depth=1)",),
        image=64,
        batches=(2,),
        threads=1,
        rounds=1,
        window_s=0.001,
        warmup_s=0.001,
        out=tmp_path,
    )
    result = json.loads(runtimes.main(options).read_text())
    assert contract.faults(result) == []
    assert [row["arm"] for row in result["rows"]] == [
        "onnxruntime",
        "openvino f32",
        "openvino bf16",
    ]
    assert all(row["apart"] < 1e-4 for row in result["rows"])


def test_without_openvino_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(runtimes, "import_module", missing)
    with pytest.raises(runtimes.UserError, match="pip install openvino"):
        runtimes.openvino(tmp_path, runtimes.np.zeros(1), 1, "f32")
