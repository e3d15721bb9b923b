import json
from pathlib import Path

import torch

from vitrail import cost
from vitrail.cost.host import cpu_name, versions


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
