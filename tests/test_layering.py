"""The flow of imports, read from the source: one way only, and nothing that runs code from files.

A new module needs a place in `FLOW`; a module may import those before it and those of its own
package. Every import counts, inside functions too; only what type checkers alone see does not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import lengthwise

PACKAGE = Path(lengthwise.__file__).parent

# Top to bottom: a module imports from those above it, never from those below.
FLOW = (
    "version",
    "errors",
    "arguments",
    "files",
    "own_code",
    "workers",
    "tasks",
    "problems",
    "methods",
    "bias",
    "locality",
    "task_checks",
    "engine",
    "model",
    "settings",
    "decoding",
    "runs",
    "training",
    "proof",
    "calibration",
    "own_models",
    "evaluation",
    "paper_repo",
    "pipeline",
    "forecast",
    "report",
    "sweeps",
    "reproduce",
    "progress",
    "api",
    "interop",
    "bench",
    "cli",
    "__main__",
    "__init__",  # the public names of the package
)

NOT_FROM_FILES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


def module_name(path: Path) -> str:
    """`bias/lines.py` is bias.lines; a package is named without `__init__`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


SOURCES = {module_name(path): path.read_text("utf-8") for path in PACKAGE.rglob("*.py")}


def imported(source: str, package: str = "") -> Iterator[tuple[str, bool]]:
    """Every module or name that a source imports, dotted, and whether only when a function runs.

    What stands under `if TYPE_CHECKING:` is left out.
    """

    def walk(node: ast.AST, lazy: bool) -> Iterator[tuple[str, bool]]:
        if isinstance(node, ast.Import):
            yield from ((alias.name, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{package}: relative import; write the whole name"
            yield from ((f"{node.module}.{alias.name}", lazy) for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.orelse:
                yield from walk(child, lazy)
        else:
            lazy = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for child in ast.iter_child_nodes(node):
                yield from walk(child, lazy)

    yield from walk(ast.parse(source), False)


def own_module(dotted: str, known: set[str]) -> str | None:
    """The module of ours that a dotted import names: the longest prefix that is one."""
    first, *rest = dotted.split(".")
    if first != "lengthwise":
        return None
    for end in range(len(rest), 0, -1):
        if ".".join(rest[:end]) in known:
            return ".".join(rest[:end])
    return "__init__"


def violations(sources: dict[str, str]) -> list[str]:
    """Every import that flows up, in a sentence."""
    found, known = [], set(sources)
    for name, source in sources.items():
        place = FLOW.index(name.split(".")[0])
        for dotted, _ in imported(source, name):
            target = own_module(dotted, known)
            if target is None:
                continue
            there = FLOW.index(target.split(".")[0])
            same_package = target.split(".")[0] == name.split(".")[0]
            if there > place or (there == place and not same_package):
                found.append(f"{name} imports {target}, which is below it")
    return found


def cycles(sources: dict[str, str]) -> list[str]:
    """Modules that import themselves by way of others (packages whose parts import each other)."""
    known = set(sources)
    edges = {
        name: {own_module(dotted, known) for dotted, lazy in imported(source) if not lazy}
        for name, source in sources.items()
    }
    found = []
    for name in edges:
        seen, to_do = set(), {target for target in edges[name] if target}
        while to_do:
            target = to_do.pop()
            if target not in seen:
                seen.add(target)
                to_do |= {t for t in edges.get(target, ()) if t}
        if name in seen:
            found.append(name)
    return found


def dangers(source: str) -> list[str]:
    """What could run code that comes from a file or from a person."""
    found = [
        f"imports {dotted}"
        for dotted, _ in imported(source)
        if dotted.split(".")[0] in NOT_FROM_FILES
    ]
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if called in {"eval", "exec", "compile", "__import__", "builtins.eval", "builtins.exec"}:
            found.append(f"calls {called}")
        if called.split(".")[-1] == "load" and called.split(".")[0] == "torch":
            if given.get("weights_only") != "True":
                found.append("calls torch.load without weights_only=True")
        elif called == "load" and any(d == "torch.load" for d, _ in imported(source)):
            found.append("imports torch.load by name; call it as torch.load")
        if given.get("allow_pickle", "False") != "False":
            found.append("allows pickle")
        if given.get("shell", "False") != "False" or called == "os.system":
            found.append("runs a shell")
    return found


def test_every_module_has_a_place_in_the_flow():
    unknown = sorted(name for name in SOURCES if name.split(".")[0] not in FLOW)
    assert not unknown, (
        f"no place in the flow of imports for {', '.join(unknown)}; add each top-level name to FLOW "
        "in tests/test_layering.py, below all that it imports"
    )


def test_imports_flow_one_way():
    assert len(SOURCES) > 20
    assert violations(SOURCES) == []


def test_no_module_imports_itself_in_a_circle():
    assert cycles(SOURCES) == []


@pytest.mark.parametrize("library", ["matplotlib", "seaborn", "plotly"])
def test_pictures_are_drawn_in_one_place(library):
    users = {
        name
        for name, source in SOURCES.items()
        if any(dotted.split(".")[0] == library for dotted, _ in imported(source))
    }
    drawing = {"report.backend", "report.canvas", "report.plots", "report.sheet_plots"}
    assert users <= (drawing if library == "matplotlib" else set())


def test_nothing_runs_code_from_files():
    found = {name: dangers(source) for name, source in SOURCES.items() if dangers(source)}
    # The one place that runs a file of a person's own, which they name; what opens runs must not ask it to.
    assert found == {"own_code": ["calls exec", "calls compile"]}
    for name, source in SOURCES.items():
        if name.split(".")[0] in ("runs", "bias", "proof", "problems", "training", "evaluation"):
            names = {dotted for dotted, _ in imported(source)}
            assert "lengthwise.own_code.load_class" not in names, f"{name} may not run a file"


# --- the walker itself ---

_LAZILY = "def f():\n    import lengthwise.report.plots"


@pytest.mark.parametrize(
    ("sources", "count"),
    [
        ({"tasks": "", "files": "", "problems": "from lengthwise.tasks import TASKS"}, 0),
        ({"tasks": "import lengthwise.problems", "problems": ""}, 1),
        ({"tasks": "from lengthwise import problems", "problems": ""}, 1),
        ({"tasks": "def f():\n    from lengthwise.problems import x", "problems": ""}, 1),
        ({"tasks": "if TYPE_CHECKING:\n    import lengthwise.problems", "problems": ""}, 0),
        ({"tasks": "if TYPE_CHECKING:\n  pass\nelse:\n  import lengthwise.runs", "runs": ""}, 1),
        ({"tasks": "import lengthwise"}, 1),
        ({"tasks.a": "from lengthwise.tasks.b import x", "tasks.b": ""}, 0),
        ({"evaluation.curve": "import lengthwise.report.plots", "report.plots": ""}, 1),
        ({"training": _LAZILY, "report.plots": ""}, 1),
        ({"cli": "import numpy, torch.nn"}, 0),
    ],
)
def test_the_walker_sees_what_flows_up(sources, count):
    assert len(violations(sources)) == count


def test_the_walker_sees_circles():
    a, b = "from lengthwise.tasks.b import x", "from lengthwise.tasks import a"
    assert cycles({"tasks.a": a, "tasks.b": b}) == ["tasks.a", "tasks.b"]
    assert cycles({"tasks.a": a, "tasks.b": ""}) == []


@pytest.mark.parametrize(
    ("source", "danger"),
    [
        ("eval('1')", "calls eval"),
        ("exec('1')", "calls exec"),
        ("import pickle", "imports pickle"),
        ("from pickle import loads", "imports pickle.loads"),
        ("def f():\n    import marshal", "imports marshal"),
        ("torch.load(path)", "calls torch.load without weights_only=True"),
        ("torch.load(path, weights_only=False)", "calls torch.load without weights_only=True"),
        ("torch.load(path, weights_only=flag)", "calls torch.load without weights_only=True"),
        ("from torch import load\nload(x)", "imports torch.load by name; call it as torch.load"),
        ("numpy.load(path, allow_pickle=True)", "allows pickle"),
        ("subprocess.run(text, shell=True)", "runs a shell"),
        ("os.system(text)", "runs a shell"),
    ],
)
def test_the_walker_sees_dangers(source, danger):
    assert dangers(source) == [danger]


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "torch.load(path, weights_only=True)",
        "json.loads(text)",
        "Layout.load(path)",
        "re.compile('a')",
    ],
)
def test_the_walker_lets_the_harmless_pass(source):
    assert dangers(source) == []
