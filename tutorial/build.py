"""Builds the notebooks of the tutorial from their sources.

    python tutorial/build.py           # all
    python tutorial/build.py 03 04     # some
    python tutorial/build.py 03 --text # only prose has changed: nothing is executed

source/NN_name.py becomes NN_name.ipynb, with gaps for the student, and solutions/NN_name.ipynb,
which is executed and carries nbgrader's metadata. README.md gets a row about it. Write in the
source, never in a notebook. An output that has not changed, to the digits shown, stays as it is,
and so do similar pictures and cells tagged `varies`. With --fresh all are replaced.

For authors: source/03_checking_gradients.py and exercises/n03.py are the pattern.

- Cells start with `# %%` or `# %% [markdown]`. One idea a cell, at most ten lines of code. A cell
  whose output differs between machines (seconds, rounding errors) is `# %% tags=["varies"]`.
- The first cell has a title, `# 3. Checking gradients: how do I know?`, the question, what one
  needs to know, and "Time: about 50 minutes, of which 35 are exercises."
- The first code cell sets sys.path and imports; no other cell imports from the project.
- A name of the project's function means the project's; yours is `my_softmax`. At least two cells
  `assert` that both agree: np.allclose, with the project's function called in the same cell.
- Links: `](../kernels/plain.py)`, with `#name` for the line of `def name` or `class name`. They
  are adapted to solutions/. Links to notebooks: `](04_convolution.ipynb)`.
- Figures come from matplotlib at most 640 pixels wide, `figsize=(6.4, 3)`, or from checks.show.
  End with plt.show(). No widgets, no progress bars, nothing on stderr.

An exercise is at least three cells, and no other cell may use its answer:

1. Markdown that starts with these lines, and then says what to do:

       ### Exercise 3.1: differences

       *Difficulty 1 of 3 · 10 minutes · Good for: one sentence.*

   Cells with what is given may follow.

2. The gap: code with a solution between `### BEGIN SOLUTION` and `### END SOLUTION`. Inside a
   function the student gets `raise NotImplementedError()` there. Outside, the lines are left out:
   write `answer = ...` (three dots) above, which counts as not done. Use only names of the first
   code cell and of the gap itself. A CUDA kernel is a cell `name = r"..."`, with three quotes, and
   has the marks as comments: `// ### BEGIN SOLUTION` and `// ### END SOLUTION`. The student gets
   `#error not done yet` there, with which no compiler would go on.
3. `check("3.1", f);`, nothing else; f is a name from the gap. (The semicolon hides the `True`.)

The right answer, the inputs, the hints and the wrong answers that get a hint of their own stand in
exercises/nNN.py: see `Exercise` in checks.py, and for kernels kernel_checks.py.
"""
import argparse
import ast
import base64
import copy
import hashlib
import io
import os
import re
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jupytext
import nbformat
import numpy as np
from nbclient import NotebookClient
from PIL import Image
from traitlets.config import Config

FOLDER = Path(__file__).resolve().parent
METADATA = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python", "file_extension": ".py"}}
GAP = re.compile(r"^( *)(// )?### BEGIN SOLUTION\n.*?^ *(// )?### END SOLUTION\n?", re.M | re.S)
STUB = "# YOUR CODE HERE\nraise NotImplementedError()\n"  # as nbgrader writes it
STUB_OF_A_KERNEL = "// YOUR CODE HERE\n#error not done yet\n"
CHECK = re.compile(r'check\("(\d+\.\d+)", (\w+)\);')
HEADING = re.compile(r"### Exercise (\d+\.\d+): .+\n\n"
                     r"\*Difficulty ([123]) of 3 · (\d+) minutes · Good for: [^*]+\*")
TITLE = re.compile(r"# (\d+\. [^:\n]+): (.+)")
TIME = re.compile(r"Time: about (\d+) minutes, of which (\d+) are exercises")
TABLE = re.compile(r"(?<=<!-- notebooks -->\n).*(?=<!-- end -->)", re.S)  # in README.md
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
LARGEST_WIDTH = 640  # of a picture, in pixels


class BuildError(Exception):
    pass


# ---------------------------------------------------------------------------------------- sources
def sources(numbers=()):
    """The sources whose names start with the given numbers, or all."""
    return [path for path in sorted((FOLDER / "source").glob("*.py"))
            if not numbers or path.name.split("_")[0] in numbers]


def read(path):
    """The solved notebook, without outputs. Each cell's id is made from its source."""
    notebook = jupytext.reads(path.read_text(encoding="utf-8"), "py:percent")
    seen = {}
    for cell in notebook.cells:
        digest = hashlib.sha256(f"{cell.cell_type} {cell.source}".encode()).hexdigest()[:12]
        seen[digest] = seen.get(digest, 0) + 1
        cell.id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
    notebook.metadata = nbformat.from_dict(copy.deepcopy(METADATA))
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, difficulty, gap, check in exercises(notebook, path.name):
        mark(gap, f"exercise-{number.replace('.', '-')}", solution=True)
        mark(check, f"check-{number.replace('.', '-')}", solution=False, points=int(difficulty))
    return notebook


def exercises(notebook, name):
    """Yields (number, difficulty, gap cell, check cell). Raises BuildError."""
    cells = notebook.cells
    for i, cell in enumerate(cells):
        if cell.source.startswith("### Exercise"):
            heading = HEADING.match(cell.source)
            if not heading:
                raise BuildError(f"{name}: {cell.source.splitlines()[0]!r}: the lines below must "
                                 "be as build.py says")
            number, difficulty, _ = heading.groups()
            at = next((j for j in range(i, len(cells)) if GAP.search(cells[j].source)), -2)
            gap, check = cells[at], cells[min(at + 1, len(cells) - 1)]
            call = CHECK.fullmatch(check.source.strip())
            if not call or call[1] != number:
                raise BuildError(f"{name}: exercise {number}: expected a cell with a solution, and "
                                 f'then a cell with check("{number}", f);')
            yield number, difficulty, gap, check


def mark(cell, grade_id, solution, points=None):
    """Writes nbgrader's metadata (schema 3)."""
    graded = {"grade": not solution, "grade_id": grade_id, "locked": not solution,
              "schema_version": 3, "solution": solution, "task": False}
    cell.metadata["nbgrader"] = graded if solution else graded | {"points": points}


def without_solutions(solved):
    """A copy for the student: gaps in place of solutions, and no output of them."""
    notebook = copy.deepcopy(solved)
    for cell in notebook.cells:
        if cell.cell_type == "code" and (GAP.search(cell.source) or CHECK.search(cell.source)):
            cell.source = GAP.sub(stub, cell.source).rstrip()
            cell.outputs = []
        cell.metadata.pop("nbgrader", None)
    return notebook


def stub(match):
    indent = match[1]
    if match[2]:
        return "".join(indent + line for line in STUB_OF_A_KERNEL.splitlines(True))
    return "".join(indent + line for line in STUB.splitlines(True)) if indent else ""


def answers_used_later(notebook):
    """Names that a gap defines and another cell uses, apart from its check."""
    gaps = [cell for cell in notebook.cells if GAP.search(cell.source)]
    answers = set().union(*(defined(cell.source) for cell in gaps), set())
    others = [cell.source for cell in notebook.cells if cell.cell_type == "code"
              and cell not in gaps and not CHECK.search(cell.source)]
    return answers & {node.id for source in others for node in ast.walk(ast.parse(source))
                      if isinstance(node, ast.Name)}


def defined(source):
    """Names that code defines at its outermost level."""
    tree = ast.parse(source)
    names = {node.name for node in tree.body if hasattr(node, "name")}
    return names | {target.id for node in tree.body if isinstance(node, ast.Assign)
                    for target in node.targets if isinstance(target, ast.Name)}


# ------------------------------------------------------------------------------------------ links
def with_links(notebook, to_project):
    """A copy whose links to the project's files start with to_project; `#name` becomes a line."""
    def resolved(match):
        file, name = match.groups()
        return f"]({to_project}{file}{'#L' + str(line_of(file, name)) if name else ''})"
    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\]\(\.\./([^)#]+)(?:#([A-Za-z_]\w*))?\)", resolved, cell.source)
    return notebook


def line_of(file, name):
    text = (FOLDER.parent / file).read_text(encoding="utf-8")
    if file.endswith(".py"):
        for number, line in enumerate(text.splitlines(), 1):
            if re.match(rf"\s*(def|class) {name}\b", line):
                return number
    raise BuildError(f"a link to {file}#{name}: there is no {name}")


# -------------------------------------------------------------------------------------- execution
def execute(notebook):
    """Fills in the outputs, in the folder solutions/ and without a GPU."""
    env = os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", record_timing=False,
                            extra_arguments=["--log-level=ERROR"],  # no advice about transports
                            resources={"metadata": {"path": str(FOLDER / "solutions")}})
    with tempfile.TemporaryDirectory() as folder:
        if os.name != "nt":  # sockets in a folder: a port may be taken by another build meanwhile
            client.config = Config(KernelManager={"transport": "ipc", "ip": f"{folder}/kernel"})
        client.execute(env=env)
    notebook.metadata = nbformat.from_dict(copy.deepcopy(METADATA))  # without Python's version
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = [clean(output) for output in merged(cell.outputs)]
    return notebook


def merged(outputs):
    """Text that the kernel sent in several pieces as one."""
    result = []
    for output in outputs:
        last = result[-1] if result else {}
        if output.output_type == "stream" == last.get("output_type") and output.name == last.name:
            last.text += output.text
        else:
            result.append(output)
    return result


def clean(output):
    """Without counts, and of a picture nothing but the picture."""
    if output.output_type == "execute_result":
        output.execution_count = None
    if "image/png" in output.get("data", {}):
        output.data = nbformat.from_dict({"image/png": output.data["image/png"].strip() + "\n"})
        output.metadata = nbformat.from_dict({})
    return output


def keep_equal_outputs(old, new):
    """Outputs of the old notebook stay where they say the same, so that a rebuild is small."""
    before = {cell.id: cell for cell in old.cells}
    for cell in new.cells:
        if cell.cell_type == "code" and cell.id in before:
            kept = before[cell.id].outputs
            if same_outputs(kept, cell.outputs, "varies" in cell.metadata.get("tags", ())):
                if all(map(similar_pictures, kept, cell.outputs)):
                    cell.outputs = kept


def same_outputs(old, new, varies=False):
    """Equal kinds; equal texts, numbers to the digits shown, unless it `varies`."""
    if [kind(a) for a in old] != [kind(b) for b in new]:
        return False
    return varies or all(same_text(text(a), text(b)) for a, b in zip(old, new))


def kind(output):
    return output.output_type, output.get("name"), *sorted(output.get("data", {}))


def text(output):
    if output.output_type == "error":
        return output.evalue
    return output.get("text") or output.get("data", {}).get("text/plain", "")


def same_text(old, new):
    """Equal but for numbers, which may differ by one in the last digit after the point."""
    if NUMBER.split(old) != NUMBER.split(new):
        return False
    for a, b in zip(NUMBER.findall(old), NUMBER.findall(new)):
        if a != b and not (last_digit(a) and abs(float(a) - float(b)) < 1.01 * last_digit(a)):
            return False
    return True


def last_digit(number):
    """The size of one unit in the last digit shown: 0.01 of 1.23; 0 of a whole number."""
    digits, _, exponent = number.partition("e")
    if "." not in digits:
        return 0
    return 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2]))


def similar_pictures(old, new):
    """The same picture but for what another version of a library may draw differently."""
    a, b = picture(old), picture(new)
    return a is None or a.shape == b.shape and np.abs(a - b).mean() < 1


def picture(output):
    """The pixels (H, W, 3) of an output as floats, or None."""
    data = output.get("data", {}).get("image/png")
    if data is None:
        return None
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"), float)


# ------------------------------------------------------------------------------------------ build
def paths(source):
    """Of the notebook with gaps and of the solved one."""
    name = f"{source.stem}.ipynb"
    return FOLDER / name, FOLDER / "solutions" / name


def build(source, run=True, fresh=False):
    """The notebook with gaps and the solved one. run=False: outputs of the committed notebook."""
    solved, committed = read(source), paths(source)[1]
    used = answers_used_later(solved)
    if used:
        raise BuildError(f"{source.name}: cells use an exercise's answer: {', '.join(used)}")
    old = nbformat.read(committed, 4) if committed.exists() else nbformat.v4.new_notebook()
    if run:
        execute(solved)
        if not fresh:
            keep_equal_outputs(old, solved)
    else:
        take_outputs(old, solved, source.name)
    return with_links(without_solutions(solved), "../"), with_links(solved, "../../")


def take_outputs(old, solved, name):
    outputs = {cell.id: cell.outputs for cell in old.cells if cell.cell_type == "code"}
    for cell in solved.cells:
        if cell.cell_type == "code":
            if cell.id not in outputs:
                raise BuildError(f"{name}: code has changed: build without --text")
            cell.outputs = outputs[cell.id]


def table():
    """Lines for README.md: each notebook with its question, minutes and number of exercises."""
    yield "| notebook | question | minutes | exercises |"
    yield "|---|---|---|---|"
    for source in sources():
        notebook = read(source)
        title, time = about(notebook, source.name)
        count = len(list(exercises(notebook, source.name)))
        yield f"| [{title[1]}]({source.stem}.ipynb) | {title[2]} | {time[1]} | {count} |"


def about(notebook, name):
    """Matches of the first cell's title and of its minutes. Raises BuildError."""
    first = notebook.cells[0].source
    title, time = TITLE.match(first), TIME.search(" ".join(first.split()))
    if not title or not time:
        raise BuildError(f"{name}: the first cell must be as build.py says")
    return title, time


def write_table():
    path = FOLDER / "README.md"
    lines = "".join(f"{line}\n" for line in table())
    text = TABLE.sub(lambda _: lines, path.read_text(encoding="utf-8"))
    path.write_text(text, encoding="utf-8", newline="\n")


def write(notebook, path):
    path.parent.mkdir(exist_ok=True)
    content = nbformat.writes(notebook, 4).rstrip() + "\n"
    path.write_text(content, encoding="utf-8", newline="\n")


def build_and_write(source, run=True, fresh=False):
    for notebook, path in zip(build(source, run, fresh), paths(source)):
        write(notebook, path)
    return source.stem


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("numbers", nargs="*", help="such as 03; without, all")
    parser.add_argument("--text", action="store_true", help="take the outputs that are there")
    parser.add_argument("--fresh", action="store_true", help="replace equal outputs too")
    options = parser.parse_args()
    with ThreadPoolExecutor(2) as pool:
        for name in pool.map(lambda path: build_and_write(path, not options.text, options.fresh),
                             sources(options.numbers)):
            print(name)
    write_table()


if __name__ == "__main__":
    try:
        main()
    except BuildError as error:
        sys.exit(f"build.py: {error}")
