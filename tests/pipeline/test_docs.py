"""The README and the pages of docs/: links, mentioned files and examples."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
import tiny
import yaml

from tools import set_params

README = Path("README.md")
GUIDES = [Path("CONTRIBUTING.md"), Path("SECURITY.md"), Path("models/README.md"), Path("tests/README.md")]
PAGES = sorted(path.relative_to(tiny.ROOT) for path in (tiny.ROOT / "docs").glob("*.md"))
SHIPPED = (tiny.ROOT / "params.yaml").read_text()
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
MENTION = re.compile(r"\bdocs/[\w-]+\.md(?:#[\w-]+)?")  # in a comment, a docstring or a message
FILE = re.compile(r"\b(?:distill|docs|experiments|stages|tests|tools)/[\w./-]+\.(?:html|md|py|yaml)\b")
SOURCES = ("*", "distill/**/*", "stages/*", "tools/**/*", "experiments/*", "tests/**/*.py")
SUFFIXES = {"", ".py", ".yaml", ".txt", ".toml", ".html"}


def text(page: Path) -> str:
    return (tiny.ROOT / page).read_text(encoding="utf-8")


def prose(page: Path) -> str:
    """The page without its blocks of code."""
    return FENCE.sub("", text(page))


def anchors(page: Path) -> dict[str, int]:
    """The headings of a page as links name them, each with its level: small letters, hyphens for spaces."""
    found: dict[str, int] = {}
    seen: Counter[str] = Counter()
    for marks, heading in re.findall(r"^(#+) (.+)$", prose(page), re.MULTILINE):
        name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found[f"{name}-{seen[name]}" if seen[name] else name] = len(marks)
        seen[name] += 1
    return found


def targets(page: Path) -> list[tuple[Path, str]]:
    """The file, from the root, and the anchor, "" for none, of each link of a page that leads to no other host."""
    found = []
    for link in LINK.findall(prose(page)):
        if not re.match(r"\w+:", link):
            path, _, anchor = link.partition("#")
            whole = (tiny.ROOT / page.parent / path).resolve() if path else tiny.ROOT / page
            found.append((whole.relative_to(tiny.ROOT), anchor))
    return found


def examples() -> list[object]:
    """Each block of YAML, by the page and the line on which it begins."""
    found = []
    for page in (README, *PAGES):
        for block in FENCE.finditer(text(page)):
            if block[1] == "yaml":
                line = text(page)[: block.start()].count("\n") + 2
                found.append(pytest.param(block[2], id=f"{page}:{line}"))
    return found


def mentions(pattern: re.Pattern[str]) -> set[tuple[str, Path]]:
    """What the pattern finds in code, comments, messages and settings, each with its file."""
    files = {path for source in SOURCES for path in tiny.ROOT.glob(source) if path.is_file()}
    read = [path for path in files if path.suffix in SUFFIXES and path != Path(__file__)]
    return {(found, path) for path in read for found in pattern.findall(path.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("page", [README, *GUIDES, *PAGES], ids=str)
def test_links_lead_to_existing_files_and_headings(page):
    for path, anchor in targets(page):
        assert (tiny.ROOT / path).exists(), (page, path)
        assert not anchor or anchor in anchors(path), (page, path, anchor)


@pytest.mark.parametrize("page", [README, *GUIDES, *PAGES], ids=str)
def test_files_that_a_page_mentions_exist(page):
    assert [file for file in FILE.findall(text(page)) if not (tiny.ROOT / file).exists()] == []


def test_files_that_the_code_mentions_exist():
    tables = tiny.ROOT / "tests/pipeline/test_code_figures.py"  # of files that it makes up
    missing = [(file, str(path)) for file, path in mentions(FILE) if not (tiny.ROOT / file).exists()]
    assert [mention for mention in missing if mention[1] != str(tables)] == []


def test_pages_that_the_code_mentions_exist():
    pages = mentions(MENTION)
    assert {path.name for _, path in pages} >= {"params.yaml", "comparison_text.py", "classification.yaml"}
    for found, path in pages:
        page, _, anchor = found.partition("#")
        assert Path(page) in PAGES, (path, found)
        assert not anchor or anchor in anchors(Path(page)), (path, found)


def read_result(name: str) -> dict:
    return json.loads((tiny.ROOT / "metrics" / name).read_text())


def test_figures_in_the_text_are_those_of_the_results():
    bench, table, evaluated = (read_result(name) for name in ("bench.json", "metrics.json", "evaluate.json"))
    methods = (tiny.ROOT / "metrics/methods.csv").read_text().splitlines()[1:]
    same, default = ("stored_full_vocabulary", "stored")
    readme = " ".join((tiny.ROOT / README).read_text().split())
    for fact in (
        f"{bench['train'][f'{same}_speedup']:.2g} times the tokens per second of TRL's GKDTrainer for the same student",
        f"with {bench['train'][f'{same}_memory_fraction']:.2g} of its memory; "
        f"{bench['train'][f'{default}_speedup']:.2g} times and {bench['train'][f'{default}_memory_fraction']:.2g} for",
        f"paired over the {evaluated['items']} held-out responses",
        f"[{len(methods)} methods with three seeds each]",
    ):
        assert fact in readme
    sft, distilled = table["sft"], table["distilled"]
    results = " ".join((tiny.ROOT / "docs/results.md").read_text().split())
    assert (
        f"`sft` has accuracy {sft['accuracy']:.3f} and perplexity {sft['perplexity']:.2f}, `distilled` "
        f"{distilled['accuracy']:.3f} and {distilled['perplexity']:.2f}."
    ) in results


def test_the_readme_links_every_page():
    assert PAGES
    assert not set(PAGES) - {page for page, _ in targets(README)}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_a_page_begins_with_its_title_and_one_sentence(page):
    title, sentence = text(page).split("\n\n")[:2]
    assert re.fullmatch(r"# \w+", title)
    assert re.fullmatch(r"[A-Z][^.]*(\.yaml[^.]*)?\.", sentence)


@pytest.mark.parametrize("block", examples())
def test_params_accept_every_example(block):
    changes = yaml.safe_load(block)
    assert isinstance(changes, dict)
    set_params.apply_changes(SHIPPED, changes, Path("example.yaml"))
