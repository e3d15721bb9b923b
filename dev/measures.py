"""The measures of the house, as the review of 2026-11-29 took them, taken again.

``python dev/measures.py``            the present tree, beside the review's figures and its wishes
``python dev/measures.py --root DIR`` another checkout, such as a worktree of 0972ca9
``python dev/measures.py --write``    into docs/explanation/measures.md too
``python dev/measures.py --list NAME``  what is counted, one a line

Every measure is a function below, and its docstring says how it counts. The review's own way of
counting is not written down, so the script counted the tree of the review (0972ca9) as well: those
figures stand between the review's and the present ones.
"""

import argparse
import ast
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
PAGE = HERE / "docs" / "explanation" / "measures.md"
BLOCK = re.compile(r"(<!-- dev/measures.py -->\n).*?(<!-- end -->)", re.DOTALL)
CMT, COAT = ("cmt", "cmt_ti", "reduced"), ("coat", "coat_lite_tiny", "conv_attention")
"""File, a model of it, and the file of its own mixer."""


@dataclass(frozen=True)
class Measure:
    """A line of the table: ``found`` gives what is counted, one entry for each."""

    name: str
    review: str
    script: str
    wanted: str
    found: Callable[[Path], list[str]]


# ---- reading the source --------------------------------------------------------------------------


@cache
def modules(root: Path) -> dict[str, ast.Module]:
    """Dotted name -> tree, of the whole library."""
    source = root / "src"
    files = sorted((source / "vitrail").rglob("*.py"))
    return {dotted(file.relative_to(source)): ast.parse(file.read_text("utf-8")) for file in files}


def dotted(path: Path) -> str:
    """``vitrail/cost/peak.py`` -> ``vitrail.cost.peak``."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


def definitions(tree: ast.Module) -> dict[str, Definition]:
    """What a module defines at its top, by name."""
    found: dict[str, Definition] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign):
            found |= {t.id: node for t in node.targets if isinstance(t, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = node
    return found


def imported(tree: ast.Module) -> dict[str, tuple[str, str]]:
    """Name in the module -> (module, name there), for what comes from vitrail."""
    return {
        alias.asname or alias.name: (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vitrail")
        for alias in node.names
    }  # type: ignore[misc]


def functions(root: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function and method, with the name of its module."""
    for name, tree in modules(root).items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield name, node


# ---- the measures --------------------------------------------------------------------------------


def lines_to_read(root: Path, model: tuple[str, str, str]) -> list[str]:
    """The model's file and its own mixer's, whole, and every definition of the library that they
    use, and that those use, and so on: the lines of all of them (methods of a class with it).
    """
    file, _, mixer = model
    trees = modules(root)
    whole = [f"vitrail.models.{file}", f"vitrail.mixers.{mixer}"]
    seen: dict[tuple[str, str], Definition] = {}
    waiting = [(name, node) for name in whole for node in [trees[name]]]
    while waiting:
        module, node = waiting.pop()
        known, outside = definitions(trees[module]), imported(trees[module])
        for used in {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}:
            at = outside.get(used) or ((module, used) if used in known else None)
            if at is None or at in seen or at[0] in whole or at[0] not in trees:
                continue
            target = definitions(trees[at[0]]).get(at[1])
            if target is not None:
                seen[at] = target
                waiting.append((at[0], target))  # type: ignore[arg-type]
    lines = [f"{name}:{i}" for name in whole for i in range(length(root, name))]
    return lines + [
        f"{module}.{name}:{i}"
        for (module, name), node in seen.items()
        for i in range((node.end_lineno or node.lineno) - node.lineno + 1)
    ]


def length(root: Path, module: str) -> int:
    """Lines of a module's file."""
    file = root / "src" / Path(*module.split("."))
    path = file.with_suffix(".py") if file.with_suffix(".py").exists() else file / "__init__.py"
    return len(path.read_text("utf-8").splitlines())


FRAMES = """
import json, sys
import torch, vitrail
from torch.overrides import TorchFunctionMode
ATTENTION = {"softmax", "exp", "exp_", "scaled_dot_product_attention"}
FEED = {"gelu", "gelu_"}
found = {"attention": [], "feed": []}
class Watch(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        for kind, names in (("attention", ATTENTION), ("feed", FEED)):
            if name in names:
                stack, frame = [], sys._getframe(1)
                while frame is not None:
                    if "/vitrail/" in frame.f_code.co_filename:
                        stack.append(frame.f_code.co_qualname if sys.version_info > (3, 11)
                                     else frame.f_code.co_name)
                    frame = frame.f_back
                if len(stack) > len(found[kind]):
                    found[kind] = stack
        return function(*args, **(kwargs or {}))
model = vitrail.create(sys.argv[1], classes=3, image=64).eval()
with torch.inference_mode():
    model(torch.zeros(1, 3, 64, 64))
    with Watch():
        model(torch.zeros(1, 3, 64, 64))
print(json.dumps(found))
"""


@cache
def frames(root: Path, model: str) -> dict[str, list[str]]:
    """The deepest stack of the library's own functions (torch's left out), from ``model(x)`` to
    softmax or exp (attention) and to GELU (feed-forward), eager, in inference.
    """
    text = in_tree(root, [sys.executable, "-c", FRAMES, model])
    found: dict[str, list[str]] = json.loads(text.splitlines()[-1])
    return found


def deepest(kind: str, root: Path) -> list[str]:
    """The stack of one kind in CoaT-Lite-Tiny."""
    return frames(root, COAT[1])[kind]


BUILT = ("Module", "Backbone")
ENTRY = ("create", "build", "open", "load", "twin", "model", "baseline")
HANDED = ("Entry", "Build", "Card")


def builders_from_text(root: Path) -> list[str]:
    """Functions, not methods of a class, with a parameter that is a text and a result that is a
    model, and a name that says create, build, open, load, twin, model or baseline.

    Left out are the parts of another builder (one of these calls them), those that are handed what
    the text stands for (an entry of the zoo, a builder, a card), and what opens a trained run.
    """
    found = {}
    for module, tree in modules(root).items():
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and builds_from_text(node):
                found[module, node.name] = node
    parts = {called for at, node in found.items() for called in calls(root, at[0], node) - {at}}
    return [".".join(at) for at in found if at not in parts]


def builds_from_text(node: ast.FunctionDef) -> bool:
    """Whether a function makes a model and is given nothing but a text to make it of."""
    given = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
    kinds = " ".join(ast.unparse(a.annotation) for a in given if a.annotation)
    return (
        any(is_text(a) for a in node.args.posonlyargs + node.args.args)
        and any(word in node.name for word in ENTRY)
        and node.returns is not None
        and any(word in ast.unparse(node.returns) for word in BUILT)
        and not any(re.search(rf"\b{word}\b", kinds) for word in HANDED)
    )


def calls(root: Path, module: str, node: ast.AST) -> set[tuple[str, str]]:
    """(module, name) of the library's own functions that a function names."""
    tree = modules(root)[module]
    names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    outside, own = imported(tree), definitions(tree)
    here = {(module, name) for name in names if name in own and name not in outside}
    return here | {outside[name] for name in names if name in outside}


def is_text(argument: ast.arg) -> bool:
    """Whether a parameter is annotated as a text."""
    return argument.annotation is not None and ast.unparse(argument.annotation) in (
        "str",
        "str | Path",
        "Path | str",
    )


def names_a_model(root: Path) -> list[str]:
    """Files outside ``models/`` that import from a file of ``models/`` which defines a backbone."""
    papers = {
        module
        for module, tree in modules(root).items()
        if module.startswith("vitrail.models.") and defines_backbone(tree)
    }
    return [
        module
        for module, tree in modules(root).items()
        if not module.startswith("vitrail.models") and imports_any(tree, papers)
    ]


def defines_backbone(tree: ast.Module) -> bool:
    """Whether a module registers models of its own."""
    return any(name in definitions(tree) for name in ("CONFIGS", "VARIANTS"))


def imports_any(tree: ast.Module, targets: set[str]) -> bool:
    """Whether a module imports one of these, in any form."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and any(alias.name in targets for alias in node.names):
            return True
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            if names & targets:
                return True
    return False


# fmt: off
IRREGULAR = frozenset((
    "bent", "built", "chosen", "dealt", "done", "drawn", "fed", "felt", "found", "given", "gone",
    "heard", "held", "hidden", "kept", "known", "laid", "led", "left", "lent", "lost", "made",
    "met", "said", "seen", "sent", "shown", "spoken", "spread", "stood", "taken", "taught",
    "thought", "told", "understood", "worn", "written",
))
VERBS = frozenset(("embed", "exceed", "feed", "heed", "need", "proceed", "reseed", "seed", "speed"))
# fmt: on


def bare_participles(root: Path) -> list[str]:
    """Functions and methods (properties too) of one word that ends in -ed, or is one of a list of
    irregular participles, and is no verb or noun in -ed.
    """
    return [
        f"{module}.{node.name}"
        for module, node in functions(root)
        if (word := node.name.strip("_")).isalpha()
        and word not in VERBS
        and (word.endswith("ed") or word in IRREGULAR)
    ]


def classes_named_twice(root: Path) -> list[str]:
    """Names that two or more classes at the top of a module have, private ones left out."""
    names = Counter(
        node.name
        for tree in modules(root).values()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    return [name for name, count in names.items() if count > 1]


CIRCLES = """
import grimp, json
graph = grimp.build_graph("vitrail", cache_dir=None)
circles = []
for room in sorted(graph.modules):
    children = sorted(graph.find_children(room))
    owner = {m: c for c in children for m in {c, *graph.find_descendants(c)}}
    reach = {c: {owner[t] for m, o in owner.items() if o == c
                 for t in graph.find_modules_directly_imported_by(m) if t in owner} - {c}
             for c in children}
    for _ in children:
        reach = {c: some | {t for s in some for t in reach[s]} for c, some in reach.items()}
    rings = {frozenset(b for b in children if b in reach[a] and a in reach[b]) for a in children}
    circles += [sorted(ring) for ring in rings if len(ring) > 1]
print(json.dumps(sorted(circles)))
"""


def circles(root: Path) -> list[str]:
    """Groups of modules of one room that import each other in a ring, imports for type checkers
    included.
    """
    found = json.loads(in_tree(root, [sys.executable, "-c", CIRCLES]).splitlines()[-1])
    return [", ".join(name.rpartition(".")[2] for name in ring) for ring in found]


def test_cases(root: Path) -> list[str]:
    """What ``pytest --collect-only`` lists."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    return [line for line in in_tree(root, command).splitlines() if "::" in line]


def result_files(root: Path) -> list[str]:
    """JSON files below ``benchmarks/results``."""
    folder = root / "benchmarks" / "results"
    return [str(path.relative_to(folder)) for path in sorted(folder.rglob("*.json"))]


def in_tree(root: Path, command: list[str]) -> str:
    """Run a command with the tree's own library, and give what it prints."""
    env = {**os.environ, "PYTHONPATH": str(root / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 5):
        raise SystemExit(f"{' '.join(command)[:80]} failed: {done.stderr[-500:]}")
    return done.stdout


# fmt: off
MEASURES = (
    Measure("lines to read CMT", "2,013", "1,523", "1,200", lambda r: lines_to_read(r, CMT)),
    Measure("lines to read CoaT", "1,881", "1,472", "1,200", lambda r: lines_to_read(r, COAT)),
    Measure("frames to attention, CoaT", "11", "10", "6", partial(deepest, "attention")),
    Measure("frames to feed-forward, CoaT", "8", "12", "4", partial(deepest, "feed")),
    Measure("builders from text", "8", "4", "1", builders_from_text),
    Measure("files that name a model", "7", "8", "0", names_a_model),
    Measure("bare participles", "149", "154", "under 15", bare_participles),
    Measure("class names used twice", "12", "24", "0", classes_named_twice),
    Measure("import circles in a room", "3", "3", "0", circles),
    Measure("test cases", "9,848", "9,886", "under 4,500", test_cases),
    Measure("result files", "243", "245", "about 20", result_files),
)
# fmt: on
COLUMNS = ("measure", "review", "this script, 0972ca9", "wanted", "now")


def main() -> None:
    """Measure and print; ``--list`` shows the entries of one measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, default=HERE, help="the checkout to measure")
    parser.add_argument("--list", metavar="NAME", help="show what one measure counts")
    parser.add_argument("--write", action="store_true", help=f"also into {PAGE.name}")
    words = parser.parse_args()
    root = words.root.resolve()
    if words.list:
        shown = [m for m in MEASURES if words.list in m.name]
        print(*(entry for m in shown for entry in m.found(root)), sep="\n")
        return
    rows = [(m.name, m.review, m.script, m.wanted, f"{len(m.found(root)):,}") for m in MEASURES]
    lines = [COLUMNS, ("---",) * len(COLUMNS), *rows]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    print(table)
    if words.write:
        text = PAGE.read_text("utf-8")
        PAGE.write_text(BLOCK.sub(lambda m: f"{m[1]}{table}\n{m[2]}", text), "utf-8")


if __name__ == "__main__":
    main()
