"""The edges of the command line: missing, full and narrow streams, and an environment in the way."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from lengthwise.cli import entry
from lengthwise.progress import display
from lengthwise.runs.metrics import Metrics
from lengthwise.settings.config import make_config

pytestmark = pytest.mark.trains

posix = pytest.mark.skipif(os.name != "posix", reason="needs a Unix shell")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def shell(words, redirection="", **changes):
    """Run a command as a shell does, with redirections."""
    line = f'exec "$@" {redirection}'
    command = ["sh", "-c", line, "sh", sys.executable, "-m", "lengthwise", *map(str, words)]
    return subprocess.run(
        command, env={**ENVIRONMENT, **changes}, capture_output=True, text=True, check=False
    )


# --- streams ---


@posix
@pytest.mark.parametrize(
    ("words", "closed"),
    [
        (["evaluate", "{run}", "--lengths", "4", "--samples", "2"], ">&-"),
        (["prove", "{run}"], "2>&-"),
        (["solve", "{run}", "42"], "<&- >&- 2>&-"),
        (["report", "{run}"], "<&- >&- 2>&-"),
        (["--help"], ">&- 2>&-"),
    ],
    ids=lambda given: given if isinstance(given, str) else given[0],
)
def test_missing_streams_do_not_matter(tiny_abc, tmp_path, words, closed):
    run = shutil.copytree(tiny_abc.path, tmp_path / "run")
    done = shell([word.replace("{run}", str(run)) for word in words], closed)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr


@posix
def test_without_stdin_there_is_nothing_to_read(tiny_abc):
    done = shell(["solve", tiny_abc.path, "-"], "<&-")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("lengthwise: stdin is closed")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_results_that_can_not_be_written_are_one_line():
    done = shell(["--help"], "> /dev/full")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("lengthwise: ")
    assert "No space left on device" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_character_that_stdout_lacks_is_shown_by_its_number(tiny_abc, encoding):
    done = shell(["solve", tiny_abc.path, "4٢"], PYTHONIOENCODING=encoding)
    assert done.returncode == 2
    assert "unexpected '\\u0662' at position 2" in done.stderr
    assert shell(["--help"], PYTHONIOENCODING=encoding).returncode == 0


def test_a_missing_stream_keeps_its_number(tmp_path):
    """No file that is opened later may get it, for it would be written to."""
    program = """
import os, sys
for number in range(3): os.close(number)
sys.stdin = sys.stdout = sys.stderr = None
from lengthwise.cli.streams import prepare_streams
prepare_streams()
print("lost")
assert sys.stdin is None and sys.stdout.fileno() == 1 and sys.stderr.fileno() == 2
number = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
os.write(number, str(number).encode())
"""
    path = tmp_path / "number"
    subprocess.run([sys.executable, "-c", program, str(path)], check=True)
    assert int(path.read_text()) > 2


# --- an environment in the way ---


@pytest.mark.parametrize(
    "changes",
    [
        {"MPLBACKEND": "module://matplotlib_inline.backend_inline"},
        {"MPLBACKEND": "nonsense"},
        {"MPLBACKEND": "module://nowhere"},
        {"MATPLOTLIBRC": "{tmp}/usetex"},
        {"MATPLOTLIBRC": "{tmp}/undecodable"},
        {"MPLCONFIGDIR": "{tmp}/usetex"},
        {"HOME": "{tmp}/nowhere", "TERM": "dumb", "COLUMNS": "junk", "TERMINAL_WIDTH": "junk"},
    ],
    ids=lambda changes: " ".join(changes.values()),
)
def test_no_variable_of_the_environment_breaks_a_picture(tiny_abc, tmp_path, changes):
    (tmp_path / "usetex").write_text("text.usetex: True\nbackend: nowhere\n")
    (tmp_path / "undecodable").write_bytes(b"\xff\xfebackend: agg\n")
    given = {name: value.replace("{tmp}", str(tmp_path)) for name, value in changes.items()}
    picture = tmp_path / "picture.png"
    done = shell(["explain", tiny_abc.path, "--plot", picture], **given)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("given", "kept"), [("svg", "svg"), ("nonsense", None)])
def test_the_users_own_plots_keep_their_backend(given, kept):
    program = """
import os
import lengthwise.report.plots, matplotlib
assert os.environ["MPLBACKEND"] == os.environ["GIVEN"]
print(matplotlib.rcParams._get("backend"))
"""
    environment = {**ENVIRONMENT, "MPLBACKEND": given, "GIVEN": given}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert kept is None or done.stdout.strip() == kept


def test_variables_of_processes_that_can_not_be_met_are_one_line(tiny_file, tmp_path):
    done = shell(["train", tiny_file, "--out", tmp_path / "run"], LOCAL_RANK="x")
    assert done.returncode == 2
    assert "as the environment asks (LOCAL_RANK): invalid literal" in done.stderr
    done = shell(["config"], RANK="3")  # but one process
    assert "default" in done.stdout


# --- options and arguments ---


@pytest.mark.parametrize("expression", ["-5", "-5+3", "-x", "--5"])
def test_what_begins_with_a_dash_is_a_bad_expression(tiny_abc, capsys, expression):
    assert entry.run(["solve", str(tiny_abc.path), expression]) == 2
    assert f"unexpected '-' at position 1 of '{expression}'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--jsno", "No such option: --jsno; did you mean --json?"),
        ("--decod=parallel", "No such option: --decod; did you mean --decode?"),
        ("--zzzz", "No such option: --zzzz\n"),
    ],
)
def test_a_mistyped_option_of_solve_is_one(tiny_abc, capsys, option, message):
    assert entry.run(["solve", str(tiny_abc.path), "1", option]) == 2
    assert message in capsys.readouterr().err


def test_expressions_in_utf_16_are_told_as_that(tiny_abc, tmp_path, capsys):
    path = tmp_path / "expressions"
    path.write_bytes("1\n2\n".encode("utf-16"))
    assert entry.run(["solve", str(tiny_abc.path), "--file", str(path)]) == 2
    assert f"{path}: it is not UTF-8 text" in capsys.readouterr().err


def test_from_alone_asks_for_to(tiny_abc, capsys):
    assert entry.run(["evaluate", str(tiny_abc.path), "--from", "10"]) == 2
    assert "--from 10 needs --to" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "advice"),
    [
        ("train", "; what was finished is kept, and --resume continues it"),
        ("prove", "; the same command goes on from there"),
        ("evaluate", "; what was measured to the end is kept where the run can be written"),
        ("solve", ""),
    ],
)
def test_the_advice_after_an_interruption_fits_the_command(monkeypatch, capsys, command, advice):
    def interrupted(arguments, standalone_mode):
        raise KeyboardInterrupt

    monkeypatch.setattr(entry, "app", interrupted)
    assert entry.run([command, "run"]) == 2
    assert capsys.readouterr().err == f"lengthwise: interrupted{advice}\n"


def test_a_shipped_settings_file_is_printed_whole(capsys, tmp_path):
    assert entry.run(["config", "addition"]) == 0
    path = tmp_path / "mine.toml"
    path.write_text(capsys.readouterr().out)
    assert entry.run(["config", "addition", "--json"]) == 0
    assert make_config(json.loads(capsys.readouterr().out)).task == "addition"
    assert entry.run(["config", "adition"]) == 2
    assert "unknown settings file 'adition'; did you mean 'addition'?" in capsys.readouterr().err


# --- signals and processes ---


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no such signal")
def test_a_closed_terminal_leaves_a_checkpoint(tiny_file, tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "lengthwise", "train", str(tiny_file), "--out", str(out)]
    command += ["--set", "training.loss=1e-12", "--set", "training.max_steps=100000"]
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    deadline, rows = time.monotonic() + 60, out / "metrics.jsonl"
    # The file is made before the first step, from which on a signal leaves a checkpoint.
    while not (rows.exists() and rows.read_text("utf-8")) and time.monotonic() < deadline:
        time.sleep(0.01)
    for _ in range(2):  # from the terminal, and passed on by the shell
        process.send_signal(signal.SIGHUP)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err.splitlines()[-1].startswith("lengthwise: interrupted; what was finished is kept")
    assert (out / "checkpoint.pt").exists()


def test_torchruns_summary_is_told_why(monkeypatch, tmp_path, capsys):
    path = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(path))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert entry.run(["abc", "adition"]) == 2
    assert capsys.readouterr().err == ""  # the first process says it
    message = json.loads(path.read_text())["message"]
    assert message["message"].startswith("lengthwise: unknown task 'adition'")
    assert message["extraInfo"]["timestamp"].isdecimal()


# --- progress and tables ---


def test_what_failed_is_said_though_a_launcher_asks_to_end(monkeypatch, capsys):
    """As torchrun does, at once, of the others where one process has gone."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)

    def tell(error, command):
        os.kill(os.getpid(), signal.SIGTERM)
        return entry._fail(f"{command} failed: {error}")

    def fail(arguments, **options):
        raise ValueError("lost")

    monkeypatch.setattr(entry, "_known", tell)
    monkeypatch.setattr(entry, "app", fail)
    try:
        assert entry.run(["train"]) == 2
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().err == "lengthwise: train failed: lost\n"


@pytest.mark.parametrize("columns", ["20", "40"])
def test_a_table_in_a_pipe_is_as_wide_as_it_needs(tiny_abc, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    file = io.StringIO()
    display.print_curve(tiny_abc.curve, file)
    rows = [line for line in file.getvalue().splitlines() if line.startswith("│")]
    assert len(rows) == 3
    assert "…" not in file.getvalue()
    assert all(row.count("%") == 4 for row in rows)
    assert "calibrated" in file.getvalue()


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("columns", ["20", "40"])
def test_a_narrow_terminal_gets_a_list(tiny_abc, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", "xterm")
    file = Terminal()
    display.print_curve(tiny_abc.curve, file)
    lines = file.getvalue().splitlines()
    assert lines.count("30 digits") == 1
    assert "  calibrated carry: 100.0% of 100" in lines
    assert len(lines) == 3 * 5


def test_help_cuts_no_option_at_forty_columns():
    done = shell(["train", "--help"], COLUMNS="40")
    assert "--self-bias" in done.stdout
    assert "…" not in done.stdout


def test_a_log_file_hears_of_a_training_every_few_seconds(monkeypatch, capsys, tiny_config):
    monkeypatch.setattr(display, "_EVERY", 0.01)
    row = {"step": 100, "loss": 0.5, "validation_loss": 0.25, "worst_loss": 2.0}
    row |= {"exact_match": 0.5, "learning_rate": 1e-3, "seconds": 1.0}
    row |= {"tokens_per_second": 2000.0, "phase": "stable"}
    err = ""
    with display.Display() as shown:
        shown.begin("train", tiny_config)
        shown.trained("train", Metrics(**row))
        deadline = time.monotonic() + 60
        while not err and time.monotonic() < deadline:
            time.sleep(0.01)
            err = capsys.readouterr().err
    said = "Train a vanilla model:  step 100 of 3,000  2k tokens/s  loss 2.5e-01  exact 50.0%"
    assert said in err.splitlines()
    capsys.readouterr()
    time.sleep(0.05)
    assert capsys.readouterr().err == ""  # and no longer than it lasts


@pytest.mark.parametrize(("rank", "says"), [("0", True), ("1", False)])
def test_of_several_processes_the_first_shows_progress(
    rank, says, monkeypatch, capsys, tiny_config
):
    monkeypatch.setattr(display, "_EVERY", 0.001)
    monkeypatch.setenv("RANK", rank)
    with display.observing(True) as shown:
        shown.begin("train", tiny_config)
        time.sleep(0.05)
        shown.end("train", 1.0)
    assert bool(capsys.readouterr().err) == says
