'''Exercises whose answer is a kernel: a text like that of a .cu file, which runs in the emulator.

In the notebook the gap is a text in three quotes. Begin it in the cell's first line: then the lines
that messages name are those of the cell. Students write between the marks, and leave the head.

    twice = r"""
    extern "C" __global__ __launch_bounds__(256)
    void twice(const float* __restrict__ x, float* __restrict__ y, int n) {
        // ### BEGIN SOLUTION
        int i = blockIdx.x * blockDim.x + threadIdx.x;
        if (i < n) y[i] = 2 * x[i];
        // ### END SOLUTION
    }
    """

    check("13.1", twice);

And in exercises/n13.py, where RIGHT is the same text (then it is compiled only once):

    KernelExercise(RIGHT, ("...", "..."), run=launched("twice"),
                   inputs=[(x, blank(1000), 1000), (x[:7], blank(7), 7)],
                   traps={"the last block has more threads than ...": changed(RIGHT, "i < n", "1")})

The inputs are the kernel's arguments. What it may write (pointers without const) are its results.
`blank` fills them with NaN, so that a number that nobody writes shows. Each call gets a new
emulated device with the same order of threads, so the same mistake gives the same numbers.

A wrong kernel is compared with the traps, like any answer, by what it computes. If the emulator
stops it, by the emulator's sentence, without lines, threads, and of a race the index and which of
the two threads read or wrote. The student sees that sentence first, with all of these, and then the
trap's hint if there is one, which begins with a capital letter then:

    13.1 is not right yet: the emulator stops it: "twice: argument 'x' (1000 elements) accessed at
    index 1000, by thread (232, 0, 0) of block (3, 0, 0)". The last block has more threads than ...

Some mistakes need no trap, since they look the same in each exercise: words of Python, and missing
braces. See PYTHON and missing_braces.

Each different text takes half a second to compile, once. Traps that are seldom met come last.
'''
import atexit
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kernels.cuda_ops import CudaOps
from kernels.emulator import Emulator
from kernels.gpu import Gpu
from kernels.gradient_check import on_host
from kernels.launch import FOLDER, DeviceError, KernelError, LaunchError, read
from kernels.replacement import declaration
from tutorial.checks import Exercise, Fault, calls_of, same

FILE = "answer.cu"
MARKS = re.compile(r"^ *// ### (BEGIN|END) SOLUTION\n", re.M)
NBGRADER = re.compile(r"^ *#(?= YOUR CODE HERE)", re.M)  # its comment would be no comment in C
GAP_LEFT = re.compile(r"^ *(#error|raise NotImplementedError)", re.M)  # build.py's or nbgrader's
PLACE = re.compile(r"(,? in|,? at|,? by)? \b(line|thread|block) (\d+|\([\d, ]*\))")
PYTHON = {  # what does not compile, but would be right in Python: how C writes it
    r"\w *//=? *\w+ *[,;)]":  # not a comment behind a statement
        "In C, // begins a comment, and / divides",
    r"\bif\b[^;{}?]*\belse\b": "In C, b if a else c is written a ? b : c",
    r"(?m)^ *(if|else|for|while)\b[^;?]*: *$":
        "In C no colon stands after if, else, for or while, and braces { } hold the body",
    r"\belif\b": "In C, elif is written else if"}
ADVICE = {  # what a compiler says: what to do. (Compilers write quotes differently, hence `.`)
    r".(block|size|thread). was not declared":
        "In CUDA these are blockIdx.x, blockDim.x and threadIdx.x",
    r".(inf|INFINITY|FLT_MAX). was not declared":
        "There is no infinity here. Begin with one of the numbers themselves",
    r"was not declared": "Write the type where a variable first appears: int or float",
    r"redeclar|redefin": "Write the type only where a variable first appears",
    r"uninitialized": "Give it a value where it is declared",
    r"variable length array": "The length of an array must be a constant",
    r"invalid types .*\[": "Arrays are flat: they have one index"}
COMMENT = re.compile(r"(?<!\w)(?<!\w )//.*|//(?!=? *\w+ *[,;)]).*")  # no division as in Python
HEAD = re.compile(r" *(\} *)?(else|(else )?(if|for|while)\b *\([^{}]*\))")  # and no brace
DECLARED = re.compile(r"\b(if|for|while)\b[^{}\n]*\)\s*(int|float|real) (\w+)")
RACE = re.compile(r"(a race: .*?) is (read|written) .*")


@dataclass
class KernelExercise(Exercise):
    """An Exercise whose reference and traps are texts of .cu files.

    run        run(device, path of the file, *arguments) launches the answer's kernels, and returns
               the results in NumPy: launched(kernel), stands_in(function), or a function of yours
    precision  of convolutions: "fp32", "tf32" or "bf16"; see kernels.load
    count      whether run can look at device.counts
    """
    run: object = None
    precision: str = "fp32"
    count: bool = False
    tolerance: float = 1e-5
    of_nan = "The kernel has not written them, or this comes"  # see blank

    def outcomes(self, answer):
        """For each call (its results, ()) or a Fault."""
        if not isinstance(answer, str):
            return [Fault(f"it is {type(answer).__name__}, not a text", "")]
        if GAP_LEFT.search(answer):
            return [NotImplementedError()]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / FILE
            answer = NBGRADER.sub("//", MARKS.sub("", answer))
            path.write_text(answer, encoding="utf-8")
            right = Path(folder) / "right.cu"
            right.write_text(self.reference, encoding="utf-8")
            found = [self.outcome(path, right, arguments) for arguments in calls_of(self)]
        return self.with_braces(answer, found)

    def with_braces(self, answer, found):
        """The outcomes; if they are wrong and braces are missing, these are the mistake."""
        said = missing_braces(answer)
        if not said or same(found, self.known(self.reference), self.tolerance):
            return found
        return [Fault(f"{f}. {said}" if isinstance(f, Fault) else said, said) for f in found]

    def outcome(self, path, right, arguments):
        device = Emulator(precision=self.precision, seconds=2, count=self.count)
        try:
            require_same_heads(read(path), read(right))
            return self.run(device, path, *arguments), ()
        except (KernelError, LaunchError) as error:
            return fault(error, path)


def require_same_heads(found, right):
    """Raises LaunchError unless the answer has the kernels that the exercise launches."""
    def heads(source):
        return {name: f"{name}({', '.join(map(declaration, kernel.parameters))})"
                for name, kernel in source.kernels.items()}
    missing = [head for name, head in heads(right).items() if heads(found).get(name) != head]
    if missing:
        raise LaunchError(f"expected a kernel with the head {missing[0]}")


def missing_braces(answer):
    """A sentence about the second statement of a body that needs braces and has none, or "".

    Its line is indented like the body's first, or that one declares a variable.
    """
    lines = [(number, COMMENT.sub("", line).rstrip()) for number, line in
             enumerate(answer.splitlines(), 1) if COMMENT.sub("", line).strip()]
    for (_, head), (_, first), (number, second) in zip(lines, lines[1:], lines[2:]):
        if HEAD.fullmatch(head) and first.endswith(";") and not second.endswith("}"):
            if indent(second) == indent(first) > indent(head):
                return (f"Line {number} is not in the body of `{head.strip()}`: without braces "
                        "{ } only the first statement is")
    declared = DECLARED.search(COMMENT.sub("", answer))
    return f"The body of `{declared[1]} (...)` is only the declaration of {declared[3]}, which " \
        "the next statement does not know: put both between braces { }" if declared else ""


def indent(line):
    return len(line) - len(line.lstrip())


def fault(error, path):
    """The Fault that says what a KernelError or LaunchError says."""
    first, *rest = str(error).replace(f"{path}", FILE).replace(f"{FILE}: ", "").splitlines()
    first = first.replace(f"{FILE}, ", "")
    if first.startswith("does not compile"):
        pointers = [f" ({line.rstrip('.')})" for line in rest if line.startswith("In the emulator")]
        if "read-only" in first:  # an assignment to x[i], where x is const: needs no pointers
            first, pointers = re.sub(r"(\w+)\.emulator::Global.*(?=\W$)", r"\1[...]", first), []
        first = re.sub(r"/\S*\.cpp, line \d+: |; did you mean .\S*::\S*.\?", "", first)
        code = COMMENT.sub("", path.read_text(encoding="utf-8"))
        advice = [said for words, said in ADVICE.items() if re.search(words, first)][:1]
        advice += [said for python, said in PYTHON.items() if re.search(python, code)]
        sentence = ". ".join([f"it {first}{''.join(pointers)}", *advice])
    elif isinstance(error, LaunchError):
        sentence = f"it cannot be launched: {first}"
    else:
        sentence = f'the emulator stops it: "{first}"'
    return Fault(sentence, RACE.sub(r"\1", PLACE.sub("", first)))


# ---------------------------------------------------------------------------- for notebooks' cells
def find_device():
    """The GPU if there is one, else the emulated device."""
    try:
        return Gpu()
    except DeviceError:
        return Emulator()


def text_of(file, name):
    """A kernel or device function of a file in kernels/, with the comment above it."""
    for part in (FOLDER / file).read_text(encoding="utf-8").split("\n\n"):
        if re.search(rf"\b{name}\(", part.partition("{")[0]):
            return part.strip()
    raise KeyError(name)


def saved(text, name="mine.cu"):
    """The path of a file with this text. It is gone when Python ends."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / name).write_text(MARKS.sub("", text), encoding="utf-8")
    return folder / name


# ---------------------------------------------------------------------------------------- for traps
def changed(text, *pairs):
    """The text with the first of each pair replaced by the second. It must be there."""
    for old, new in zip(pairs[::2], pairs[1::2]):
        assert old in text, old
        text = text.replace(old, new)
    return text


# ------------------------------------------------------------------------------------------- runs
def blank(*shape):
    """An array for results, in which a number that nobody writes is NaN."""
    return np.full(shape, np.nan, np.float32)


def launched(kernel, threads=None):
    """A run that launches one kernel, once: in a row of blocks, each as large as its launch bound.

    There are enough blocks for threads(*arguments) threads; without, for one thread for each number
    of the first result.
    """
    def run(device, path, *arguments):
        parameters, bound = read(path).kernels[kernel][1:]
        there = [device.upload(a) if isinstance(a, np.ndarray) else a for a in arguments]
        results = [a for a, p in zip(there, parameters) if p.pointer and not p.const]
        count = threads(*arguments) if threads else results[0].size
        device.launch(path, kernel, -(-count // bound), bound, *there)
        results = tuple(map(device.download, results))
        return results if len(results) > 1 else results[0]
    return run


def stands_in(function):
    """A run in which the answer's kernels stand in for the project's: function(ops, *arguments)."""
    def run(device, path, *arguments):
        return function(on_host(CudaOps(device, replace=path)), *arguments)
    return run
