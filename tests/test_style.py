"""What the code promises its readers: short lines, functions and files, and imports one way."""
import ast

import pytest
from conftest import ROOT

SOURCES = sorted(path for folder in (".", "app", "experiments", "formats", "kernels", "tutorial",
                                     "tutorial/exercises")
                 for path in (ROOT / folder).glob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "tutorial" / "source").glob("*.py"))
LONGER_FILES = {"semgan.py": 500}  # else 420 lines
LISTS = "tutorial/exercises/"  # wrong answers one after another: looked up, not read
# What may import what. semgan, data, metrics and inception import app only to be commands.
RANKS = {"kernels": 0, "formats": 0, "semgan": 1, "data": 1, "image_metrics": 1, "metrics": 1,
         "inception": 1, "app": 2, "experiments": 3, "tutorial": 3}


def name(path):
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES + TESTS + NOTEBOOKS, ids=name)
def test_lines(path):
    long = [i for i, line in enumerate(path.read_text().splitlines(), 1) if len(line) > 100]
    assert not long, f"more than 100 columns in lines {long}"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_functions_and_files(path):
    text = path.read_text()
    most = 750 if name(path).startswith(LISTS) else LONGER_FILES.get(name(path), 420)
    assert len(text.splitlines()) <= most
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            lines = node.end_lineno - node.lineno + 1
            assert lines <= 40, f"{node.name} has {lines} lines"


def imported(tree):
    """The first parts of all imported names, outside `if __name__ == "__main__"`."""
    main = {inner for node in tree.body if isinstance(node, ast.If) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and node not in main:
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node not in main:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_imports_run_one_way(path):
    own = RANKS[name(path).split("/")[0].removesuffix(".py")]
    tree = ast.parse(path.read_text())
    upwards = {other for other in imported(tree) if RANKS.get(other, 0) > own}
    assert not upwards, f"imports {', '.join(upwards)}"
    assert "pyplot" not in path.read_text(), "plots by matplotlib.figure.Figure"
