"""Runs on the Hub: saved and opened again offline, pushed, and what is said of folders that are none."""

import json
import re
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import lengthwise as lw
from lengthwise.cli import entry
from lengthwise.evaluation.curve import LengthCurve
from lengthwise.interop.card import block, code, safe
from lengthwise.proof import Certificate, verify
from lengthwise.runs.parts import make_model
from lengthwise.settings.config import make_config

SAMPLES = Path(__file__).parent / "samples"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A run of multiplication, measured a little; `lw.Run`, which can be shared."""
    folder = tmp_path_factory.mktemp("runs") / "multiplication"
    shutil.copytree(SAMPLES / "multiplication", folder)
    run = lw.Run.open(folder)
    lw.evaluate(run, sizes=["3x3", "6x4"], samples=20, progress=False).add_to(folder)
    return run


@pytest.fixture(scope="module")
def shared(original, tmp_path_factory):
    return original.save_pretrained(tmp_path_factory.mktemp("shared") / "multiplication")


def logits(run):
    """Of the right sheet of one problem."""
    from lengthwise.model import plan_attention
    from lengthwise.problems.layout import digits_of
    from lengthwise.problems.sheets import Sheets

    layout = run.config.layout(run.config.size)
    source, target = layout.batch(digits_of(run.task, ["123", "45"], layout.width))
    places = Sheets([(layout, source, target)])
    plan = plan_attention(run.bias, places, len(run.model.layers), device=run.device)
    with torch.inference_mode():
        return run.model(places.source, places.inputs, plan).logits


def test_a_saved_run_is_the_same_model(original, shared):
    opened = lw.Run.from_pretrained(shared)
    assert opened.fingerprint == original.fingerprint
    mine, theirs = original.model.state_dict(), opened.model.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert torch.equal(logits(original), logits(opened))
    expressions = ["123*45", "9999999*99999", "1*0"]
    assert opened.solve_many(expressions) == ["5535", str(9999999 * 99999), "0"]
    assert original.solve_many(expressions) == opened.solve_many(expressions)
    assert lw.Run.from_pretrained(str(shared)).path == shared


@pytest.mark.trains
def test_its_certificate_still_verifies(tmp_path):
    saved = lw.Run.open(SAMPLES / "sorting").save_pretrained(tmp_path / "saved")
    certificate = Certificate.load(saved / "certificate.json")
    assert verify(certificate, lw.Run.from_pretrained(saved)).proven


def test_the_command_line_takes_the_folder(shared, capsys):
    assert entry.run(["solve", str(shared), "123*45"]) == 0
    assert capsys.readouterr().out == "5535\n"


def test_the_folder_holds_what_the_mixin_would_look_for(original, shared):
    names = {path.name for path in shared.iterdir()}
    assert names == {
        *("config.json", "model.safetensors", "bias.jsonl", "README.md"),
        *("certificate.json", "results.json", "results.csv"),
    }
    assert huggingface_hub.constants.CONFIG_NAME in names
    assert huggingface_hub.constants.SAFETENSORS_SINGLE_FILE in names
    for name in ("config.json", "model.safetensors", "bias.jsonl", "certificate.json"):
        assert (shared / name).read_bytes() == (original.path / name).read_bytes()


def test_the_card_says_what_was_measured(original, shared):
    card = huggingface_hub.ModelCard.load(shared / "README.md")
    assert card.data.library_name == "lengthwise"
    assert "arxiv:2310.11984" in card.data.tags
    scores = LengthCurve.load(original.path)
    rows = re.findall(r"^\| (\d+x\d+) \| (\w+) \| (\d+) \| (\d+) \|", card.text, re.MULTILINE)
    wanted = {(s.size, s.suite, str(s.correct), str(s.n)) for s in scores}
    assert len(rows) == 4
    assert set(rows) == wanted
    certificate = Certificate.load(shared / "certificate.json")
    assert f"**Proven:** {certificate.claim}"[:60] in card.text.replace("\\", "")
    assert f"{certificate.contexts:,} local contexts" in card.text
    parameters = sum(w.numel() for w in load_file(original.path / "model.safetensors").values())
    assert f"{parameters:,} parameters" in card.text


def test_a_run_without_scores_and_certificate_says_so(tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(SAMPLES / "sorting", folder)
    (folder / "certificate.json").unlink()
    saved = lw.Run.open(folder).save_pretrained(tmp_path / "saved")
    text = (saved / "README.md").read_text()
    assert "There is no certificate" in text
    assert "Not measured" in text
    assert not (saved / "certificate.json").exists()
    assert lw.Run.from_pretrained(saved).solve("3,1,2") == "1,2,3"


def test_scores_of_other_models_stay_out(original, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(original.path, folder)
    rows = json.loads((folder / "results.json").read_text())
    rows[0] |= {"model": "0" * 16, "n": 777, "correct": 7}
    (folder / "results.json").write_text(json.dumps(rows))
    text = (lw.Run.open(folder).save_pretrained(tmp_path / "saved") / "README.md").read_text()
    assert "777" not in text
    assert text.count("| hard |") + text.count("| uniform |") == 3


HOSTILE = "x|<script>alert(1)</script>\n# Heading\n---\n[a](javascript:b) `code` ```\n<!--"


def test_hostile_text_stays_text():
    assert "\n" not in safe(HOSTILE) + code(HOSTILE)
    assert "<" not in safe(HOSTILE)
    assert not re.search(r"(?<!\\)[\[\]`#|]", safe(HOSTILE))
    inside = code(HOSTILE).strip()
    fence = re.match("`+", inside)[0]
    assert inside.endswith(fence)
    assert fence not in inside[len(fence) : -len(fence)]
    lines = block(HOSTILE).splitlines()
    assert [line for line in lines if line.startswith(lines[0])] == [lines[0], lines[-1]]


def test_a_hostile_machine_makes_no_hostile_card(tmp_path):
    """What a person writes into a card is the machine: its text, and the symbols of its example."""
    machine = f"""
        name = {json.dumps(HOSTILE)}
        example = "<`|"
        symbols = ["|", "<", "`", "_"]
        blank = "_"
        start = "s"
        halting = ["h"]
        transitions.s = {{"|" = "| R s", "<" = "< R s", "`" = "` R s", "_" = "_ N h"}}
    """
    config = make_config({"task": "turing_machine", "parameters": {"machine": machine}})
    run = lw.Run.create(tmp_path / "run", config, None)
    run.save_model(make_model(config))
    text = (run.save_pretrained(tmp_path / "saved") / "README.md").read_text()
    outside = re.sub(r"(?ms)^(`{3,}).*?^\1$", "", text)
    assert "``<`|`` is an expression" in outside
    assert "<script>" not in outside
    assert "\n# Heading" not in outside
    assert outside.count("\n## ") == 3
    assert outside.count("\n---\n") == 1
    assert huggingface_hub.ModelCard.load(tmp_path / "saved" / "README.md").data.library_name


def test_nothing_is_written_over(original, shared, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(lw.InputError, match=r"holds notes.txt; choose another folder"):
        original.save_pretrained(tmp_path)
    with pytest.raises(lw.InputError, match=r"holds notes.txt, which no saved run has"):
        original.save_pretrained(tmp_path, force=True)
    for force in (False, True):
        with pytest.raises(lw.InputError, match="is the run itself"):
            original.save_pretrained(original.path, force=force)
    again = tmp_path / "again"
    original.save_pretrained(again)
    (again / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(lw.InputError, match=r"holds README.md; choose another folder, or force"):
        original.save_pretrained(again)
    original.save_pretrained(again, force=True)
    assert lw.Run.from_pretrained(again).solve("12*3") == "36"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "notes.txt"]


def test_a_stale_certificate_is_not_shared(tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(SAMPLES / "sorting", folder)
    path = folder / "certificate.json"
    values = json.loads(path.read_text())
    values["hashes"]["weights"] = "0" * 64
    path.write_text(json.dumps(values))
    with pytest.raises(lw.InputError, match="is of other weights than the run's"):
        lw.Run.open(folder).save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def without(name):
    return lambda folder: (folder / name).unlink()


def another_version(folder):
    path = folder / "config.json"
    values = json.loads(path.read_text())
    values["training"]["warp"] = 9
    path.write_text(json.dumps(values))
    (folder / "versions.json").write_text(json.dumps({"lengthwise": "9.0.0"}))


def other_weights(folder):
    weights = load_file(folder / "model.safetensors")
    weights.pop(next(iter(weights)))
    save_file(weights, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("config.json"), "is not a run: it has no config.json"),
        (
            without("model.safetensors"),
            "holds no model: it has config.json, but no model.safetensors",
        ),
        (without("bias.jsonl"), "lacks bias.jsonl"),
        (another_version, "lengthwise 9.0.0 wrote it, this is"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json"),
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": "llama"}'),
            "holds a model of Hugging Face transformers, not a run; load it there",
        ),
        (lambda folder: (folder / "bias.jsonl").write_text("no\n"), "bias.jsonl"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\x80\x04pickle"), "weights"),
    ],
)
def test_a_folder_that_is_no_saved_run_is_one_sentence(shared, tmp_path, change, said):
    folder = tmp_path / "saved"
    shutil.copytree(shared, folder)
    change(folder)
    with pytest.raises(lw.InputError, match=re.escape(said)) as caught:
        lw.Run.from_pretrained(folder)
    assert "\n" not in str(caught.value)


def cached(folder, cache, repo="someone/multiplication"):
    """A repository as huggingface_hub keeps it after a download."""
    place = cache / f"models--{repo.replace('/', '--')}"
    revision = "1" * 40
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(revision)
    shutil.copytree(folder, place / "snapshots" / revision)
    return repo


def test_a_repository_is_opened_from_the_cache(shared, tmp_path):
    repo = cached(shared, tmp_path)
    run = lw.Run.from_pretrained(repo, cache_dir=tmp_path, local_files_only=True, device="cpu")
    assert run.solve("123*45") == "5535"
    assert tmp_path in run.path.parents


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("someone/nothing", "is no folder here, and no repository to open: "),
        ("a/b/c", "Repo id must"),
        ("/no/such/folder", "does not exist"),
        (__file__, "is a file, not a folder"),
        ("", "source takes a folder, or a repository"),
        (3, "source takes text"),
    ],
)
def test_what_is_no_source(source, said, tmp_path):
    with pytest.raises(lw.InputError, match=re.escape(said)) as caught:
        lw.Run.from_pretrained(source, cache_dir=tmp_path, local_files_only=True)
    assert "\n" not in str(caught.value)


def test_push_uploads_the_saved_folder(original, shared, monkeypatch):
    seen = {}

    class Api:
        def __init__(self, token=None):
            seen["token"] = token

        def create_repo(self, repo_id, private, exist_ok):
            seen["repo"] = repo_id, private, exist_ok
            return type("Made", (), {"repo_id": repo_id})

        def upload_folder(self, *, folder_path, **options):
            seen["files"] = {path.name: path.read_bytes() for path in folder_path.iterdir()}
            seen["options"] = options
            return "https://hub/commit"

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Api)
    assert original.push_to_hub("someone/m", private=True, token="t") == "https://hub/commit"
    assert seen["repo"] == ("someone/m", True, True)
    assert seen["token"] == "t"
    assert seen["files"] == {path.name: path.read_bytes() for path in shared.iterdir()}
    with pytest.raises(
        lw.InputError, match=r"nothing was pushed to someone/m: .* unexpected keyword"
    ):
        original.push_to_hub("someone/m", colour="red")


def test_a_hub_that_refuses_is_one_sentence(original, monkeypatch):
    class Api:
        def __init__(self, token=None):
            pass

        def create_repo(self, **_):
            raise OSError("401 Unauthorized\nand much more")

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Api)
    with pytest.raises(lw.InputError, match=r"nothing was pushed to someone/m: 401 Unauthorized$"):
        original.push_to_hub("someone/m")


def test_metadata_is_yaml(shared):
    _, front, _ = (shared / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front)["library_name"] == "lengthwise"


@pytest.mark.trains
def test_what_abc_made_is_saved_with_its_own_scores(tiny_abc, tmp_path):
    saved = lw.Run.open(tiny_abc.path).save_pretrained(tmp_path / "saved")
    scores = LengthCurve.load(saved)
    assert {score.method for score in scores} == {"calibrated"}
    assert lw.Run.from_pretrained(saved).solve("99999999") == "100000000"
    vanilla = lw.Run.open(tiny_abc.path / "vanilla")
    saved = vanilla.save_pretrained(tmp_path / "vanilla")
    assert {score.method for score in LengthCurve.load(saved)} == {"vanilla"}
    assert lw.Run.from_pretrained(saved).solve("1999") == vanilla.solve("1999")
