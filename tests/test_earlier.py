"""Runs, biases, maps and certificates as earlier versions wrote them open, and are what they were."""

import json
import shutil

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from lengthwise.bias import CalibratedBias
from lengthwise.calibration.maps import AttentionMaps
from lengthwise.cli import entry
from lengthwise.proof import Certificate, prove, verify
from lengthwise.runs.folder import BIAS, CERTIFICATE, MAPS
from lengthwise.runs.run import Run


def as_before(row: dict) -> dict:
    """A line as `lengthwise-bias/1` has it: a direction through a segment, and an offset."""
    name, _, place = row.pop("reads").partition("[")
    offset = int(place.rstrip("]")[1:] or 0) if place else 0
    if name == "answer":
        line = {"site": "self", "segment": name, "direction": "diagonal", "offset": offset + 1}
    else:
        direction = "anti-diagonal" if place else "vertical"
        line = {"site": "cross", "segment": name, "direction": direction, "offset": offset}
    return {**line, **row}


@pytest.fixture
def earlier(tiny_abc, tmp_path):
    """The pipeline's folder, its bias and maps in the formats of before."""
    folder = shutil.copytree(tiny_abc.path, tmp_path / "run")
    path = folder / "calibrated" / BIAS
    header, *rows = map(json.loads, path.read_text("utf-8").splitlines())
    header |= {"format": "lengthwise-bias/1", "task": header["task"]["name"]}
    lines = [header, *map(as_before, rows)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    run = Run(path.parent, tiny_abc.calibrated.config, CalibratedBias.load(path))
    run.save_model(tiny_abc.calibrated.model)  # its weights are bound to what the file says
    config = json.loads((path.parent / "config.json").read_text("utf-8"))
    config.pop("files")
    (path.parent / "config.json").write_text(json.dumps(config), "utf-8")

    maps = folder / "vanilla" / MAPS
    with safe_open(maps, "pt") as file:
        about = json.loads(file.metadata()["about"])
        tensors = {name: file.get_tensor(name) for name in ("self", "cross")}
    task = about.pop("task")
    about |= {"format": "lengthwise-maps/1", "task": task.pop("name"), **task}
    tracks = [(as_before({"reads": row["reads"]}), cost) for row, cost in about["knockout"]]
    about["knockout"] = tracks
    save_file(tensors, maps, {"about": json.dumps(about)})
    return folder


def test_a_run_of_before_is_what_it_was(earlier, tiny_abc, capsys):
    run = Run.open(earlier)
    assert run.bias == tiny_abc.bias
    assert run.answers(["1999", "0"]) == tiny_abc.calibrated.answers(["1999", "0"])
    maps = AttentionMaps.load(earlier / "vanilla" / MAPS)
    assert maps.format == tiny_abc.maps.format
    assert maps.knockout == tiny_abc.maps.knockout
    assert all(maps.weights[site].equal(tiny_abc.maps.weights[site]) for site in maps.weights)
    for command in (["explain"], ["prove"], ["evaluate", "--lengths", "6", "--samples", "8"]):
        assert entry.run([command[0], str(earlier), *command[1:]]) == 0
    assert entry.run(["abc", "--resume", "successor", "--out", str(earlier)]) == 0
    capsys.readouterr()
    # It is still what it was, and nothing was set aside.
    assert (
        (earlier / "calibrated" / BIAS)
        .read_text("utf-8")
        .startswith('{"format": "lengthwise-bias/1"')
    )
    assert not (earlier / "calibrated-1").exists()


def test_json_of_a_run_of_before_speaks_coordinates(earlier, capsys):
    assert entry.run(["explain", str(earlier), "--json"]) == 0
    header, *rows = json.loads(capsys.readouterr().out)
    assert header["format"] == "lengthwise-bias/2"
    assert {row["reads"] for row in rows} >= {"a[c]", "a[c-1]"}


@pytest.mark.parametrize("version", [1, 2])
def test_a_certificate_of_before_is_proven_again(earlier, version):
    run, path = Run.open(earlier), earlier / "calibrated" / CERTIFICATE
    found = prove(run)
    assert isinstance(found, Certificate)
    values = found.to_dict()
    values["format"] = f"lengthwise-certificate/{version}"
    # Rows, digits and operands of one digit, each by how far they are from what is written.
    values["cone"] = {"rows": [0], "reads": [["a", -1], ["a", 0]], "constants": [], "period": 1}
    for name in ("seen", "problems"):
        del values[name]
    if version == 1:
        del values["hashes"]["rule"]
    path.write_text(json.dumps(values), "utf-8")
    loaded = Certificate.load(path)
    assert loaded.cone == found.cone
    assert loaded.binds_rule == (version == 2)
    assert isinstance(verify(loaded, run), Certificate)
