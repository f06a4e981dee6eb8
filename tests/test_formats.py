"""What another version wrote, and what does not fit: told as that, by file, with both sides."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from lengthwise.bias import CalibratedBias
from lengthwise.calibration.maps import AttentionMaps
from lengthwise.proof import Certificate
from lengthwise.report.html import open_folder
from lengthwise.runs.run import Run
from lengthwise.runs.settings import read_config
from lengthwise.settings.config import InputError, make_config
from lengthwise.training.checkpoint import FORMAT
from lengthwise.training.trainer import NotInterpolatedError, train_run
from lengthwise.version import __version__


@pytest.fixture
def folder(tiny_abc, tmp_path):
    """A calibrated run of one's own."""
    return shutil.copytree(tiny_abc.calibrated.path, tmp_path / "run")


def change_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.trains
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"format": "lengthwise-checkpoint/7", "lengthwise": "9.1"}, ("9.1", "checkpoint/7")),
        ({"step": 3}, ("0.0.1", "format none")),
    ],
)
def test_a_checkpoint_of_another_version_says_so(tmp_path, tiny_values, content, words):
    tiny_values["training"] |= {"max_steps": 60, "checkpoint_every": 50}
    config, path = make_config(tiny_values), tmp_path / "run"
    with pytest.raises(NotInterpolatedError):
        train_run(config, path)
    (path / "model.safetensors").unlink()
    assert torch.load(path / "checkpoint.pt", weights_only=True)["lengthwise"] == __version__
    change_json(path / "versions.json", lengthwise="0.0.1")
    torch.save(content, path / "checkpoint.pt")
    with pytest.raises(InputError, match="train again with --force") as error:
        train_run(config, path, resume=True)
    for word in (str(path / "checkpoint.pt"), FORMAT, __version__, *words):
        assert word in str(error.value)


def test_settings_of_a_newer_version_name_file_setting_and_version(folder):
    change_json(folder / "config.json", imagined=1)
    change_json(folder / "versions.json", lengthwise="9.1")
    with pytest.raises(InputError) as error:
        Run.open(folder)
    message = str(error.value)
    assert message.startswith(f"{folder / 'config.json'}: unknown setting 'imagined'")
    assert message.endswith(f"lengthwise 9.1 wrote it, this is {__version__}")


def test_a_setting_that_a_person_mistypes_is_not_blamed_on_the_file(folder):
    with pytest.raises(InputError, match=r"^unknown setting in \[model\] 'widht'"):
        Run.open(folder, set=["model.widht=1"])
    path = folder / "mine.toml"
    path.write_text("[model]\nwidht = 1\n")
    with pytest.raises(InputError, match=r"mine\.toml: unknown setting in \[model\] 'widht'"):
        read_config(path)
    path.write_text("[model]\nwidth = 30\n")  # an assignment may mend what a file says
    assert read_config(path, ["model.width=32"]).model.width == 32


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: {**t, "extra": torch.zeros(2)}, "of extra it has [2], the model of"),
        (lambda t: {k: v for k, v in t.items() if "target_emb" not in k}, "it has none, the model"),
        (
            lambda t: {k: v[:-1] if "target_emb" in k else v for k, v in t.items()},
            "it has [11, 32]",
        ),
    ],
    ids=["more", "fewer", "other shape"],
)
def test_weights_that_do_not_fit_name_the_tensor_and_both_shapes(folder, change, words):
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path)
    with pytest.raises(InputError, match="does not hold this run's weights") as error:
        _ = Run.open(folder).model
    assert words in str(error.value)
    assert str(path) in str(error.value)


def test_a_bias_of_a_newer_format_says_so(folder):
    path = folder / "bias.jsonl"
    path.write_text(path.read_text().replace("lengthwise-bias/2", "lengthwise-bias/3"))
    with pytest.raises(ValueError, match="a newer lengthwise wrote it; install that"):
        CalibratedBias.load(path)


def test_maps_of_a_newer_format_say_so(tiny_abc, tmp_path, monkeypatch):
    path = tmp_path / "maps.safetensors"
    monkeypatch.setattr("lengthwise.calibration.maps.FORMAT", "lengthwise-maps/3")
    tiny_abc.maps.save(path)
    monkeypatch.undo()
    with pytest.raises(InputError, match="'lengthwise-maps/2': a newer lengthwise wrote it"):
        AttentionMaps.load(path)


def test_a_certificate_of_a_newer_format_says_so(tmp_path):
    path = tmp_path / "certificate.json"
    path.write_text(json.dumps({"format": "lengthwise-certificate/4", "proven": True}))
    with pytest.raises(InputError, match="a newer lengthwise wrote it"):
        Certificate.load(path)


@pytest.mark.parametrize(("name", "part"), [("results.json", "."), ("metrics.jsonl", "vanilla")])
def test_rows_of_a_newer_version_say_so(tiny_abc, tmp_path, name, part):
    folder = shutil.copytree(tiny_abc.path, tmp_path / "run")
    path = folder / part / name
    path.write_text(path.read_text().replace('"seconds"', '"minutes"'))
    with pytest.raises(
        InputError, match="'minutes' is unknown to this lengthwise; a newer one may"
    ):
        open_folder(folder, "run", tmp_path / "plots")
