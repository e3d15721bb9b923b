"""Archives of torch.export's that try to run something; none of them does."""

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import pytest
import torch

from vitrail.errors import UserError
from vitrail.export import open_file

Members = dict[str, bytes]
CODE = "__import__('pathlib').Path('sprung').touch()"


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (CODE,)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Members:
    """What a small honest program holds, by name below the archive's first folder."""
    file = tmp_path_factory.mktemp("pt2") / "plain.pt2"
    rows = torch.export.Dim("rows", min=2, max=64)
    program = torch.export.export(
        torch.nn.Linear(3, 2), (torch.zeros(4, 3),), dynamic_shapes=({0: 2 * rows},)
    )
    torch.export.save(program, file)
    with ZipFile(file) as archive:
        return {i.filename.partition("/")[2]: archive.read(i) for i in archive.infolist()}


def write(path: Path, members: Members, compression: int = ZIP_STORED) -> Path:
    with ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(f"plain/{name}", content)
    return path


def in_program(change: Callable[[dict[str, Any]], object]) -> Callable[[Members], object]:
    """A change to the program's JSON."""

    def apply(members: Members) -> None:
        program = json.loads(members["models/model.json"])
        change(program)
        members["models/model.json"] = json.dumps(program).encode()

    return apply


def node(program: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = program["graph_module"]["graph"]["nodes"][0]
    return found


def pickled_weights(members: Members) -> None:
    config = json.loads(members["data/weights/model_weights_config.json"])
    config["config"]["weight"]["use_pickle"] = True
    members["data/weights/model_weights_config.json"] = json.dumps(config).encode()
    members["data/weights/weight_0"] = pickle.dumps(Trap())


def in_weights(members: Members, sizes: list[dict[str, int]]) -> None:
    """One number, said to be many."""
    config = json.loads(members["data/weights/model_weights_config.json"])
    about = config["config"]["weight"]["tensor_meta"]
    about.update(sizes=sizes, strides=[{"as_int": 0}] * len(sizes))
    members["data/weights/model_weights_config.json"] = json.dumps(config).encode()


def renamed_input(program: dict[str, Any]) -> None:
    text = json.dumps(program["graph_module"])
    named = text.replace('"x"', '"x=[' + CODE.replace("'", "") + ']"').replace('"input"', '"y;z"')
    program["graph_module"] = json.loads(named)
    program["graph_module"]["graph"]["inputs"][-1]["as_tensor"]["name"] = f"x=[{CODE}]"


def with_size(text: str) -> Callable[[dict[str, Any]], None]:
    def change(program: dict[str, Any]) -> None:
        values = program["graph_module"]["graph"]["tensor_values"]
        sizes = next(v["sizes"] for v in values.values() if "as_expr" in v["sizes"][0])
        sizes[0]["as_expr"]["expr_str"] = text

    return change


def stored_inputs() -> bytes:
    content = io.BytesIO()
    torch.save(((Trap(),), {}), content)
    return content.getvalue()


def as_spec(kind: str, context: str = "null") -> Callable[[dict[str, Any]], None]:
    spec = json.dumps([1, {"type": kind, "context": context, "children_spec": []}])

    def change(program: dict[str, Any]) -> None:
        program["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = spec

    return change


def calls(target: str) -> Callable[[Members], object]:
    return in_program(lambda p: node(p).update(target=target))


ATTACKS: dict[str, Callable[[Members], object]] = {
    "sample inputs": lambda m: m.update({"data/sample_inputs/model.pt": stored_inputs()}),
    "raw pickle": lambda m: m.update({"data/sample_inputs/model.pt": pickle.dumps(Trap())}),
    "pickled weights": pickled_weights,
    "opaque object": lambda m: m.update({"data/constants/opaque_obj_0": pickle.dumps(Trap())}),
    "custom object": lambda m: m.update({"data/constants/custom_obj_0": b""}),
    "old constants": lambda m: m.update({"data/constants/model.pt": pickle.dumps(Trap())}),
    "compiled library": lambda m: m.update({"data/aotinductor/model/model.so": b"\x7fELF"}),
    "second model": lambda m: m.update({"models/other.json": m["models/model.json"]}),
    "way out": lambda m: m.update({"../../sprung": b""}),
    "os.system": calls("torch.os.system"),
    "operator.methodcaller": calls("_operator.methodcaller"),
    "torch.load": calls("torch.load"),
    "extension": calls("#aten:foo"),
    "library": calls("torch.ops.load_library"),
    "other namespace": calls("torch.ops.higher_order.cond"),
    "reads files": calls("torch.ops.aten.from_file.default"),
    "prints": calls("torch.ops.aten._print.default"),
    "looks beyond its tensor": calls("torch.ops.aten._reshape_alias.default"),
    "writes beyond its tensor": calls("torch.ops.aten.max_pool2d_with_indices_backward.default"),
    "unchecked indices": calls("torch.ops.aten._sparse_coo_tensor_unsafe.default"),
    "sets the process": calls("torch.ops.aten.set_grad_enabled.default"),
    "absent": calls("torch.ops.aten.linear.nothing"),
    "no name": in_program(lambda p: node(p).update(target=["torch.load"])),
    "size runs": in_program(with_size(CODE)),
    "size reaches": in_program(with_size("Symbol('s77').__class__")),
    "size is huge": in_program(with_size("Integer(9)**Integer(9)**Integer(9)")),
    "power is huge": in_program(with_size("Pow(Integer(9),Pow(Integer(9),Integer(9)))")),
    "powers of powers": in_program(with_size("Pow(Pow(Integer(9),Integer(9)),Integer(9))")),
    "range runs": in_program(lambda p: p.update(range_constraints={CODE: {}})),
    "input's name": in_program(renamed_input),
    "dunder": in_program(lambda p: node(p).update(name="__class__")),
    "keyword": in_program(lambda p: node(p).update(name="import")),
    "spec imports": in_program(as_spec("os.system")),
    "spec of objects": in_program(as_spec("builtins.dict", '[{"__enum__": true, "fqn": "os:x"}]')),
    "wrong shape": in_program(lambda p: p.update(graph_module=None)),
    "empty": in_program(lambda p: p.clear()),
    "not JSON": lambda m: m.update({"models/model.json": b"{"}),
    "deep": lambda m: m.update({"models/model.json": b"[" * 100_000}),
    "torn weights": lambda m: m.update({"data/weights/weight_0": b""}),
    "no objects": lambda m: m.update(
        {"data/constants/model_constants_config.json": b'{"config": 3.5}'}
    ),
    "no weights": lambda m: m.pop("data/weights/weight_0"),
    "claimed weights": lambda m: in_weights(m, [{"as_int": 10**9}, {"as_int": 3}]),
    "no inputs": lambda m: m.pop("data/sample_inputs/model.pt"),
}


def grows(target: str, a: int, b: int) -> Callable[[Members], object]:
    """A whole number computed before all else."""
    sizes = [{"name": n, "arg": {"as_int": v}, "kind": 1} for n, v in (("a", a), ("b", b))]

    def change(program: dict[str, Any]) -> None:
        graph = program["graph_module"]["graph"]
        made = dict.fromkeys(graph["nodes"][0]) | {"metadata": {}, "target": target}
        outputs = [{"as_sym_int": {"as_name": "grown"}}]
        graph["nodes"].insert(0, made | {"inputs": sizes, "outputs": outputs})
        graph["sym_int_values"]["grown"] = {"as_int": 3}

    return in_program(change)


ATTACKS["power hangs"] = grows("_operator.pow", 10**9, 10**9)
ATTACKS["no size"] = grows("_operator.mul", 2**62, 2**62)


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_in_a_file_runs(
    name: str, plain: Members, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    members = dict(plain)
    ATTACKS[name](members)
    assert members != plain
    with pytest.raises(UserError, match="model.pt2") as caught:
        open_file(write(tmp_path / "model.pt2", members))(torch.zeros(4, 3))
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt2"]


def test_the_honest_file_runs_and_its_comments_do_not(
    plain: Members, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def with_comments(program: dict[str, Any]) -> None:
        node(program)["metadata"] = {"stack_trace": f"a\n{CODE}\n", "torch_fn": CODE}
        program["guards_code"] = [CODE]

    members = dict(plain)
    in_program(with_comments)(members)
    answer = open_file(write(tmp_path / "model.pt2", members))
    assert answer(torch.zeros(6, 3)).shape == (6, 2)
    assert not (tmp_path / "sprung").exists()
    with pytest.raises(UserError, match="compressed"):
        open_file(write(tmp_path / "packed.pt2", plain, ZIP_DEFLATED))


def test_a_damaged_program_says_why_and_prints_nothing(
    plain: Members, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    members = dict(plain)
    node_of = in_program(lambda p: node(p)["inputs"][0]["arg"].update(as_tensor={"name": "gone"}))
    node_of(members)
    with pytest.raises(UserError, match="gone"):
        open_file(write(tmp_path / "model.pt2", members))
    assert capfd.readouterr() == ("", "")


def test_sizes_may_be_multiplied_and_raised(plain: Members, tmp_path: Path) -> None:
    for operator, a, b in (("pow", 2, 5), ("mul", 3, 4), ("pow", 1, 10**9), ("pow", 2, -70)):
        members = dict(plain)
        grows(f"_operator.{operator}", a, b)(members)
        path = tmp_path / f"{operator}{a}{b}.pt2"
        assert open_file(write(path, members))(torch.zeros(4, 3)).shape == (4, 2)


def test_an_answer_of_no_numbers_is_one_line(tmp_path: Path) -> None:
    class Which(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.argmax(1)

    program = torch.export.export(Which(), (torch.zeros(4, 3),))
    torch.export.save(program, tmp_path / "model.pt2")
    with pytest.raises(UserError, match="no numbers"):
        open_file(tmp_path / "model.pt2")(torch.zeros(4, 3))
