"""The models to measure: by their text, built, put on a device and made callable.

text --build--> nn.Module --precision, graph, device--> a call without arguments, to be timed
"""

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import nn

from vitrail.cost.counting import example
from vitrail.cost.timing import Timing, time_side_by_side
from vitrail.errors import UserError
from vitrail.limits import MOST, check_count, refuse_large_batch

Image = int | tuple[int, int]
Precision = Literal["float32", "bfloat16", "float16"]
Graph = Literal["eager", "compiled"]


class Build(Protocol):
    """Model text -> module: ``vitrail.create`` is such a function."""

    def __call__(self, text: str, /, *, classes: int, image: int, in_chans: int) -> nn.Module:
        """Build ``text`` for ``classes`` classes and pictures of edge ``image``."""
        ...


DEFAULT_BUILD = "vitrail:create"
"""Every text's builder, as ``"module:function"``: a fresh process can import it too."""


LONGEST_WINDOW = 10**5


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The conditions of a measurement; every one of them is written beside its figures.

    ``precision`` other than float32 runs under autocast, as users do. ``graph="compiled"`` means
    ``torch.compile`` with static shapes. ``threads=None`` leaves torch's own choice. ``limit_s``
    seconds are the most that timing takes. With ``checkpointing`` a training step computes
    activations again instead of keeping them.
    """

    image: int = 224
    batch: int = 8
    in_chans: int = 3
    classes: int = 1000
    threads: int | None = None
    precision: Precision = "float32"
    graph: Graph = "eager"
    device: str = "cpu"
    rounds: int = 6
    window_s: float = 0.3
    warmup_s: float = 2.0
    limit_s: float | None = None
    checkpointing: bool = False

    def __post_init__(self) -> None:
        check_device(self.device)
        for name in ("image", "batch", "in_chans", "rounds"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be 1 or more, not {getattr(self, name)}")
        if self.threads is not None:
            check_count(self.threads, "threads", most=4096)
        check_count(self.image, "the image size", most=MOST)
        check_count(self.classes, "classes", least=0, most=10**7)
        refuse_large_batch(self.batch, self.image, self.in_chans)
        for name in ("window_s", "warmup_s"):
            if not 0 <= getattr(self, name) <= LONGEST_WINDOW:
                raise UserError(
                    f"{name.removesuffix('_s')} must be 0 to {LONGEST_WINDOW} seconds, not "
                    f"{getattr(self, name)}"
                )
        for name, allowed in (("precision", PRECISIONS), ("graph", ("eager", "compiled"))):
            if getattr(self, name) not in allowed:
                raise UserError(
                    f"no {name} {getattr(self, name)!r}; there are {', '.join(allowed)}"
                )


def check_device(name: str) -> None:
    """Refuse a device that torch does not have here.

    Raises:
        UserError: no such device, or no driver for it.
    """
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError, ValueError) as error:
        why = str(error).strip().splitlines()[0]
        raise UserError(f"no device {name!r} here ({why}); try cpu, cuda or auto") from error


PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def find_build(build: Build | str) -> Build:
    """A builder, or the one that ``"module:function"`` names.

    Raises:
        UserError: there is no such module or function.
    """
    if not isinstance(build, str):
        return build
    module, _, function = build.partition(":")
    try:
        found: Build = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UserError(f"cannot build models with {build!r}: {error}") from error
    return found


def name_build(build: Build | str) -> str:
    """The ``"module:function"`` under which another process finds the same builder.

    Raises:
        UserError: it is not a function at the top of a module.
    """
    if isinstance(build, str):
        return build
    name = f"{getattr(build, '__module__', '?')}:{getattr(build, '__qualname__', '?')}"
    if "<" in name or "." in name.partition(":")[2] or name.startswith("__main__"):
        raise UserError(f"memory is measured in a fresh process, which cannot import {name}")
    return name


def build_on_device(text: str, settings: Settings, build: Build | str = DEFAULT_BUILD) -> nn.Module:
    """Build a model for the settings' pictures and put it on their device, in evaluation mode."""
    model = find_build(build)(
        text, classes=settings.classes, image=settings.image, in_chans=settings.in_chans
    )
    return model.to(settings.device).eval()


def forward(model: nn.Module, settings: Settings, *, batch: int) -> Callable[[], object]:
    """A call that runs the model on the same noise each time, in inference mode."""
    pictures = example(model, settings.image, batch=batch, in_chans=settings.in_chans)
    run = torch.compile(model, dynamic=False) if settings.graph == "compiled" else model
    cast = PRECISIONS[settings.precision]

    def call() -> object:
        with (
            torch.inference_mode(),
            torch.autocast(pictures.device.type, dtype=cast, enabled=cast is not None),
        ):
            return run(pictures)

    return call


@contextmanager
def allow_many_compiles(settings: Settings) -> Iterator[None]:
    """Room for many compiled models at once, where the settings ask for compiled ones.

    By itself torch falls back to eager, with a mere warning, after eight graphs of one ``forward``
    (models of one family share it): the figures would be eager ones under another name.
    """
    if settings.graph == "eager":
        yield
        return
    import torch._dynamo  # late: it takes a second

    with torch._dynamo.config.patch(recompile_limit=1000, fail_on_recompile_limit_hit=True):
        yield


def time_interleaved(
    calls: Mapping[str, Callable[[], object]],
    settings: Settings,
    on_window: Callable[[str], None] | None = None,
) -> dict[str, Timing]:
    """Time the calls interleaved in one process, under the settings' rounds and threads."""
    with allow_many_compiles(settings):
        return time_side_by_side(
            calls,
            rounds=settings.rounds,
            window_s=settings.window_s,
            warmup_s=settings.warmup_s,
            limit_s=settings.limit_s,
            threads=settings.threads,
            on_window=on_window,
        )
