"""The pages hold together: links lead somewhere, every page is found, files and commands exist."""

import re
from functools import cache
from pathlib import Path

import pytest

from benchmarks import pages

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")),
         *sorted((ROOT / "dev").rglob("*.md")), ROOT / "benchmarks" / "README.md"]  # fmt: skip
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"`((?:src|tests|benchmarks|examples|docs|dev)/[\w./-]+\.\w+)`")
COMMAND = re.compile(r"python -m (benchmarks\.\w+)")
LONGEST, SENTENCES, MOST_WORDS = 200, 5, 30
RESULTS = sorted((ROOT / "docs" / "results").glob("*.md"))


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@cache
def anchors(page: Path) -> frozenset[str]:
    """What GitHub makes of a page's headings."""
    heads = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", re.sub(r"\[(.*?)\]\(.*?\)", r"\1", head)) for head in heads)
    return frozenset(text.strip().lower().replace(" ", "-") for text in plain)


def test_links_files_and_commands_exist() -> None:
    assert {name_of(page): missing for page in PAGES if (missing := missing_on(page))} == {}


def missing_on(page: Path) -> list[str]:
    text = page.read_text()
    missing = []
    for target in LINK.findall(FENCE.sub("", text)):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            missing.append(target)
    missing += [file for file in NAMED.findall(text) if not (ROOT / file).exists()]
    for module in COMMAND.findall(text):
        path = ROOT / module.replace(".", "/")
        missing += [module] if not (path.is_dir() or path.with_suffix(".py").exists()) else []
    return missing


@pytest.mark.parametrize("page", RESULTS, ids=name_of)
def test_a_results_page_opens_with_what_was_found(page: Path) -> None:
    """At most five sentences stand between the title and the first picture or table."""
    title, opening, *rest = page.read_text().split("\n\n")
    assert title.startswith("# ")
    assert len(re.findall(r"[.!?](?=\s|$)", opening)) <= SENTENCES
    assert any(part.startswith(("![", "|", "<!-- benchmarks.pages")) for part in rest[:3])


def test_tables_of_the_results_are_what_the_files_say() -> None:
    assert {page: stale for page in pages.pages() if (stale := pages.write(page, check=True))} == {}


def test_pages_are_short() -> None:
    long = [page for page in PAGES if page.parent.name not in ("results", "reference", "dev")]
    assert [name_of(p) for p in long if len(p.read_text().splitlines()) > LONGEST] == []


def test_the_glossary_is_short_and_its_words_are_in_use() -> None:
    _, glossary = (ROOT / "CONTRIBUTING.md").read_text().split("## Glossary")
    rows = re.findall(r"^\| ([a-z ]+) \|", glossary.split("\n## ")[0], re.MULTILINE)
    words = [row for row in rows if row != "word"]
    assert 20 < len(words) == len(set(words)) <= MOST_WORDS
    code = (file for room in ("src", "tests", "dev") for file in (ROOT / room).rglob("*.py"))
    used = set(re.findall(r"[a-z]+", " ".join(f.read_text("utf-8").lower() for f in code)))
    assert [word for word in words if not used.issuperset(word.split())] == []


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs" / "index.md"
    known = {(index.parent / target).resolve() for target in LINK.findall(index.read_text())}
    pages = set((ROOT / "docs").rglob("*.md")) - {index}
    assert [name_of(page) for page in pages if not known & {page, page.parent}] == []
