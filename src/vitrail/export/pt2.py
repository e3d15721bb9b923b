"""A ``.pt2`` read so that nothing in it can run: what is safe is taken over, the rest refused.

``torch.export.load`` unpickles, evaluates and looks up by name whatever a file says. Here the
archive is read first and written anew in memory, of these members alone: weights and constants as
raw bytes, sample inputs that ``weights_only`` reads, and the program. In the program every
operator must be one of :mod:`vitrail.export.operators`, every name a plain one, every size an
arithmetic expression; comments and guards, which torch turns into code, are left out.
"""

import ast
import io
import json
import keyword
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import torch

from vitrail.errors import UserError, printable
from vitrail.export.operators import Unsafe, check_operator
from vitrail.limits import FREE_BYTES, UNPACKED_RATIO

_WHOLE = re.compile(
    r"archive_(format|version)|byteorder|\.data/(version|serialization_id)|models/model\.json|"
    r"data/sample_inputs/model\.pt|"
    r"data/weights/(model_weights_config\.json|weight_\d+)|"
    r"data/constants/(model_constants_config\.json|tensor_\d+)"
)
"""Members of an archive below its first folder; libraries, objects and pickles are none of them."""
_CONFIG = re.compile(r"data/(weights|constants)/model_\w+_config\.json")
_PROGRAM, _INPUTS = "models/model.json", "data/sample_inputs/model.pt"
_PLAIN = re.compile(r"(?!.*(^|\.)__)[\w.+-]{0,200}")
_FORMS = {
    "in_spec": re.compile(r".*", re.DOTALL),  # checked as JSON
    "out_spec": re.compile(r".*", re.DOTALL),
    "as_string": re.compile(r"[\w,.\-> ]{0,200}"),
    "name": re.compile(r"(?!__)[A-Za-z_]\w{0,199}|"),
}
"""Texts that may be more, or must be less, than a plain name."""
_SYMBOL = re.compile(r"[a-z]{1,3}\d{1,6}")
_CALLS = {
    "Add", "Mul", "Pow", "Min", "Max", "Mod", "FloorDiv", "CeilDiv", "CleanDiv", "PythonMod",
    "ModularIndexing", "Integer", "Rational", "Float", "Symbol", "TruncToInt", "ToFloat",
    "FloorToInt", "CeilToInt", "RoundToInt", "IntTrueDiv", "FloatTrueDiv", "Identity", "Where",
    "Eq", "Ne", "Lt", "Le", "Gt", "Ge", "Equality", "Unequality", "StrictLessThan", "LessThan",
    "StrictGreaterThan", "GreaterThan", "And", "Or", "Not",
}  # fmt: skip
_MOST_DIGITS = 19
_MOST_EXPONENTS = 64
"""Of all powers in one size, multiplied."""


def safe_archive(path: Path) -> io.BytesIO:
    """The archive anew, without anything that could run, for ``torch.export.load``.

    Raises:
        UserError: no archive of torch.export's, or one that holds more than a plain program.
    """
    try:
        return _rewritten(_members(path))
    except Unsafe as error:
        raise UserError(
            f"{str(path)!r} is not opened: {printable(error)}; Vitrail runs no code from files: "
            "ask for the ONNX form (vitrail export RUN --format onnx)"
        ) from error
    except Exception as error:  # right syntax of a wrong shape fails in every way that there is
        raise UserError(
            f"cannot read {str(path)!r} as a torch.export program: "
            f"{printable(error) or type(error).__name__}"
        ) from error


def _members(path: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with ZipFile(path) as archive:
        for member in archive.infolist():
            name = member.filename.partition("/")[2]
            if not _WHOLE.fullmatch(name) or name in found:
                raise Unsafe(f"it holds {member.filename[:100]!r}")
            if member.compress_type != ZIP_STORED or member.flag_bits & 1:
                raise Unsafe(f"{name} is compressed or encrypted")
            found[name] = archive.read(member)
    for needed in (_PROGRAM, _INPUTS, "archive_version"):
        if needed not in found:
            raise ValueError(f"it lacks {needed}")
    return found


def _rewritten(members: dict[str, bytes]) -> io.BytesIO:
    for name in filter(_CONFIG.fullmatch, members):
        _check_payloads(json.loads(members[name]), members, name.rpartition("/")[0])
    members[_PROGRAM] = json.dumps(_checked_program(json.loads(members[_PROGRAM]))).encode()
    members[_INPUTS] = _plain_tensors(members[_INPUTS])
    anew = io.BytesIO()
    with ZipFile(anew, "w", ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(f"model/{name}", content)
    anew.seek(0)
    return anew


def _plain_tensors(content: bytes) -> bytes:
    import pickle

    try:
        inputs = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, AttributeError) as error:
        raise Unsafe("its sample inputs hold more than tensors") from error
    anew = io.BytesIO()
    torch.save(inputs, anew)
    return anew.getvalue()


def _check_payloads(config: Any, members: Mapping[str, bytes], folder: str) -> None:
    """Weights and constants are raw bytes, not pickles, and as many as they are said to be.

    Torch takes an empty member for zeros of any size, and one number for as many as are claimed.
    """
    for name, about in config["config"].items():
        plain = re.fullmatch(r"(weight|tensor)_\d+", about["path_name"])
        if about["use_pickle"] is not False or not plain or not _PLAIN.fullmatch(name):
            raise Unsafe(f"the weights {name[:100]!r} are pickled")
        held = len(members[f"{folder}/{about['path_name']}"])
        claimed = math.prod(size["as_int"] for size in about["tensor_meta"]["sizes"])
        if claimed and (not held or claimed > max(FREE_BYTES, UNPACKED_RATIO * held)):
            raise ValueError(f"{held} bytes stand for the {claimed} numbers of {name[:100]!r}")


def _checked_program(program: Any) -> Any:
    """The program, if every part of it is plain; without metadata and guards."""
    program = _without_code(program)
    module = program["graph_module"]
    for signature in filter(None, (call["signature"] for call in module["module_call_graph"])):
        _check_spec(json.loads(signature["in_spec"]))
        _check_spec(json.loads(signature["out_spec"]))
    for node in _nodes(program):
        check_operator(node["target"])
    _check_texts(program)
    return program


def _without_code(value: Any) -> Any:
    """What torch would turn into comments, guards or imports is emptied."""
    empty: dict[str, Any] = {"metadata": {}, "guards_code": [], "treespec_namedtuple_fields": {}}
    if isinstance(value, dict):
        return {k: empty[k] if k in empty else _without_code(v) for k, v in value.items()}
    return [_without_code(v) for v in value] if isinstance(value, list) else value


def _nodes(value: Any) -> Iterator[Mapping[str, Any]]:
    """All calls in a program, those in its inner graphs too."""
    if isinstance(value, dict):
        if {"target", "inputs", "outputs"} <= value.keys():
            yield value
        for inner in value.values():
            yield from _nodes(inner)
    if isinstance(value, list):
        for inner in value:
            yield from _nodes(inner)


def _check_spec(value: Any) -> None:
    """Inputs and outputs are tensors in tuples, lists and dictionaries with plain keys."""
    if isinstance(value, list):
        for inner in value:
            _check_spec(inner)
    elif isinstance(value, dict):
        kinds = (None, "builtins.tuple", "builtins.list", "builtins.dict")
        context = value["context"]
        keys = json.loads(context) if isinstance(context, str) else context
        plain = keys is None or (isinstance(keys, list) and all(isinstance(k, str) for k in keys))
        if value["type"] not in kinds or not plain:
            raise Unsafe(f"its inputs are {str(value['type'])[:100]!r}")
        _check_spec(value["children_spec"])
    elif value != 1:
        raise Unsafe("its inputs are of an unknown form")


def _check_texts(value: Any, key: str = "") -> None:
    """Names are plain, sizes are arithmetic."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if key == "range_constraints":
                _check_size(name)
            elif not _PLAIN.fullmatch(name):
                raise Unsafe(f"it has the name {name[:100]!r}")
            _check_texts(inner, name)
    elif isinstance(value, list):
        for inner in value:
            _check_texts(inner, key)
    elif isinstance(value, str):
        _check_text(value, key)


def _check_text(text: str, key: str) -> None:
    if key == "expr_str":
        _check_size(text)
        return
    form = _FORMS.get(key, _PLAIN)
    if not form.fullmatch(text) or (key == "name" and keyword.iskeyword(text)):
        raise Unsafe(f"it has the name {text[:100]!r}")


def _check_size(text: str) -> None:
    """``text`` calls sympy's arithmetic on numbers and symbols, and nothing else."""
    if len(text) > 10_000:
        raise Unsafe("it has a size of many thousand letters")
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Unsafe(f"it has the size {text[:100]!r}") from error
    nodes = list(ast.walk(tree))
    exponents = math.prod(_exponent(node) for node in nodes)
    if not all(map(_is_arithmetic, nodes)) or exponents > _MOST_EXPONENTS:
        raise Unsafe(f"it has the size {text[:100]!r}")


def _exponent(node: ast.AST) -> int:
    """By how much a power multiplies a number's digits; 1 for what is none."""
    if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Pow"):
        return 1
    inside = [n for argument in node.args[1:] for n in ast.walk(argument)]
    numbers: list[Any] = [n.value for n in inside if isinstance(n, ast.Constant)]
    names = {n.id for n in inside if isinstance(n, ast.Name)}
    plain = names <= {"Integer", "Rational"} and all(isinstance(n, int) for n in numbers)
    if not plain or len(node.args) != 2 or node.keywords:
        return _MOST_EXPONENTS + 1
    return math.prod(max(1, number) for number in numbers)


def _is_arithmetic(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in _CALLS
    if isinstance(node, ast.Name):
        return node.id in _CALLS or _SYMBOL.fullmatch(node.id) is not None
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            return bool(
                _SYMBOL.fullmatch(node.value) or re.fullmatch(r"[\d.e+-]{1,30}", node.value)
            )
        return isinstance(node.value, bool) or len(str(node.value)) <= _MOST_DIGITS
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.Add | ast.Sub | ast.Mult | ast.FloorDiv | ast.Mod | ast.Div)
    plain = (ast.Expression, ast.keyword, ast.Load, ast.UnaryOp, ast.USub, ast.operator)
    return isinstance(node, plain)
