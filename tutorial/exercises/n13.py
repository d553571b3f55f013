"""Exercises of notebook 13: right kernels, and which mistakes get a hint of their own."""
import numpy as np

from tutorial.kernel_checks import KernelExercise, blank, changed, launched

rng = np.random.default_rng(13)


def numbers(*shape):
    return rng.standard_normal(shape).astype(np.float32)


# ----------------------------------------------------------------------------------------- 13.1
LEAKY = r"""
extern "C" __global__ __launch_bounds__(256)
void leaky_relu(const float* __restrict__ x, float* __restrict__ y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = x[i] > 0 ? x[i] : 0.2f * x[i];
}
"""
INDEX = "blockIdx.x * blockDim.x + threadIdx.x"
SLOPE = "x[i] > 0 ? x[i] : 0.2f * x[i]"

# ----------------------------------------------------------------------------------------- 13.2
TRANSPOSE = r"""
extern "C" __global__ __launch_bounds__(256)
void transpose(const float* __restrict__ x, float* __restrict__ y, int H, int W) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= H * W) return;
    int row = i / W, column = i % W;
    y[column * H + row] = x[i];
}
"""
GUARD = "if (i >= H * W) return;"
ROW_COLUMN = "row = i / W, column = i % W"

# ----------------------------------------------------------------------------------------- 13.3
PLANES = r"""
extern "C" __global__ __launch_bounds__(256)
void bias_planes(const float* __restrict__ x, const float* __restrict__ bias,
                 float* __restrict__ y, int B, int C, int H, int W) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    int channel = i / (H * W) % C;
    if (i < B * C * H * W) y[i] = x[i] + bias[channel];
}
"""
CHANNEL = "i / (H * W) % C"

# ----------------------------------------------------------------------------------------- 13.4
DIFFERENCES = r"""
extern "C" __global__ __launch_bounds__(256)
void differences(const float* __restrict__ x, float* __restrict__ y, int n) {
    __shared__ float s[256];
    int t = threadIdx.x, i = blockIdx.x * blockDim.x + t;
    if (i < n) s[t] = x[i];
    __syncthreads();
    if (i >= n) return;
    float left = i == 0 ? 0 : t == 0 ? x[i - 1] : s[t - 1];
    y[i] = s[t] - left;
}
"""
LEFT = "i == 0 ? 0 : t == 0 ? x[i - 1] : s[t - 1]"
BARRIER = "    __syncthreads();\n"
RETURN = "    if (i >= n) return;\n"


def with_reads(device, path, *arguments):
    """y, and how often a number is read from global memory."""
    y = launched("differences")(device, path, *arguments)
    return y, device.counts["differences"].global_reads


# ----------------------------------------------------------------------------------------- 13.5
SUMS = r"""
extern "C" __global__ __launch_bounds__(256)
void block_sums(const float* __restrict__ x, float* __restrict__ out, int n) {
    __shared__ float s[256];
    int t = threadIdx.x, i = blockIdx.x * blockDim.x + t;
    s[t] = i < n ? x[i] : 0;
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        __syncthreads();
        if (t < half) s[t] += s[t + half];
    }
    if (t == 0) out[blockIdx.x] = s[0];
}
"""
ADD = "        if (t < half) s[t] += s[t + half];\n"
WAIT = "        __syncthreads();\n"
LOAD = "s[t] = i < n ? x[i] : 0;"
OUT = "if (t == 0) out[blockIdx.x] = s[0];"

EXERCISES = {
    "13.1": KernelExercise(
        LEAKY,
        ("First int i = ..., as in bias_relu above. Then the guard, and one assignment to y[i]. "
         "For the choice between two values use a ? b : c.",
         "x[i] > 0 ? x[i] : 0.2f * x[i] is the value. It belongs in y[i], if i < n."),
        run=launched("leaky_relu"),
        inputs=[(numbers(1000), blank(1000), 1000), (numbers(512), blank(512), 512),
                (numbers(7), blank(7), 7)],
        traps={
            "The guard is missing. The last block has threads for which there is no number: write "
            "if (i < n).": changed(LEAKY, "if (i < n) ", ""),
            "The guard lets one thread too many through: the last number is n - 1.":
                changed(LEAKY, "i < n", "i <= n"),
            "Several blocks write the same number. Block 1 must begin where block 0 ends: i = "
            "blockIdx.x * blockDim.x + threadIdx.x.": changed(LEAKY, INDEX, "threadIdx.x"),
            "Several threads write the same number. Each thread computes one number, with an i of "
            "its own: i = blockIdx.x * blockDim.x + threadIdx.x.":
                changed(LEAKY, INDEX, "blockIdx.x * threadIdx.x"),
            "blockIdx and threadIdx are exchanged. Neighbouring threads of a block must have "
            "neighbouring i.": changed(LEAKY, INDEX, "threadIdx.x * blockDim.x + blockIdx.x"),
            "for negative x you give 0. (If you wrote 1 / 5: in C that is a division of whole "
            "numbers, and gives 0. Write 0.2f.)": changed(LEAKY, "0.2f * x[i]", "0"),
            "where x is negative nobody writes y. It must be written everywhere.":
                changed(LEAKY, "y[i] = " + SLOPE, "if (x[i] > 0) y[i] = x[i]"),
            "the two cases are exchanged: positive x stays as it is.":
                changed(LEAKY, SLOPE, "x[i] > 0 ? 0.2f * x[i] : x[i]"),
            "for negative x you give 0.2 alone. It must be multiplied by x[i].":
                changed(LEAKY, "0.2f * x[i]", "0.2f"),
            "for negative x the result is negative as well: 0.2 x, not -0.2 x.":
                changed(LEAKY, "0.2f * x[i]", "-0.2f * x[i]"),
            "the last number is missing: the last i is n - 1, so the guard is i < n.":
                changed(LEAKY, "i < n", "i < n - 1"),
            "only block 0 computes something. The guard compares i with n, not with the size of a "
            "block.": changed(LEAKY, "i < n", "i < blockDim.x && i < n"),
            "nothing is added or multiplied for negative x: you return x itself.":
                changed(LEAKY, "0.2f * x[i]", "x[i]"),
            "The guard must hold for y[i] too, not only for x[i]: put both into the body of the "
            "if.": changed(LEAKY, "if (i < n) y[i] = " + SLOPE,
                           "float v = i < n ? x[i] : 0; y[i] = v > 0 ? v : 0.2f * v")}),
    "13.2": KernelExercise(
        TRANSPOSE,
        ("Number i of x lies in row i / W and column i % W. In y, which is (W, H), a row has H "
         "numbers: which place has row c, column r?",
         "The place in y is column * H + row. And there is work only for i < H * W."),
        run=launched("transpose"),
        inputs=[(numbers(11, 30), blank(30, 11), 11, 30), (numbers(30, 11), blank(11, 30), 30, 11),
                (numbers(3, 5), blank(5, 3), 3, 5)],
        traps={
            "The guard is missing: there are only H * W numbers.":
                changed(TRANSPOSE, GUARD, ""),
            "The guard lets one thread too many through: the last i is H * W - 1.":
                changed(TRANSPOSE, "i >= H * W", "i > H * W"),
            "The rows of y are H long, not W: the place in y is column * H + row.":
                changed(TRANSPOSE, "column * H", "column * W"),
            "Your row and column divide by H. A row of x has W numbers: row = i / W, column = "
            "i % W.": changed(TRANSPOSE, "i / W", "i / H", "i % W", "i % H"),
            "Row and column are exchanged: row = i / W, column = i % W.":
                changed(TRANSPOSE, "row = i / W, column = i % W", "column = i / W, row = i % W"),
            "this copies x. Row and column must be exchanged in y: column * H + row.":
                changed(TRANSPOSE, "column * H + row", "row * W + column"),
            "you read x as if its rows were H long. Number j of y lies in row j / H and column "
            "j % H of y.": changed(TRANSPOSE, "y[column * H + row] = x[i]",
                                   "y[i] = x[column * H + row]"),
            "the guard stops all rows but one. Compare i with H * W.":
                changed(TRANSPOSE, "i >= H * W", "i >= W"),
            "the guard stops too early. Compare i with H * W.":
                changed(TRANSPOSE, "i >= H * W", "i >= H"),
            "i / H and i % H are row and column of y, whose rows are H long. Their place in y is "
            "row * H + column, which is i, and the number comes from x[column * W + row].":
                changed(TRANSPOSE, ROW_COLUMN, "row = i / H, column = i % H",
                        "column * H + row", "row * W + column"),
            "You go through y, whose rows are H long. In x, row and column are exchanged, and its "
            "rows are W long: y[i] = x[column * W + row].":
                changed(TRANSPOSE, ROW_COLUMN, "row = i / H, column = i % H",
                        "y[column * H + row] = x[i]", "y[i] = x[row * W + column]"),
            "y[i] = x[column * W + row] is right if row and column are those of y, whose rows are "
            "H long: row = i / H, column = i % H.":
                changed(TRANSPOSE, "y[column * H + row] = x[i]", "y[i] = x[column * W + row]")}),
    "13.3": KernelExercise(
        PLANES,
        ("A plane, all pixels of one channel, has H * W numbers. Which plane does i lie in? And "
         "after C planes the next map begins, with channel 0 again.",
         "i / (H * W) counts the planes over all maps. Its remainder by C is the channel. The "
         "guard is i < B * C * H * W."),
        run=launched("bias_planes"),
        inputs=[(numbers(3, 5, 4, 7), numbers(5), blank(3, 5, 4, 7), 3, 5, 4, 7),
                (numbers(2, 3, 7, 5), numbers(3), blank(2, 3, 7, 5), 2, 3, 7, 5)],
        traps={
            "that is the channel if channels are innermost. Here H * W neighbours share a channel: "
            "divide i by H * W first.": changed(PLANES, CHANNEL, "i % C"),
            "i / (H * W) counts the planes over all maps. After C of them channel 0 comes again: "
            "take the remainder, % C.": changed(PLANES, CHANNEL, "i / (H * W)"),
            "i / H * W is (i / H) * W in C. Write i / (H * W).":
                changed(PLANES, CHANNEL, "i / H * W % C"),
            "that is the map, not the channel: i / (C * H * W) counts maps. A plane has H * W "
            "numbers.": changed(PLANES, CHANNEL, "i / (C * H * W)"),
            "you divide by W, which counts rows. A plane has H * W numbers.":
                changed(PLANES, CHANNEL, "i / W % C"),
            "you divide by H. A plane has H * W numbers.":
                changed(PLANES, CHANNEL, "i / H % C"),
            "The guard is missing: there are only B * C * H * W numbers.":
                changed(PLANES, "if (i < B * C * H * W) ", ""),
            "the guard lets only the first map through. There are B * C * H * W numbers.":
                changed(PLANES, "B * C * H * W", "C * H * W"),
            "the guard lets only one plane through. There are B * C * H * W numbers.":
                changed(PLANES, "B * C * H * W", "H * W"),
            "the remainder comes before the division: first i / (H * W), then % C.":
                changed(PLANES, CHANNEL, "i % (H * W) % C"),
            "i / C is no channel: C is the number of channels. Count the planes, i / (H * W), and "
            "take the remainder by C.": changed(PLANES, CHANNEL, "i / C"),
            "the division comes first: i / (H * W) % C. In i % C / (H * W) the remainder does.":
                changed(PLANES, CHANNEL, "i % C / (H * W)"),
            "i % (H * W) is a place within a plane. The planes are counted by i / (H * W).":
                changed(PLANES, CHANNEL, "i % (H * W)"),
            "you divide by B too. The maps are the outermost axis: a plane has H * W numbers.":
                changed(PLANES, CHANNEL, "i / (B * H * W)"),
            "negative numbers became 0. There is no ReLU in this exercise: only add the bias.":
                changed(PLANES, "x[i] + bias[channel]", "fmaxf(x[i] + bias[channel], 0)")}),
    "13.4": KernelExercise(
        DIFFERENCES,
        ("Three steps: write x[i] to s[t] if there is such a number; wait at a barrier; then take "
         "the left neighbour from s[t - 1], and for t = 0 from x[i - 1]. Number 0 has none.",
         "The barrier stands outside any if. After it there are three cases: i == 0, then t == 0, "
         "then all others. Two a ? b : c in a row choose between them."),
        run=with_reads, count=True, results=("y", "the number of reads from global memory"),
        inputs=[(numbers(1000), blank(1000), 1000), (numbers(256), blank(256), 256),
                (numbers(9), blank(9), 9)],
        traps={
            "Another thread writes s[t - 1]. A barrier must stand between writing and reading s.":
                changed(DIFFERENCES, BARRIER, ""),
            "Not all threads reach the barrier: some have returned, or do not enter the if in "
            "which it stands. Put the barrier outside any if, and before any return.":
                changed(DIFFERENCES, BARRIER, "", RETURN, RETURN + BARRIER),
            "Thread 0 has no left neighbour in s: it must read x[i - 1].":
                changed(DIFFERENCES, LEFT, "i == 0 ? 0 : s[t - 1]"),
            "s[t - 1] lies before s for thread 0 of each block. Its left neighbour is x[i - 1]. "
            "Number 0 has none.": changed(DIFFERENCES, LEFT, "s[t - 1]"),
            "Number 0 has no left neighbour: for i = 0 the result is x[0].":
                changed(DIFFERENCES, LEFT, "t == 0 ? x[i - 1] : s[t - 1]"),
            "In block 0, blockIdx.x * 256 - 1 would be -1, and since it is unsigned, it becomes "
            "4294967295. Number 0 has no left neighbour: for i = 0 the result is x[0].":
                changed(DIFFERENCES, LEFT, "t == 0 ? x[blockIdx.x * 256 - 1] : s[t - 1]"),
            "the first number of each block is wrong, but for that of block 0: its left neighbour "
            "belongs to another block. Read it from x.":
                changed(DIFFERENCES, LEFT, "t == 0 ? 0 : s[t - 1]"),
            "y is right, but each number is read twice from global memory. Take the left neighbour "
            "from s, but for thread 0 of a block.":
                changed(DIFFERENCES, LEFT, "i == 0 ? 0 : x[i - 1]"),
            "y is right, but s is not used, and each number is read twice from global memory.":
                changed(DIFFERENCES, LEFT, "i == 0 ? 0 : x[i - 1]", "s[t] - left", "x[i] - left"),
            "y is right, but x[i] is read twice: it is in s[t] already.":
                changed(DIFFERENCES, "s[t] - left", "x[i] - left"),
            "the sign is wrong: x[i] - x[i - 1].":
                changed(DIFFERENCES, "s[t] - left", "left - s[t]"),
            "The guard before x[i] is missing: the last block has threads without a number.":
                changed(DIFFERENCES, "if (i < n) ", ""),
            "The guard before y[i] is missing: the last block has threads without a number.":
                changed(DIFFERENCES, RETURN, "", "s[t - 1]", "s[t - 1]"),
            "shared memory is indexed within the block, by t. i is the place in the whole array.":
                changed(DIFFERENCES, "s[t] = x[i]", "s[i % 256] = x[i]", "s[t - 1]", "s[t]"),
            "s has 256 places: index it by t, not by i.":
                changed(DIFFERENCES, "s[t] = x[i]", "s[i] = x[i]", "s[t - 1]", "s[i - 1]",
                        "s[t] - left", "s[i] - left"),
            "y[0] must be x[0].":
                changed(DIFFERENCES, "y[i] = ", "if (i > 0) y[i] = "),
            "There are two mistakes. Not all threads reach the barrier: put it outside any if, and "
            "before any return. And number 0 has no left neighbour: do not read x[-1].":
                changed(DIFFERENCES, BARRIER, "", RETURN, RETURN + BARRIER,
                        LEFT, "t == 0 ? x[i - 1] : s[t - 1]")}),
    "13.5": KernelExercise(
        SUMS,
        ("First s[t] = x[i], or 0 where there is no x[i]. Then the loop, with a barrier at the "
         "beginning of each round. Thread 0 writes the result to out[blockIdx.x].",
         "In a round, after the barrier, each thread with t < half does s[t] += s[t + half]. The "
         "barrier stands before that if, not in it."),
        run=launched("block_sums", threads=lambda x, out, n: n),
        inputs=[(numbers(1000), blank(4), 1000), (numbers(256), blank(1), 256),
                (numbers(5), blank(1), 5)],
        traps={
            "Nothing orders what two threads do with the same number of s. If many threads add to "
            "one place, use the tree. In the tree, threads read what others have written before: a "
            "barrier must stand in between, at the beginning of each round.":
                changed(SUMS, WAIT, ""),
            "The barrier stands in the if, which only some threads enter. All must reach it.":
                changed(SUMS, WAIT + ADD, "        if (t < half) {\n" + WAIT +
                        "            s[t] += s[t + half];\n        }\n"),
            "The threads for which there is no number have returned before the barrier. All must "
            "reach it: let them put 0 into s.":
                changed(SUMS, LOAD, "if (i >= n) return; s[t] = x[i];"),
            "The guard is missing: the last block has threads for which there is no x[i]. They put "
            "0 into s.": changed(SUMS, LOAD, "s[t] = x[i];"),
            "where there is no x[i], s[t] has no value. Set it to 0, or the sum of the last block "
            "is NaN.": changed(SUMS, LOAD, "if (i < n) s[t] = x[i];"),
            "The loop begins too high: with half = blockDim.x, s[t + half] lies behind the end.":
                changed(SUMS, "half = blockDim.x / 2", "half = blockDim.x"),
            "Several threads write the same number of out. First add up in s, then only thread 0 "
            "writes the sum.":
                changed(SUMS, "if (t == 0) out", "out"),
            "Each block writes to out[0]. Its own place is out[blockIdx.x].":
                changed(SUMS, "out[blockIdx.x]", "out[0]"),
            "the last round is missing: half = 1 must still be done. The loop goes on while half > "
            "0.": changed(SUMS, "half > 0", "half > 1"),
            "s[t] is replaced, not increased: write += in the round.":
                changed(SUMS, "s[t] += ", "s[t] = "),
            "x is added in each round. After the first line, only s is needed.":
                changed(SUMS, "s[t] += s[t + half]", "s[t] += i + half < n ? x[i + half] : 0"),
            "Too many threads add in a round: those below half, so t < half.":
                changed(SUMS, "t < half", "t <= half"),
            "out stays NaN: nobody writes to it, or you add to it with +=. Before the launch there "
            "is no number in it. Thread 0 writes the sum with =.": changed(SUMS, OUT, ""),
            "each block reads the first 256 numbers. The index in x is i, which counts on over all "
            "blocks.": changed(SUMS, "x[i]", "x[t]"),
            "Each block reads the first 256 numbers, even if there are fewer. The index in x is i, "
            "and where i >= n put 0 into s.": changed(SUMS, LOAD, "s[t] = x[t];"),
            "the loop only goes once. half is halved after each round: half /= 2.":
                changed(SUMS, "half > 0; half /= 2", "half == blockDim.x / 2; half /= 2"),
            "Each block writes to out[0]: its own place is out[blockIdx.x]. And where there is no "
            "x[i], s[t] has no value: set it to 0.":
                changed(SUMS, LOAD, "if (i < n) s[t] = x[i];", "out[blockIdx.x]", "out[0]"),
            "Each block adds to out[0], in which there is no number before the launch. Its own "
            "place is out[blockIdx.x], and it writes its sum there with =.":
                changed(SUMS, "out[blockIdx.x] =", "out[0] +="),
            "The place of a block in out is out[blockIdx.x]. i counts the numbers of x.":
                changed(SUMS, "out[blockIdx.x]", "out[i]"),
            "In each round only the threads with t < half add. For the others, s[t + half] lies "
            "behind the end of s, or belongs to another thread.":
                changed(SUMS, "if (t < half) ", ""),
            "s has 256 places: index it by t, the place in the block, not by i.":
                changed(SUMS, "s[t] = i < n", "s[i] = i < n"),
            "The tree goes through the block's 256 places, not through all n numbers: begin with "
            "half = blockDim.x / 2.": changed(SUMS, "half = blockDim.x / 2", "half = n / 2"),
            "The Python function has one block. Here each block has its own numbers, x[i], or 0 if "
            "i >= n, and its own place, out[blockIdx.x].":
                changed(SUMS, LOAD, "s[t] = x[t];", "out[blockIdx.x]", "out[0]"),
            "only block 0 writes its sum: i is 0 in no other block. Thread 0 of each block writes, "
            "so if (t == 0).": changed(SUMS, "t == 0", "i == 0"),
            "only block 0 writes its sum: i is 0 in no other block, but t is. And where there is "
            "no x[i], s[t] has no value: set it to 0.":
                changed(SUMS, LOAD, "if (i < n) s[t] = x[i];", "t == 0", "i == 0")}),
}
