"""A ``.pt2`` read so that nothing in it can run: what is safe is taken over, the rest refused.

``torch.export.load`` unpickles, evaluates and looks up by name whatever a file says. Here the
archive is read first and written anew in memory, of these members alone: weights and constants as
raw bytes, sample inputs that ``weights_only`` reads, and the program. In the program every
operator must be one of ATen's that computes on tensors, every name a plain one, every size an
arithmetic expression; comments and guards, which torch turns into code, are left out.
"""

import ast
import io
import json
import keyword
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import torch

from vitrail.errors import UserError, printable

_WHOLE = re.compile(
    r"archive_(format|version)|byteorder|\.data/(version|serialization_id)|models/model\.json|"
    r"data/sample_inputs/model\.pt|"
    r"data/weights/(model_weights_config\.json|weight_\d+)|"
    r"data/constants/(model_constants_config\.json|tensor_\d+)"
)
"""Members of an archive below its first folder; libraries, objects and pickles are none of them."""
_CONFIG = re.compile(r"data/(weights|constants)/model_\w+_config\.json")
_PROGRAM, _INPUTS = "models/model.json", "data/sample_inputs/model.pt"
_ATEN = re.compile(r"torch\.ops\.aten\.([A-Za-z_]\w*)\.([A-Za-z_]\w*)")
_SCALAR = re.compile(
    r"_operator\.(add|sub|mul|floordiv|truediv|mod|neg|pow|getitem|lt|le|gt|ge|eq|ne|and_|or_)|"
    r"torch\.sym_(int|float|max|min|not|ite|sum)|math\.(floor|ceil|trunc|sqrt)"
)
"""What programs compute sizes with."""
_TEXTS = {"gelu", "gelu_", "div", "div_", "einsum", "conv1d", "conv2d", "conv3d", "index_reduce"}
_TEXTS |= {"scatter_reduce", "scatter_reduce_", "pad", "searchsorted", "meshgrid", "bucketize"}
"""Operators of ATen that take a text, and only to choose a way of computing; others name files."""
_KINDS = {"Tensor", "Int", "Float", "Bool", "Number", "String", "Optional", "List", "DeviceObj"}
"""Types of arguments and results of operators that only compute."""
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


class Unsafe(ValueError):
    """What a file holds that is not read."""


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
    except (BadZipFile, OSError, ValueError, LookupError, TypeError, RecursionError) as error:
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
        _check_payloads(json.loads(members[name]))
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


def _check_payloads(config: Any) -> None:
    """Weights and constants are raw bytes, not pickles."""
    for name, about in config["config"].items():
        plain = re.fullmatch(r"(weight|tensor)_\d+", about["path_name"])
        if about["use_pickle"] is not False or not plain or not _PLAIN.fullmatch(name):
            raise Unsafe(f"the weights {name[:100]!r} are pickled")


def _checked_program(program: Any) -> Any:
    """The program, if every part of it is plain; without metadata and guards."""
    program = _without_code(program)
    module = program["graph_module"]
    for signature in filter(None, (call["signature"] for call in module["module_call_graph"])):
        _check_spec(json.loads(signature["in_spec"]))
        _check_spec(json.loads(signature["out_spec"]))
    for node in _nodes(program):
        _check_operator(node["target"])
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


def _check_operator(target: Any) -> None:
    """Only operators that compute, found where torch keeps them."""
    if not isinstance(target, str):
        raise Unsafe("it calls something that has no name")
    if _SCALAR.fullmatch(target):
        return
    found = _ATEN.fullmatch(target)
    packet = getattr(torch.ops.aten, found[1], None) if found else None
    overload = getattr(packet, found[2], None) if found and packet is not None else None
    if found is None or not isinstance(overload, torch._ops.OpOverload):
        raise Unsafe(f"it calls {target[:100]!r}")
    schema = overload._schema
    kinds = {a.name: _kinds_of(a.type) for a in schema.arguments}
    kinds |= {f"result {i}": _kinds_of(r.type) for i, r in enumerate(schema.returns)}
    strange = {kind for some in kinds.values() for kind in some} - _KINDS
    texts = any("String" in some for some in kinds.values())
    if strange or (texts and found[1] not in _TEXTS):
        raise Unsafe(f"it calls {target[:100]!r}, which does more than compute on tensors")


def _kinds_of(kind: Any) -> set[str]:
    """Names of a type of torch's and of all inside it."""
    name = type(kind).__name__.removesuffix("Type")
    inner = kind.containedTypes() if hasattr(kind, "containedTypes") else []
    return {name}.union(*(_kinds_of(k) for k in inner))


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
    if not all(_is_arithmetic(node) for node in ast.walk(tree)):
        raise Unsafe(f"it has the size {text[:100]!r}")


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
