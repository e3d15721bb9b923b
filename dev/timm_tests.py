"""timm's own tests, run over the models that Vitrail registers in timm.

timm's wheel holds no tests; take the file of the version that is installed:

    pip download timm==1.0.31 --no-deps --no-binary :all: -d build
    tar xf build/timm-1.0.31.tar.gz -C build
    python dev/timm_tests.py build/timm-1.0.31/tests/test_models.py --shallow          # all names
    python dev/timm_tests.py build/timm-1.0.31/tests/test_models.py cmt_ti vit_tiny    # some, whole

Nothing of timm's file is changed: it asks ``timm.list_models`` for names and gets ours. A line for
each test says how many names pass and fail; below stand the failures, and what is left out, with
the reason. Exit code 1 if anything fails.
"""

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import vitrail.timm
from vitrail.models.backbone import Backbone
from vitrail.models.zoo import entry, list_models

PREFIX = vitrail.timm.PREFIX
LEFT_OUT = {
    "pretrained": "needs released weights from the network; tests/hub and tests/parity load them",
    "inference": "numbers of timm's own test_* models",
    "torchscript": "deprecated in torch for torch.export; our modules are not written for it",
    "naflexvit": "about one model of timm",
    "gemma4": "about one model of timm",
}
"""Part of a test's name -> why it is not run."""
TOKENS = (
    "test_model_default_cfgs wants maps; families whose un-pooled features are tokens go through "
    "test_model_default_cfgs_non_std, as timm's own (vit, deit, convit, coat, levit, ...)"
)
GIANT = 4e8
"""Parameters beyond which a model is always made shallow and narrow: the tests hold several."""
SHALLOW = {"depth": 4, "local": 3, "parallel": 1}


def main() -> int:
    """Run the tests and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tests", type=Path, help="timm's tests/test_models.py")
    parser.add_argument("names", nargs="*", help="models without prefix; all by default")
    parser.add_argument("--shallow", action="store_true", help="few blocks a stage, for speed")
    options = parser.parse_args()
    names = options.names or list_models()
    offer(names)
    shorten({n for n in names if options.shallow or is_giant(n)})
    table = Table()
    skip = " and ".join(f"not {part}" for part in LEFT_OUT)
    quiet = ["-p", "no:cacheprovider", "-p", "no:terminal", "-W", "ignore"]
    pytest.main([str(options.tests), "-k", skip, *quiet], plugins=[table])
    table.show()
    return int(bool(table.failures) or not table.counts)


def offer(names: list[str]) -> None:
    """Let timm list nothing but these models of ours, which no filter of timm's speaks of."""
    listed = timm.list_models

    def ours(filter: Any = "", *_: Any, include_tags: Any = None, **__: Any) -> list[str]:
        if filter and not include_tags:  # a pattern that some of timm's own models fit
            return []
        wanted = {f"{PREFIX}{n}" for n in names}
        if include_tags:  # the two tests of default_cfgs: one for maps, one for tokens
            wanted = {f"{PREFIX}{n}" for n in names if gives_tokens(n) == bool(filter)}
        every = listed(f"{PREFIX}*", include_tags=include_tags)
        return [Name(name) for name in every if name.split(".")[0] in wanted]

    timm.list_models, timm.list_pretrained = ours, lambda *_, **__: []


class Name(str):
    """A name of ours; CoaT's begins as timm's, which a test excuses from using all branches."""

    def startswith(self, prefix: Any, *at: Any) -> bool:
        """As of a text, and of timm's name for a CoaT with parallel blocks."""
        name = self.split(".")[0].removeprefix(PREFIX)
        parallel = name in list_models() and getattr(entry(name).config, "parallel", 0)
        return super().startswith(prefix, *at) or bool(parallel and name.startswith(prefix))


def gives_tokens(name: str) -> bool:
    """Whether un-pooled features are tokens, with a class token or at another stride."""
    return entry(name).model.final_grid is Backbone.final_grid


def is_giant(name: str) -> bool:
    """Whether a model is too large for a common machine."""
    with torch.device("meta"):
        return sum(p.numel() for p in vitrail.create(name).parameters()) > GIANT


def shorten(names: set[str]) -> None:
    """Let timm build these models of ours with few blocks, and the giants narrow too."""
    whole = timm.create_model

    def create_model(model_name: str, *args: Any, **options: Any) -> Any:
        name = model_name.split(".")[0].removeprefix(PREFIX)
        own = model_name.startswith(PREFIX) and name in names
        fewer = fewer_blocks(name) if own else {}
        return whole(model_name, *args, **{**options, **fewer})

    timm.create_model = create_model


def fewer_blocks(name: str) -> dict[str, Any]:
    """Options of a model that keep its wiring and take blocks away."""
    config = entry(name).config
    known = {f.name for f in fields(config)}
    changed: dict[str, Any] = {
        k: min(v, getattr(config, k)) for k, v in SHALLOW.items() if k in known
    }
    if "depths" in known:
        changed["depths"] = (1,) * len(config.depths)
    if "dims" in known and max(config.dims) > 1024:
        changed["dims"] = tuple(32 * 2**i for i in range(len(config.dims)))
    return changed


@dataclass
class Table:
    """A pytest plugin that counts, a test of timm's a row."""

    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    failures: list[tuple[str, str]] = field(default_factory=list)
    others: set[str] = field(default_factory=set)

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Leave out the cases of timm's own models, which some tests name."""
        self.others = {item.originalname for item in items if PREFIX not in item.name}
        items[:] = [item for item in items if PREFIX in item.name]
        self.others -= {item.originalname for item in items}

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Count the outcome of one case."""
        test, _, case = report.nodeid.rpartition("::")[2].partition("[")
        if report.when != "call" and report.passed:
            return
        self.counts[test][report.outcome] += 1
        print(f"{report.outcome:8} {report.duration:6.1f} s  {test} {case.rstrip(']')}", flush=True)
        if report.failed:
            lines = str(report.longrepr).splitlines()
            said = next((ln for ln in reversed(lines) if ln.startswith("E ")), lines[-1])
            self.failures.append((f"{test} {case.rstrip(']')}", said[1:].strip()))

    def show(self) -> None:
        """Print rows, failures, and what is left out."""
        print("\n".join(["", *self.rows(), "", *self.left_out()]))

    def rows(self) -> Iterator[str]:
        """A line a test, then a line a failure."""
        yield f"{'test':44}{'passed':>8}{'failed':>8}{'skipped':>8}"
        for test, count in self.counts.items():
            yield f"{test:44}" + "".join(f"{count[k]:8}" for k in ("passed", "failed", "skipped"))
        for case, said in self.failures:
            yield f"FAILED {case}: {said[:300]}"

    def left_out(self) -> Iterator[str]:
        """A line a reason."""
        yield "left out:"
        yield from (f"  *{part}*: {why}" for part, why in LEFT_OUT.items())
        yield f"  {len(self.others)} tests of timm's own models by their names"
        yield f"  {TOKENS}"


if __name__ == "__main__":
    sys.exit(main())
