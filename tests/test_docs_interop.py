"""docs/interop.md: its commands and its Python run as they stand, on small runs, and say what it shows."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

import lengthwise as lw
from lengthwise.cli import entry

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "interop.md").read_text("utf-8")
FENCES = re.findall(r"^```([\w{}-]*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def blocks(language, word):
    return [text for name, text in FENCES if name == language and word in text]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the runs that the page names; multiplication stands in for addition."""
    for name in ("multiplication", "sorting"):
        shutil.copytree(ROOT / "tests" / "samples" / name, tmp_path / "runs" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_commands_print_what_the_page_shows(here, capsys):
    for command in blocks("sh", "lengthwise export"):
        assert entry.run(shlex.split(command)[1:]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "100 problems: test.jsonl"
    assert len((here / "test.jsonl").read_text().splitlines()) == 100
    (shown,) = blocks("", '{"expression"')
    assert json.loads(printed[1]) == json.loads(shown)
    (shown,) = blocks("", "multiplication:\n")
    assert json.loads(printed[2])["text"] == f"{shown}\n"


def test_runs_are_saved_and_opened(here, monkeypatch):
    (source,) = blocks("python", "save_pretrained")
    own, push = source.split("\n\nrun.push_to_hub")
    exec(own, {})
    assert lw.Run.from_pretrained("shared/multiplication").solve("123*45") == "5535"
    # What is refused is what the page quotes.
    (here / "shared/multiplication/bias.jsonl").unlink()
    with pytest.raises(lw.InputError) as caught:
        lw.Run.from_pretrained("shared/multiplication")
    (said,) = blocks("", "lengthwise.errors.InputError")
    assert " ".join(said.split()) == f"lengthwise.errors.InputError: {caught.value}"
    assert "private=True" in push


def test_problems_are_drawn(capsys):
    (source,) = blocks("python", "problems[17]")
    names = {}
    exec(source, names)
    assert names["problems"].worked("123*45").answer == "5535"
    assert str(names["problems"][17].sheet) in capsys.readouterr().out


def test_data_sets_are_made(here):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    (source,) = blocks("python", "from_generator")
    source = source.replace("10_000", "4").replace('"jsonl"}', '"jsonl"}, cache_dir="."')
    exec(source.replace("to_dataset(problems)  #", "#"), {})


def test_reasoning_gym_is_as_shown(here, capsys):
    pytest.importorskip("reasoning_gym")
    names = {}
    for source in blocks("python", "reasoning_gym") + blocks("python", "ours.evaluate"):
        for given, less in (("size=200", "size=30"), ('"size": 50', '"size": 8')):
            source = source.replace(given, less)
        exec(source.replace("runs/addition", "runs/multiplication"), names)
    assert names["data"][0]["metadata"]["trace"]
    assert "products: 30 of 30 right" in capsys.readouterr().out
