"""The notebooks are what their sources build, and every mistake is answered by its own hint."""
import ast
import json
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import ROOT

nbformat = pytest.importorskip("nbformat", reason="needs requirements-tutorial.txt")
from tutorial import build, checks, pictures  # noqa: E402
from tutorial.checks import Exercise, diagnose, mistake_in  # noqa: E402
from tutorial.kernel_checks import KernelExercise  # noqa: E402

SOURCES = {path.stem: path for path in build.sources()}
PROJECT = ("kernels", "semgan", "data", "metrics", "image_metrics", "app", "formats", "experiments")
MOST_LINES = 10  # of a cell of code; a gap has its signature, docstring and markers besides
MOST_LINES_OF_A_GAP = 20
LARGEST_FILE = 300_000  # bytes
REBUILD = "run: python tutorial/build.py"

every_notebook = pytest.mark.parametrize("name", SOURCES)


def committed(name):
    """The notebook with gaps and the solved one, as they are in the repository."""
    return [nbformat.read(path, 4) for path in build.paths(SOURCES[name])]


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def exercises_of(name):
    return {number: checks.find(number) for number, *_ in
            build.exercises(build.read(SOURCES[name]), name)}


EXERCISES = {number: exercise for name in SOURCES
             for number, exercise in exercises_of(name).items()}


# ------------------------------------------------------------------------------------ executed
@pytest.fixture(scope="session")
def built(request):
    """A function from a name to build's two notebooks; those that tests ask for, two at a time."""
    wanted = {item.callspec.params["name"]: 0 for item in request.session.items
              if "built" in item.fixturenames}
    with ThreadPoolExecutor(2) as pool:
        tasks = {name: pool.submit(build.build, SOURCES[name], fresh=True) for name in wanted}
        yield lambda name: tasks[name].result()


@every_notebook
def test_committed_is_what_the_source_builds(built, name):
    for old, new in zip(committed(name), built(name)):
        assert differences(old, new) == []


def differences(old, new):
    """What a rebuild would change: the first lines of the cells."""
    if old.metadata != new.metadata or [c.id for c in old.cells] != [c.id for c in new.cells]:
        return [f"other cells; {REBUILD}"]
    found = []
    for a, b in zip(old.cells, new.cells):
        first = b.source.partition("\n")[0]
        if (a.cell_type, a.source, a.metadata) != (b.cell_type, b.source, b.metadata):
            found.append(f"the cell `{first}` is another; {REBUILD}")
        elif a.cell_type == "code":
            if a.execution_count is not None:
                found.append(f"`{first}` has a number; {REBUILD}")
            if not build.same_outputs(a.outputs, b.outputs, "varies" in b.metadata.get("tags", ())):
                texts = [[build.text(o) for o in cell.outputs] for cell in (a, b)]
                found.append(f"`{first}` prints {texts[1]}; committed: {texts[0]}; {REBUILD}")
    return found


@every_notebook
def test_solutions_pass(built, name):
    answers = [(cell, build.CHECK.search(cell.source)) for cell in code_cells(built(name)[1])]
    answers = [(call[1], cell.outputs) for cell, call in answers if call]
    assert len(answers) == len(exercises_of(name))
    for number, outputs in answers:
        assert [output.text for output in outputs] == [f"{number} is right.\n"]


# ---------------------------------------------------------------------------------- as they stand
@every_notebook
def test_files_are_small_and_plain(name):
    """Sizes, widths of pictures, no stderr, no widgets, no errors, LF at the ends of lines."""
    for path, notebook in zip(build.paths(SOURCES[name]), committed(name)):
        content = path.read_bytes()
        assert len(content) < LARGEST_FILE, f"{path.name}: {len(content)} bytes"
        assert b"\r" not in content and notebook.metadata == build.METADATA
        nbformat.validate(notebook)
        for cell in code_cells(notebook):
            for output in cell.outputs:
                assert output.output_type != "error" and output.get("name") != "stderr", cell.source
                kinds = set(output.get("data", {}))
                assert kinds <= {"text/plain", "image/png"}, cell.source
                picture = build.picture(output)
                assert picture is None or picture.shape[1] <= build.LARGEST_WIDTH, cell.source


@every_notebook
def test_cells_are_short(name):
    for cell in code_cells(build.read(SOURCES[name])):
        gap = build.GAP.search(cell.source)
        lines = len([line for line in cell.source.splitlines() if line.strip()])
        assert lines <= (MOST_LINES_OF_A_GAP if gap else MOST_LINES), cell.source


@every_notebook
def test_links_resolve(name):
    for path, notebook in zip(build.paths(SOURCES[name]), committed(name)):
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                for link in re.findall(r"\]\(([^)\s]+)\)", cell.source):
                    if not link.startswith("https://"):
                        assert (path.parent / link.partition("#")[0]).exists(), link


@every_notebook
def test_asserts_of_agreement(name):
    """At least two cells compare something with what the project's functions give."""
    first, *cells = [ast.parse(cell.source) for cell in code_cells(build.read(SOURCES[name]))
                     if not build.GAP.search(cell.source)]
    project = set()
    for node in ast.walk(first):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in PROJECT:
            project |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            project |= {alias.asname or alias.name for alias in node.names
                        if alias.name.split(".")[0] in PROJECT}
    assert sum(agrees(cell, project) for cell in cells) >= 2


def agrees(tree, project):
    """Whether a cell has an assert and calls a function of the project."""
    nodes = list(ast.walk(tree))
    called = {inner.id for node in nodes if isinstance(node, ast.Call)
              for inner in ast.walk(node.func) if isinstance(inner, ast.Name)}
    return any(isinstance(node, ast.Assert) for node in nodes) and bool(called & project)


# -------------------------------------------------------------------------------------- exercises
@every_notebook
def test_exercises_are_complete(name):
    """The notebook has those of exercises/nNN.py, in order, each with hints and traps."""
    found = exercises_of(name)
    number = int(name[:2])
    assert list(found) == [f"{number}.{i}" for i in range(1, len(found) + 1)]
    module = checks.importlib.import_module(f"tutorial.exercises.n{number:02}")
    assert list(module.EXERCISES) == list(found)
    for exercise in found.values():
        assert len(exercise.hints) == 2 and exercise.traps
        hints = [*exercise.hints, *exercise.traps]
        assert all(hint.endswith((".", "?", ")")) and "\n" not in hint for hint in hints)


@every_notebook
def test_minutes_add_up(name):
    notebook = build.read(SOURCES[name])
    _, time = build.about(notebook, name)
    headings = [build.HEADING.match(cell.source) for cell in notebook.cells]
    assert sum(int(heading[3]) for heading in headings if heading) == int(time[2])
    assert int(time[1]) > int(time[2])


def test_the_table_of_notebooks():
    text = (ROOT / "tutorial" / "README.md").read_text(encoding="utf-8")
    assert build.TABLE.search(text)[0].splitlines() == list(build.table()), \
        "run: python tutorial/build.py --text"


@pytest.mark.parametrize("number", EXERCISES)
def test_the_reference_is_right(number):
    assert mistake_in(EXERCISES[number], EXERCISES[number].reference) is None


@pytest.mark.parametrize("number", EXERCISES)
def test_every_trap_gets_its_own_hint(number, request):
    """Of kernels, which must be compiled, every sixth trap; with --slow, all."""
    exercise = EXERCISES[number]
    traps = list(exercise.traps.items())
    if isinstance(exercise, KernelExercise) and not request.config.getoption("--slow"):
        traps = traps[::8]
    for hint, wrong in traps:
        fault = r"(the emulator stops it: \".*\"\. |it does not compile: .*\. )?"
        assert re.fullmatch(f"is not right yet: {fault}{re.escape(hint)}",
                            mistake_in(exercise, wrong)), hint


@every_notebook
def test_every_gap_prints_its_hint(name, capsys):
    """First one hint, then another, then the place of the solution, which exists."""
    gaps, solved = committed(name)
    names = {}
    exec(code_cells(gaps)[0].source, names)
    pairs = [(gap.id, check.id) for _, _, gap, check in
             build.exercises(build.read(SOURCES[name]), name)]
    cells = {cell.id: cell for cell in gaps.cells}
    for (gap, check), (number, exercise) in zip(pairs, exercises_of(name).items()):
        checks.FAILURES.clear()
        code = cells[gap].source + "\n" + cells[check].source
        assert "SOLUTION" not in code and not cells[gap].outputs and not cells[check].outputs
        capsys.readouterr()
        for expected in (f"Hint: {exercise.hints[0]}", f"Hint: {exercise.hints[1]}",
                         f"A solution is in tutorial/solutions/{name}.ipynb."):
            exec(code, names)
            assert capsys.readouterr().out == f"{number} not done yet. {expected}\n"
    assert build.paths(SOURCES[name])[1].exists()


WRONG, OTHER = lambda x, bias: (2 * x, bias.sum()), lambda x, bias: (3 * x, 0)
STRANGE = lambda x, bias: (np.exp(x), x.sum((0, 1, 2)))  # noqa: E731  (no mistake is named)
HINTS = [" Hint: Double it.", " Hint: Add the bias."]


@pytest.mark.parametrize("answers, helps", [
    ([..., ..., ..., ...], [*HINTS, "solution", "solution"]),
    ([WRONG, WRONG, WRONG, WRONG, WRONG], ["", *HINTS, "solution", "solution"]),
    ([WRONG, OTHER, 3, ...], ["", *HINTS, "solution"]),
    ([..., WRONG, OTHER, WRONG], [HINTS[0], "", HINTS[1], "solution"]),
    ([STRANGE, WRONG, STRANGE], [*HINTS, "solution"]),
    ([WRONG, STRANGE, ...], ["", *HINTS]),
    ([WRONG, ..., "right", WRONG, OTHER], ["", HINTS[0], None, "", HINTS[0]])])
def test_each_failure_helps_more(answers, helps, monkeypatch, capsys):
    """Hints come in order: from the second wrong answer on, if the first mistake is named."""
    monkeypatch.setattr(checks, "find", lambda number: ONE)
    monkeypatch.setattr(checks, "place_of_solution", lambda number: "solution")
    checks.FAILURES.clear()
    for answer, text in zip(answers, helps):
        answer = twice if answer == "right" else answer
        assert checks.check("3.1", answer) is (text is None)
        sentence = mistake_in(ONE, answer) or "is right."
        end = f" {text.strip()}" if text else ""
        assert capsys.readouterr().out == f"3.1 {sentence}{end}\n"


def test_without_solutions_a_sentence_says_so(tmp_path, monkeypatch, capsys):
    """Where a student got the gaps only."""
    monkeypatch.setattr(checks, "FOLDER", tmp_path)
    checks.FAILURES.clear()
    for _ in range(3):
        assert checks.check("3.1", ...) is False
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("3.1 not done yet. There is no further hint") and "/" not in last


# ----------------------------------------------------------------------------------- the machinery
SOURCE = '''# %% [markdown]
# # A title
#
# A [link](../kernels/plain.py#PlainOps).

# %%
from tutorial.checks import check

# %% [markdown]
# ### Exercise 3.1: a name
#
# *Difficulty 2 of 3 · 5 minutes · Good for: a test.*

# %%
given = 3

# %%
def f(x):
    """Twice x."""
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION

# %%
check("3.1", f);

# %% tags=["varies"]
given
'''


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A small source in a folder of its own."""
    monkeypatch.setattr(build, "FOLDER", ROOT / "tutorial")
    path = tmp_path / "03_small.py"
    path.write_text(SOURCE, encoding="utf-8")
    return path


def test_gaps_and_marks(source):
    solved = build.with_links(build.read(source), "../../")
    gaps = build.with_links(build.without_solutions(build.read(source)), "../")
    *_, gap, check, last = gaps.cells
    assert gap.source == ('def f(x):\n    """Twice x."""\n    # YOUR CODE HERE\n'
                          "    raise NotImplementedError()")
    assert "nbgrader" not in gap.metadata and last.metadata.tags == ["varies"]
    marked = solved.cells[-3].metadata.nbgrader, solved.cells[-2].metadata.nbgrader
    assert [m.grade_id for m in marked] == ["exercise-3-1", "check-3-1"]
    assert marked[0].solution and marked[1].grade and marked[1].points == 2
    line = build.line_of("kernels/plain.py", "PlainOps")
    assert f"](../kernels/plain.py#L{line})" in gaps.cells[0].source
    assert f"](../../kernels/plain.py#L{line})" in solved.cells[0].source


def test_the_gap_of_a_kernel():
    cell = 'a = r"""\n{\n    // ### BEGIN SOLUTION\n    f();\n    // ### END SOLUTION\n}\n"""'
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    gap = build.without_solutions(notebook).cells[0].source
    assert gap == 'a = r"""\n{\n    // YOUR CODE HERE\n    #error not done yet\n}\n"""'


def test_an_answer_outside_a_function_is_left_out():
    cell = "best = ...\n### BEGIN SOLUTION\nbest = 3\n### END SOLUTION"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    assert build.without_solutions(notebook).cells[0].source == "best = ..."


@pytest.mark.parametrize("old, new, message", [
    ("*Difficulty 2", "*Difficult 2", "the lines below must be as build.py says"),
    ('check("3.1", f);', 'check("3.2", f);', r'expected .* check\("3.1", f\)'),
    ("given\n", "f(given)\n", "cells use an exercise's answer: f")])
def test_bad_sources_are_refused(source, old, new, message):
    before, _, after = SOURCE.rpartition(old)
    source.write_text(before + new + after, encoding="utf-8")
    with pytest.raises(build.BuildError, match=message):
        build.build(source, run=False)


@pytest.mark.parametrize("old, new, equal", [
    ("loss 1.234", "loss 1.235", True), ("loss 1.234", "loss 1.236", False),
    ("error 3.1e-02", "error 3.2e-02", True), ("error 3.1e-02", "error 3.1e-03", False),
    ("7 maps", "8 maps", False), ("-0.50", "0.50", False), ("a 1.0", "b 1.0", False),
    ("0.1 0.2", "0.1", False), ("[1. 2.]", "[1. 3.]", False)])
def test_numbers_are_compared_to_the_digits_shown(old, new, equal):
    assert build.same_text(old, new) is equal


def output(**changes):
    data = dict(output_type="stream", name="stdout", text="1.50") | changes
    return nbformat.from_dict(data)


def test_what_counts_as_another_output():
    assert build.same_outputs([output()], [output()])
    assert not build.same_outputs([output()], [output(text="1.53")])
    assert build.same_outputs([output()], [output(text="1.53")], varies=True)
    assert not build.same_outputs([output()], [output(name="stderr")], varies=True)
    assert not build.same_outputs([output()], [])


def test_a_rebuild_keeps_what_is_equal():
    cells = [nbformat.v4.new_code_cell("x", id=name) for name in "ab"]
    old, new = [nbformat.v4.new_notebook(cells=json.loads(json.dumps(cells))) for _ in range(2)]
    old, new = nbformat.from_dict(old), nbformat.from_dict(new)
    for notebook, texts in (old, ("1.50", "2.50")), (new, ("1.51", "2.60")):
        for cell, text in zip(notebook.cells, texts):
            cell.outputs = [output(text=text)]
    build.keep_equal_outputs(old, new)
    assert [cell.outputs[0].text for cell in new.cells] == ["1.50", "2.60"]


def test_differences_are_found():
    """Of a committed notebook with any one thing changed."""
    name = next(iter(SOURCES))
    _, right = committed(name)
    assert differences(right, right) == []
    place = next(i for i, c in enumerate(right.cells) if c.cell_type == "code"
                 and c.outputs and c.outputs[0].get("text"))

    def change(edit):
        notebook = nbformat.from_dict(json.loads(json.dumps(right)))
        edit(notebook.cells[place], notebook)
        return differences(notebook, right)
    assert "is another" in change(lambda cell, _: cell.update(source="x"))[0]
    assert "is another" in change(lambda cell, _: cell.metadata.update(tags=["a"]))[0]
    assert "has a number" in change(lambda cell, _: cell.update(execution_count=1))[0]
    assert "prints" in change(lambda cell, _: cell.outputs[0].update(text="7"))[0]
    assert "other cells" in change(lambda _, notebook: notebook.cells.pop())[0]
    assert "other cells" in change(lambda _, notebook: notebook.metadata.update(a=1))[0]


# -------------------------------------------------------------------------------------- diagnoses
RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 5, 4, 2))
SQUARE = RNG.standard_normal((4, 4))
SIZES = {"B": 3, "H": 5, "W": 7, "C": 11, "kh kw": 49}


def changed(place, x=X):
    x = x.copy()
    x[place] += 1 + np.arange(x[place].size).reshape(x[place].shape)
    return x


@pytest.mark.parametrize("found, expected, sentence", [
    (None, X, "it returns None. Is there a `return`?"),
    ("7", 7.0, "it is str; expected a number."),
    (X[0], X, "the shape is (5, 4, 2); expected (3, 5, 4, 2)."),
    (X.transpose(0, 2, 1, 3), X, "the axes stand in the wrong order: shape (3, 4, 5, 2)"),
    (X.ravel(), X, "the numbers are right, but the shape is (120,)"),
    (SQUARE.T, SQUARE, "two axes are exchanged, 0 and 1."),
    (SQUARE[::-1], SQUARE, "it is flipped along axis 0."),
    (SQUARE[::-1, ::-1], SQUARE, "it is flipped along the axes 0 and 1."),
    (X.astype(np.float32), X, "the numbers are right, but of dtype float32; expected float64."),
    (np.where(X > 1, np.nan, X), X, "numbers are NaN. Often this comes from 0 / 0, 0 times"),
    (np.where(X == X.max(), np.nan, X), X, "1 of 120 numbers is NaN."),
    (np.where(X > 1, np.inf, X), X, "numbers are infinite. Often this comes from exp of a large"),
    (float("inf"), 2.0, "it is infinite."), (-np.inf, 2.0, "it is infinite."),
    (np.float64("nan"), 2.0, "it is NaN."), (np.array([np.nan]), np.ones(1), "it is NaN."),
    (np.full((7, 1, 1, 1), 2.5), 2.0, "the shape is (7, 1, 1, 1); expected a number."),
    (np.array([2.5]), 2.0, "2.5 is too large."), (np.array([-2.0]), 2.0, "the sign is wrong."),
    ([2.5], 2.0, "the shape is (1,); expected a number."),
    (np.array([[2.0]]), 2.0, "the number is right, but the shape is (1, 1); expected a number."),
    (2.0, X, "the shape is (); expected (3, 5, 4, 2)."),
    (-X, X, "the sign is wrong."),
    (49 * X, X, "it is 49 times too large: that is kh kw."),
    (X / 3, X, "it is 3 times too small: that is B."),
    (105 * X, X, "it is 105 times too large: that is B H W."),
    (X / 1078, X, "it is 1078 times too small: that is 2 C kh kw."),
    (X / 2, X, "it is 2 times too small."),
    (-2 * X, X, "it is 2 times too large, and the sign is wrong."),
    (1.7 * X, X, "it is 1.7 times too large."),
    (X + 3, X, "every number is 3 too large."),
    (changed(np.s_[1:]), X, "it is right for the first map of the batch only."),
    (changed(np.s_[:, 0]), X, "it is right inside, but wrong at the border (1 wide)."),
    (changed(np.s_[0, 2, 1]), X, "2 of 120 numbers are wrong, most of all at [0, 2, 1, 1]:"),
    (6.0, 2.0, "it is 3 times too large: that is B."),
    (3.1, 2.0, "3.1 is too large."),
    (1.0, 0.0, "1 is too large."),
    ((X, X), (X, -X), "result 2: the sign is wrong."),
    (X, (X, X), "it returns one result; expected 2."),
    ({"a": X}, {"b": X}, "expected a dict with the keys b."),
    ({"b": -X}, {"b": X}, "b: the sign is wrong."),
    ("a", "b", "it is not 'a'."),
    (np.array([1, 2]), np.array([1.0, 2.5]), "numbers are wrong"),
])
def test_diagnose(found, expected, sentence):
    assert sentence in diagnose(found, expected, SIZES)


def twice(x, bias):
    return 2 * x + bias, bias.sum()


ONE = Exercise(twice, ("Double it.", "Add the bias."), inputs=(X, np.arange(2.0)),
               traps={"the bias is missing.": lambda x, bias: (2 * x, bias.sum())},
               results=("y", "total"))


def changes_its_argument(x, bias):
    x *= 2
    return x + bias, bias.sum()


def changes_both(x, bias):
    right = twice(x, bias)
    x += 1
    bias += 1
    return right


@pytest.mark.parametrize("answer, sentence", [
    (lambda x, bias: (2 * x, bias.sum()), "is not right yet: the bias is missing."),
    (lambda x, bias: (2 * x + bias, -bias.sum()), "is not right yet: total: the sign is wrong."),
    (lambda x, bias: 2 * x + bias, "it returns one result; expected 2."),
    (changes_its_argument, "the function changes its argument x."),
    (changes_both, "the function changes its arguments x and bias."),
    (lambda x: x, "it stops with TypeError: "),
    (lambda x, bias: x @ bias[1:], "(in the line `(lambda x, bias: x @ bias[1:]"),
    (3, "asks for a function, but this is int."), (..., "not done yet.")])
def test_mistakes_in_functions(answer, sentence):
    assert mistake_in(ONE, twice) is None
    assert sentence in mistake_in(ONE, answer)


def test_an_argument_may_be_a_generator_of_random_numbers():
    """Each call gets a copy in the same state."""
    exercise = Exercise(lambda rng: rng.random(3), ("A.", "B."), (np.random.default_rng(0),))
    assert mistake_in(exercise, lambda rng: rng.uniform(0, 1, 3)) is None
    assert mistake_in(exercise, lambda rng: -rng.random(3)).endswith("the sign is wrong.")


@pytest.mark.parametrize("right, equal, wrong", [
    (3, [3, 3.0, np.int64(3), np.array(3)], [4, "3", True, [3]]),
    (0.25, [0.25, np.float32(0.25), np.array([0.25])],
     [0.2501, None, np.array([0.2501]), np.array([[0.25]]), np.array([0.25, 0.25])]),
    ("b", ["b"], ["a", 1]),
    (np.array([1, 2]), [np.array([1, 2]), [1, 2]], [np.array([1, 3]), np.array([1.0, 2.0])]),
    ([0, 2], [[0, 2], np.array([0, 2])], [[2, 0], [0]])])
def test_answers_that_are_no_functions(right, equal, wrong):
    exercise = Exercise(right, ("A.", "B."))
    assert [mistake_in(exercise, answer) for answer in equal] == [None] * len(equal)
    assert all("is not right yet" in mistake_in(exercise, answer) for answer in wrong)
    assert "not for a function" in mistake_in(exercise, lambda: right)


ODD = [None, "a", 1 + 2j, [1, [2]], np.array(["a"]), object(), {}, {"b": 3}, set(), (), (1,), True,
       np.zeros((0, 3)), float("nan"), np.float32(1), X.astype(complex), X[..., None], 10 ** 400,
       np.array(None), np.zeros((1,) * 9), [X, X], max, np.int8(-128), X > 0, NotImplemented]


@pytest.mark.parametrize("expected", [3, 0.5, "b", X, np.arange(3), (X, X), (1, "a"), {"b": X},
                                      [1, 2], True, None], ids=lambda e: type(e).__name__)
def test_odd_answers_get_a_sentence(expected):
    """Whatever a student gives, as a value or from a function, check does not raise."""
    for odd in ODD:
        value = mistake_in(Exercise(expected, ("A.", "B.")), odd)
        result = mistake_in(Exercise(lambda a: a, ("A.", "B."), (expected,)), lambda a, b=odd: b)
        assert value is None or value.endswith(".")
        assert result is None or result.endswith((".", "?"))


def test_nbgrader_counts_points(monkeypatch, capsys):
    """There, and only there, a wrong answer raises."""
    number = next(iter(EXERCISES))
    assert checks.check(number, ...) is False and checks.check(number, None) is False
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    with pytest.raises(AssertionError, match=f"^{number} not done yet"):
        checks.check(number, ...)
    assert checks.check(number, EXERCISES[number].reference) is True


def test_pictures():
    """Labels, RGB and grey; at most 640 pixels wide; enlarged without blurring."""
    maps = np.array([[[0, 1], [2, 3]]] * 3, np.uint8)
    picture = pictures.drawn(maps, pictures.SHAPES, 2)
    zoom = picture.shape[1] // 8
    assert picture.shape == (8 * zoom, 8 * zoom, 3) and zoom > 10
    small = picture[::zoom, ::zoom]
    np.testing.assert_array_equal(small[1:3, 1:3], pictures.SHAPES[maps[0]])
    assert (small[0] == 128).all() and (small[5:7, 5:7] == 255).all()
    rgb = pictures.SHAPES[maps]
    one = pictures.drawn(maps[:1], pictures.SHAPES, 1)
    for other in rgb[:1], rgb[:1] / 255, rgb[0], rgb[0] / 255:
        np.testing.assert_array_equal(pictures.drawn(other, None, 1), one)
    grey = pictures.drawn(np.array([[0.5, 1.5]]), None, 8)
    assert set(grey[..., 0].ravel()) == {0, 128, 255}
    wide = pictures.drawn(np.zeros((20, 64, 64), int), pictures.SHAPES, 8)
    assert wide.shape[1] <= pictures.WIDTH
    with pytest.raises(ValueError, match="choose fewer columns"):
        pictures.drawn(np.zeros((20, 64, 64), int), pictures.SHAPES, 16)
