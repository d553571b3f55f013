"""Exercises of notebook 14: what is right, and which mistakes get a hint of their own."""
import numpy as np

from kernels.emulator import Emulator
from tutorial.checks import Exercise
from tutorial.exercises.n13 import numbers
from tutorial.kernel_checks import KernelExercise, blank, changed, launched

rng = np.random.default_rng(14)


def rows_of(x, p, rows, K):
    """One thread for each row."""
    return rows


def large(*shape):
    """Scores of which exp overflows, and others of which it is 0."""
    return numbers(*shape) + rng.choice([-300, 0, 300], (shape[0], 1)).astype(np.float32)


def steep(*shape):
    """Scores that differ within a row by so much that expf of the difference overflows."""
    return 100 * numbers(*shape)


# ----------------------------------------------------------------------------------------- 14.1
ROWS = r"""
extern "C" __global__ __launch_bounds__(256)
void softmax_rows(const float* __restrict__ x, float* __restrict__ p, int rows, int K) {
    int row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows) return;
    float largest = x[row * K], sum = 0;
    for (int k = 1; k < K; ++k) largest = fmaxf(largest, x[row * K + k]);
    for (int k = 0; k < K; ++k) sum += expf(x[row * K + k] - largest);
    for (int k = 0; k < K; ++k) p[row * K + k] = expf(x[row * K + k] - largest) / sum;
}
"""
GUARD = "if (row >= rows) return;"


# ----------------------------------------------------------------------------------------- 14.2
def merge(a, b):
    (m_a, s_a), (m_b, s_b) = a, b
    m = max(m_a, m_b)
    return m, s_a * np.exp(m_a - m) + s_b * np.exp(m_b - m)


def merged(of_a, of_b, largest=max):
    """Other factors of the two sums, from (own m, other m, common m)."""
    def function(a, b):
        (m_a, s_a), (m_b, s_b) = a, b
        m = largest(m_a, m_b)
        return m, s_a * of_a(m_a, m_b, m) + s_b * of_b(m_b, m_a, m)
    return function


def right(own, other, m):
    return np.exp(own - m)


def upside_down(own, other, m):
    return np.exp(m - own)


def products(a, b):
    m, _ = merge(a, b)
    return m, a[1] * np.exp(a[0] - m) * b[1] * np.exp(b[0] - m)


def new_score(a, b):
    m, _ = merge(a, b)
    return m, a[1] * np.exp(a[0] - m) + np.exp(b[0] - m)


def sum_in_exponent(a, b):
    m, _ = merge(a, b)
    return m, a[1] * np.exp(a[0] - m) + np.exp(b[1] - m)


PAIRS = [((2.0, 3.0), (5.0, 1.5)), ((5.0, 1.5), (2.0, 3.0)), ((1.0, 2.0), (1.0, 1.25)),
         ((1000.0, 1.0), (998.0, 2.5))]


# ----------------------------------------------------------------------------------------- 14.3
ONLINE = r"""
extern "C" __global__ __launch_bounds__(256)
void online_rows(const float* __restrict__ x, float* __restrict__ p, int rows, int K) {
    int row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows) return;
    float largest = x[row * K], sum = 1;  // of the first score alone
    for (int k = 1; k < K; ++k) {
        float score = x[row * K + k], before = largest;
        largest = fmaxf(largest, score);
        sum = sum * expf(before - largest) + expf(score - largest);
    }
    for (int k = 0; k < K; ++k) p[row * K + k] = expf(x[row * K + k] - largest) / sum;
}
"""
STEP = "sum = sum * expf(before - largest) + expf(score - largest);"
WRITE = "for (int k = 0; k < K; ++k) p[row * K + k] = expf(x[row * K + k] - largest) / sum;"
LOOP = ONLINE[ONLINE.index("    for"):ONLINE.index("    for (int k = 0")]


def with_reads(device, path, x, *more):
    """p, and how often each score is read."""
    p = launched("online_rows", rows_of)(device, path, x, *more)
    return p, device.counts["online_rows"].global_reads / x.size


# ----------------------------------------------------------------------------------------- 14.4
COLUMNS = r"""
extern "C" __global__ __launch_bounds__(256)
void column_sums(const float* __restrict__ x, float* __restrict__ out, int rows, int C) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= C) return;
    float sum = 0;
    for (int row = 0; row < rows; ++row) sum += x[row * C + i];
    out[i] = sum;
}
"""
ROW_SUM = ("row < rows; ++row) sum += x[row * C + i]", "row < C; ++row) sum += x[i * C + row]")
HEAD = COLUMNS[:COLUMNS.index("    if (i")]


def in_two_orders(device, path, *arguments):
    """The sums, and whether another order of threads gives the same bits."""
    run = launched("column_sums", threads=lambda x, out, rows, C: rows * C)
    sums, again = (run(d, path, *arguments) for d in (device, Emulator(seed=1, seconds=2)))
    return sums, np.array_equal(sums, again)


def zeros(n):
    return np.zeros(n, np.float32)


# ----------------------------------------------------------------------------------------- 14.5
def adam_time(count=7, size=4, per_second=1e9, milli=1000):
    return lambda n, speed: size * count * n / (speed * per_second) * milli


EXERCISES = {
    "14.1": KernelExercise(
        ROWS,
        ("First the guard, on row. Then three loops over k: the largest score, the sum of the "
         "exponentials, the results. Number k of the row is x[row * K + k].",
         "float largest = x[row * K], sum = 0; then for (int k = 0; k < K; ++k) sum += "
         "expf(x[row * K + k] - largest), and so on."),
        run=launched("softmax_rows", rows_of),
        inputs=[(large(300, 5), blank(300, 5), 300, 5), (large(7, 11), blank(7, 11), 7, 11)],
        traps={
            "some results are NaN: expf overflows for a score of 300. Subtract the largest score "
            "of the row first.": changed(ROWS, " - largest", ""),
            "some results are NaN: `largest` begins with a fixed number, such as 0. If all scores "
            "of a row are far below it, their exponentials are 0, and so is the sum. Begin with a "
            "score of the row.":
                changed(ROWS, "largest = x[row * K]", "largest = 0", "int k = 1", "int k = 0"),
            "The guard is missing: there are more threads than rows.": changed(ROWS, GUARD, ""),
            "The guard compares the row with rows * K. Each thread has a whole row, so there are "
            "only `rows` of them.": changed(ROWS, "row >= rows", "row >= rows * K"),
            "A row has K numbers, not `rows`: the loops go while k < K.":
                changed(ROWS, "k < K", "k < rows"),
            "A row of x has K numbers, so row number `row` begins at row * K.":
                changed(ROWS, "row * K + k", "row * rows + k"),
            "each row needs its own largest score: begin with x[row * K], not with x[0].":
                changed(ROWS, "largest = x[row * K]", "largest = x[0]"),
            "only one number of each row is written. The last loop writes all of them, "
            "p[row * K + k].":
                changed(ROWS, "for (int k = 0; k < K; ++k) p[row * K + k] = expf(x[row * K + k]",
                        "p[row] = expf(x[row]"),
            "The guard lets one thread too many through: the last row is rows - 1.":
                changed(ROWS, "row >= rows", "row > rows"),
            "the results are not divided by the sum. (Or the sum is an int: that drops what stands "
            "behind the point, and the sum stays 1. Write float.)": changed(ROWS, " / sum", ""),
            "x[k * rows + row] would be right for (K, rows). In (rows, K), number k of a row is "
            "x[row * K + k].": changed(ROWS, "row * K + k", "k * rows + row"),
            "x[k * rows + row] would be right for (K, rows). In (rows, K), number k of a row is "
            "x[row * K + k], as in p.":
                changed(ROWS, "x[row * K + k]", "x[k * rows + row]"),
            "Several threads write the same number of p. Number k of a row is x[row * K + k], and "
            "p[row * K + k].": changed(ROWS, "row * K + k", "k"),
            "the last class is missing: k goes up to K - 1, so k < K.":
                changed(ROWS, "k < K", "k < K - 1"),
            "One class too many: k goes up to K - 1, so k < K.": changed(ROWS, "k < K", "k <= K"),
            "the sum and the results must subtract the same number.":
                changed(ROWS, "expf(x[row * K + k] - largest) / sum", "expf(x[row * K + k]) / sum"),
            "the sum is that of the scores. It must be that of their exponentials.":
                changed(ROWS, "sum += expf(x[row * K + k] - largest)", "sum += x[row * K + k]"),
            "the sum begins with 1. The loop over all k adds the term of the first score too.":
                changed(ROWS, "sum = 0", "sum = 1"),
            "the sum starts at k = 1: the term of the first score is missing.":
                changed(ROWS, "int k = 0; k < K; ++k) sum", "int k = 1; k < K; ++k) sum"),
            "an int drops what stands behind the point. The largest score and the sum are numbers "
            "with a fraction: float, not int.":
                changed(ROWS, "float largest", "int largest")}),
    "14.2": Exercise(
        merge,
        ("The common m is the larger one. Then correct each sum from its own maximum to the common "
         "one, as in online softmax, and add both.",
         "The factor of s_a is np.exp(m_a - m), that of s_b is np.exp(m_b - m)."),
        inputs=PAIRS, results=("m", "s"), tolerance=1e-12,
        traps={
            "the sums belong to different maxima. Correct both to the common m before you add.":
                merged(lambda *_: 1, lambda *_: 1),
            "the exponents are the wrong way round: a sum with a smaller maximum counts less, so "
            "the factor is exp(m_a - m).":
                merged(upside_down, upside_down),
            "only s_a is corrected. If m_b is the smaller one, s_b must be corrected.":
                merged(right, lambda *_: 1),
            "only s_b is corrected. If m_a is the smaller one, s_a must be corrected.":
                merged(lambda *_: 1, right),
            "the two factors are exchanged: s_a belongs to m_a.":
                merged(lambda own, other, m: right(other, own, m),
                       lambda own, other, m: right(other, own, m)),
            "the corrected sums must be added, not multiplied.": products,
            "s_b is missing: the second part has many scores, whose sum is s_b.": new_score,
            "m and s are returned in the wrong order: (m, s).": lambda a, b: merge(a, b)[::-1],
            "max(a, b) of two tuples is one of them, whole. Take the larger of m_a and m_b, and "
            "correct both sums to it.": lambda a, b: max(a, b),
            "you correct by the difference of the two maxima, also where it is positive. Each sum "
            "is corrected to the common m: exp(m_a - m) and exp(m_b - m).":
                merged(lambda own, other, m: np.exp(own - other), lambda *_: 1),
            "you correct s_a by exp(m_b - m_a), whichever is larger. Each sum is corrected to the "
            "common m: exp(m_a - m) and exp(m_b - m).":
                merged(lambda own, other, m: np.exp(other - own), lambda *_: 1),
            "the exponent has s_b in it. It needs the maxima only: exp(m_b - m).": sum_in_exponent,
            "the common m is the larger one of both, so that no exponent is positive.":
                merged(right, right, min),
            "the common m is the larger one of both, not their sum.":
                merged(right, right, lambda a, b: a + b),
            "you always take m_b as the common m. It is the larger one of both: max(m_a, m_b).":
                merged(right, right, lambda a, b: b),
            "you always take m_a as the common m. It is the larger one of both: max(m_a, m_b).":
                merged(right, right, lambda a, b: a),
            "exp(m_a) by itself overflows if m_a is 1000. Subtract first: exp(m_a - m).":
                merged(lambda own, other, m: np.exp(own) / np.exp(m),
                       lambda own, other, m: np.exp(own) / np.exp(m))}),
    "14.3": KernelExercise(
        ONLINE,
        ("In the loop from k = 1: read the score once into a variable, keep the old maximum, take "
         "the new one, and correct the sum. A second loop writes the results.",
         "float score = x[row * K + k], before = largest; then largest = fmaxf(largest, score), "
         "and sum = sum * expf(before - largest) + expf(score - largest)."),
        run=with_reads, count=True, results=("p", "the number of reads of each score"),
        inputs=[(large(300, 5), blank(300, 5), 300, 5), (steep(7, 11), blank(7, 11), 7, 11)],
        traps={
            "p is right, but each score is read three times. Find the maximum and the sum in one "
            "loop.": changed(
                ONLINE, LOOP, "    for (int k = 1; k < K; ++k)\n"
                "        largest = fmaxf(largest, x[row * K + k]);\n    sum = 0;\n"
                "    for (int k = 0; k < K; ++k) sum += expf(x[row * K + k] - largest);\n"),
            "the old sum is not corrected when the maximum changes: multiply it by "
            "expf(before - largest), with the maximum before this score.":
                changed(ONLINE, "sum * expf(before - largest)", "sum"),
            "the correction is upside down: if the maximum grows, the old terms become smaller. "
            "The exponent is before - largest.":
                changed(ONLINE, "expf(before - largest)", "expf(largest - before)"),
            "the term of the new score is missing: add expf(score - largest).":
                changed(ONLINE, " + expf(score - largest)", ""),
            "the term of the new score must be expf(score - largest).":
                changed(ONLINE, "expf(score - largest)", "expf(score)"),
            "the new score's term is corrected too, but it belongs to the new maximum already.":
                changed(ONLINE, STEP, "sum = (sum + expf(score - largest)) * "
                        "expf(before - largest);"),
            "the correction of the old sum is expf(before - largest), with the old and the new "
            "maximum. Keep the old one in a variable before you take the new one.":
                changed(ONLINE, "expf(before - largest)", "expf(largest - score)"),
            "the term of the new score is taken with the old maximum.":
                changed(ONLINE, "expf(score - largest);", "expf(score - before);"),
            "the first score counts twice: sum is 1 already, so begin at k = 1.":
                changed(ONLINE, "int k = 1", "int k = 0"),
            "the results are not divided by the sum.": changed(ONLINE, " / sum", ""),
            "`largest` stays the first score. Take the new maximum in each round: largest = "
            "fmaxf(largest, score).":
                changed(ONLINE, "largest = fmaxf(largest, score);", ""),
            "the term of the new score is expf(score - largest). It is 1 only if this score is the "
            "new maximum.": changed(ONLINE, "+ expf(score - largest)", "+ 1"),
            "the scores are kept in p, and stay there: p must hold expf(score - largest) / sum.":
                changed(ONLINE, STEP, STEP + " p[row * K + k] = score;",
                        "sum = 1;", "sum = 1; p[row * K] = largest;", WRITE, ""),
            "p is written in the first loop, before the maximum and the sum are those of all "
            "scores, and p[row * K] is never written. Write p in a second loop, from k = 0.":
                changed(ONLINE, STEP, STEP + " p[row * K + k] = expf(score - largest) / sum;",
                        WRITE, ""),
            "p is written in the loop in which the maximum and the sum are found, before they are "
            "those of all scores. Write p in a second loop.":
                changed(ONLINE, "sum = 1", "sum = 0", "int k = 1", "int k = 0", STEP,
                        STEP + " p[row * K + k] = expf(score - largest) / sum;", WRITE, ""),
            "p holds exponentials from the first loop, taken before the maximum was that of all "
            "scores, and none for k = 0. Take all of them in the second loop.":
                changed(ONLINE, STEP, STEP + " p[row * K + k] = expf(score - largest);",
                        WRITE, WRITE.replace("= expf(x[row * K + k] - largest) /", "/=")),
            "the second loop leaves out the first score: it begins at k = 0.":
                changed(ONLINE, WRITE, WRITE.replace("k = 0", "k = 1"))}),
    "14.4": KernelExercise(
        COLUMNS,
        ("Thread i takes column i, if there is one. It goes through all rows, adds up in a "
         "variable, and writes the sum once.",
         "The numbers of column i are x[row * C + i]. Threads with i >= C do nothing."),
        run=in_two_orders, results=("the sums", "the same bits in any order"),
        inputs=[(numbers(300, 5), zeros(5), 300, 5), (numbers(3, 11), zeros(11), 3, 11)],
        traps={
            "Several threads add to the same place. Give each column to one thread.":
                HEAD + "    if (i < rows * C) out[i % C] += x[i];\n}\n",
            "the sums are right, but atomics add in the order in which the threads arrive, and "
            "give other bits each time. Give each column to one thread.":
                HEAD + "    if (i < rows * C) atomicAdd(&out[i % C], x[i]);\n}\n",
            "The guard is missing: only C threads have a column.":
                changed(COLUMNS, "if (i >= C) return;", ""),
            "The guard compares i with rows * C. But only C threads have a column.":
                changed(COLUMNS, "i >= C", "i >= rows * C"),
            "The guard lets one thread too many through: the last column is C - 1.":
                changed(COLUMNS, "i >= C", "i > C"),
            "these are sums of C neighbouring numbers, or of parts of them. The numbers of a "
            "column are C apart: x[row * C + i].":
                changed(COLUMNS, "x[row * C + i]", "x[i * rows + row]"),
            "The numbers of a column are C apart, and not rows apart: x[row * C + i].":
                changed(COLUMNS, "x[row * C + i]", "x[row * rows + i]"),
            "these are the last rows alone. Add up: sum +=.":
                changed(COLUMNS, "sum += x", "sum = x"),
            "the first row is missing: row begins at 0.":
                changed(COLUMNS, "int row = 0", "int row = 1"),
            "each thread adds up column 0. The numbers of column i are x[row * C + i].":
                changed(COLUMNS, "x[row * C + i]", "x[row * C]"),
            "nothing is written to out.": changed(COLUMNS, "out[i] = sum;", ""),
            "the sum is an int, which drops what stands behind the point each time. Write float.":
                changed(COLUMNS, "float sum", "int sum"),
            "The loop goes over the rows: there are `rows` of them, not C.":
                changed(COLUMNS, "row < rows", "row < C"),
            "these are sums of rows, not of columns. Thread i takes column i.":
                changed(COLUMNS, "row < rows; ++row) sum += x[row * C + i]",
                        "row < C && i < rows; ++row) sum += x[i * C + row]"),
            "These are sums of rows, and out has no place for so many: it has C. Thread i takes "
            "column i, whose numbers are x[row * C + i].":
                changed(COLUMNS, "i >= C", "i >= rows", *ROW_SUM),
            "These are sums of the first C rows, not of columns. (There may be fewer rows than C.) "
            "Thread i takes column i, whose numbers are x[row * C + i].":
                changed(COLUMNS, *ROW_SUM),
            "These are sums of neighbouring numbers. The numbers of a column are C apart: "
            "x[row * C + i], not x[i * C + row].":
                changed(COLUMNS, "x[row * C + i]", "x[i * C + row]"),
            "these are means. Do not divide by rows.":
                changed(COLUMNS, "out[i] = sum;", "out[i] = sum / rows;")}),
    "14.5": Exercise(
        adam_time(),
        ("Which numbers must be read for one parameter, and which ones must be written? Each has 4 "
         "bytes. Time is bytes divided by bytes a second.",
         "Four numbers are read, three are written: 28 bytes for each parameter. Divide 28 n by "
         "speed * 1e9, and multiply by 1000 for milliseconds."),
        inputs=[(1_000_000, 4224), (7_000, 500)],
        traps={
            "you count four numbers: those that are read. Parameters, m and v must be written too.":
                adam_time(4),
            "you count three numbers: those that are written. Four must be read first.":
                adam_time(3),
            "you count eight numbers. The gradient is read, but not written.": adam_time(8),
            "you count six numbers. The gradient must be read too.": adam_time(6),
            "you count five numbers. Parameters, m and v are read and written, and the gradient is "
            "read.": adam_time(5),
            "you count numbers, not bytes. A float has 4 bytes.": adam_time(size=1),
            "a float32 has 4 bytes, not 8.": adam_time(size=8),
            "a float32 has 32 bits, which are 4 bytes.": adam_time(size=32),
            "this is in seconds. Multiply by 1000.": adam_time(milli=1),
            "this is in microseconds. A second has 1000 milliseconds.": adam_time(milli=1e6),
            "seconds to milliseconds: multiply by 1000, do not divide.": adam_time(milli=1e-3),
            "speed is in GB a second: multiply it by 1e9.": adam_time(per_second=1),
            "1 GB is 1e9 bytes here, not 2 ** 30.": adam_time(per_second=2 ** 30),
            "this is in seconds: multiply by 1000. And you count three numbers, those that are "
            "written. Four must be read first.": adam_time(3, milli=1),
            "this is in seconds: multiply by 1000. And you count four numbers, those that are "
            "read. Parameters, m and v must be written too.": adam_time(4, milli=1),
            "speed is in GB a second: multiply it by 1e9. And a second has 1000 milliseconds.":
                adam_time(per_second=1, milli=1),
            "you count 84 numbers for each parameter. Seven are read or written: 28 bytes.":
                adam_time(7 * 12),
            "each parameter has seven numbers of 4 bytes, not of 12: 28 bytes.":
                adam_time(size=12),
            "each parameter has seven numbers of 4 bytes, not of 12: 28 bytes. And this is in "
            "seconds: multiply by 1000.": adam_time(size=12, milli=1)}),
}
