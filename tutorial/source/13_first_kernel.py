# %% [markdown]
# # 13. First kernel: how do thousands of threads share one loop?
#
# So far NumPy did the arithmetic of our networks, on the cores of a CPU. A GPU has thousands of
# small cores. How does one write a program for so many? Which core computes which number? And how
# do they work together when there is only one result, such as a sum? We get there in three steps: a
# loop in Python, then threads in Python, then CUDA.
#
# You need: arrays and bias with activation ([notebook 6](06_softmax_and_losses.ipynb)). You need
# neither C nor a GPU: without one, an *emulator* runs CUDA programs on the CPU. It needs a C++
# compiler (g++, clang++, or `pip install ziglang`). Time: about 105 minutes, of which 65 are
# exercises. If an exercise does not work out, run its check again: each time it helps more.

# %%
import sys
sys.path[:0] = ["..", "../.."]  # the project is one folder up, or two
import threading
import matplotlib.pyplot as plt
import numpy as np
from kernels import CudaOps, Emulator, KernelError
from kernels.emulator_counts import warp_accesses
from kernels.numpy_ops import bias_activation
from tutorial.checks import check
from tutorial.kernel_checks import find_device, saved, text_of

# %% [markdown]
# ## A loop in Python
#
# Our first operation adds a bias to each channel and applies ReLU. In NumPy it is one line,
# `np.maximum(x + bias, 0)`. Here `x` is (B, H, W, C): maps, rows, columns, channels. In memory
# these are $n = B H W C$ numbers in a row. The channel moves fastest: after the $C$ channels of a
# pixel come those of the next pixel. So number $i$ belongs to the channel $i \bmod C$.
#
# We write the work for *one* number as a function, and call it for all of them.

# %%
rng = np.random.default_rng(0)
x = rng.standard_normal((2, 3, 3, 4)).astype(np.float32)  # (B, H, W, C)
bias = rng.standard_normal(4).astype(np.float32)          # (C,)
n = x.size                                                # 72

# %%
def bias_relu(i, x, bias, y):
    y[i] = max(x[i] + bias[i % len(bias)], 0)

y = np.empty(n, np.float32)
for i in rng.permutation(n):  # in any order
    bias_relu(i, x.ravel(), bias, y)
assert np.allclose(y.reshape(x.shape), bias_activation(x, bias, "relu"))

# %% [markdown]
# The loop goes through the numbers in a random order, and the result is right all the same: no call
# needs what another call has computed. So they could also run at the same time, each on a core of
# its own. A function that does the work for one number, to be run for many at once, is called a
# *kernel*. Each run of it is a *thread*.
#
# ## Blocks of threads
#
# A GPU does not take one long list of threads. It takes *blocks* of equal size, such as 256
# threads. All blocks together are the *grid*. Each block is given to one of the GPU's
# multiprocessors, of which an H200 has 132. The threads of a block can work together, as we shall
# see below. A thread is not told its $i$. It is told the number of its block and its own number
# within the block, and computes
#
# $$i = \text{block} \cdot \text{size} + \text{thread}$$
#
# We need enough blocks for all $n$ numbers: $n / \text{size}$, rounded up. In Python, `-(-n //
# size)` rounds up. Often $n$ is not a multiple of the size. Then the last block has threads
# for which there is no number. So the kernel asks first whether $i < n$. This line is called the
# *guard*.

# %%
def launch(kernel, blocks, size, *arguments):
    for block in range(blocks):
        for thread in range(size):
            kernel(block, thread, size, *arguments)

def bias_relu(block, thread, size, x, bias, y, n):
    i = block * size + thread
    if i < n:
        y[i] = max(x[i] + bias[i % len(bias)], 0)

# %%
size = 32
blocks = -(-n // size)
y = np.empty(n, np.float32)
launch(bias_relu, blocks, size, x.ravel(), bias, y, n)
assert np.allclose(y.reshape(x.shape), bias_activation(x, bias, "relu"))
print(f"{n} numbers, {blocks} blocks of {size} threads: {blocks * size - n} threads do nothing")

# %% [markdown]
# Here are these threads. Each row is a block, each square a thread with its $i$. The colour is the
# channel, and grey threads do nothing.

# %%
i = np.arange(blocks * size).reshape(blocks, size)  # block x size + thread
plt.figure(figsize=(6.2, 1.7), layout="constrained")
plt.imshow(np.where(i < n, i % 4, 4), cmap=plt.cm.colors.ListedColormap(
    ["#9ecae1", "#fdd0a2", "#c7e9c0", "#dadaeb", "#999999"]), aspect="auto")
for (block, thread), number in np.ndenumerate(i):
    plt.text(thread, block, number, ha="center", va="center", fontsize=6)
plt.yticks(range(blocks)), plt.xlabel("thread"), plt.ylabel("block")
plt.show()

# %% [markdown]
# ## The same in CUDA
#
# CUDA is NVIDIA's language for GPUs: C++ with a few more words. Here is our kernel in it. We keep
# it in a Python string, and save it as a file later.

# %%
source = r"""
extern "C" __global__ __launch_bounds__(256)
void bias_relu(const float* __restrict__ x, const float* __restrict__ bias,
               float* __restrict__ y, int n, int C) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = fmaxf(x[i] + bias[i % C], 0);
}
"""

# %% [markdown]
# The body is what we had, with other names:
#
# | our Python | CUDA |
# |---|---|
# | `block` | `blockIdx.x` |
# | `size` | `blockDim.x` |
# | `thread` | `threadIdx.x` |
# | `def bias_relu(...)` | `extern "C" __global__ void bias_relu(...)` |
# | `max(a, b)` | `fmaxf(a, b)` |
#
# `__global__` marks a kernel, `void` says that it returns nothing, and with `extern "C"` it keeps
# its name, so that Python can find it. What else you need to know of C:
#
# - Each variable has a type, `int i` or `float sum`, and `int a = 1, b = 2;` declares two. A
#   statement ends with `;`. Braces `{ }` hold a body, where Python uses the indentation. Without
#   braces, a body is only one statement. `return;` ends the kernel for the thread that comes to it.
# - `float*` is an array of float32. `const` says that the kernel only reads it. `__restrict__`
#   promises that no two of the arrays overlap.
# - An array does not know its length, so lengths are arguments. And `x[-1]` is not its last number:
#   it lies before the array.
# - A division of whole numbers rounds towards 0: `7 / 2` is 3, and `1 / 5` is 0. `i % C` is the
#   remainder. Write `0.5f` for a number of type `float`.
# - `a ? b : c` is Python's `b if a else c`, and `a && b` is `a and b`. `//` begins a comment.
# - `for (int k = 0; k < K; ++k)` is `for k in range(K)`: begin with 0, go on while `k < K`, and add
#   1 after each round.
# - `__launch_bounds__(256)` promises that blocks have at most 256 threads. This project expects it
#   in each kernel.
#
# To run the kernel we copy the arrays to the device, launch, and copy the result back. The device
# is a GPU if you have one. The output that you see here comes from the emulator on a CPU. There the
# first launch takes a second, because the kernel has to be compiled.

# %% tags=["varies"]
device = find_device()
print(device)

# %%
def run(device, source, kernel, blocks, size, *arguments):
    """Launches a kernel. Returns the last of the arrays, into which it writes."""
    there = [device.upload(a) if isinstance(a, np.ndarray) else a for a in arguments]
    device.launch(saved(source), kernel, blocks, size, *there)
    return device.download([a for a in there if hasattr(a, "dtype")][-1])

blank = np.full(n, np.nan, np.float32)
y = run(device, source, "bias_relu", blocks, size, x.ravel(), bias, blank, n, 4)
assert np.allclose(y.reshape(x.shape), bias_activation(x, bias, "relu"))

# %% [markdown]
# ### What if the guard is missing?
#
# In Python, `x[72]` of 72 numbers raises an `IndexError`. On a GPU there is no such check. The
# kernel would read past the end of the array, and write there, into somebody else's numbers. Often
# nobody notices. The emulator does check each access, so we use it wherever something might go
# wrong, and for all exercises. Here is the kernel without its guard:

# %%
without_guard = source.replace("if (i < n) ", "")
try:
    run(Emulator(), without_guard, "bias_relu", blocks, size, x.ravel(), bias, blank, n, 4)
except KernelError as error:
    print(error)

# %% [markdown]
# The line names the file, the kernel, the array, the index and the thread. Thread
# $t$ of block 2 wanted number $2 \cdot 32 + t$, and the last number is 71. (A thread has three
# numbers because blocks may have up to three dimensions. We use one. The first thread without a
# number is thread 8, but the emulator runs the threads in a shuffled order, so it may name a later
# one.) The emulator also notices when two threads use the same number, at least one of them writes
# it, and nothing says who comes first. This is called a *race*.

# %% [markdown]
# ### Exercise 13.1: your first kernel
#
# *Difficulty 1 of 3 · 10 minutes · Good for: the two lines with which almost every kernel begins.*
#
# Leaky ReLU: `y[i]` is `x[i]` where that is positive, and 0.2 times `x[i]` elsewhere. The kernel is
# launched with blocks of 256 threads, and with as many blocks as needed. The check tries it with
# 1000 numbers, with 512, and with 7.

# %% [markdown]
# Replace the line `#error` with your code. The compiler stops at such a line.

# %%
leaky_relu = r"""
extern "C" __global__ __launch_bounds__(256)
void leaky_relu(const float* __restrict__ x, float* __restrict__ y, int n) {
    // ### BEGIN SOLUTION
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = x[i] > 0 ? x[i] : 0.2f * x[i];
    // ### END SOLUTION
}
"""

# %%
check("13.1", leaky_relu);

# %% [markdown]
# The project's kernel is in `kernels/activations.cu`. It knows three activations. The bias may be
# missing: then `bias_or_null` is a null pointer, which counts as false. `real` is `float`, or
# `double` for gradient checks, and `THREADS` is a constant of that file, 256.

# %%
print(text_of("activations.cu", "bias_activation"))

# %% [markdown]
# `CudaOps` is the class that launches the project's kernels. Its methods have the names of our
# NumPy functions. It gives what they give:

# %%
ops = CudaOps(device)
y = ops.asnumpy(ops.bias_activation(ops.asarray(x), ops.asarray(bias), "relu"))
assert np.allclose(y, bias_activation(x, bias, "relu"))

# %% [markdown]
# ## From one number to rows and columns
#
# A thread has one $i$, but a map has rows and columns. We get them back by division. In a map of
# width $W$, number $i$ lies in
#
# $$\text{row} = \lfloor i / W \rfloor, \qquad \text{column} = i \bmod W$$
#
# and back again, $i = \text{row} \cdot W + \text{column}$. In C, `i / W` rounds down by itself.

# %% [markdown]
# ### Exercise 13.2: transpose a map
#
# *Difficulty 2 of 3 · 10 minutes · Good for: any kernel on maps.*
#
# `x` is (H, W). Write its transpose, `y` (W, H): row $r$, column $c$ of `x` becomes row $c$, column
# $r$ of `y`. There is at least one thread for each number, and there may be more.

# %%
transpose = r"""
extern "C" __global__ __launch_bounds__(256)
void transpose(const float* __restrict__ x, float* __restrict__ y, int H, int W) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    // ### BEGIN SOLUTION
    if (i >= H * W) return;
    int row = i / W, column = i % W;
    y[column * H + row] = x[i];
    // ### END SOLUTION
}
"""

# %%
check("13.2", transpose);

# %% [markdown]
# ### Exercise 13.3: channels that are not innermost
#
# *Difficulty 2 of 3 · 10 minutes · Good for: reading the layout of somebody else's arrays.*
#
# In our arrays the channel moves fastest, (B, H, W, C). Other libraries, PyTorch for one, use (B,
# C, H, W): first all pixels of channel 0, then all of channel 1, and so on. Add the bias to such an
# array. Which channel does number $i$ belong to? (And again, there may be more threads than
# numbers.)

# %%
bias_planes = r"""
extern "C" __global__ __launch_bounds__(256)
void bias_planes(const float* __restrict__ x, const float* __restrict__ bias,
                 float* __restrict__ y, int B, int C, int H, int W) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    // ### BEGIN SOLUTION
    int channel = i / (H * W) % C;
    if (i < B * C * H * W) y[i] = x[i] + bias[channel];
    // ### END SOLUTION
}
"""

# %%
check("13.3", bias_planes);

# %% [markdown]
# ## Threads that work together
#
# Now a sum of many numbers. If one thread added them all up, the others would have nothing to do.
# If each thread added its number to the same `out[0]`, they would disturb each other: two threads
# read the same old value, each adds its number, and the later one overwrites what the first has
# written. This is a race again.
#
# The way out is a tree. With 8 numbers: in the first round, thread 0 adds number 4 to number 0,
# thread 1 adds number 5 to number 1, and so on up to thread 3. Four numbers are left. In the next
# round two threads add, and then one. Three rounds, instead of seven additions one after another.

# %%
values = np.array([3, 1, 4, 1, 5, 9, 2, 6])
rounds = [values]
for half in (4, 2, 1):
    after = rounds[-1].copy()
    after[:half] += after[half:2 * half]
    rounds.append(after)
print("sum", rounds[-1][0], "=", values.sum())

# %%
plt.figure(figsize=(6, 2.6), layout="constrained")
for y0, (half, numbers) in enumerate(zip((8, 4, 2, 1), rounds)):
    for t, number in enumerate(numbers):
        plt.text(t, -y0, number, ha="center", va="center", color="k" if t < half else "0.75")
    if half < 8:
        for t in range(2 * half):
            plt.plot([t, t % half], [0.75 - y0, 0.25 - y0], "tab:blue", lw=0.8)
plt.xlim(-0.5, 7.5), plt.ylim(-3.4, 0.4), plt.xlabel("place = thread")
plt.yticks([0, -1, -2, -3], ["numbers", "round 1", "round 2", "round 3"])
plt.show()

# %% [markdown]
# Threads run at different speeds. Thread 0 may begin round 2 only when thread 2 has finished round
# 1, since it needs thread 2's sum. So all threads wait for each other before each round, at a
# *barrier*: none passes until all have come. Python's `threading.Barrier` does this. The array
# `shared` is one that all threads see.

# %%
def block_sum(thread, size, x, shared, out, barrier):
    shared[thread] = x[thread]
    half = size // 2
    while half > 0:
        barrier.wait()
        if thread < half:
            shared[thread] += shared[thread + half]
        half //= 2
    if thread == 0:
        out[0] = shared[0]

# %%
def run_threads(kernel, size, x, barrier):
    """Runs a block of real threads. Returns the result."""
    shared, out = np.zeros(size), np.zeros(1)
    threads = [threading.Thread(target=kernel, args=(t, size, x, shared, out, barrier))
               for t in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return out[0]

# %%
numbers = rng.integers(0, 10, 64)
found = run_threads(block_sum, 64, numbers, threading.Barrier(64))
assert found == numbers.sum()

# %% [markdown]
# And with a barrier at which nobody waits? Thread 0 is the first to start. It has usually gone
# through all rounds before the others put their numbers down.

# %% tags=["varies"]
class NoBarrier:
    def wait(self):
        pass

found = run_threads(block_sum, 64, numbers, NoBarrier())
print(f"{found:g}, but the sum is {numbers.sum()}")

# %% [markdown]
# ## Shared memory in CUDA
#
# A block has its own fast memory, of up to 48 kB without special request. An array in it is
# declared with `__shared__`. All threads of the block see it; other blocks do not. The barrier is
# `__syncthreads()`. Here each block reverses its 256 numbers: each thread writes its number down,
# and then reads what another thread has written.

# %%
reverse = r"""
extern "C" __global__ __launch_bounds__(256)
void reverse(const float* __restrict__ x, float* __restrict__ y) {
    __shared__ float s[256];
    int t = threadIdx.x, i = blockIdx.x * blockDim.x + t;
    s[t] = x[i];
    __syncthreads();
    y[i] = s[255 - t];
}
"""

# %%
many = rng.standard_normal(1024).astype(np.float32)  # 4 blocks of 256
y = run(device, reverse, "reverse", 4, 256, many, np.full(1024, np.nan, np.float32))
assert np.array_equal(y.reshape(4, 256), many.reshape(4, 256)[:, ::-1])

# %% [markdown]
# Without the barrier, a GPU might often give the right result, since the threads of a block run
# almost at the same time. Some day, or on another card, it would not. The emulator looks for two
# threads that use the same place, one of which writes, with no barrier in between. It names them
# even if the result happens to be right:

# %%
try:
    run(Emulator(), reverse.replace("__syncthreads();", ""), "reverse", 4, 256, many, many)
except KernelError as error:
    print(error)

# %% [markdown]
# There is a second mistake with barriers. *All* threads of the block must come to each barrier. If
# it stands in an `if` that only some threads enter, these wait for the others forever, or go on too
# early. The emulator says so. (It would name the race first, so here it does not look for races.)
# The emulator is strict: a thread that has returned does not reach the barrier either.

# %%
try:
    lonely = reverse.replace("__syncthreads();", "if (t < 100) __syncthreads();")
    run(Emulator(workers=1, check_races=False), lonely, "reverse", 4, 256, many, many)
except KernelError as error:
    print(error)

# %% [markdown]
# ### Exercise 13.4: differences of neighbours
#
# *Difficulty 3 of 3 · 20 minutes · Good for: tiles with a border, as in convolutions.*
#
# `y[i]` is `x[i] - x[i - 1]`, and `y[0]` is `x[0]`. Thread i and thread i + 1 both need `x[i]`. But
# it should be read only once from the array, which lies in the large and slow *global memory*: each
# thread puts its number into `s`, and takes its left neighbour from there. Only thread 0 of a block
# must get its left neighbour from `x`, since that belongs to another block. The check also counts
# the reads.

# %%
differences = r"""
extern "C" __global__ __launch_bounds__(256)
void differences(const float* __restrict__ x, float* __restrict__ y, int n) {
    __shared__ float s[256];
    int t = threadIdx.x, i = blockIdx.x * blockDim.x + t;
    // ### BEGIN SOLUTION
    if (i < n) s[t] = x[i];
    __syncthreads();
    if (i >= n) return;
    float left = i == 0 ? 0 : t == 0 ? x[i - 1] : s[t - 1];
    y[i] = s[t] - left;
    // ### END SOLUTION
}
"""

# %%
check("13.4", differences);

# %% [markdown]
# ### Exercise 13.5: the sum of each block
#
# *Difficulty 2 of 3 · 15 minutes · Good for: every loss, mean and bias gradient.*
#
# Translate our Python function `block_sum` into CUDA. It had one block. Now there are several: each
# adds up its own 256 numbers, and writes the sum to its place in `out`, number `blockIdx.x`. The
# last block may have fewer numbers: its other places of `s` must hold 0. A loop is written
# `for (int half = blockDim.x / 2; half > 0; half /= 2) { ... }`.

# %%
block_sums = r"""
extern "C" __global__ __launch_bounds__(256)
void block_sums(const float* __restrict__ x, float* __restrict__ out, int n) {
    __shared__ float s[256];
    int t = threadIdx.x, i = blockIdx.x * blockDim.x + t;
    // ### BEGIN SOLUTION
    s[t] = i < n ? x[i] : 0;
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        __syncthreads();
        if (t < half) s[t] += s[t + half];
    }
    if (t == 0) out[blockIdx.x] = s[0];
    // ### END SOLUTION
}
"""

# %%
check("13.5", block_sums);

# %% [markdown]
# The sum over all blocks takes a second launch, since blocks cannot wait for each other: the sums
# of the blocks are the numbers of the next round.
#
# The project's sum is `block_sum` in `kernels/common.cuh`. It uses one more thing. A GPU runs the
# threads of a block in groups of 32, called *warps*, which go through the program together. The
# threads of a warp, its *lanes*, can read each other's variables without shared memory.
# `__shfl_xor_sync` gives each lane the `v` of another one, here of the lane whose number differs in
# the bit `bits`. This is called a *shuffle*. After five such rounds each lane has the sum of its
# warp. Then the first lane of each warp puts this sum into shared memory, and after a barrier the
# first warp adds up these sums. In the code, `WARP` is 32, `ALL_LANES` says that all lanes take
# part, and `__device__` marks a function that kernels can call. `__forceinline__` tells the
# compiler to copy the function's body to where it is called. `#include` inserts the lines of
# another file.

# %%
print(text_of("common.cuh", "group_sum"), text_of("common.cuh", "block_sum"), sep="\n\n")

# %% [markdown]
# So a block of 256 threads needs one barrier, where the tree has $\log_2 256 = 8$. We try it: the
# sum of each block, and then, with the project's kernel `sum_all`, the sum of these sums.

# %%
project_sums = r"""#include "common.cuh"
extern "C" __global__ __launch_bounds__(256)
void project_sums(const float* x, float* out, int n) {
    __shared__ float warp_sums[WARP];
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    float sum = block_sum(i < n ? x[i] : 0, warp_sums);
    if (threadIdx.x == 0) out[blockIdx.x] = sum;
}
"""

# %%
counter = Emulator(count=True)
sums = run(counter, project_sums, "project_sums", 4, 256, many[:1000], np.zeros(4, "f4"), 1000)
assert counter.counts["project_sums"].barriers == 4  # one for each block
assert np.allclose(sums[0], many[:256].sum(), atol=1e-5)
total = device.upload(np.zeros(1, np.float32))
device.launch("reductions.cu", "sum_all", 1, 256, device.upload(sums), total, 4, 1.0)
assert np.allclose(device.download(total), many[:1000].sum(), atol=1e-4)

# %% [markdown]
# ## Which thread should read which number?
#
# For the result it does not matter which thread computes which number. For the time it does. A GPU
# moves memory in *sectors* of 32 bytes, which are 8 floats. When a warp reads, the GPU finds out
# which sectors its 32 lanes need, and moves each of them once. If the lanes read 32 neighbours,
# that is 4 sectors (if the first number begins a sector), and every byte is used. If they read
# numbers that are far apart, it is 32 sectors, and of each one only 4 bytes are used.
#
# The emulator can count this. We let lane $i$ read `x[i * stride]`, and look at the addresses of
# one warp. (This always runs in the emulator: a GPU does not report addresses.)

# %%
strided = r"""
extern "C" __global__ __launch_bounds__(256)
void strided(const float* __restrict__ x, float* __restrict__ y, int stride) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    y[i] = x[i * stride];
}
"""

# %%
addresses = {}
for stride in (1, 2, 8):
    counter = Emulator(count=True)
    run(counter, strided, "strided", 1, 32, np.zeros(256, "f4"), np.zeros(32, "f4"), stride)
    (_, _, offsets), _ = warp_accesses(counter.accesses["strided"])
    addresses[stride] = offsets  # (32,): the byte at which each lane reads

# %%
_, axes = plt.subplots(3, 1, figsize=(6.2, 4.6), layout="constrained", sharex=True)
for axis, (stride, offsets) in zip(axes, addresses.items()):
    sectors = np.unique(offsets // 32)
    axis.bar(sectors * 32, 0.15, 32, align="edge", color="tab:orange", edgecolor="white")
    axis.plot([32 * np.arange(32) + 16, offsets + 2], [1, 0.16], "tab:blue", lw=0.8)
    axis.set(yticks=[0.07, 1], yticklabels=["sectors", "lanes"], ylim=(0, 1.05))
    axis.set_title(f"x[i * {stride}]: {len(sectors)} sectors", fontsize=9)
lane_of = axes[0].secondary_xaxis("top", functions=(lambda x: x / 32 - 0.5, lambda i: 32 * i + 16))
lane_of.set(xlabel="lane i", xticks=[0, 8, 16, 24, 31]), axes[2].set_xlabel("address in bytes")
plt.show()

# %% [markdown]
# Each line goes from a lane, above, to the address that it reads, below. With stride 8 each lane
# needs a sector of its own: that is eight times as many as with stride 1. We would get this stride
# from one thread for each *pixel* of maps with 8 channels, which reads its channels one after
# another. In `bias_activation`
# neighbouring threads compute neighbouring numbers. There each access of a warp moves 4 sectors
# (the bias, 4 numbers that all lanes share, takes only 1):

# %%
counter = Emulator(count=True)
ops = CudaOps(counter)
big = rng.standard_normal((1, 32, 32, 4)).astype(np.float32)  # 4096 numbers, 128 warps
y = ops.asnumpy(ops.bias_activation(ops.asarray(big), ops.asarray(bias), "relu"))
assert np.allclose(y, bias_activation(big, bias, "relu"))
counts = counter.counts["bias_activation"]
assert (counts.global_accesses, counts.sectors) == (3 * 128, (4 + 1 + 4) * 128)
print(f"{counts.global_accesses // 128} accesses of a warp: {counts.sectors // 128} sectors")

# %% [markdown]
# ## Summary
#
# - A kernel is the work of one thread. The thread computes its $i$ from its block and its number in
#   it, and the guard stops those for which there is no number.
# - Rows, columns and channels come back from $i$ by division and remainder.
# - Threads of a block share memory. Between writing there and reading what another thread wrote
#   stands a barrier, which all threads of the block must reach.
# - A sum is a tree: with $N$ threads it takes $\log_2 N$ rounds.
# - Let neighbouring lanes read neighbouring numbers.
#
# **In the project:** [`bias_activation`](../kernels/activations.cu),
# [`block_sum`](../kernels/common.cuh) and [`sum_all`](../kernels/reductions.cu).
# [CudaOps](../kernels/cuda_ops.py#CudaOps) chooses grids and blocks. What the emulator finds and
# what it misses: [CUDA kernels without a GPU](../docs/kernels.md).
#
# **Your own kernel in the network:** copy a file of `kernels/`, change a kernel, and train with it,
# in the project's folder: `python semgan.py --device emulator --replace my.cu --steps 3 --side 16
# --batch-size 4 --kernel-size 3 --out runs/mine`. Names and arguments must stay as they are, `const
# real* x` and not `const float* x`: `real` is float or double.
#
# **Next:** a kernel that does little arithmetic spends its time waiting for memory. How does one
# make it wait less? [Notebook 14](14_fused_kernels.ipynb).
