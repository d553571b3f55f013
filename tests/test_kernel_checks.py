"""Exercises whose answer is a kernel: each mistake is one sentence, and each trap has its hint."""
import numpy as np
import pytest

from tutorial.checks import NOT_DONE, mistake_in
from tutorial.kernel_checks import KernelExercise, blank, launched, stands_in

HEAD = """
extern "C" __global__ __launch_bounds__(256)
void twice(const float* __restrict__ x, float* __restrict__ y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
"""
RIGHT = HEAD + "    if (i < n) y[i] = 2 * x[i];\n}\n"
TRAPS = {"guard.": RIGHT.replace("if (i < n)", ""), "last.": RIGHT.replace("<", "<="),
         "first.": RIGHT.replace("i < n", "0 < i && i < n"), "once.": RIGHT.replace("2 *", "1 *"),
         "all.": RIGHT.replace("y[i]", "y[0]"),
         "barrier.": RIGHT.replace("if (", "if (i < n) __syncthreads();\n    if (")}
x = np.arange(1, 1001, dtype=np.float32)
EXERCISE = KernelExercise(RIGHT, ("Double it.", "Mind the end."), run=launched("twice"),
                          inputs=[(x, blank(1000), 1000), (x[:7], blank(7), 7)], traps=TRAPS)


def found(answer, exercise=EXERCISE):
    return mistake_in(exercise, answer)


@pytest.mark.parametrize("answer", [
    RIGHT, RIGHT.replace("2 * x[i]", "x[i] + x[i]"),
    RIGHT.replace("    if", "    // ### BEGIN SOLUTION\n    if"), RIGHT.replace("256", "64"),
    RIGHT.replace("    if", "    # YOUR CODE HERE\n    if")])
def test_right_answers(answer):
    assert found(answer) is None


@pytest.mark.parametrize("hint", TRAPS)
def test_a_mistake_with_other_words_and_lines(hint):
    """It is the same mistake if it has the same effect."""
    answer = "\n\n" + TRAPS[hint].replace("int i =", "int number = 3, i =")
    assert found(answer).endswith(f" {hint}")


@pytest.mark.parametrize("answer, sentence", [
    (TRAPS["last."], 'the emulator stops it: "twice: argument \'x\' (1000 elements) accessed at '
     'index 1000, by thread (232, 0, 0) of block (3, 0, 0)". last.'),
    (RIGHT.replace("x[i]", "x[i - 1]"), "argument 'x' (1000 elements) accessed at index -1, by"),
    (RIGHT.replace("2 *", "3 *"), "it is 1.5 times too large."),
    (RIGHT.replace(";\n}", "\n}"), "it does not compile: line 5: expected"),
    (RIGHT.replace("y[i]", "z[i]"), "it does not compile: line 5: "),
    (RIGHT.replace("y[i]", "x[i]"), "read-only location"),
    (RIGHT.replace("void twice", "void twise"), "expected a kernel with the head twice(const"),
    (RIGHT.replace("int n)", "int m)"), "expected a kernel with the head twice(const float* x, "),
    (RIGHT.replace("__global__", ""), "expected a kernel with the head"),
    (RIGHT.replace("__launch_bounds__(256)", ""), "expected each kernel as: extern"),
    (HEAD + "while (true) { }\n}\n", "since no block ended for 2 seconds"),
    (lambda: RIGHT, "asks for the answer itself, not for a function."),
    (3, "it is int, not a text."),
])
def test_sentences(answer, sentence):
    assert sentence in found(answer) and "\n" not in found(answer) and "/" not in found(answer)


@pytest.mark.parametrize("line", ["    #error not done yet", "    raise NotImplementedError()"])
def test_a_gap_is_not_done(line):
    assert found(HEAD + line + "\n}\n") == found(...) == NOT_DONE


def test_division_as_in_python():
    line = "    int i = blockIdx.x // 1, j = 0;\n    y[i] = 2 * x[i];\n"
    assert found(HEAD + line + "}\n").endswith("In C, // begins a comment, and / divides.")
    line = "    int i = unknown;\n    if (i < n)  // guard\n        y[i] = 2 * x[i];\n"
    assert "In C" not in found(HEAD + line + "}\n")


@pytest.mark.parametrize("lines, sentence", [
    (["if (i < n) y[i] = 2 * x[i] if n else 0;  // double"], "b if a else c is written a ? b : c."),
    (["if (i < n):", "    y[i] = 2 * x[i];"], "no colon stands after if, else, for or while, and "),
    (["if (i == 0) y[i] = 2;", "elif (i < n) y[i] = 2 * x[i];"], "elif is written else if.")])
def test_other_lines_as_in_python(lines, sentence):
    said = found(HEAD + "\n".join(lines) + "\n}\n")
    assert "it does not compile: line 5" in said or "line 6" in said
    assert sentence in said and said.count("In C") == 1


BODY = ["    if (i < n)  // guard", "        float v = x[i];", "", "        y[i] = 2 * v;"]


@pytest.mark.parametrize("lines, sentence", [
    (BODY, "Line 8 is not in the body of `if (i < n)`: without braces { } only the first statement "
     "is."),
    (["    for (int k = 0; k < 1; ++k)", "        if (i >= n) return;", "        y[i] = x[i];"],
     "Line 7 is not in the body of `for (int k = 0; k < 1; ++k)`"),
    (["    if (i < n) float v = x[i];", "    y[i] = 2 * v;"], "only the declaration of v, which")])
def test_missing_braces(lines, sentence):
    said = found(HEAD + "\n".join(lines) + "\n}\n")
    assert sentence in said and said.endswith(".") and not said.endswith("..")


@pytest.mark.parametrize("lines", [
    ["if (i < n)", "    if (true)", "        y[i] = 2 * x[i];", "    else", "        y[i] = 0;"],
    ["if (i >= n)", "    return;", "    y[i] = 2 * x[i];"],  # looks wrong, but is right
    ["for (int k = 0; k < 1; ++k) {", "    int one = 1;", "    if (i < n) y[i] = 2 * x[i] * one;",
     "}"],
    ["if (i < n)", "    y[i] = x[i] +", "        x[i];"]])
def test_braces_are_not_missing(lines):
    code = HEAD + "".join(f"    {line}\n" for line in lines) + "}\n"
    assert found(code) is None
    assert "braces" not in found(code.replace("x[i]", "3")) or "return;" in code


def test_a_kernel_in_the_place_of_the_projects():
    kernel = """#include "common.cuh"
extern "C" __global__ __launch_bounds__(256)
void bias_activation(const real* x, const real* bias_or_null, int activation, real* y, int n, int C)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = activate(x[i] + bias_or_null[i % C], activation);
}
"""
    exercise = KernelExercise(
        kernel, ("A.", "B."), run=stands_in(lambda ops, x, b: ops.bias_activation(x, b, "relu")),
        inputs=(x.reshape(100, 10), x[:10]), traps={"rows.": kernel.replace("i % C", "i / C % C")})
    assert found(kernel, exercise) is None
    assert found(exercise.traps["rows."], exercise) == "is not right yet: rows."


def test_counts():
    def run(device, path, *arguments):
        y = launched("twice")(device, path, *arguments)
        return y, device.counts["twice"].global_reads
    exercise = KernelExercise(RIGHT, ("A.", "B."), run=run, inputs=EXERCISE.inputs[0], count=True,
                              results=("y", "reads"))
    assert found(RIGHT, exercise) is None
    assert "reads: it is 2 times too large" in found(RIGHT.replace("2 ", "0 * x[n - 1 - i] + 2 "),
                                                     exercise)
