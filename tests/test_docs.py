"""README and docs: links, widths, the tree of the package and quoted messages are those of the code."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    if "_build" not in path.parts and not path.is_relative_to(ROOT / "docs" / "reproduction")
)
WIDEST = 120


def prose(page: Path) -> list[str]:
    """The lines outside of code."""
    found, fenced = [], False
    for line in page.read_text("utf-8").splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif not fenced:
            found.append(line)
    return found


def anchors(page: Path) -> set[str]:
    """Of each heading, what GitHub and the pages built from docs call it."""
    titles = [line.lstrip("#").strip() for line in prose(page) if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_fit_and_links_lead_somewhere(page):
    lines = page.read_text("utf-8").splitlines()
    assert [line for line in lines if len(line) > WIDEST and not line.startswith("|")] == []
    for target in re.findall(r"\]\(([^)\s]+)\)", "\n".join(prose(page))):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        assert place.exists(), target
        assert not anchor or anchor in anchors(place), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_table_has_a_head(page):
    """Rows after an empty line are shown as text."""
    lines = ["", *prose(page)]
    heads = [i for i, line in enumerate(lines) if line.startswith("|") and lines[i - 1][:1] != "|"]
    assert [lines[i] for i in heads if not re.fullmatch(r"[|:\- ]+", lines[i + 1])] == []


def test_the_tree_of_the_readme_is_the_package():
    """Every module and folder at the top of the package has a line, and every line is one of them."""
    text = (ROOT / "README.md").read_text("utf-8")
    tree = text[text.index("src/lengthwise/\n") :].split("\n```")[0]
    named = set(re.findall(r"^  (\w+(?:\.py|/)) ", tree, re.MULTILINE))
    package = ROOT / "src" / "lengthwise"
    found = {path.name for path in package.glob("*.py") if not path.stem.startswith("__")}
    found |= {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    assert named == found - {"version.py"}


def messages() -> str:
    """Every text in the code, `...` where a value is filled in."""
    found = []
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else "..." for v in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def test_messages_that_are_explained_are_those_of_the_code():
    said = messages()
    rows = [
        line.split("|")[1]
        for line in prose(ROOT / "docs" / "troubleshooting.md")
        if line.startswith("| ") and not line.startswith(("| message", "| exit", "| what you see"))
    ]
    quoted = [quote for row in rows for quote in re.findall(r"`([^`]{12,})`", row)]
    parts = [part.strip(" ,;:") for quote in quoted for part in quote.split("...")]
    missing = [part for part in parts if len(part) > 3 and part not in said]
    assert len(parts) > 40
    assert missing == []


def test_every_fault_has_the_test_that_the_page_names():
    text = (ROOT / "docs" / "reliability.md").read_text("utf-8")
    named = re.findall(r"`(test_\w+\.py)::(\w+)`", text)
    assert len(named) > 30
    for file, test in named:
        assert f"\ndef {test}(" in (ROOT / "tests" / file).read_text("utf-8"), (file, test)
    rows = [line for line in text.splitlines() if re.match(r"\| (?!fault )\w", line)]
    assert [row for row in rows if "::test_" not in row] == []
