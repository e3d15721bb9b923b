import json
import platform
from pathlib import Path

import pytest
import torch

from vitrail import cost
from vitrail.cost.host import cpu_name, has_bfloat16, overflows_in_8_bits, versions


def test_machine_is_json_with_what_matters() -> None:
    found = json.loads(json.dumps(cost.machine()))
    assert found["versions"]["torch"].startswith(torch.__version__.partition("+")[0])
    assert found["threads"] == torch.get_num_threads()
    assert found["cores"] >= 1
    assert found["float32_matmul"] in ("highest", "high", "medium")


def test_names_and_versions(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor : 0\nmodel name\t: A Fine CPU @ 3 GHz\n")
    assert cpu_name(info) == "A Fine CPU @ 3 GHz"
    assert cpu_name(tmp_path / "none")
    assert versions("no-such-package-here") == {"no-such-package-here": None}


def test_bfloat16_as_the_system_tells(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("flags : fpu avx512_bf16 avx512f\n")
    assert has_bfloat16("cpu", info)
    info.write_text("flags : fpu avx512f\n")
    assert not has_bfloat16("cpu", info)
    assert not has_bfloat16("cpu", tmp_path / "none")


@pytest.mark.parametrize(
    ("machine", "flags", "overflows"),
    [
        ("x86_64", "fpu avx2", True),
        ("AMD64", "fpu avx512f avx512bw", True),
        ("x86_64", "fpu avx2 avx_vnni", False),
        ("x86_64", "fpu avx512f avx512_vnni", False),
        ("aarch64", "", False),
    ],
)
def test_sums_of_8_bits_as_the_system_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, flags: str, overflows: bool
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    info = tmp_path / "cpuinfo"
    info.write_text(f"flags : {flags}\n")
    assert overflows_in_8_bits(info) == overflows
