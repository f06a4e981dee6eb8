"""The tutorial: its cells run as they stand, but for a smaller model, and show what its words say."""

import ast
import json
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.trains

DOCS = Path(__file__).parent.parent / "docs"
CELLS = json.loads((DOCS / "tutorial.ipynb").read_text("utf-8"))["cells"]
SOURCES = {
    kind: ["".join(c["source"]) for c in CELLS if c["cell_type"] == kind]
    for kind in ("code", "markdown")
}


def test_it_is_stored_as_it_was_written():
    for cell in CELLS:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
    for text in SOURCES["markdown"]:
        assert max(map(len, text.splitlines())) <= 100
        for page in re.findall(r"\]\((\w+\.md)\)", text):
            assert (DOCS / page).exists()


def run(source: str, names: dict) -> object:
    """Run a cell; the value of its last line, if that has one."""
    *most, last = ast.parse(source).body
    if not isinstance(last, ast.Expr):
        exec(source, names)
        return None
    exec(compile(ast.Module(most, []), "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def test_the_cells_run_and_show_what_they_say(tiny_config, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names, shown = {"tiny": tiny_config}, []
    for source in SOURCES["code"]:
        value = run(source.replace('"successor", seed=0', "tiny"), names)
        if value is not None:
            show = getattr(value, "_repr_html_", None) or value._repr_png_
            shown.append(type(value).__name__)
            assert show()
    assert shown == [
        *("Run", "LengthCurve", "AttentionMaps", "CalibratedBias"),
        *("Run", "LengthCurve", "Certificate"),
    ]
    assert {s.correct for s in names["base_curve"] if s.length == 20} == {0}
    assert all(s.correct == s.n for s in names["tuned_curve"])
    out = capsys.readouterr().out
    assert "1234567 -> no answer: 8 digits" in out
    assert "\n1" + "0" * 60 + "\n" in out
    assert "Refuted: " in out


def test_the_readme_and_the_index_lead_to_it():
    for page, link in (
        (DOCS.parent / "README.md", "docs/tutorial.ipynb"),
        (DOCS / "index.md", "tutorial.ipynb"),
    ):
        assert f"]({link})" in page.read_text("utf-8")


def test_nothing_is_imported_that_a_newcomer_lacks():
    imports = {line for text in SOURCES["code"] for line in text.splitlines() if "import" in line}
    assert imports == {"import lengthwise as lw"}
