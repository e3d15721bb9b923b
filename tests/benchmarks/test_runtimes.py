"""The two runtimes on a model too small to measure anything."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import contract, runtimes
from vitrail.export import ExportError, to_onnx


def test_both_runtimes_answer_alike_and_are_timed_side_by_side(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
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


def test_without_openvino_its_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.onnx"
    to_onnx(nn.Flatten(), torch.randn(2, 3, 8, 8), path)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ExportError, match=r"pip install 'vitrail\[openvino\]'"):
        runtimes.measure("flatten", path, 2, runtimes.Options(image=8, threads=1))
