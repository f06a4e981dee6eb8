"""The notebook interface: the lines that the README shows, and what each raises."""

import re
from pathlib import Path

import matplotlib.figure
import pytest

import lengthwise as lw

pytestmark = pytest.mark.trains

README = Path(__file__).parent.parent / "README.md"


def test_the_notebook_lines_of_the_readme_run(tiny_config, tmp_path, monkeypatch):
    """As written there, but for a smaller model of the successor and shorter lengths."""
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL).group(1)
    tiny = "tiny, length=4"
    code = code.replace('"addition", length=6', tiny).replace("[6, 60, 1000]", "[4, 60, 100]")
    code = code.replace("99999999999999999999+1", "99999999999999999999")
    names = {"tiny": tiny_config}
    lines = [line for line in code.splitlines() if line.strip()]
    for line in lines:
        exec(line, names)
    assert "the digit of a in the column being written" in str(names["bias"])
    assert eval(lines[-1], names) == "100000000000000000000"
    curve, tuned = names["curve"], names["tuned"]
    assert {(s.length, s.accuracy) for s in curve} == {(4, 1.0), (60, 1.0), (100, 1.0)}
    assert isinstance(curve.plot(), matplotlib.figure.Figure)
    assert len(curve.to_frame()) == 6
    assert lw.Run.open(tuned.path).solve("999") == "1000"
    assert str(lw.prove(tuned)).startswith("Proven: ")
    # Without `out`, each training gets a folder of its own.
    assert sorted(path.name for path in Path("runs").iterdir()) == [
        "successor-calibrated-seed1",
        "successor-vanilla-seed1",
    ]


def test_public_names_are_what_they_say():
    for name in lw.__all__:
        assert getattr(lw, name) is not None
    # Functions, though modules of related names exist.
    assert callable(lw.capture)
    assert callable(lw.calibrate)
    with pytest.raises(AttributeError, match="module 'lengthwise' has no attribute 'trian'"):
        lw.trian  # noqa: B018


def test_unknown_tasks_are_refused():
    with pytest.raises(lw.InputError, match="unknown task 'adition'; did you mean 'addition'"):
        lw.train("adition")
