"""Exercises of notebook 15: right answers, and which mistakes get a hint of their own."""
import math

import numpy as np

from kernels.emulator_counts import KINDS
from tutorial.checks import Exercise
from tutorial.kernel_checks import KernelExercise, blank, changed, launched

rng = np.random.default_rng(15)


def numbers(*shape):
    return rng.standard_normal(shape).astype(np.float32)


# ----------------------------------------------------------------------------------------- 15.1
def reads(rows, columns):
    return 1 / rows + 1 / columns


# ----------------------------------------------------------------------------------------- 15.2
MATMUL = r"""
extern "C" __global__ __launch_bounds__(256)
void matmul(const float* A, const float* B, float* C, int M, int K, int N) {
    __shared__ float As[16][16];
    __shared__ float Bs[16][16];
    int r = threadIdx.x / 16, c = threadIdx.x % 16, tiles = (N + 15) / 16;  // side by side
    int row = blockIdx.x / tiles * 16 + r, column = blockIdx.x % tiles * 16 + c;
    float sum = 0;
    for (int k0 = 0; k0 < K; k0 += 16) {
        As[r][c] = row < M && k0 + c < K ? A[row * K + k0 + c] : 0;
        Bs[r][c] = k0 + r < K && column < N ? B[(k0 + r) * N + column] : 0;
        __syncthreads();
        for (int k = 0; k < 16; ++k) sum += As[r][k] * Bs[k][c];
        __syncthreads();
    }
    if (row < M && column < N) C[row * N + column] = sum;
}
"""
LOOP = "        for (int k = 0; k < 16; ++k) sum += As[r][k] * Bs[k][c];\n"
FIRST = "        __syncthreads();\n" + LOOP
LAST = LOOP + "        __syncthreads();\n"
LOAD_A = "As[r][c] = row < M && k0 + c < K ? A[row * K + k0 + c] : 0;"
STORE_A, STORE_B = "As[r][c] = A[row * K + k0 + c];", "Bs[r][c] = B[(k0 + r) * N + column];"
LOAD_B = "Bs[r][c] = k0 + r < K && column < N ? B[(k0 + r) * N + column] : 0;"


def with_reads(device, path, *arguments):
    """C, and how many numbers are read from global memory."""
    run = launched("matmul", lambda A, B, C, M, K, N: math.ceil(M / 16) * math.ceil(N / 16) * 256)
    product = run(device, path, *arguments)
    return product, device.counts["matmul"].global_reads


def product(M, K, N):
    return numbers(M, K), numbers(K, N), blank(M, N), M, K, N


# ----------------------------------------------------------------------------------------- 15.3
def lanes_at_a_bank(length):
    banks = [lane * length % 32 for lane in range(32)]
    return max(banks.count(bank) for bank in banks)


# ----------------------------------------------------------------------------------------- 15.4
def bits_of(x):
    return x.view(np.uint32)


def tf32(x):
    return ((bits_of(x) + 0x1000) & 0xFFFFE000).view(np.float32)


def kept(add, mask):
    """Some bits of a float32, after an addition to them."""
    return lambda x: ((bits_of(x) + np.uint32(add)) & np.uint32(mask)).view(np.float32)


# Some lie in the middle between two TF32 numbers: there the rounding shows.
FLOATS = np.concatenate([numbers(50), np.float32([1, 1.5, 0, 1 + 2 ** -11, -1 - 3 * 2 ** -11,
                                                  1 + 2 ** -12, 3.1415927, 1e-20, 65519])])


# ----------------------------------------------------------------------------------------- 15.5
PIPELINE = r"""#include "common.cuh"
#include "tensor_cores.cuh"
extern "C" __global__ __launch_bounds__(64)
void reversed_sums(const operand* __restrict__ x, real* __restrict__ y, int steps) {
    __shared__ __align__(16) operand tiles[2][256];
    int t = threadIdx.x; float sum = 0;
    copy_async(&tiles[0][4 * t], x + 4 * t, true), commit_copies();
    for (int step = 0, next = 1; step < steps; ++step, ++next) {
        if (next < steps) copy_async(&tiles[next % 2][4 * t], x + (256 * next + 4 * t), true);
        commit_copies();
        wait_for_copies<1>();
        __syncthreads();
        for (int k = 0; k < 4; ++k) sum += tiles[step % 2][4 * (63 - t) + k];
        __syncthreads();
    }
    y[t] = sum;
}
"""
WAIT = "        wait_for_copies<1>();\n"
ADD = "        for (int k = 0; k < 4; ++k) sum += tiles[step % 2][4 * (63 - t) + k];\n"
COMMIT = "        commit_copies();\n"
BARRIER = "        __syncthreads();\n"
COPY = "copy_async(&tiles[next % 2][4 * t], x + (256 * next + 4 * t), true);"
PLAIN = "for (int k = 0; k < 4; ++k) tiles[next % 2][4 * t + k] = x[256 * next + 4 * t + k];"


def with_overlap(device, path, x, y, steps):
    """y, how many copies there are, and how many numbers are added while a copy is on its way.

    Both counts are 0 if y is wrong.
    """
    y = launched("reversed_sums", lambda *_: 64)(device, path, x, y, steps)
    if not np.allclose(y, x.reshape(steps, 64, 4)[:, ::-1].sum((0, 2)), atol=1e-4):
        return y, 0, 0
    records = device.accesses["reversed_sums"]
    return (y, *map(sum, zip(*(overlap(records[records["thread"] == t]) for t in range(64)))))


def overlap(records):
    """(copies, numbers read from shared memory while a copy is on its way) of one thread.

    A copy has no site in the program. Its start writes to its target and reads its source; when it
    has arrived, it writes to its target again.
    """
    copies, numbers, on_their_way = 0, 0, set()
    for now, after in zip(records, records[1:]):
        copied, shared = now["site"] == 0, now["argument"] < 0
        if copied and shared and after["site"] == 0 and after["argument"] >= 0:
            copies += 1
            on_their_way.add(now["offset"])
        elif copied and shared:
            on_their_way.discard(now["offset"])
        elif shared and KINDS[now["kind"]] == "read" and on_their_way:
            numbers += int(now["bytes"]) // 4
    return copies, numbers


EXERCISES = {
    "15.1": Exercise(
        reads,
        ("For one term of the sum, a block reads one column of A's tile and one row of B's. How "
         "many numbers are that? How many multiply-adds does it do with them?",
         "It reads rows + columns numbers, and does rows * columns multiply-adds."),
        inputs=[(16, 16), (64, 64), (256, 64)],
        traps={
            "that is the number of multiply-adds for each number that is read. The question is the "
            "other way round.": lambda rows, columns: rows * columns / (rows + columns),
            "for one term of the sum the block reads rows + columns numbers, not rows * columns "
            "and not 2: a number of A serves a whole row of outputs.":
                lambda rows, columns: 2 / (rows * columns),
            "these are the reads for one term of the sum. Divide them by the multiply-adds for "
            "one term, rows * columns.": lambda rows, columns: rows + columns,
            "this is right for square tiles only. Each number of A serves `columns` outputs, and "
            "each of B `rows` outputs.": lambda rows, columns: 2 / rows,
            "this is right for square tiles only: each number of A serves `columns` outputs, and "
            "each of B `rows` outputs.": lambda rows, columns: 2 / columns,
            "1 / rows + 1 / columns is not 2 / (rows + columns).":
                lambda rows, columns: 2 / (rows + columns),
            "the multiply-adds for one term are rows * columns. 256 are those of a 16 x 16 tile.":
                lambda rows, columns: (rows + columns) / 256,
            "for one term of the sum the block reads rows + columns numbers, not 1.":
                lambda rows, columns: 1 / (rows * columns),
            "this counts the reads of one factor only. The tile of A and that of B are both read.":
                lambda rows, columns: 1 / rows,
            "this counts the reads of one factor only: both tiles are read.":
                lambda rows, columns: 1 / columns,
            "1 / rows + 1 / columns is not 1 / (rows + columns).":
                lambda rows, columns: 1 / (rows + columns),
            "that is step 1, without tiles.": lambda rows, columns: 2}),
    "15.2": KernelExercise(
        MATMUL,
        ("Load, wait, multiply, wait. Each thread loads one number of A, that of its row and of "
         "term k0 + c, and one of B, that of term k0 + r and of its column. Outside: 0.",
         "As[r][c] = row < M && k0 + c < K ? A[row * K + k0 + c] : 0; and Bs alike. Then a "
         "barrier, a loop over 16 terms, and another barrier."),
        run=with_reads, count=True, results=("C", "the number of reads from global memory"),
        inputs=[product(20, 37, 18), product(16, 16, 16), product(3, 5, 40)],
        traps={
            "A barrier is missing, or stands at the wrong place. There are two: one after loading, "
            "since you read what other threads load, and one after the loop over k, since the next "
            "load overwrites the tiles.": changed(MATMUL, LAST, LOOP),
            "A barrier is missing after loading: you read what other threads have loaded.":
                changed(MATMUL, FIRST, LOOP),
            "the tile of A is transposed. You load row r, term c into As[r][c], so the term is the "
            "second index: As[r][k].": changed(MATMUL, "As[r][k]", "As[k][r]"),
            "the tile of B is transposed. Its first index is the term: Bs[k][c].":
                changed(MATMUL, "Bs[k][c]", "Bs[c][k]"),
            "Where a tile sticks out over the edge of A, load 0: only if row < M and k0 + c < K is "
            "there a number.": changed(MATMUL, LOAD_A, STORE_A),
            "The sum does not end at a multiple of 16: load 0 where k0 + r is not below K.":
                changed(MATMUL, LOAD_B, "Bs[r][c] = column < N ? B[(k0 + r) * N + column] : 0;"),
            "Where a tile sticks out over the edge of B, load 0: only if k0 + r < K and column < N "
            "is there a number.": changed(MATMUL, LOAD_B, STORE_B),
            "A row of A has K numbers: row number `row` begins at row * K, not at row * M.":
                changed(MATMUL, "A[row * K + k0 + c]", "A[row * M + k0 + c]"),
            "you always load the first 16 terms. The tile begins at term k0.":
                changed(MATMUL, "A[row * K + k0 + c]", "A[row * K + c]",
                        "B[(k0 + r) * N", "B[r * N"),
            "you always load the first 16 terms of A. The tile begins at term k0.":
                changed(MATMUL, "A[row * K + k0 + c]", "A[row * K + c]"),
            "A row of A ends at K: load 0 where k0 + c is not below K. Otherwise you read on in "
            "the next row, or behind the end.":
                changed(MATMUL, "row < M && k0 + c < K", "row < M"),
            "B has terms as rows: term k0 + r of a column is B[(k0 + r) * N + column].":
                changed(MATMUL, "B[(k0 + r) * N + column]", "B[column * K + k0 + r]"),
            "Rows and columns can be missing too: row < M for A, and column < N for B.":
                changed(MATMUL, "row < M && k0 + c < K", "k0 + c < K",
                        "k0 + r < K && column < N", "k0 + r < K"),
            "All threads must reach the barriers, also those without an output of their own: they "
            "load numbers that others need. Put conditions around loads and the last line only.":
                changed(MATMUL, "    float sum = 0;",
                        "    if (row >= M || column >= N) return;\n    float sum = 0;"),
            "The columns of B end at N: load 0 where column is not below N.":
                changed(MATMUL, "k0 + r < K && column < N", "k0 + r < K"),
            "Where a tile sticks out over the edge of A or B, load 0. Ask before each load whether "
            "the number is there: row < M && k0 + c < K, and k0 + r < K && column < N.":
                changed(MATMUL, LOAD_A, STORE_A,
                        LOAD_B, STORE_B),
            "outside the matrices you skip the load, so the tile keeps what was there before. Load "
            "0 there.": changed(MATMUL, LOAD_A, "if (row < M && k0 + c < K) " + STORE_A,
                                LOAD_B, "if (k0 + r < K && column < N) " + STORE_B),
            "In the first step c < K and r < K are enough. Later steps load the terms k0 + c and "
            "k0 + r: those must be below K.":
                changed(MATMUL, "k0 + c < K", "c < K", "k0 + r < K", "r < K"),
            "A row of A has K numbers, not N, so it begins at row * K.":
                changed(MATMUL, "A[row * K", "A[row * N"),
            "A row of B has N numbers, not K, so term k0 + r begins at (k0 + r) * N.":
                changed(MATMUL, "B[(k0 + r) * N", "B[(k0 + r) * K"),
            "r is the row in the tile. The row of A is `row`.":
                changed(MATMUL, "A[row * K", "A[r * K"),
            "c is the column in the tile. The column of B is `column`.":
                changed(MATMUL, "* N + column] : 0", "* N + c] : 0"),
            "the factors are exchanged: As[r][k] is a number of your row, and Bs[k][c] one of your "
            "column.": changed(MATMUL, "As[r][k] * Bs[k][c]", "As[k][c] * Bs[r][k]"),
            "C is right, but the threads read the same numbers from A and B again and again. In "
            "the loop over k read the tiles.":
                changed(MATMUL, "        " + LOAD_A + "\n", "", "        " + LOAD_B + "\n", "",
                        "sum += As[r][k] * Bs[k][c]",
                        "if (row < M && column < N && k0 + k < K) "
                        "sum += A[row * K + k0 + k] * B[(k0 + k) * N + column]"),
            "only the last step of the sum arrives: write sum += .":
                changed(MATMUL, "sum +=", "sum ="),
            "The loop over k leaves the tile: it has 16 terms, not K.":
                changed(MATMUL, "k < 16", "k < K")}),
    "15.3": Exercise(
        lanes_at_a_bank,
        ("Lane i reads word i * length, which lies in bank i * length % 32. How often does the "
         "busiest bank come among the 32 lanes?",
         "banks = [lane * length % 32 for lane in range(32)], and then the largest of "
         "banks.count(bank)."),
        inputs=[(16,), (17,), (32,), (33,), (36,), (40,), (1,)],
        traps={
            "these are the repetitions. How many lanes ask the same bank is one more.":
                lambda length: lanes_at_a_bank(length) - 1,
            "that is how many different banks are asked. Fewer banks mean more lanes at each.":
                lambda length: 32 // lanes_at_a_bank(length),
            "at a multiple of 32 all lanes ask one bank, but other lengths have conflicts too: 16 "
            "asks two banks, with 16 lanes each.":
                lambda length: 1 if length % 32 else 32,
            "an even length can be worse than 2: 16 asks only two banks, with 16 lanes each.":
                lambda length: 1 if length % 2 else 2,
            "that is the bank of lane 1. All 32 lanes count.": lambda length: length % 32,
            "you divide by 32. Neighbouring words lie in neighbouring banks: bank = word % 32.":
                lambda length: max([lane * length // 32 for lane in range(32)].count(bank)
                                   for bank in range(32 * length))}),
    "15.4": Exercise(
        tf32,
        ("Add half of the last bit that stays, so that the number is rounded to the nearest. Then "
         "set the last 13 bits to 0.",
         "The last bit that stays is bit 13, 0x2000, and half of it is 0x1000. The mask is "
         "0xFFFFE000. And .view(np.float32) turns bits back into a number."),
        inputs=(FLOATS,), tolerance=0,
        traps={
            "this cuts the last 13 bits off, which always rounds towards 0. Add half of the last "
            "bit that stays first.": kept(0, 0xFFFFE000),
            "you add a whole bit. Half of the last bit that stays is 0x1000.":
                kept(0x2000, 0xFFFFE000),
            "you add too little: half of the last bit that stays is 0x1000.":
                kept(0x800, 0xFFFFE000),
            "a number exactly in the middle is rounded away from 0. Add 0x1000, all of the half.":
                kept(0xFFF, 0xFFFFE000),
            "a number exactly in the middle is rounded away from 0, not to the even neighbour.":
                lambda x: ((bits_of(x) + np.uint32(0xFFF) + (bits_of(x) >> 13 & 1))
                           & np.uint32(0xFFFFE000)).view(np.float32),
            "add first, then set the last bits to 0. You do it the other way round.":
                lambda x: ((bits_of(x) & np.uint32(0xFFFFE000)) + np.uint32(0x1000))
                .view(np.float32),
            "the mask is inverted: these are the bits to drop. Keep the others: 0xFFFFE000.":
                kept(0x1000, 0x1FFF),
            "the bits must stay in their places. Do not shift them; set the last 13 to 0.":
                lambda x: ((bits_of(x) + np.uint32(0x1000)) >> 13).view(np.float32),
            "these are still bits. .view(np.float32) turns them back into numbers.":
                lambda x: (bits_of(x) + np.uint32(0x1000)) & np.uint32(0xFFFFE000),
            "you keep 11 bits of the mantissa. The last 13 bits are dropped, so the mask is "
            "0xFFFFE000.": kept(0x1000, 0xFFFFF000),
            "you keep 11 bits of the mantissa: the mask for 13 bits is 0xFFFFE000, and half of the "
            "last bit that stays is 0x1000.": kept(0x800, 0xFFFFF000),
            "that is bf16, which drops 16 bits. TF32 drops 13.":
                kept(0x8000, 0xFFFF0000),
            "you round, but the dropped bits are still there. Set them to 0 with a mask.":
                kept(0x1000, 0xFFFFFFFF),
            "float16 has a mantissa of 10 bits too, but a smaller exponent: 1e-20 becomes 0, and "
            "large numbers infinite.": lambda x: x.astype(np.float16).astype(np.float32),
            "the bits must be looked at as they are: x.view(np.uint32). With astype, 1.5 becomes "
            "the whole number 1.":
                lambda x: ((x.astype(np.int64).astype(np.uint32) + np.uint32(0x1000))
                           & np.uint32(0xFFFFE000)).astype(np.float32)}),
    "15.5": KernelExercise(
        PIPELINE,
        ("Start the copies of the next tile, if there is one, and commit. Wait until only the "
         "newest group may still be on its way. Then a barrier, the loop, and another barrier. "
         "Commit in every step.",
         "wait_for_copies<1>() leaves one group on its way, that of the next tile. It waits for "
         "this thread's copies only, so a __syncthreads() must follow."),
        run=with_overlap, count=True,
        results=("y", "the number of copies", "numbers added while a copy is on its way"),
        inputs=[(numbers(5, 256), blank(64), 5), (numbers(1, 256), blank(64), 1)],
        traps={
            "the tile has not arrived when you read it. In the emulator such numbers are NaN; on a "
            "GPU they are old ones. Read tiles[step % 2]. Before that, commit_copies(), in the "
            "last step too, where the group is empty; then wait_for_copies<1>(), which waits for "
            "all groups but the newest.":
                changed(PIPELINE, WAIT, ""),
            "A barrier is missing between the wait and the loop. A thread waits for its own copies "
            "only, and reads those of another.": changed(PIPELINE, WAIT + BARRIER, WAIT),
            "A barrier is missing after the loop: the next copies overwrite the tile that some "
            "threads still read.": changed(PIPELINE, ADD + BARRIER, ADD),
            "The copies of the last step lie behind the end of x: start them only if there is a "
            "next tile.": changed(PIPELINE, "if (next < steps) ", ""),
            "a copy writes to the place that you read. Copies go to tiles[next % 2], the loop "
            "reads tiles[step % 2]. And commit_copies() stands behind the copy that belongs to the "
            "group, not before it.":
                changed(PIPELINE, "tiles[next % 2]", "tiles[step % 2]"),
            "the next tile begins at 256 * (step + 1). You copy this one again.":
                changed(PIPELINE, "256 * next", "256 * step"),
            "y is right, but each copy has arrived before you add, so nothing overlaps. Start the "
            "next tile before you add, and then wait with wait_for_copies<1>(): with <0> you wait "
            "for that tile too.": changed(PIPELINE, "copies<1>", "copies<0>"),
            "y is right, but an ordinary load goes through a register. Use copy_async, as for the "
            "first tile.": changed(PIPELINE, COPY, PLAIN),
            "the numbers of thread u begin at 4 * u: here u is 63 - t.":
                changed(PIPELINE, "4 * (63 - t) + k", "63 - t + k"),
            "only the last tile arrives in the sum: write sum += .":
                changed(PIPELINE, "sum +=", "sum ="),
            "a tile has 256 numbers, so the next one begins at 256 * next.":
                changed(PIPELINE, "256 * next", "64 * next"),
            "each thread copies the same numbers. Those of thread t begin at 4 * t.":
                changed(PIPELINE, "256 * next + 4 * t", "256 * next"),
            "A copy takes 16 bytes, four numbers, so its target is &tiles[next % 2][4 * t].":
                changed(PIPELINE, "tiles[next % 2][4 * t]", "tiles[next % 2][t]"),
            "A copy takes 16 bytes, four numbers, so its source is x + (256 * next + 4 * t).":
                changed(PIPELINE, "256 * next + 4 * t", "256 * next + t"),
            "each thread adds its own numbers. The exercise asks for those of thread 63 - t.":
                changed(PIPELINE, "4 * (63 - t) + k", "4 * t + k")}),
}
