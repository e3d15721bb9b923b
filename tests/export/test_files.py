"""Files that say what their model says, in any batch; what cannot be written is refused."""

import sys

import pytest
import torch
from tests.export.small import pictures, smallest
from tests.parity.measured import randomised
from torch import nn

import vitrail
from vitrail.errors import UserError
from vitrail.export import ExportError, files, open_file, to_onnx, to_openvino, to_torch

TINY = "vit_tiny(patch=16, dim=24, heads=3, depth=1)"
# Stages and maps, norms in batches, tokens chosen; all others: python -m benchmarks.export_parity
FAMILIES = {
    "coat_lite_mini": {"mixer": ("conv_attention", "softmax", "softmax", "softmax")},
    "mobilevit_s": {},
    "vit_tiny": {"depth": 1, "reducer": "filter(keep=0.25)"},
}
onnx = pytest.mark.skipif(
    not all(
        __import__("importlib").util.find_spec(p) for p in ("onnx", "onnxscript", "onnxruntime")
    ),
    reason="the extra 'export' is not installed",
)


@onnx
@pytest.mark.parametrize("name", FAMILIES)
def test_onnx_runtime_says_what_torch_says(name: str, tmp_path) -> None:
    model = smallest(name, **FAMILIES[name])
    made = to_onnx(model, pictures(2), tmp_path / "m.onnx")
    assert made.worst.relative <= 1e-4
    answer = open_file(made.path)
    for batch in (1, 4):
        x = pictures(batch, seed=3)
        with torch.no_grad():
            torch.testing.assert_close(answer(x), model(x), rtol=1e-3, atol=1e-4)


@onnx
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_openvino_says_what_torch_says(precision: str, tmp_path) -> None:
    pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    model = smallest("cct_2_3x2" if precision == "float32" else "vit_tiny", depth=1)
    made = to_openvino(model, pictures(2), tmp_path / "m.onnx", precision=precision)
    loose = {"float32": 1e-4, "bf16": 0.06}[precision]
    assert made.format == "openvino" and made.worst.relative <= loose
    answer = open_file(made.path, kind="openvino", precision=precision)
    for batch in (1, 4):
        x = pictures(batch, seed=3)
        with torch.no_grad():
            wanted = model(x)
        assert (answer(x) - wanted).abs().max() <= loose * wanted.abs().max()
    with pytest.raises(UserError, match=r"cannot run pictures \(1, 5, 64, 64\)"):
        answer(torch.zeros(1, 5, 64, 64))


def test_without_openvino_its_extra_is_named(monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ExportError, match=r"pip install 'vitrail\[openvino\]'"):
        to_openvino(nn.Identity(), pictures(1), tmp_path / "m.onnx")


@onnx
def test_an_operator_unknown_to_onnx_is_one_line(tmp_path) -> None:
    class Sorted(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1).sort(dim=1, stable=True).values[:, :5]

    with pytest.raises(ExportError, match="cannot write this model as ONNX: .*sort"):
        to_onnx(Sorted(), pictures(2), tmp_path / "m.onnx")


@pytest.fixture
def tiny() -> nn.Module:
    return randomised(vitrail.create(TINY, classes=5, image=64))


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_torch_program_says_the_same(precision, tiny, tmp_path) -> None:
    made = to_torch(tiny, pictures(1), tmp_path / "m.pt2", precision=precision)
    answer = open_file(made.path)
    loose = {"float32": 1e-4, "bf16": 0.06}[precision]
    for batch in (1, 3):
        x = pictures(batch, seed=3)
        with torch.no_grad():
            wanted = tiny(x)
        assert (answer(x) - wanted).abs().max() <= loose * wanted.abs().max()
        assert answer(x).dtype == torch.float32


@onnx
@pytest.mark.parametrize("write", [to_onnx, to_torch])
def test_any_size(write, tmp_path) -> None:
    plain = "cct_2_3x2(table='none', depth=1, dim=24, stem=8)"
    model = randomised(vitrail.create(plain, classes=5, image=64))
    ending = {to_onnx: "onnx", to_torch: "pt2"}[write]
    made = write(model, pictures(2), tmp_path / f"m.{ending}", any_size=True)
    assert {(d.height, d.width) for d in made.differences} == {(64, 64), (96, 128), (128, 96)}
    x = pictures(3, (160, 96))
    with torch.no_grad():
        torch.testing.assert_close(open_file(made.path)(x), model(x), rtol=1e-3, atol=1e-4)


def test_a_model_of_one_size_says_so(tiny, tmp_path) -> None:
    with pytest.raises(ExportError, match="any size.*export it for one size"):
        to_torch(tiny, pictures(2), tmp_path / "m.pt2", any_size=True)
    assert list(tmp_path.iterdir()) == []


@onnx
def test_int8_by_onnx_runtime(tiny, tmp_path) -> None:
    made = to_onnx(tiny, pictures(2), tmp_path / "m.onnx", precision="int8")
    assert 1e-5 < made.worst.relative < 0.12
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_a_file_that_does_not_agree_is_not_written(tiny, tmp_path, monkeypatch) -> None:
    def wrong(path, **how):
        answer = open_file(path, **how)
        return lambda x: answer(x) * 1.001

    monkeypatch.setattr(files, "open_file", wrong)
    with pytest.raises(ExportError, match="the torch file differs from the original"):
        to_torch(tiny, pictures(2), tmp_path / "m.pt2")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tiny, tmp_path) -> None:
    (tmp_path / "m.pt2").write_text("mine")
    with pytest.raises(UserError, match="exists; choose another name"):
        to_torch(tiny, pictures(2), tmp_path / "m.pt2")
    assert (tmp_path / "m.pt2").read_text() == "mine"


def test_what_is_not_served(tiny, tmp_path) -> None:
    with pytest.raises(ExportError, match="'int8' cannot go into a torch file"):
        to_torch(tiny, pictures(2), tmp_path / "m.pt2", precision="int8")
    with pytest.raises(UserError, match=r"name the file \*.pt2"):
        to_torch(tiny, pictures(2), tmp_path / "m.onnx")
    with pytest.raises(ExportError, match="must be one"):
        to_torch(tiny, pictures(2, (80, 80)), tmp_path / "m.pt2", any_size=True)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        to_torch(tiny, pictures(2), tmp_path / "file" / "m.pt2")


@pytest.mark.parametrize(
    "model",
    [
        "vit_tiny(patch=16, dim=24, heads=3, depth=1, reducer=\"cluster(by='e2lsh')\")",
        "clustering_coat_lite_tiny_qf(dims=(16, 24, 32, 40))",
    ],
)
def test_shapes_that_depend_on_the_picture_are_refused(model, tmp_path) -> None:
    built = vitrail.create(model, classes=5, image=64)
    with pytest.raises(ExportError, match="e2lsh.*by='window'"):
        to_torch(built, pictures(2), tmp_path / "m.pt2")


def test_what_torch_cannot_follow_is_said_in_a_line(tmp_path) -> None:
    class Branches(nn.Module):
        def forward(self, x):
            return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))

    with pytest.raises(ExportError, match="cannot follow Branches"):
        to_torch(Branches(), pictures(2), tmp_path / "m.pt2")
