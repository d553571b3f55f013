# %% [markdown]
# # 14. Fused kernels: why are bytes time?
#
# Most operations of our network do little arithmetic: add a bias, apply softmax, update a
# parameter. How long do they take on a GPU? What makes one kernel twice as fast as another that
# computes the same? And can thousands of threads add up numbers so that the result has the same
# bits every time?
#
# You need: a first kernel ([notebook 13](13_first_kernel.ipynb)) and softmax
# ([notebook 6](06_softmax_and_losses.ipynb)). A GPU is not needed: all that we count, the emulator
# counts on a CPU, and the output that you see here comes from it. Time: about 110 minutes, of which
# 65 are exercises. If an exercise does not work out, run its check again: each time it helps more.

# %%
import sys
sys.path[:0] = ["..", "../.."]  # the project is one folder up, or two
import matplotlib.pyplot as plt
import numpy as np
from kernels import CudaOps, Emulator
from kernels.numpy_ops import adam, bias_activation, softmax, softmax_grad
from tutorial.checks import check
from tutorial.kernel_checks import find_device, saved, text_of

# %% [markdown]
# ## Arithmetic is cheap, memory is not
#
# Two speeds of an NVIDIA H200, [measured with this project](../docs/speed.md): it copies 4,224 GB a
# second, read and written together. And it computes 63.5 TFLOP a second in float32, which is
# $63.5 \cdot 10^{12}$ additions or multiplications. A float has 4 bytes. So how many operations can
# the GPU do in the time that it takes to move one number?

# %%
bytes_a_second, operations_a_second = 4224e9, 63.5e12
per_number = operations_a_second / (bytes_a_second / 4)
print(f"{per_number:.0f} operations for each number that is read or written")

# %% [markdown]
# Bias and ReLU do two operations for each number, and move two: one in, one out. The GPU could do
# 60 times as many in the same time. So their time is that of the memory. Such a kernel is called
# *memory-bound*. To predict its time, count the bytes that it moves, and divide by the speed. To
# make it faster, move fewer bytes.
#
# ## Fusing
#
# Bias, then ReLU, as two kernels: the first reads `x`, adds the bias, and writes the sum. The
# second reads the sum, applies ReLU, and writes again. That is 16 bytes for each number. In one
# kernel the sum stays in a *register*, where a thread keeps its own variables, and 8 bytes are
# left. To *fuse* is to do several steps in one kernel.
#
# The emulator counts the bytes. It counts in sectors of 32 bytes, in which a GPU moves memory
# ([notebook 13](13_first_kernel.ipynb)), and it counts every access of a warp by itself. A GPU also
# has caches: what was read a short while ago often need not be read again. Remember this when you
# see large numbers.

# %%
def moved(device, n):
    """Bytes moved for each of n numbers, by each kernel."""
    return {kernel: 32 * counts.sectors / n for kernel, counts in device.counts.items()}

rng = np.random.default_rng(0)
x = rng.standard_normal((4, 16, 16, 8)).astype(np.float32)  # (B, H, W, K)
bias = rng.standard_normal(8).astype(np.float32)            # (K,)

# %%
fused, two = CudaOps(Emulator(count=True)), CudaOps(Emulator(count=True))
y = fused.bias_activation(fused.asarray(x), fused.asarray(bias), "relu")
z = two.bias_activation(two.asarray(x), two.asarray(bias))
z = two.bias_activation(z, None, "relu")
assert np.allclose(fused.asnumpy(y), bias_activation(x, bias, "relu"))
assert np.array_equal(fused.asnumpy(y), two.asnumpy(z))
for name, ops in ("fused", fused), ("two kernels", two):
    print(f"{name}: {moved(ops.device, x.size)['bias_activation']:.0f} bytes a number")

# %% [markdown]
# These are 8 and 16, and 1 more for the bias: the 32 lanes of a warp share one sector of it.
#
# ## Softmax reads three times
#
# The generator's last step is the softmax of each pixel. From $K$ scores $x_k$ of a pixel it makes
# the probabilities
#
# $$p_k = \frac{e^{x_k - m}}{s}, \qquad m = \max_j x_j, \qquad s = \sum_j e^{x_j - m}$$
#
# The simplest kernel gives each pixel to one thread. The thread goes three times through the scores
# of its pixel: for the largest, for the sum, and for the results. Why does it not read them once,
# and keep them in registers? For that, the compiler would have to know $K$, which is known only
# when the program runs. So the thread reads again.

# %% [markdown]
# ### Exercise 14.1: a thread a pixel
#
# *Difficulty 2 of 3 · 15 minutes · Good for: the step from one number a thread to one pixel a
# thread.*
#
# `x` and `p` are (rows, K). A row is a pixel. Each thread computes one row. The largest score is
# subtracted first, or `expf` overflows. To find it, begin with the row's first score. There may be
# more threads than rows. Use `fmaxf(a, b)` and `expf(a)`.

# %%
softmax_rows = r"""
extern "C" __global__ __launch_bounds__(256)
void softmax_rows(const float* __restrict__ x, float* __restrict__ p, int rows, int K) {
    int row = blockIdx.x * blockDim.x + threadIdx.x;
    // ### BEGIN SOLUTION
    if (row >= rows) return;
    float largest = x[row * K], sum = 0;
    for (int k = 1; k < K; ++k) largest = fmaxf(largest, x[row * K + k]);
    for (int k = 0; k < K; ++k) sum += expf(x[row * K + k] - largest);
    for (int k = 0; k < K; ++k) p[row * K + k] = expf(x[row * K + k] - largest) / sum;
    // ### END SOLUTION
}
"""

# %%
check("14.1", softmax_rows);

# %% [markdown]
# The project has softmax in three steps. Each moves less than the one before. The first is this
# one, with a bias. `threadIdx.y` is the thread's number in a second dimension of its block: along
# the first, `x`, lie the lanes that share a pixel, and here there is only one. `auto` lets the
# compiler find the type. `[&](int k) { ... }` is a function inside the kernel, like Python's
# `lambda k: ...`, and the `&` lets it use the kernel's variables. What does the kernel move, per
# number?

# %%
print(text_of("softmax/1_a_thread_a_pixel.cu", "softmax"))

# %%
def softmax_counts(step, x):
    ops = CudaOps(Emulator(count=True), softmax_step=step)
    p = ops.asnumpy(ops.softmax(ops.asarray(x)))
    assert np.allclose(p, softmax(x), atol=1e-6)
    return ops.device.counts["softmax"]

counts = softmax_counts("1_a_thread_a_pixel", x)
print(f"asked for: {counts.global_read_bytes / x.size:g} bytes read, "
      f"{counts.global_write_bytes / x.size:g} written; moved: {32 * counts.sectors / x.size:g}")

# %% [markdown]
# The threads ask for 16 bytes: three times 4 to read, and 4 to write. But 128 bytes move, eight
# times as many. The reason is which lane reads what. Neighbouring lanes have neighbouring pixels,
# and these lie $K = 8$ numbers apart. So each lane needs a sector of its own, for 4 bytes. (A real
# GPU is not that bad: the next seven classes lie in the same sector, and often it is still in the
# cache when they are needed.)
#
# ## Neighbouring lanes, neighbouring numbers
#
# The second step shares a pixel among several lanes of a warp. Each lane takes four neighbouring
# classes with one load of 16 bytes. With $K = 8$ two lanes share a pixel, and a warp reads 512
# neighbouring bytes. The lanes of a pixel find their common maximum and sum by shuffles.

# %%
counts = softmax_counts("2_vectorized", x)
print(f"moved: {32 * counts.sectors / x.size:g} bytes a number")

# %% [markdown]
# Now no more is moved than is asked for.
#
# ## Online softmax
#
# Can we manage with fewer than three passes? The sum needs the maximum, and the maximum is known
# only at the end. But we can begin the sum with the maximum *so far*, and correct it later. Let $m$
# be the largest of the scores that we have seen, and $s = \sum_j e^{x_j - m}$ over these. Then a
# new score $x$ comes, and the maximum becomes $m' = \max(m, x)$. In the sum all exponents must
# change from $x_j - m$ to $x_j - m'$:
#
# $$\sum_j e^{x_j - m'} = \sum_j e^{x_j - m}\, e^{m - m'} = s\, e^{m - m'}$$
#
# One factor corrects all terms at once. With the term of the new score:
#
# $$m' = \max(m, x), \qquad s' = s\, e^{m - m'} + e^{x - m'}$$
#
# This is called *online softmax* (Milakov and Gimelshein 2018). If the maximum does not change, the
# factor is 1. Both exponents are at most 0, so nothing overflows. One pass gives $m$ and $s$, and a
# second one writes the results.

# %%
scores, m, s, trace = np.array([1.0, 0.5, 3, 2, 6, 5, 5.5, 1]), -np.inf, 0.0, []
for score in scores:
    larger = max(m, score)
    s = s * np.exp(m - larger) + np.exp(score - larger)
    m = larger
    trace.append((m, s))
p = np.exp(scores - m) / s
assert np.allclose(p, softmax(scores))

# %%
m_so_far, s_so_far = np.array(trace).T
_, axes = plt.subplots(1, 2, figsize=(6.2, 2.5), layout="constrained")
axes[0].plot(scores, "o", label="scores")
axes[0].step(range(9), [*m_so_far, m], where="post", label="m so far")
axes[1].step(range(9), [*s_so_far, s], where="post", color="tab:green", label="s so far")
for axis in axes:
    axis.set_xlabel("number of the score"), axis.legend()
plt.show()

# %% [markdown]
# In this picture, $s$ falls where $m$ jumps: the old terms become small beside the new largest one.
#
# Several lanes can share the work. Each goes through its own scores, and gets its own $m$ and $s$.
# At the end these must be merged.

# %% [markdown]
# ### Exercise 14.2: merge two lanes
#
# *Difficulty 1 of 3 · 10 minutes · Good for: FlashAttention, a fast way to compute attention.*
#
# `a` and `b` are pairs $(m, s)$ of two sets of scores. Return the pair of all scores together.

# %%
def merge(a, b):
    """(m, s) of all scores, from those of two parts."""
    (m_a, s_a), (m_b, s_b) = a, b
    ### BEGIN SOLUTION
    m = max(m_a, m_b)
    return m, s_a * np.exp(m_a - m) + s_b * np.exp(m_b - m)
    ### END SOLUTION

# %%
check("14.2", merge);

# %% [markdown]
# ### Exercise 14.3: online softmax as a kernel
#
# *Difficulty 2 of 3 · 15 minutes · Good for: two passes instead of three.*
#
# As in 14.1, a thread computes a row of `x` (rows, K). But now it reads each score only twice. The
# check counts.

# %%
online_rows = r"""
extern "C" __global__ __launch_bounds__(256)
void online_rows(const float* __restrict__ x, float* __restrict__ p, int rows, int K) {
    int row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows) return;
    float largest = x[row * K], sum = 1;  // of the first score alone
    // ### BEGIN SOLUTION
    for (int k = 1; k < K; ++k) {
        float score = x[row * K + k], before = largest;
        largest = fmaxf(largest, score);
        sum = sum * expf(before - largest) + expf(score - largest);
    }
    for (int k = 0; k < K; ++k) p[row * K + k] = expf(x[row * K + k] - largest) / sum;
    // ### END SOLUTION
}
"""

# %%
check("14.3", online_rows);

# %% [markdown]
# This is the project's third step. `Four` is a vector of four floats (`FOUR` is 4), `load4` reads
# one, `biased` adds the bias, and `store4` writes one. `LOWEST` is about the lowest number that a
# float can hold, $-3 \cdot 10^{38}$: the maximum before the first score. (`real` is `float`, or
# `double` for gradient checks.) The loop with the two `__shfl_xor_sync` is your `merge`: each lane
# merges its pair with that of another lane.

# %%
print(text_of("softmax/3_online.cu", "softmax"))

# %% [markdown]
# All three steps, for 4, 8 and 22 classes. The dashed line is the least that any kernel could do:
# read each number once and write it once.

# %%
steps = ["1_a_thread_a_pixel", "2_vectorized", "3_online"]
table = {K: [] for K in (4, 8, 22)}
for K in table:
    maps = rng.standard_normal((2, 16, 16, K)).astype(np.float32)
    for step in steps:
        table[K].append(32 * softmax_counts(step, maps).sectors / maps.size)
    print(f"K = {K}:", *(f"{step} {value:.0f}" for step, value in zip(steps, table[K])), sep="  ")

# %%
plt.figure(figsize=(6.2, 3), layout="constrained")
for place, (K, values) in enumerate(table.items()):
    plt.bar(np.arange(3) + 0.25 * place, values, 0.25, label=f"K = {K}")
plt.axhline(8, color="k", ls="--", lw=0.8, label="the least: 8 bytes")
plt.xticks(np.arange(3) + 0.25, steps), plt.ylabel("bytes moved for each number"), plt.legend()
plt.show()

# %% [markdown]
# From 16 to 12 bytes for 4 and 8 classes: the third step reads twice instead of three times. With
# 22 classes both move almost three times as many. A pixel then takes 88 bytes, which is not a
# multiple of 16. A vector of 16 bytes must begin at a multiple of 16. So every other pixel cannot
# be loaded in vectors, and its numbers are loaded one by one. The emulator, which has no cache,
# counts their sectors again for each of them.
#
# ## The same bits twice
#
# The gradient of the bias is a sum over all pixels. Sums have a catch. Floating-point addition
# rounds, so the order matters:

# %%
a, b, c = np.float32(1e8), np.float32(-1e8), np.float32(1)
print(f"(a + b) + c = {(a + b) + c:g}, a + (b + c) = {a + (b + c):g}")

# %% [markdown]
# CUDA has `atomicAdd(&out[0], v)`, which adds `v` to `out[0]` so that no other thread comes in
# between. (`&out[0]` is the address of `out[0]`.) With it a sum is one line. But the order is that
# in which the threads happen to arrive, and this may differ from run to run. The emulator shuffles
# its threads by a seed. So we can see what that does:

# %%
atomic = r"""
extern "C" __global__ __launch_bounds__(256)
void atomic_sum(const float* __restrict__ x, float* __restrict__ out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) atomicAdd(&out[0], x[i]);
}
"""
values = rng.standard_normal(2000).astype(np.float32)

# %%
found = {"atomic_sum": set(), "sum_all": set()}
file = saved(atomic)
for seed in range(8):
    device = Emulator(seed=seed, workers=1)
    there, total = device.upload(values), device.upload(np.zeros(1, np.float32))
    device.launch(file, "atomic_sum", 8, 256, there, total, 2000)
    found["atomic_sum"].add(device.download(total).item())
    device.launch("reductions.cu", "sum_all", 1, 256, there, total, 2000, 1.0)
    found["sum_all"].add(device.download(total).item())

# %% tags=["varies"]
for kernel, results in found.items():
    print(f"{kernel}: {len(results)} different sums in 8 runs, "
          f"from {min(results):.9g} to {max(results):.9g}")
assert len(found["sum_all"]) == 1 < len(found["atomic_sum"])
assert np.allclose([*found["sum_all"], *found["atomic_sum"]], values.sum(dtype=float), rtol=1e-4)

# %% [markdown]
# The sums differ in their last digits only. But a training run is a long chain of steps, and a
# small difference grows. Two runs with the same seed would drift apart. Then nobody can find out
# whether a change to the program was harmless. So this project adds up without atomics, in a fixed
# order: each thread adds up every 256th number, and a tree adds up the threads' sums ([notebook
# 13](13_first_kernel.ipynb)). `#pragma unroll 4` asks the compiler to write out four rounds of the
# loop in a row, so that four reads can be under way at once.

# %%
print(text_of("reductions.cu", "sum_all"))

# %% [markdown]
# ### Exercise 14.4: column sums
#
# *Difficulty 2 of 3 · 15 minutes · Good for: the gradient of every bias.*
#
# `x` is (rows, C). Write the sum of each column to `out` (C,). Give each column to one thread.
# There is at least one thread for each number of `x`, far more than you need. The check runs the
# kernel with two different orders of threads, and the sums must have the same bits.

# %%
column_sums = r"""
extern "C" __global__ __launch_bounds__(256)
void column_sums(const float* __restrict__ x, float* __restrict__ out, int rows, int C) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    // ### BEGIN SOLUTION
    if (i >= C) return;
    float sum = 0;
    for (int row = 0; row < rows; ++row) sum += x[row * C + i];
    out[i] = sum;
    // ### END SOLUTION
}
"""

# %%
check("14.4", column_sums);

# %% [markdown]
# One thread a column is too few for a GPU, if there are only 4 columns. The project cuts the rows
# into slabs of at least 64. Each block adds up one slab, and `sum_slices` then adds up the slabs.
# In `softmax_grad` the first part reads nothing extra, since the numbers are at hand: the kernel
# that computes `dx` also adds it up. That is fusion again. Same numbers, same bits, whatever the
# order of the threads:

# %%
dp = rng.standard_normal(x.shape).astype(np.float32)
results = []
for seed in (0, 1):
    ops = CudaOps(Emulator(seed=seed))
    results.append([ops.asnumpy(a) for a in
                    ops.softmax_grad(ops.asarray(dp), ops.asarray(softmax(x)))])
for first, second, right in zip(*results, softmax_grad(dp, softmax(x))):
    assert np.array_equal(first, second) and np.allclose(first, right, atol=1e-5)

# %% [markdown]
# ## How long will it take?
#
# For a memory-bound kernel we can now predict the time, before we write it. Count the numbers that
# must be read and written. Take 4 bytes for each. Divide by the speed of the memory.

# %% [markdown]
# ### Exercise 14.5: the time of Adam
#
# *Difficulty 1 of 3 · 10 minutes · Good for: knowing when a kernel is as fast as it can be.*
#
# Adam updates `n` parameters ([notebook 9](09_one_step.ipynb)). It needs the parameters, their
# gradients, and the two moving means `m` and `v`. Parameters and means change. Everything is
# float32. How many milliseconds does it take at least, with a memory of `speed` GB a second (1 GB =
# $10^9$ bytes)?

# %%
def adam_milliseconds(n, speed):
    """The least time of one update of n parameters."""
    ### BEGIN SOLUTION
    numbers = 4 + 3  # read: parameters, gradients, m, v; written: parameters, m, v
    return 4 * numbers * n / (speed * 1e9) * 1000
    ### END SOLUTION

# %%
check("14.5", adam_milliseconds);

# %% [markdown]
# Here the emulator counts the project's kernel. There are 28 bytes for each parameter, and 2 for
# two numbers that all threads share:

# %%
state = [rng.random(4096).astype(np.float32) for _ in range(4)]  # params, grads, m, v
more = [np.float32([0]), np.float32([0.01]), 0.9, 0.999, 1e-8]   # step, lr, beta1, beta2, eps
ops = CudaOps(Emulator(count=True))
there = [ops.asarray(a) for a in (*state, *more[:2])]
for mine, right in zip(ops.adam(*there, *more[2:]), adam(*state, *more)):
    assert np.allclose(ops.asnumpy(mine), right, atol=1e-6)
assert round(3547 / 4224, 2) == 0.84  # see below
print(f"adam moves {moved(ops.device, 4096)['adam']:.0f} bytes for each parameter")

# %% [markdown]
# On the H200, Adam [reached 3,547 GB a second](../docs/speed.md) in a training step, 84 % of the
# speed of a copy. So nothing inside this kernel could make it more than a fifth faster. That is the
# use of counting bytes: it tells where to stop.
#
# If you have a GPU, the project's kernels run on it. The output that you see here comes from the
# emulator:

# %% tags=["varies"]
device = find_device()
print(device)

# %%
ops = CudaOps(device)
p = ops.asnumpy(ops.softmax(ops.asarray(x), ops.asarray(bias)))
assert np.allclose(p, softmax(x, bias), atol=1e-6)

# %% [markdown]
# ## Summary
#
# - This GPU does some 60 operations in the time that it takes to move one number. Kernels with less
#   arithmetic than that are memory-bound: their time is their bytes divided by the speed of memory.
# - Fuse: what stays in registers is not moved.
# - Let neighbouring lanes load neighbouring numbers, four at a time.
# - Online softmax corrects the sum when the maximum changes,
#   $s' = s\, e^{m - m'} + e^{x - m'}$, and reads twice instead of three times.
# - Sums in a fixed order, without atomics, give the same bits every time.
#
# **In the project:** the three steps of softmax, from
# [`1_a_thread_a_pixel`](../kernels/softmax/1_a_thread_a_pixel.cu) to
# [`3_online`](../kernels/softmax/3_online.cu), [`sum_slices` and
# `sum_all`](../kernels/reductions.cu), and [`adam`](../kernels/adam.cu). How fast they are:
# [speed](../docs/speed.md).
#
# **Next:** convolutions do hundreds of operations for each number. There arithmetic counts, if the
# numbers arrive in time. [Notebook 15](15_the_ladder.ipynb).
