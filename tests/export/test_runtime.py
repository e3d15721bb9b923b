"""Files that cannot be run are refused in one line."""

import pytest

from vitrail.errors import UserError
from vitrail.export import ExportError, open_file
from vitrail.export.runtime import need


@pytest.mark.parametrize("name", ["m.onnx", "m.pt2"])
def test_a_damaged_file(name, tmp_path) -> None:
    if name.endswith("onnx"):
        pytest.importorskip("onnxruntime")
    (tmp_path / name).write_bytes(b"not a model")
    with pytest.raises(UserError, match=f"cannot read .*{name}"):
        open_file(tmp_path / name)


def test_no_file_and_another_ending(tmp_path) -> None:
    with pytest.raises(UserError, match="no exported file"):
        open_file(tmp_path / "m.onnx")
    (tmp_path / "m.bin").write_bytes(b"")
    with pytest.raises(UserError, match="ends in neither .onnx nor .pt2"):
        open_file(tmp_path / "m.bin")


def test_a_missing_package_names_its_extra() -> None:
    with pytest.raises(ExportError, match=r"pip install 'vitrail\[export\]'"):
        need("no_such_runtime")
