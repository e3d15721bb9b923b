"""One reader of weights for our models and timm's: any file, any nest, nothing in it ever run.

safetensors; ``.npz`` without pickle; ``.pth``, ``.pt``, ``.bin``, ``.ckpt``, ``.tar`` by torch's
restricted reader. One file means one set of weights, under the names of the bare model.
"""

import pickle
import re
import sys
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vitrail.errors import UserError, printable
from vitrail.limits import FREE_BYTES, UNPACKED_RATIO, format_amount
from vitrail.tensors import load_tensors

State = dict[str, Tensor]
Prefer = Literal["averaged", "raw"]

AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "averaged_model")
RAW = ("state_dict", "model_state_dict", "model", "module", "net", "network", "student", "weights")
"""What training codes call the weights inside a checkpoint, those averaged over steps first."""
PREFIXES = ("module.", "model.")
"""What wrappers put before each name."""


def read_weights(path: str | Path, prefer: Prefer = "averaged") -> State:
    """The tensors of a file, out of whatever nest, under the names of the bare model.

    Where a file has weights as trained and weights averaged over the steps (EMA), the averaged
    ones are taken, and a warning says so; ``FILE#raw`` and ``FILE#averaged`` choose by hand.

    Raises:
        UserError: no such file, not a weight file, or one that holds more than tensors, or would
            take far more memory than it has bytes.
    """
    path, prefer = choice(path, prefer)
    if not path.is_file():
        raise UserError(f"no weight file at {str(path)!r}")
    if path.suffix == ".safetensors":
        return bare_names(load_tensors(path)[0])
    refuse_unpacked(path)
    try:
        content = read_npz(path) if path.suffix == ".npz" else read_pickle(path)
    except Exception as error:  # every reader has errors of its own; all mean the same here
        raise UserError(
            f"cannot read {str(path)!r}: {reason(error)}; what cannot be read as weights alone is "
            "not opened, Vitrail runs no code from files: save the state dict alone, or convert "
            "it to .safetensors where it was made"
        ) from error
    return refuse_claims(unwrap(content, path, prefer), path)


def choice(path: str | Path, prefer: Prefer = "averaged") -> tuple[Path, Prefer]:
    """A file and which of its weights, ``FILE#raw``."""
    name, _, word = str(path).rpartition("#")
    if name and word in ("raw", "averaged") and not Path(path).exists():
        return Path(name), "raw" if word == "raw" else "averaged"
    return Path(path), prefer


def refuse_unpacked(path: Path) -> None:
    """Archives whose members unpack to far more than they hold are not read.

    Raises:
        UserError: it is one.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # no archive, or one that no reader of weights takes either
    packed = path.stat().st_size
    if size > max(FREE_BYTES, UNPACKED_RATIO * packed):
        raise too_large(path, size, packed)


def refuse_claims(state: State, path: Path) -> State:
    """``state``, if its tensors are not far larger than their file.

    The views in a file of torch's can claim any shape: of one number, repeated without end.

    Raises:
        UserError: they are.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    packed = path.stat().st_size
    if size > max(FREE_BYTES, UNPACKED_RATIO * packed):
        raise too_large(path, size, packed)
    return state


def too_large(path: Path, size: int, packed: int) -> UserError:
    """The one line for a file of few bytes that stand for many."""
    return UserError(
        f"cannot read {str(path)!r}: its {format_amount(packed)} stand for {format_amount(size)} "
        "of weights; save the state dict anew, where it was made"
    )


def read_npz(path: Path) -> State:
    """Arrays of a NumPy archive; pickled objects are refused by NumPy."""
    import numpy

    with numpy.load(path, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(numpy.array(arrays[name])) for name in arrays.files}


def read_pickle(path: Path) -> Any:
    """A torch file by torch's restricted reader: tensors and plain containers.

    Objects of settings that checkpoints carry beside them (argparse, omegaconf, NumPy's numbers,
    classes of packages) become empty stand-ins: nothing of theirs is looked up or run. Functions
    and the standard library's own classes are refused.
    """
    stand_ins: dict[str, Any] = {}
    while True:
        allowed: list[Any] = [(stand_in, name) for name, stand_in in stand_ins.items()]
        try:
            with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of older formats, in torch's own words
                return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            asked = re.search(r"GLOBAL (\S+) was not an allowed", str(error))
            name = _full_name(asked[1]) if asked else ""
            if name in stand_ins or not _is_setting(name) or len(stand_ins) >= MOST_KINDS:
                raise
            stand_ins[name] = IgnoredMapping if MAPPINGS.search(name) else Ignored


class Ignored:
    """Stands for an object of somebody's class; holds nothing and does nothing."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


class IgnoredMapping:
    """Stands for a class of mappings; its objects are plain ones."""

    def __new__(cls, *_: Any) -> Any:
        return OrderedDict()


MOST_KINDS = 200
"""Classes of settings in one file."""
MAPPINGS = re.compile(r"(Dict|dict|CfgNode|Box|Munch)$")
STANDARD = ("argparse.Namespace", "types.SimpleNamespace", "collections.defaultdict", "typing.Any")
STANDARD_MODULES = ("pathlib", "datetime", "enum", "decimal", "uuid")
BUILTINS = re.compile(
    "set|frozenset|slice|complex|range|object|dict|list|tuple|int|float|str|bytes|bool"
)
NUMPY = re.compile(r"numpy\.(core|_core)\.(multiarray|numeric)\.(scalar|_reconstruct|_frombuffer)")
NUMPY_TYPES = re.compile(
    r"numpy\.(dtypes\.\w+|dtype|ndarray|bool_?|str_|bytes_|(u?int|float|complex)\d+)"
)


def _full_name(name: str) -> str:
    return name if "." in name else f"builtins.{name}"


def _is_setting(name: str) -> bool:
    """Whether a name in a pickle is a class of settings, whose objects can be passed over."""
    module, _, last = name.rpartition(".")
    if module in ("builtins", "__builtin__"):
        return BUILTINS.fullmatch(last) is not None
    if name in STANDARD or module in STANDARD_MODULES:
        return True
    package = module.split(".")[0]
    if package in sys.stdlib_module_names or package in IMPORT_MAPPING:  # names of Python 2 too
        return False
    if package == "numpy":
        return bool(NUMPY.fullmatch(name) or NUMPY_TYPES.fullmatch(name))
    return module != "" and last[:1].isupper()


def reason(error: Exception) -> str:
    """Why a file is no plain weights; never torch's advice to load it unsafely."""
    text = str(error)
    named = re.search(r"GLOBAL (\S+)", text)
    if named:
        return f"it calls {printable(named[1])[:80]}"
    if "weights_only" in text or "Unpickl" in text or "unsafe" in text:
        return "it holds more than tensors, or is damaged"
    lines = text.strip().splitlines()
    return printable(lines[0])[:160] if lines else type(error).__name__


def unwrap(content: Any, path: Path, prefer: Prefer = "averaged") -> State:
    """The named tensors inside a checkpoint, under the names of the bare model.

    Raises:
        UserError: there are none.
    """
    state = content
    for _ in range(MOST_NESTS):
        inner = choose(state, path, prefer)
        if inner is None:
            break
        state = inner
    found = {str(n): v for n, v in state.items() if is_plain(v)} if is_mapping(state) else {}
    if not found:
        raise UserError(
            f"{str(path)!r} holds no named tensors; save a model's state dict, not the model"
        )
    return bare_names(choose_by_prefix(found, path, prefer))


MOST_NESTS = 8


def is_mapping(value: Any) -> bool:
    """Whether a value holds others by name."""
    return isinstance(value, Mapping)


def is_plain(value: Any) -> bool:
    """Whether a value is a tensor with values in memory."""
    return (
        isinstance(value, Tensor)
        and not value.is_quantized
        and not value.is_nested
        and value.layout == torch.strided
        and value.device.type == "cpu"
    )


def choose(content: Any, path: Path, prefer: Prefer) -> Mapping[str, Any] | None:
    """The weights one level further in; None where these are the tensors."""
    if not is_mapping(content):
        return None

    def first(names: Sequence[str]) -> Any:
        found = (content.get(name) for name in names)
        return next((v for v in found if is_mapping(v) and holds_tensors(v)), None)

    averaged, raw = first(AVERAGED), first(RAW)
    if averaged is None or raw is None:
        inner: Mapping[str, Any] | None = raw if averaged is None else averaged
        return inner
    say_choice(path, prefer)
    return averaged if prefer == "averaged" else raw


def holds_tensors(content: Mapping[str, Any], depth: int = 3) -> bool:
    """Whether there are tensors in a mapping, or not far inside."""
    values = list(content.values())
    if any(isinstance(v, Tensor) for v in values):
        return True
    return depth > 0 and any(holds_tensors(v, depth - 1) for v in values if is_mapping(v))


def choose_by_prefix(state: State, path: Path, prefer: Prefer) -> State:
    """One of two sets that stand side by side as ``model.NAME`` and ``ema_model.NAME``."""
    for word in AVERAGED:
        averaged = {n: t for n, t in state.items() if n.startswith(f"{word}.")}
        raw = {n: t for n, t in state.items() if n not in averaged}
        inner = bare_names({n.removeprefix(f"{word}."): t for n, t in averaged.items()}, say=False)
        if averaged and set(bare_names(raw, say=False)) <= set(inner):
            if raw:
                say_choice(path, prefer)
            return raw if raw and prefer == "raw" else inner
    return state


def say_choice(path: Path, prefer: Prefer) -> None:
    """One line where a file holds two sets of weights."""
    other = "raw" if prefer == "averaged" else "averaged"
    warnings.warn(
        f"{path.name} holds weights as trained and averaged over the steps: the "
        f"{'averaged' if prefer == 'averaged' else 'trained'} ones are taken; for the other ones "
        f"say {path.name}#{other}",
        stacklevel=2,
    )


def agree(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same; torch compares those of one type alone."""
    return one.dtype == other.dtype and torch.equal(one, other)


def bare_names(state: State, say: bool = True) -> State:
    """Names without what wrappers put before them, in any order and number.

    A prefix goes where nearly all names carry it; what does not carry it is no part of the model.

    Raises:
        UserError: two tensors of one name then, which differ.
    """
    bare: State = {}
    for name, tensor in state.items():
        short = INSIDE.sub("", name)
        if short in bare and not agree(bare[short], tensor):
            raise UserError(
                f"the weights hold {printable(short)[:80]!r} twice, with and without what torch's "
                "wrappers put before it, and they differ; save one of the two where it was made"
            )
        bare[short] = tensor
    state = bare
    while True:
        state = {n: t for n, t in state.items() if n not in COUNTERS}
        carried = [p for p in PREFIXES if state and _share(state, p) >= NEARLY_ALL]
        if not carried:
            return state
        left = [n for n in state if not n.startswith(carried[0])]
        if left and say:
            warnings.warn(
                f"{len(left)} tensors beside the model are passed over, such as "
                f"{printable(left[0])}",
                stacklevel=2,
            )
        state = {n.removeprefix(carried[0]): t for n, t in state.items() if n not in set(left)}


NEARLY_ALL = 0.9
INSIDE = re.compile(r"(?:(?<=\.)|^)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What torch's own wrappers put into names; no model has such names itself."""
COUNTERS = ("n_averaged",)
"""What torch's AveragedModel counts beside the weights."""


def _share(state: State, prefix: str) -> float:
    return sum(name.startswith(prefix) for name in state) / len(state)
