"""What is installed: the wheel's content, and the bounds of what it needs."""

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def clean_environment():
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from this checkout with the tools that are here."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


def test_the_wheel_holds_all_that_the_package_reads(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        configs = {name for name in names if name.startswith("lengthwise/configs/")}
        for name in configs:
            assert archive.read(name) == (ROOT / name.removeprefix("lengthwise/")).read_bytes()
    assert len(configs) == len(list((ROOT / "configs").rglob("*.toml"))) > 0
    sources = ROOT / "src"
    here = {
        path.relative_to(sources).as_posix()
        for path in (sources / "lengthwise").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert here <= names


def test_the_lowest_versions_that_are_tested_are_the_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = {}
    for need in project["dependencies"]:
        name, lowest = re.fullmatch(r"([\w-]+)>=([\d.]+)(?:,.*)?", need).groups()
        bounds[name] = [int(part) for part in lowest.split(".")]
    pins = {}
    for line in (ROOT / "constraints-lowest.txt").read_text().splitlines():
        if found := re.match(r"([\w-]+)==([\d.]+)", line):
            pins[found[1]] = [int(part) for part in found[2].split(".")]
    assert set(bounds) <= set(pins)
    for name, lowest in bounds.items():
        if name != "torch":  # the file says why
            padded = lowest + [0] * (len(pins[name]) - len(lowest))
            assert pins[name] == padded, name


@pytest.mark.slow
def test_an_installed_wheel_runs_the_demo_anywhere(wheel, tmp_path):
    """Away from the checkout, with the libraries of this environment."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=False, symlinks=os.name != "nt")
    binaries = home / ("Scripts" if os.name == "nt" else "bin")
    install = [sys.executable, "-m", "pip", "--python", str(binaries / "python"), "install"]
    install += ["--quiet", "--no-deps", "--no-index", str(wheel)]
    environment = clean_environment()
    subprocess.run(install, check=True, env=environment)
    target = sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)})
    # Nothing but libraries: files that name further folders are read in the first place only.
    libraries = [place for place in sys.path if Path(place).name == "site-packages"]
    (Path(target) / "libraries.pth").write_text("\n".join(libraries) + "\n")

    def call(*arguments):
        done = subprocess.run(
            [str(binaries / "lengthwise"), *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert str(home) in call("config")
    (tmp_path / "mine.toml").write_text(call("config", "addition"))
    assert "(right)" in call("demo")
    report = (tmp_path / "runs" / "demo" / "report.html").read_text("utf-8")
    assert "calibrated" in report
    assert call("solve", "runs/demo", "99").strip() == "100"
    quick = [f"--set=training.{name}" for name in ("max_steps=50", "exact_match=0", "loss=100")]
    call("train", "mine.toml", "--out", "mine", *quick)
