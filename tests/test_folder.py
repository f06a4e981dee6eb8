"""Files and folders: errors name the file, texts are read as people save them, locks, versions."""

import contextlib
import errno
import os
import re
import shutil
import subprocess

import pytest
import torch
from matplotlib.figure import Figure
from safetensors import SafetensorError
from safetensors.torch import save_file

from lengthwise.bias import CalibratedBias, MatrixBias
from lengthwise.evaluation.curve import LengthCurve
from lengthwise.files import append_text, check_format, read_text, write_with
from lengthwise.paper_repo import load_ini
from lengthwise.proof import Certificate
from lengthwise.runs import folder as module
from lengthwise.runs import versions as versions_module
from lengthwise.runs.folder import LOCK, check_folder, locked, prepare
from lengthwise.runs.run import Run
from lengthwise.runs.versions import versions
from lengthwise.settings.config import InputError
from lengthwise.settings.files import load_config, shipped_configs

needs_full = pytest.mark.skipif(
    not os.path.exists("/dev/full"), reason="needs a device that is always full"
)


# --- writing ---


@needs_full
@pytest.mark.parametrize(
    "write",
    [
        lambda path: torch.save({"a": torch.zeros(100_000)}, path),
        lambda path: Figure().savefig(path, format="png"),
        lambda path: path.write_text("x" * 100_000),
    ],
    ids=["torch", "matplotlib", "text"],
)
def test_whoever_finds_the_disk_full_the_file_is_named(tmp_path, write):
    path = tmp_path / "file"
    path.write_text("before")

    def write_to_a_full_disk(temporary):
        temporary.unlink()
        temporary.symlink_to("/dev/full")
        write(temporary)

    with pytest.raises(OSError, match=re.escape(str(path))) as error:
        write_with(path, write_to_a_full_disk)
    assert ".part" not in str(error.value)
    assert path.read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("kind", [RuntimeError, SafetensorError])
def test_an_error_of_a_librarys_own_says_how_much_is_free(tmp_path, kind):
    def fail(temporary):
        raise kind("file write failed\nand a long trace")

    with pytest.raises(OSError, match=r"file: file write failed \([\d,]+ MiB are free there\)$"):
        write_with(tmp_path / "file", fail)


def test_a_fault_in_the_program_is_not_told_as_one_of_the_disk(tmp_path):
    with pytest.raises(TypeError):
        write_with(tmp_path / "file", lambda temporary: temporary.write_bytes(1))  # type: ignore


@needs_full
def test_a_row_that_does_not_fit_names_its_file(tmp_path):
    path = tmp_path / "rows"
    path.symlink_to("/dev/full")
    with pytest.raises(OSError, match="rows"):
        append_text(path, "a row\n")


# --- reading ---


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_text_is_read_as_people_save_it(tmp_path, encoding, end):
    path = tmp_path / "text"
    path.write_bytes(f"seed = 1{end}# größer{end}".encode(encoding))
    assert read_text(path) == "seed = 1\n# größer\n"


READERS = {
    "settings.toml": load_config,
    "config.json": load_config,
    "settings.ini": load_ini,
    "bias.jsonl": CalibratedBias.load,
    "certificate.json": Certificate.load,
    "results.json": lambda path: LengthCurve.load(path.parent),
}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1"])
@pytest.mark.parametrize("name", READERS)
def test_a_file_in_another_encoding_is_named(tmp_path, name, encoding):
    path = tmp_path / name
    path.write_bytes("# größer\n".encode(encoding))
    with pytest.raises(ValueError, match="save it as UTF-8") as error:
        READERS[name](path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("name", ["bias.jsonl", "config.json"])
def test_a_byte_order_mark_in_a_run_does_not_matter(tiny_abc, tmp_path, name):
    for source in tiny_abc.calibrated.path.iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + (tmp_path / name).read_bytes())
    run = Run.open(tmp_path)
    assert (run.config, run.bias) == (tiny_abc.calibrated.config, tiny_abc.calibrated.bias)


def test_settings_that_are_shipped_are_found():
    assert {"addition", "default", "paper"} <= set(shipped_configs())


# --- formats ---


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ("x/3", "a newer lengthwise wrote it"),
        ("x/1", "an older one wrote it"),
        ("y/2", "not 'x/2'"),
    ],
)
def test_another_format_is_told_from_no_format(found, words):
    check_format("x/2", "x/2")
    with pytest.raises(ValueError, match=words):
        check_format(found, "x/2")


def test_matrices_of_a_newer_format_say_so(tmp_path):
    path = tmp_path / "bias.safetensors"
    about = {"format": "lengthwise-matrices/2", "task": "addition"}
    save_file({"cross": torch.zeros(1, 1, 2, 2)}, path, about)
    with pytest.raises(ValueError, match=r"bias\.safetensors does not hold matrices.*a newer"):
        MatrixBias.load(path)


# --- locks ---


def test_a_lock_that_is_held_says_so_and_comes_free(tmp_path):
    with locked(tmp_path):
        with pytest.raises(InputError, match="another process is writing"), locked(tmp_path):
            pass
        assert (tmp_path / LOCK).exists()
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_without_locks_work_goes_on_after_one_line(tmp_path, monkeypatch, capsys, number):
    def fail(descriptor, blocking):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module, "lock_descriptor", fail)
    module._say_without_locks.cache_clear()
    done = []
    for name in ("a", "b"):
        with locked(tmp_path / name):
            (tmp_path / name / "file").write_text("x")
            done.append(name)
    assert done == ["a", "b"]
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"has no locks ({os.strerror(number)})" in err


def test_another_error_of_locking_names_its_cause(tmp_path, monkeypatch):
    def fail(descriptor, blocking):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(module, "lock_descriptor", fail)
    message = f"can't lock {tmp_path}: {os.strerror(errno.EIO)}"
    with pytest.raises(InputError, match=message), locked(tmp_path):
        pass


def test_a_file_in_the_place_of_a_folder_is_told_as_that(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="file is a file, not a folder"), locked(tmp_path / "file"):
        pass


def test_a_folder_that_nothing_was_written_to_goes_again(tmp_path):
    new = tmp_path / "runs" / "new"
    with locked(new):
        assert (new / LOCK).exists()
    with contextlib.suppress(ZeroDivisionError), locked(new):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_there_or_is_used_stays(tmp_path):
    (tmp_path / "old").mkdir()
    with locked(tmp_path / "old"), locked(tmp_path / "runs" / "new"):
        (tmp_path / "runs" / "new" / "file").write_text("x")
    assert {entry.name for entry in tmp_path.iterdir()} == {"old", "runs"}
    assert (tmp_path / "runs" / "new" / "file").read_text() == "x"


# --- where the program comes from ---


def git(folder, *arguments):
    own = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *own, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Somebody's repository with a copy of our module in it, in a folder that git ignores."""
    top = tmp_path / "theirs"
    package = top / "lib" / "lengthwise"
    package.mkdir(parents=True)
    (package / "version.py").write_text("x = 1\n")
    (top / ".gitignore").write_text("lib/\n")
    git(tmp_path, "init", "-q", str(top))
    git(top, "add", ".")
    git(top, "commit", "-q", "-m", "theirs")
    monkeypatch.setattr(versions_module, "__file__", str(package / "runs" / "versions.py"))
    return top


def of_git():
    return {key: value for key, value in versions().items() if key.startswith("git_")}


def test_the_commit_of_somebody_elses_repository_is_not_ours(repository):
    assert of_git() == {"git_repository": None, "git_commit": None, "git_changed": None}


def test_the_commit_of_our_own_repository_is_kept_with_its_name(repository, monkeypatch):
    git(repository, "add", "-f", "lib")
    git(repository, "commit", "-q", "-m", "ours")
    commit = git(repository, "rev-parse", "HEAD")
    known = {"git_repository": "theirs", "git_commit": commit, "git_changed": False}
    assert of_git() == known
    monkeypatch.setenv("GIT_DIR", str(repository / "elsewhere"))  # as in a hook of another
    assert of_git() == known
    (repository / "lib" / "lengthwise" / "version.py").write_text("x = 2\n")
    assert of_git() == {**known, "git_changed": True}


def test_force_leaves_a_folder_with_other_files_ours_to_write(tiny_abc, tmp_path):
    folder = shutil.copytree(tiny_abc.path, tmp_path / "run")
    shutil.copytree(folder / "calibrated", folder / "calibrated-1")
    (folder / "calibrated" / "NOTES.md").write_text("mine")
    prepare(folder, resume=False, force=True, pipeline=True)
    assert (folder / "calibrated" / "NOTES.md").read_text() == "mine"
    assert not (folder / "calibrated-1").exists()  # nothing of others was in it
    for part in ("vanilla", "calibrated"):
        check_folder(folder / part, resume=False, force=False)
