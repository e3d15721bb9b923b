"""Files that cannot be run are refused in one line."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

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


XML = """<?xml version="1.0"?><!DOCTYPE n [<!ENTITY e SYSTEM "file:///etc/passwd">]>
<net name="&e;" version="11"><layers></layers><edges></edges></net>"""
GRAPH_OF_ANOTHER = b"\x1c\0\0\0ORTM\x1b[31m\x80"
"""What OpenVINO takes for TensorFlow's, and would print."""


@pytest.mark.parametrize("content", [XML.encode(), GRAPH_OF_ANOTHER, b"\x0a\x00", b""])
def test_openvino_reads_nothing_but_onnx_and_prints_nothing(
    content: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    (tmp_path / "m.onnx").write_bytes(content)
    (tmp_path / "m.bin").write_bytes(bytes(64))
    with pytest.raises(UserError, match="cannot read .*m.onnx' as") as refused:
        open_file(tmp_path / "m.onnx", kind="openvino")
    assert "failed at" not in str(refused.value) and "core.cpp" not in str(refused.value)
    assert capfd.readouterr() == ("", "")


def write_graph(path: Path, nodes: list[tuple[str, str, str]], name: str = "") -> None:
    """An ONNX file of ``(operation, from, to)`` from ``x``; what begins with ``y`` is an output."""
    onnx = pytest.importorskip("onnx", reason="the extra 'export' is not installed")
    make = onnx.helper
    more = {"Cast": {"to": 8}, "Reshape": {"allowzero": 1}}
    steps = [
        make.make_node(
            what, [a, "s"] if what == "Reshape" else [a], [b], name=name, **more.get(what, {})
        )
        for what, a, b in nodes
    ]
    kinds = {b: 8 if what == "Cast" else 1 for what, _, b in nodes if b.startswith("y")}
    graph = make.make_graph(
        steps, "g", [make.make_tensor_value_info("x", 1, ["b", 3, 4, 4])],
        [make.make_tensor_value_info(b, kind, None) for b, kind in kinds.items()],
        [make.make_tensor("s", 7, [1], [7])],
    )  # fmt: skip
    made = make.make_model(graph, opset_imports=[make.make_opsetid("", 18)], ir_version=9)
    path.write_bytes(made.SerializeToString())


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_what_has_not_one_input_and_one_output_of_numbers(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime" if kind == "onnx" else "openvino")
    path = tmp_path / "m.onnx"
    write_graph(path, [("Identity", "x", "y"), ("Identity", "x", "y2")])
    with pytest.raises(UserError, match="1 inputs and 2 outputs, where one has one each"):
        open_file(path, kind=kind)
    write_graph(path, [("Cast", "x", "y")])  # to texts
    with pytest.raises(UserError, match="answers with no numbers|cannot run pictures"):
        open_file(path, kind=kind)(torch.zeros(1, 3, 4, 4))


LET_GO_ELSEWHERE = """
import faulthandler, gc, signal, sys, threading
import torch
from vitrail.export import open_file
faulthandler.enable()  # as pytest does: signals have a stack of their own
held = [open_file(sys.argv[1], kind="openvino")]
held[0](torch.zeros(1, 3, 4, 4))
letting_go = threading.Thread(target=lambda: (held.clear(), gc.collect()))
letting_go.start()
letting_go.join()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("heard")
"""


def test_a_signal_is_heard_after_another_thread_let_go_of_openvino(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    write_graph(tmp_path / "m.onnx", [("Identity", "x", "y")])
    command = [sys.executable, "-c", LET_GO_ELSEWHERE, str(tmp_path / "m.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr


def test_names_in_a_file_that_fails_stay_off_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    write_graph(tmp_path / "m.onnx", [("Reshape", "x", "y")], name="\x1b[31mred")
    with pytest.raises(UserError, match="cannot run pictures"):
        open_file(tmp_path / "m.onnx")(torch.zeros(1, 3, 4, 4))
    assert capfd.readouterr() == ("", "")


def write_steps(path: Path, kind: str) -> None:
    """An ONNX file of loops, of functions that call one another, of a huge or a whole answer."""
    onnx = pytest.importorskip("onnx", reason="the extra 'export' is not installed")
    make = onnx.helper
    ends = [make.make_tensor_value_info(name, 1, None) for name in ("x", "y")]
    turns = [make.make_tensor_value_info(f"{name}{i}", 9 if name == "go" else 1, None)
             for i in "ab" for name in ("go", "v")]  # fmt: skip
    body = make.make_graph(
        [make.make_node("Identity", [f"{n}a"], [f"{n}b"]) for n in ("go", "v")], "body",
        [make.make_tensor_value_info("i", 7, []), *turns[:2]], turns[2:],
    )  # fmt: skip
    loop = make.make_node("Loop", ["", "yes", "x"], ["y"], body=body)
    aside = make.make_graph([loop], "aside", [], ends[1:])
    steps = {
        "loop": [loop],
        "hidden": [make.make_node("If", ["yes"], ["y"], then_branch=aside, else_branch=aside)],
        "large": [make.make_node("Expand", ["x", "size"], ["y"])],
        "whole": [make.make_node("Cast", ["x"], ["y"], to=7)],
        "brain": [make.make_node("Cast", ["x"], ["y"], to=16)],
    }
    imports = [make.make_opsetid("", 18), make.make_opsetid("own", 1)]
    functions = []
    for i in range(30):
        calls = [(f"f{i + 1}", "a", "c"), (f"f{i + 1}", "c", "b")] if i < 29 else [("g", "a", "b")]
        inner = [make.make_node(n, [a], [b], domain="own" if n != "g" else "") for n, a, b in calls]
        functions.append(make.make_function("own", f"f{i}", ["a"], ["b"], inner, imports))
    nodes = steps.get(kind, [make.make_node("f0", ["x"], ["y"], domain="own")])
    ends[1].type.tensor_type.elem_type = {"whole": 7, "brain": 16}.get(kind, 1)
    fixed = [make.make_tensor("yes", 9, [], [True]), make.make_tensor("size", 7, [2], [10**7] * 2)]
    graph = make.make_graph(nodes, "g", ends[:1], ends[1:], fixed)
    functions = functions if kind == "functions" else []
    made = make.make_model(graph, opset_imports=imports, functions=functions, ir_version=9)
    path.write_bytes(made.SerializeToString())


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
@pytest.mark.parametrize(
    ("kind", "why"), [("loop", "repeats steps"), ("hidden", "repeats"), ("functions", "stands for")]
)
def test_steps_without_end_are_refused_before_the_file_is_opened(
    kind: str, why: str, runtime: str, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime" if runtime == "onnx" else "openvino")
    write_steps(tmp_path / "m.onnx", kind)
    with pytest.raises(UserError, match=f"m.onnx' is not opened: it {why}"):
        open_file(tmp_path / "m.onnx", kind=runtime)


@pytest.mark.parametrize("kind", ["large", "whole", "brain"])
def test_answers_that_no_memory_holds_and_that_are_no_logits(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    write_steps(tmp_path / "m.onnx", kind)
    with pytest.raises(UserError, match="m.onnx (cannot run pictures|answers with torch.int64)"):
        open_file(tmp_path / "m.onnx")(torch.zeros(1, 1))
