# %% [markdown]
# # 15. The ladder: how does a convolution become fast on a GPU?
#
# Almost all of the training time goes into convolutions. The project has eleven kernels for them in
# `kernels/conv/`, from `1_naive.cu` to `11_running_indices.cu`. All compute the same. Each has one
# more idea than the one before. On an H200, a GPU for data centres, the first reached 6 and the
# last 159 TFLOP/s ($10^{12}$ floating-point operations a second). Where does the factor come from?
# We climb step by step, and count what each step saves. All speeds here are from one run on one
# H200 ([measured speeds](../docs/speed.md)), for a layer much larger than ours.
#
# You need: the three sums of a convolution ([notebook 4](04_convolution.ipynb)), and threads,
# shared memory and barriers ([notebook 13](13_first_kernel.ipynb)). You need a C++ compiler, but no
# GPU: all counts come from the emulator. Time: about 120 minutes, of which 65 are exercises. Are
# you stuck on one? Run its check again: each time it helps more.

# %%
import sys
sys.path[:0] = ["..", "../.."]  # the project is one folder up, or two
from concurrent.futures import ThreadPoolExecutor
import matplotlib.pyplot as plt
import numpy as np
from kernels import CudaOps, Emulator, launch
from kernels.emulator_counts import warp_accesses
from kernels.numpy_ops import conv, conv_input_grad
from tutorial.checks import check
from tutorial.kernel_checks import FOLDER, text_of

# %% [markdown]
# ## A convolution is a matrix product
#
# Notebook 4 wrote a convolution as a matrix product, by im2col: $y = A w$. Row $m$ of $A$ belongs
# to an output pixel, column $k$ to one tap and channel (ky, kx, ci), and $w$ is (kh kw Cin, Cout).
# The matrix $A$ holds each number of $x$ up to kh kw times. On a GPU we never build it. A thread
# that needs $A_{mk}$ works out where this number lies in $x$, and reads it there. This is called
# *implicit GEMM*, where GEMM is the usual name for a general matrix product.
#
# Our layer is small: 2 maps, a 2x2 kernel, from 8 channels to 128. There is no padding, so all
# numbers of $A$ come from $x$.

# %%
rng = np.random.default_rng(0)
x = rng.standard_normal((2, 9, 9, 8)).astype(np.float32)           # (B, H, W, Cin)
w = rng.standard_normal((2, 2, 8, 128)).astype(np.float32) / 6     # (kh, kw, Cin, Cout)
B, Ho, Wo, Cout = conv(x, w).shape                                 # (2, 8, 8, 128)
M, K, N = B * Ho * Wo, 2 * 2 * 8, Cout                             # rows, terms, columns
print(f"A is {M} x {K}, w is {K} x {N}: {M * N * K:,} multiply-adds")

# %%
def place(m, k):
    """Where A[m, k] lies in x."""
    b, oy, ox = m // Wo // Ho, m // Wo % Ho, m % Wo
    ky, kx, ci = k // 8 // 2, k // 8 % 2, k % 8
    return ((b * 9 + oy + ky) * 9 + ox + kx) * 8 + ci

A = x.ravel()[place(*np.indices((M, K)))]  # (M, K), only to show that it is right
assert np.allclose((A @ w.reshape(K, N)).reshape(B, Ho, Wo, N), conv(x, w), atol=1e-5)

# %% [markdown]
# The two gradients are matrix products too, with other factors. The table in
# [implicit_gemm.cuh](../kernels/implicit_gemm.cuh) says which. So one way to multiply matrices
# serves all three, and from here on we only ask: how does a GPU multiply two matrices quickly?
#
# We run all eleven steps in the emulator, and let it count. Steps 6 and later round their factors
# to TF32, which is explained below. Their results agree with NumPy's to about three digits, those
# of the other steps to six.

# %%
STEPS = [path.stem for path in launch.ladder("conv")]

def run(step):
    """y, and the emulator with its counts."""
    precision = "fp32" if STEPS.index(step) < 5 else "tf32"
    ops = CudaOps(Emulator(precision=precision, count=True), step)
    ops.few_channels = 0  # no other kernel takes over
    return ops.asnumpy(ops.conv(ops.asarray(x), ops.asarray(w))), ops.device

# %%
for step in "1_naive", "6_operands":  # compiles what the others share
    run(step)
with ThreadPoolExecutor(2) as pool:   # two at a time: compiling takes seconds
    results = dict(zip(STEPS, pool.map(run, STEPS)))
counts = {step: device.counts["conv"] for step, (_, device) in results.items()}

# %%
for step, (y, _) in results.items():
    tolerance = 1e-5 if STEPS.index(step) < 5 else 3e-3
    assert np.allclose(y, conv(x, w), atol=tolerance), step

# %% [markdown]
# ## Step 1: a thread for each output
#
# The definition: each thread computes one output, in a loop over the $K$ terms of its sum. Each
# term takes two numbers from global memory, one of $x$ and one of $w$. So there are 2 reads for
# each multiply-add. Let us see what was counted.

# %%
def numbers_read(step):
    """Numbers from global memory for each multiply-add."""
    return counts[step].global_read_bytes / 4 / (M * N * K)

print(numbers_read("1_naive"), "numbers for a multiply-add")
assert numbers_read("1_naive") == 2

# %% [markdown]
# An H200 could do 33,500 million multiply-adds in a millisecond, but its memory delivers only 1,200
# million numbers in that time (4.8 TB/s, by the data sheet). It has caches, small fast memories
# that keep what was read last, and they serve most of these reads. Without them step 1 would be
# even slower than its 6 TFLOP/s.
#
# ## Step 2: tiles in shared memory
#
# A number of $A$ is needed for all $N$ columns, and a number of $w$ for all $M$ rows. So a block
# should read it once and use it often. A block of 256 threads computes a *tile* of 16 x 16 outputs.
# For 16 terms of the sum at a time, each thread reads one number of $A$ and one of $w$ and writes
# them to shared memory. Then each thread uses what all have read. In NumPy, with a count:

# %%
def tiled_product(A, w, rows, columns, terms):
    C, read = np.zeros((len(A), w.shape[1]), A.dtype), 0
    for m in range(0, len(A), rows):
        for n in range(0, w.shape[1], columns):        # a block
            for k in range(0, len(w), terms):
                As, Bs = A[m:m + rows, k:k + terms], w[k:k + terms, n:n + columns]
                read += As.size + Bs.size
                C[m:m + rows, n:n + columns] += As @ Bs
    return C, read / (A.shape[0] * A.shape[1] * w.shape[1])

# %%
C, read = tiled_product(A, w.reshape(K, N), 16, 16, 16)
assert np.allclose(C.reshape(B, Ho, Wo, N), conv(x, w), atol=1e-5)
print(f"{read} numbers for a multiply-add; counted in the kernel: {numbers_read('2_shared_tiles')}")
assert read == numbers_read("2_shared_tiles") == 0.125

# %% [markdown]
# Two reads have become 1/8. The kernel needs two barriers in each step along the sum: one after
# loading, because a thread uses what others have loaded, and one after multiplying, because the
# next load overwrites the tiles. The main part of the kernel:

# %%
text = (FOLDER / "conv" / "2_shared_tiles.cu").read_text()
print(text[text.index("    for (int k0"):text.index("    store(out")])

# %% [markdown]
# On an H200, tiles in shared memory made the forward pass slower: 4.4 TFLOP/s, after 6.2 in step 1.
# There the caches had done the work of the tiles already, and there were no barriers to wait at.
# But the two gradients of step 1 reached only 0.6 and 0.9. With tiles, and with what step 3 below
# adds, they are as fast as the forward pass.

# %% [markdown]
# ### Exercise 15.1: reads for a multiply-add
#
# *Difficulty 1 of 3 · 5 minutes · Good for: choosing the size of a tile.*
#
# A block computes a tile of `rows` x `columns` outputs. How many numbers does it read from global
# memory for each multiply-add? Write the formula. For 16 and 16 it gives 1/8.

# %%
def reads(rows, columns):
    ### BEGIN SOLUTION
    return 1 / rows + 1 / columns
    ### END SOLUTION

# %%
check("15.1", reads);

# %% [markdown]
# ### Exercise 15.2: a product by tiles
#
# *Difficulty 3 of 3 · 20 minutes · Good for: the core of every fast kernel.*
#
# $C = A B$, where `A` is (M, K), `B` is (K, N), and none of the sizes need be a multiple of 16.
# Fill the loop: load a number of each tile (0 outside the matrix), wait, add up 16 terms, wait. The
# check counts the reads as well: no number outside, and none twice in a block.

# %%
matmul = r"""
extern "C" __global__ __launch_bounds__(256)
void matmul(const float* A, const float* B, float* C, int M, int K, int N) {
    __shared__ float As[16][16];
    __shared__ float Bs[16][16];
    int r = threadIdx.x / 16, c = threadIdx.x % 16, tiles = (N + 15) / 16;  // side by side
    int row = blockIdx.x / tiles * 16 + r, column = blockIdx.x % tiles * 16 + c;
    float sum = 0;
    for (int k0 = 0; k0 < K; k0 += 16) {
        // ### BEGIN SOLUTION
        As[r][c] = row < M && k0 + c < K ? A[row * K + k0 + c] : 0;
        Bs[r][c] = k0 + r < K && column < N ? B[(k0 + r) * N + column] : 0;
        __syncthreads();
        for (int k = 0; k < 16; ++k) sum += As[r][k] * Bs[k][c];
        __syncthreads();
        // ### END SOLUTION
    }
    if (row < M && column < N) C[row * N + column] = sum;
}
"""

# %%
check("15.2", matmul);

# %% [markdown]
# ### Banks: why a row in step 2 has 17 places
#
# Shared memory consists of 32 parts that work side by side, its *banks*. Word $i$ (4 bytes) lies in
# bank $i \bmod 32$. In one access of a warp, each bank delivers one word. If lanes need different
# words of the same bank, the access is repeated, once more for each further word. This is a *bank
# conflict*.
#
# The kernel of exercise 15.2 writes rows of its tiles, 16 neighbouring words each. In step 2 the
# tile is turned over: a warp writes two columns of `As`, 16 places each. With 16 places in a row,
# all numbers of a column lie in one of two banks. The kernel declares 17 places, of which the last
# one is never used. We look at the addresses of one such access, and at those it would have with 16
# places.

# %%
accesses = warp_accesses(results["2_shared_tiles"][1].accesses["conv"])
words = next(o for kind, argument, o in accesses if kind == "write" and argument == -1) // 4
words = words - words.min()                # of As: row * 17 + column
row, column = words // 17, words % 17      # the place that each lane writes
layouts = (row * 16 + column, "16 places in a row"), (words, "17 places in a row")

# %%
def draw_turns(axis, words, title):
    """Each lane at its bank, one turn below the other. Returns the number of turns."""
    turn = [np.sum(words[:lane] % 32 == words[lane] % 32) for lane in range(32)]
    picture = np.zeros((8, 32))
    picture[turn, words % 32] = 1
    axis.imshow(picture, cmap="Oranges", vmax=2, aspect="auto")
    for lane, word in enumerate(words):
        axis.text(word % 32, turn[lane], lane, ha="center", va="center", fontsize=7)
    axis.set(yticks=[0, 7], yticklabels=["turn 1", "turn 8"], title=title)
    return int(max(turn)) + 1

# %%
_, axes = plt.subplots(2, 1, figsize=(6.2, 3.8), layout="constrained", sharex=True)
found = [draw_turns(axis, *layout) for axis, layout in zip(axes, layouts)]
axes[1].set_xlabel("bank (the numbers are lanes)")
plt.show()
print("turns:", found)
assert found == [8, 2]

# %% [markdown]
# With 16 places this access takes 8 turns, with 17 only 2. (Not 1: the warp writes two columns, and
# two of the 32 places still share a bank.) So the kernel's count of conflicts is not 0. Reading has
# none: lanes that want the *same* word share it.

# %%
c = counts["2_shared_tiles"]
print(f"{c.bank_conflicts:,} repetitions in {c.shared_accesses:,} accesses of shared memory")
print(f"{c.shared_reads / (M * N * K):g} reads of shared memory for a multiply-add")
assert c.shared_reads == 2 * M * N * K

# %% [markdown]
# ### Exercise 15.3: lanes at a bank
#
# *Difficulty 1 of 3 · 10 minutes · Good for: odd sizes in other people's kernels.*
#
# Lane $i$ of 32 reads number 0 of row $i$ of a shared array whose rows have `length` words. How
# many lanes use the busiest bank? For length 32 it is 32, for 33 it is 1.

# %%
def lanes_at_a_bank(length):
    ### BEGIN SOLUTION
    banks = [lane * length % 32 for lane in range(32)]
    return max(banks.count(bank) for bank in banks)
    ### END SOLUTION

# %%
check("15.3", lanes_at_a_bank);

# %% [markdown]
# ## Step 3: the input gradient without zeros
#
# This step changes only `conv_input_grad`, our transposed convolution. At stride 2, an input pixel
# meets only every second tap in each direction, and which ones depends on whether its row and
# column are even or odd. Step 2 goes through all taps, and three of four times it multiplies by
# zero. Step 3 sorts the pixels into the $2 \cdot 2$ *output phases*. All pixels of a phase have the
# same taps, so none is wasted. The reads of shared memory count the multiply-adds, two for each:

# %%
dy = rng.standard_normal((1, 4, 4, 16)).astype(np.float32)
kernel = rng.standard_normal((4, 4, 16, 16)).astype(np.float32)

def work(step):
    ops = CudaOps(Emulator(count=True), step)
    ops.few_channels = 0
    dx = ops.conv_input_grad(ops.asarray(dy), ops.asarray(kernel), (1, 8, 8, 16), 2, 1)
    return ops.asnumpy(dx), ops.device.counts["conv_input_grad"].shared_reads // 2

# %%
all_taps, phases = work("2_shared_tiles"), work("3_phases")
right = conv_input_grad(dy, kernel, (1, 8, 8, 16), 2, 1)
assert np.allclose(all_taps[0], right, atol=1e-4) and np.allclose(phases[0], right, atol=1e-4)
print(f"{all_taps[1]:,} multiply-adds, by phases {phases[1]:,}")
assert all_taps[1] == 4 * phases[1]

# %% [markdown]
# ## Step 4: 64 outputs for each thread, in registers
#
# Step 2 reads two numbers from *shared* memory for each multiply-add, and that is now the limit. We
# do the same trick once more, one level further in. A thread computes 8 x 8 outputs. For each term
# it reads 8 numbers of $A$ and 8 of $w$ into *registers*, the memory of a single thread, and does
# 64 multiply-adds with them. That is 16/64 = 1/4 number for each multiply-add. And one read takes
# four neighbouring numbers: `Four` is a vector of them.

# %%
print(text_of("register_tiles.cuh", "multiply"))

# %% [markdown]
# The block's tile grows to 64 x 64 as well, so the reads of global memory fall to 1/64 + 1/64. The
# emulator keeps a record of each access, with its bytes. Let us add up those of shared memory.

# %%
def numbers_shared(step):
    """Numbers from shared memory for each multiply-add."""
    records = results[step][1].accesses["conv"]
    chosen = (records["argument"] < 0) & (records["kind"] == 0)  # shared memory has no argument
    return records["bytes"][chosen].sum() / 4 / (M * N * K)

# %%
for step in "2_shared_tiles", "4_register_tiles":
    print(f"{step:16} for a multiply-add: global {numbers_read(step)}, "
          f"shared {numbers_shared(step)}")
assert numbers_read("4_register_tiles") == 1 / 64 + 1 / 64
assert numbers_shared("4_register_tiles") == 1 / 4 + 3 / 64

# %% [markdown]
# The 3/64 are for pixels. In 8 terms of the sum, 512 multiply-adds, a thread loads 8 numbers of
# $A$. For each it looks up in shared memory which pixel its row is, three numbers that another
# thread has worked out.

# %% [markdown]
# ## Step 5: load ahead
#
# Step 5 reads as many numbers as step 4. What changes is *when*. A number from global memory takes
# hundreds of clock cycles to arrive. In step 4 all threads wait for it, then multiply, then wait
# again. In step 5 a thread starts to load its numbers of the next tiles, and multiplies the present
# ones while they are on their way. They wait in registers until the tiles in shared memory are
# free. Let us draw that with invented times: a load takes 5 units, a product 4.

# %%
def timeline(ahead):
    """[(start of a load, start of its product)], and the end of the last product."""
    events, free = [], 0
    for step in range(5):
        earliest = events[step - ahead][1] if 0 < ahead <= step else 0
        load = earliest if ahead else free  # step 4: only after the last product
        start = max(free, load + 5)
        events.append((load, start))
        free = start + 4
    return events, free

# %%
_, axes = plt.subplots(3, 1, figsize=(6.2, 3.6), layout="constrained", sharex=True)
for axis, (title, ahead) in zip(axes, {"step 4": 0, "step 5": 1, "step 8": 2}.items()):
    events, end = timeline(ahead)
    for i, (load, multiply) in enumerate(events):
        axis.barh(1 + i % 2 * 0.45, 5, 0.4, left=load, color="tab:blue", edgecolor="white")
        axis.barh(0.3, 4, 0.5, left=multiply, color="tab:orange", edgecolor="white")
    axis.set(yticks=[0.3, 1.2], yticklabels=["multiply", "load"], title=f"{title}: {end} units")
axes[2].set_xlabel("time")
plt.show()

# %%
ends = [timeline(ahead)[1] for ahead in (0, 1, 2)]
print("time with 0, 1, 2 loads ahead:", ends)
assert ends == [45, 29, 25]

# %% [markdown]
# With one load ahead, a product waits only for as long as a load takes longer than a product: 1
# unit. With two, only the first product waits. On an H200, step 5 took the kernel from 10 to 29
# TFLOP/s. cuDNN, NVIDIA's own library, reached 25 in float32, and 52 in the input gradient, where
# ours has 26.
#
# ## Step 6: fewer digits
#
# Even without any waiting, an H200 has only 67 TFLOP/s in float32. *Tensor cores* do many more
# multiply-adds in the same time, but only with rounded factors. A number in a computer is a
# *mantissa*, its binary digits, times a power of 2, which the *exponent* gives. There are two
# shorter formats, both with the exponent of float32:
#
# | format | bits | mantissa | largest relative error |
# |---|---|---|---|
# | float32 | 32 | 23 | $2^{-24}$ |
# | TF32 | 19 (stored in 32) | 10 | $2^{-11}$ |
# | bf16 | 16 | 7 | $2^{-8}$ |
#
# Products and sums stay float32. The step rounds both factors beforehand, in a kernel of its own,
# `prepare` in `operands.cu`. Here are the bits of $\pi$, and then what the project's kernel does.

# %%
pi = np.array([np.pi], np.float32)
bits = [[int(b) for b in f"{pi.view(np.uint32)[0] & mask:032b}"]
        for mask in (0xFFFFFFFF, 0xFFFFE000, 0xFFFF0000)]
colours = np.tile(np.repeat([1, 2, 3], [1, 8, 23]), (3, 1))  # sign, exponent, mantissa
colours[1, 19:] = colours[2, 16:] = 0

# %%
plt.figure(figsize=(6.2, 1.5), layout="constrained")
plt.imshow(colours, cmap=plt.cm.colors.ListedColormap(["0.9", "#fdd0a2", "#c7e9c0", "#9ecae1"]))
for (i, j), bit in np.ndenumerate(bits):
    plt.text(j, i, bit, ha="center", va="center", fontsize=7)
plt.yticks(range(3), ["float32", "TF32", "bf16"])
plt.xticks([0, 4.5, 20], ["sign", "exponent", "mantissa"])
plt.show()

# %%
def nearest(numbers):
    """The nearest whole numbers; those in the middle are rounded away from 0, as in TF32."""
    return np.trunc(numbers + np.copysign(0.5, numbers))

def rounded(numbers, digits, how=nearest):
    """To so many binary digits, with the leading 1: 11 in TF32, 8 in bf16."""
    mantissa, exponent = np.frexp(numbers)  # numbers = mantissa * 2 ** exponent
    return np.ldexp(how(mantissa * 2 ** digits) / 2 ** digits, exponent)

# %%
many = rng.standard_normal((1000, 8)).astype(np.float32)
ops = CudaOps(Emulator(precision="tf32", count=True))
found = ops.asnumpy(ops.rounded(ops.asarray(many)).values).reshape(many.shape)
assert (found == rounded(many, 11)).all()

# %%
for name, digits in ("TF32", 11), ("bf16", 8):
    error = np.abs(rounded(many, digits) / many - 1).max()
    print(f"{name}: largest relative error {error:.5f}, at most {2.0 ** -digits:.5f}")
    assert error <= 2.0 ** -digits

# %% [markdown]
# Why round to the nearest, when it would be easier to cut the bits off? Cutting moves every number
# towards 0. In a sum of positive numbers, the errors of rounding go in both directions and mostly
# cancel. Those of cutting all go in one. We add up 4,096 products:

# %%
a, b = rng.uniform(0.5, 1.5, (2, 4096)).astype(np.float32)
exact = (a.astype(float) * b).sum()
errors = [abs((rounded(a, 11, how).astype(float) * rounded(b, 11, how)).sum() / exact - 1)
          for how in (nearest, np.trunc)]
print(f"rounded: {errors[0]:.1e}   cut: {errors[1]:.1e}")
assert errors[1] > 20 * errors[0]

# %% [markdown]
# ### Exercise 15.4: round to TF32
#
# *Difficulty 2 of 3 · 10 minutes · Good for: knowing what the steps from 6 on compute with.*
#
# A float32 has a sign, 8 bits of exponent and 23 bits of mantissa. TF32 keeps only the first 10
# bits of the mantissa. So the last 13 bits become 0, after rounding to the nearest. Numbers in the
# middle are rounded away from 0. `x` is a float32 array; return one. To change bits, look at the
# same memory as whole numbers, `x.view(np.uint32)`. Numbers can be added to them, and `& mask` sets
# to 0 the bits that are 0 in the mask. The bits of 1.0, as a hexadecimal number, are `0x3F800000`,
# and those of the next larger float32 are `0x3F800001`.

# %%
def tf32(x):
    ### BEGIN SOLUTION
    bits = x.view(np.uint32)
    return ((bits + 0x1000) & 0xFFFFE000).view(np.float32)
    ### END SOLUTION

# %%
check("15.4", tf32);

# %% [markdown]
# Step 6 still multiplies as step 5 does, and now loads four numbers at once. It pads the channels
# to whole vectors of 16 bytes with zeros, so that no vector reaches into the next tap. The numbers
# that it reads are the same. The *accesses* of warps to global memory become fewer:

# %%
for step in "5_loads_ahead", "6_operands":
    print(f"{step:14} {counts[step].global_accesses:,} accesses")

# %% [markdown]
# ## Step 7: tensor cores
#
# A tensor core works not for a thread but for a warp: 32 lanes bring their registers, and one
# instruction, `mma`, multiplies a 16 x 8 matrix by an 8 x 8 matrix. That takes 1,024 multiply-adds.
# An ordinary instruction does one for each lane, so 32. Each lane must hold certain elements of the
# two matrices. The picture shows the 16 x 8 matrix $A$. The number in each element is the lane that
# holds it. Each lane holds four.

# %%
lanes = np.array([[4 * (row % 8) + column % 4 for column in range(8)] for row in range(16)])
plt.figure(figsize=(4.2, 4.2), layout="constrained")
plt.imshow(lanes, cmap="viridis", alpha=0.4)
for (row, column), lane in np.ndenumerate(lanes):
    plt.text(column, row, lane, ha="center", va="center", fontsize=8)
plt.xlabel("term of the sum"), plt.ylabel("row of A")
plt.show()
assert (np.bincount(lanes.ravel()) == 4).all()
print(16 * 8 * 8, "multiply-adds in an instruction, instead of 32")

# %% [markdown]
# The instruction `ldmatrix` brings words from shared memory into this order. Such instructions do
# not exist in C++. The project writes each in a small function, in GPU assembly for a GPU and in
# C++ for the emulator: see [tensor_cores.cuh](../kernels/tensor_cores.cuh). Tiles keep the order of
# global memory now, and vectors of 16 bytes are written as they are, without conflicts:

# %%
for step in "6_operands", "7_tensor_cores":
    print(f"{step:14} {counts[step].shared_writes:6,} writes to shared memory, "
          f"{counts[step].bank_conflicts:5,} repetitions")
assert counts["7_tensor_cores"].bank_conflicts == 0

# %% [markdown]
# On an H200 this kernel reached 78 TFLOP/s in TF32, twice as many as step 6. But `mma` alone,
# without any memory, runs at 326 there: the tensor cores wait for memory three quarters of the
# time. That is what the last steps are for.
#
# ## Step 8: a pipeline of copies
#
# `cp.async` copies 16 bytes from global to shared memory without a register, while the thread goes
# on. So two tiles can be on their way instead of one (the third picture above). Shared memory holds
# three *stages*: one is multiplied, two are filled. A thread marks what it has started as a group
# with `commit_copies()`. Later, `wait_for_copies<1>()` waits until all its groups but the newest 1
# have arrived. It knows only about the copies of its own thread. So a barrier must follow before
# the others' copies may be used.
#
# Each step along the sum needs only one barrier instead of two. When all threads have reached it,
# all of them have also multiplied the stage that is filled next. Our sum of 32 terms takes two
# steps, and one more barrier comes before the first. So each of the 4 blocks passes 3 barriers
# instead of 5:

# %%
for step in "7_tensor_cores", "8_pipeline":
    print(f"{step:14} {counts[step].barriers} barriers")
assert counts["8_pipeline"].barriers < counts["7_tensor_cores"].barriers

# %% [markdown]
# ### Exercise 15.5: wait for the right copy
#
# *Difficulty 3 of 3 · 20 minutes · Good for: every kernel that copies while it computes.*
#
# A block of 64 threads works through `x` in tiles of 256, with room for two. In each step, thread
# $t$ adds the 4 numbers of thread $63 - t$ to its sum: `tiles[step % 2][4 * (63 - t) + k]` for $k$
# = 0 to 3. Meanwhile the next tile arrives in the other place. The copies of the first tile are
# given. Start the copies of the next one, commit, wait, add up. Commit in every step, also in the
# last, whose group is empty. Where do you need barriers? (In this order there are two.) The check
# also counts the numbers that you add while a copy is on its way. If you start the next copies and
# then wait for them too, `y` is right as well, but nothing overlaps, as in step 4.
# (`copy_async(target, source, true)` starts a copy of 16 bytes; with `false` zeros would arrive.
# Here `operand` and `real` are float.)

# %%
reversed_sums = r"""#include "common.cuh"
#include "tensor_cores.cuh"
extern "C" __global__ __launch_bounds__(64)
void reversed_sums(const operand* __restrict__ x, real* __restrict__ y, int steps) {
    __shared__ __align__(16) operand tiles[2][256];
    int t = threadIdx.x; float sum = 0;
    copy_async(&tiles[0][4 * t], x + 4 * t, true), commit_copies();
    for (int step = 0, next = 1; step < steps; ++step, ++next) {
        // ### BEGIN SOLUTION
        if (next < steps) copy_async(&tiles[next % 2][4 * t], x + (256 * next + 4 * t), true);
        commit_copies();
        wait_for_copies<1>();
        __syncthreads();
        for (int k = 0; k < 4; ++k) sum += tiles[step % 2][4 * (63 - t) + k];
        __syncthreads();
        // ### END SOLUTION
    }
    y[t] = sum;
}
"""

# %%
check("15.5", reversed_sums);

# %% [markdown]
# ## Step 9: larger tiles
#
# Exercise 15.1 once more: a block computes 128 x 128 outputs, or 256 x 64 where there are few
# columns, and a warp 64 x 64. That halves the reads of global and of shared memory. Three stages of
# such tiles, in the weight gradient 16 x (256 + 8 + 64 + 8) numbers each (8 places after each row
# stay free, against bank conflicts), take 63 KB of shared memory. That is more than the 48 KB that
# a kernel gets without asking.

# %%
for step in "8_pipeline", "9_larger_tiles":
    print(f"{step:14} global {numbers_read(step)} numbers for a multiply-add, "
          f"{counts[step].shared_reads:,} reads of shared memory")
assert numbers_read("9_larger_tiles") == 1 / 128 + 1 / 128
assert counts["9_larger_tiles"].shared_reads == counts["8_pipeline"].shared_reads / 2

# %% [markdown]
# ## Step 10: split sums
#
# Larger tiles mean fewer tiles. An H200 has 132 *multiprocessors*, the units that run blocks. Each
# runs 2 of these blocks at a time: 264 blocks in a *round*. A layer with 300 tiles needs two
# rounds, and the second is almost empty. A layer with 50 tiles leaves most of the GPU idle. So a
# sum is cut into slices, which go to different blocks, and another kernel adds up the slices,
# always in the same order, so that each run gives the same bits. With $s$ slices, each takes $1/s$
# of the time, and there are $s$ times as many blocks. Adding up costs a little for each slice. The
# project assumes 3 %, so that a sum in one slice counts as 1.03.

# %%
def time(tiles, slices):
    """In units of one round, to which each slice adds 3 %."""
    return np.ceil(tiles * slices / 264) / slices * (1 + 0.03 * slices)

slices = np.arange(1, 13)
plt.figure(figsize=(6.2, 2.7), layout="constrained")
for tiles in (50, 264, 300):
    plt.plot(slices, time(tiles, slices), "o-", label=f"{tiles} tiles")
plt.xlabel("slices"), plt.ylabel("time"), plt.ylim(0, 2.5), plt.legend(ncol=3, loc="upper right")
plt.show()

# %%
best = {tiles: int(slices[time(tiles, slices).argmin()]) for tiles in (50, 264, 300)}
print("best number of slices:", best)
print(f"50 tiles: {time(50, 1):.2f} in one slice, {time(50, 5):.2f} in five")
assert best == {50: 5, 264: 1, 300: 6}

# %% [markdown]
# ## Step 11: indices that run
#
# A copy needs an address. So far each thread got from $k$ to (ky, kx, ci) by division, as in our
# `place` above, and divisions of whole numbers are slow. But $k$ only ever advances. A running
# index needs only additions: the next channel, and at the end of the channels the next tap.

# %%
ky = kx = ci = 0
for k in range(K):
    assert (ky, kx, ci) == (k // 8 // 2, k // 8 % 2, k % 8)
    ci += 1
    if ci == 8:
        ci, kx = 0, kx + 1
    if kx == 2:
        kx, ky = 0, ky + 1

# %% [markdown]
# The kernel also takes the terms in another order: some channels of all taps, then the next
# channels. Neighbouring taps need mostly the same pixels, which are then still in the cache. On an
# H200, the forward pass reached 83 TFLOP/s in TF32 with the pipeline of step 8, 87 with larger
# tiles, 130 with split sums, and 159 with running indices; in bf16 282. cuDNN reached 209 and 451.
#
# ## The roofline
#
# Is a kernel limited by memory or by arithmetic? Its *intensity* is the number of multiply-adds for
# each byte from memory. Times the bytes per second that the memory delivers, it gives the
# multiply-adds per second that the memory allows. The arithmetic has its own limit. The smaller of
# the two is the kernel's *roof*. We take the counted bytes, and the figures of an H200's data
# sheet: 4.8 TB/s, and 67 (float32) or 495 TFLOP/s (TF32). Of these 495, `mma` reaches only 326. To
# go beyond that, a kernel must use another instruction, which only this kind of card has. (A
# multiply-add is two operations.)

# %%
intensity = {step: M * N * K / counts[step].global_read_bytes for step in STEPS}
peaks = {step: 67 if STEPS.index(step) < 6 else 495 for step in STEPS}   # TFLOP/s
roof = {step: min(peaks[step], 2 * 4.8 * intensity[step]) for step in STEPS}
for step in STEPS:
    print(f"{step:18} {intensity[step]:6.3f} multiply-adds a byte: {roof[step]:5.1f} TFLOP/s")
assert roof["1_naive"] < 1.3 and 150 < roof["9_larger_tiles"] < 155

# %%
labels = {(0.15, 1): "1", (2.4, 16): "2, 3", (9.5, 50): "4 to 6", (4.6, 90): "7, 8",
          (19, 125): "9 to 11", (0.15, 5.5): "1, measured", (9.5, 25): "5, measured",
          (9, 210): "11, measured"}
measured = {"1_naive": 6.2, "5_loads_ahead": 28.8, "11_running_indices": 159}  # docs/speed.md
span = np.geomspace(0.06, 200, 300)

# %%
plt.figure(figsize=(6.2, 3.6), layout="constrained")
for peak, name in (67, "float32"), (495, "TF32, tensor cores"):
    plt.loglog(span, np.minimum(peak, 2 * 4.8 * span), "0.6")
    plt.text(190, peak * 1.08, name, ha="right", fontsize=8)
plt.plot(list(intensity.values()), list(roof.values()), "o", color="tab:blue")
plt.plot([intensity[step] for step in measured], list(measured.values()), "x", color="tab:red")
for place, label in labels.items():
    plt.text(*place, label, fontsize=8)
plt.xlabel("multiply-adds for each byte read"), plt.ylabel("TFLOP/s")
plt.show()

# %% [markdown]
# The blue points are the roofs that hold if every read comes from the memory itself. The red
# crosses are measured speeds, of a larger layer. Step 1 lies *above* its roof, and so do steps 7, 8
# and 11 a little: the caches deliver what one block has read to the next. So this roof is not a
# law. It says how much a kernel depends on the caches: step 1 lives off them alone. From step 4 on
# the memory could feed the arithmetic of float32. What then slows a kernel down is waiting (mended
# by steps 5 and 8), arithmetic (6 and 7), reads once more (9), work that is spread badly (10), and
# divisions (11).
#
# ## Summary
#
# - A convolution is a matrix product whose left factor is looked up instead of built.
# - Tiles of rows x columns need 1/rows + 1/columns numbers for each multiply-add: first in shared
#   memory, then in registers, then both larger.
# - Words of one bank are delivered one after another. One more place in each row of a tile avoids
#   most of that.
# - A load that starts early enough costs no waiting. A thread must wait for its own copies, and
#   then at a barrier for those of the others.
# - Tensor cores multiply rounded numbers: TF32 keeps 10 bits of the mantissa, bf16 7. Round to the
#   nearest, and sum in float32.
# - Count first. Then measure, since the counts do not show caches and waiting.
#
# **In the project:** the steps in `kernels/conv/`, what they share in
# [implicit_gemm.cuh](../kernels/implicit_gemm.cuh),
# [register_tiles.cuh](../kernels/register_tiles.cuh) and
# [tensor_cores.cuh](../kernels/tensor_cores.cuh); their [launches](../kernels/cuda_conv.py#conv);
# [the ladder in numbers](../docs/kernels.md); [measured speeds](../docs/speed.md).
#
# **Next:** your own label maps, and a walk through the space of latent
# vectors, in [notebook 16](16_latent_space_and_your_maps.ipynb).
