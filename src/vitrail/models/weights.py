"""Released weights into our models: read, rename, check, fit, load strictly.

Files are safetensors, ``.npz`` read without pickle, or ``.pth``/``.pt``/``.bin``/``.ckpt``/``.tar``
read with ``weights_only=True``: nothing in a file is ever run. One reader serves our models and
timm's, so that one file means one set of weights.
"""

import pickle
import re
import sys
import warnings
from _compat_pickle import IMPORT_MAPPING
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vitrail.errors import UserError, printable
from vitrail.layers.grid import Grid
from vitrail.layers.position import Table, resize_table
from vitrail.tensors import load_tensors

Renames = Sequence[tuple[str, str | Callable[[re.Match[str]], str]]]
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
        UserError: no such file, not a weight file, or one that holds more than tensors.
    """
    path, prefer = choice(path, prefer)
    if not path.is_file():
        raise UserError(f"no weight file at {str(path)!r}")
    if path.suffix == ".safetensors":
        return bare_names(load_tensors(path)[0])
    try:
        content = read_npz(path) if path.suffix == ".npz" else read_pickle(path)
    except Exception as error:  # every reader has errors of its own; all mean the same here
        raise UserError(
            f"cannot read {str(path)!r} as plain weights ({reason(error)}); Vitrail runs no code "
            "from files: save its state dict alone, or convert it to .safetensors where it was made"
        ) from error
    return unwrap(content, path, prefer)


def choice(path: str | Path, prefer: Prefer = "averaged") -> tuple[Path, Prefer]:
    """A file and which of its weights, ``FILE#raw``."""
    name, _, word = str(path).rpartition("#")
    if name and word in ("raw", "averaged") and not Path(path).exists():
        return Path(name), "raw" if word == "raw" else "averaged"
    return Path(path), prefer


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
NUMPY_TYPES = re.compile(r"numpy\.(dtypes\.)?[A-Za-z]\w*")


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


def bare_names(state: State, say: bool = True) -> State:
    """Names without what wrappers put before them, in any order and number.

    A prefix goes where nearly all names carry it; what does not carry it is no part of the model.
    """
    state = {INSIDE.sub("", name): tensor for name, tensor in state.items()}
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


def rename(state: Mapping[str, Tensor], renames: Renames) -> State:
    """Our names; several old names of one tensor meet in one, after it is checked that they agree.

    Raises:
        UserError: two names that should share a tensor differ.
    """
    ours: State = {}
    origin: dict[str, str] = {}
    for old, tensor in state.items():
        new = old
        for pattern, into in renames:
            new = re.sub(pattern, into, new)
        if new in ours and not torch.equal(ours[new], tensor):
            raise UserError(
                f"{origin[new]!r} and {old!r} should be one shared tensor but differ; this file "
                "comes from a port that separated them, and is another model"
            )
        ours.setdefault(new, tensor)
        origin.setdefault(new, old)
    return ours


def fit(state: State, model: nn.Module) -> State:
    """Adapt what a user may change: classes, input channels, and the size of position tables."""
    own = model.state_dict()
    drop_head(state, own, [n for n in state if n.startswith("head.")])
    for name, tensor in state.items():
        if name not in own or own[name].shape == tensor.shape:
            continue
        if tensor.dim() == 4 and own[name].shape[2:] == tensor.shape[2:] and is_stem(own, name):
            state[name] = fit_channels(tensor, own[name].shape[1])
    return fit_tables(state, model)


def drop_head(state: State, own: Mapping[str, Tensor], names: Sequence[str]) -> None:
    """Take a head of another shape out of ``state``, and say that a new one begins."""
    other = [n for n in names if n not in own or own[n].shape != state[n].shape]
    there = [n for n in other if n in own and n.endswith("weight")]
    if there:
        warnings.warn(
            f"the head is new: that of the weights knows {state[there[0]].shape[0]} classes, the "
            f"model {own[there[0]].shape[0]}",
            stacklevel=2,
        )
    for name in other:
        del state[name]


def fit_tables(state: State, model: nn.Module) -> State:
    """Position tables resized to what the model was built for; all else as it is."""
    own = model.state_dict()
    tables = {f"{n}.table": m for n, m in model.named_modules() if isinstance(m, Table)}
    for name, tensor in state.items():
        if name not in own or own[name].shape == tensor.shape:
            continue
        if name == "position":
            state[name] = fit_table(tensor, model)
        if name in tables:
            state[name] = tables[name].fitted(tensor)
    return state


def is_stem(own: Mapping[str, Tensor], name: str) -> bool:
    """Whether a tensor is the first convolution of the model."""
    return name == next(n for n, t in own.items() if t.dim() == 4)


def fit_channels(kernel: Tensor, channels: int) -> Tensor:
    """A stem for other input channels: repeat the filters in turn, keep the response's scale."""
    have = kernel.shape[1]
    repeated = kernel.repeat(1, -(-channels // have), 1, 1)[:, :channels]
    if channels == 1:
        return kernel.sum(1, keepdim=True)
    return repeated * (have / channels)


def fit_table(table: Tensor, model: Any) -> Tensor:
    """A square position table resized to the model's grid.

    Raises:
        UserError: its entries form no square.
    """
    grid: Grid = model.grid
    extra: int = model.extra
    side = int((table.shape[1] - extra) ** 0.5)
    if side * side + extra != table.shape[1]:
        raise UserError(
            f"a position table of {table.shape[1]} entries is no square grid with {extra} tokens "
            "in front; build the model with the image size of these weights, and with pool='mean' "
            "for weights without a class token"
        )
    return resize_table(table, (side, side), grid, extra, model.config.resize)


def translate(
    state: Mapping[str, Tensor], model: nn.Module, renames: Renames, unused: str = "$^"
) -> State:
    """Our names, without what released models carry and never use.

    Raises:
        UserError: two names that should share a tensor differ.
    """
    own = model.state_dict()
    ours = rename(state, renames)
    return {n: t for n, t in ours.items() if n in own or not re.search(unused, n)}


REDUCERS = ".reducer."
"""What a reducer's tensors have in their names."""


def load(
    model: nn.Module, state: Mapping[str, Tensor], renames: Renames, unused: str = "$^"
) -> None:
    """Load a state dict under our names or a released model's, strictly.

    Only the head may be missing (another number of classes), what is fixed at building (buffers
    other than the statistics of batch norms), and what reducers learn, where the weights are those
    of a model without any.

    Raises:
        UserError: tensors missing, left over or of another shape; the first few are named.
    """
    own = model.state_dict()
    ours = fit(translate(state, model, renames, unused), model)
    fixed = {n for n, _ in model.named_buffers() if not n.endswith(("running_mean", "running_var"))}
    plain = not any(REDUCERS in n for n in ours)
    missing = [
        n
        for n in own
        if n not in ours
        and n not in fixed
        and not n.startswith("head.")
        and not (plain and REDUCERS in n)
    ]
    left = [n for n in ours if n not in own]
    wrong = [n for n in ours if n in own and own[n].shape != ours[n].shape]
    for what, names in (("missing", missing), ("unknown", left), ("of another shape", wrong)):
        if names:
            raise UserError(
                f"these weights do not fit {type(model).__name__}: {len(names)} tensors {what}, "
                f"such as {', '.join(names[:3])}; is this the same variant?"
            )
    model.load_state_dict({**own, **ours})
