"""Mistakes that students make in kernels. Each ends the launch with one line, or shows as NaN.

Nothing crashes, nothing hangs, nothing passes in silence. Where a kernel is right, nothing is said.
"""
import os
import re
import signal
import threading
import time

import numpy as np
import pytest

from kernels import launch
from kernels.cuda_ops import CudaOps
from kernels.emulator import Emulator
from kernels.launch import KernelError, LaunchError

POSIX = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
N = 1000  # elements of x and y
HEAD = """
extern "C" __global__ __launch_bounds__(256)
void {name}(const float* __restrict__ x, float* __restrict__ y, int n) {{
    int t = threadIdx.x, i = blockIdx.x * blockDim.x + t;
{body}
}}
"""
HELPERS = """
__device__ int depth(int n) {
    int a[8];
    for (int i = 0; i < 8; ++i) a[i] = n + i;
    return n < 0 ? 0 : a[n % 8] + depth(n - 1) * depth(n - 2);
}
"""
INIT = "    __shared__ float s[256];\n    s[t] = x[t];"
OUTSIDE = r"argument '{}' \(1000 elements\) accessed at index {}, by thread"
RACE = (r"a race: {} is (read|written) at index {}, which thread \(\d+, 0, 0\)"
        r"( of block \(\d, 0, 0\))? has")
SHARED_RACE = RACE.format("shared array 's'", r"\d+")
OUTPUT_RACE = RACE.format("argument 'y'", r"\d+")
ENDLESS = "stopped, since no block ended for 0.5 seconds: a loop without an end, or a wait"

FAULTS = {  # name: (body, the line that is expected)
    # -------------------------------------------------------------------------- indices
    "no_guard": ("y[i] = x[i + 500];", OUTSIDE.format("x", r"1\d\d\d")),
    "guard_off_by_one": ("if (i + 300 <= n) y[i] = x[i + 300];", OUTSIDE.format("x", 1000)),
    "index_minus_one": ("y[i] = x[i - 1];", OUTSIDE.format("x", -1)),
    "index_plus_one": ("if (i < n) y[i] = x[i + 233];", OUTSIDE.format("x", r"1\d\d\d")),
    "unsigned_minus_one": ("y[i] = x[threadIdx.x - 1];", OUTSIDE.format("x", 4294967295)),
    "row_times_n": ("y[t * n + t] = 1;", OUTSIDE.format("y", r"\d{4,6}")),
    "blocks_times_n": ("y[blockIdx.x * n + t] = 1;", OUTSIDE.format("y", r"\d{4}")),
    "overflowing_index": ("y[i] = x[i * 100000000];", OUTSIDE.format("x", r"-?\d{9,10}")),
    "writes_one_past": ("if (t == 0) y[n] = 1;", OUTSIDE.format("y", 1000)),
    "pointer_to_the_end": ("auto p = x + n;\n    y[i] = p[0];", OUTSIDE.format("x", 1000)),
    "pointer_runs_on": ("auto p = x;\n    for (int k = 0; k < 5; ++k, p += 256) y[t] = p[t];",
                        OUTSIDE.format("x", r"1\d\d\d")),
    "vectors_too_far": ("y[i] = ((const float4*)x)[i].x;", OUTSIDE.format("x", r"\d{4}")),
    "vector_past_the_end": ("y[i] = (*(const float4*)(x + n)).x;", OUTSIDE.format("x", 1000)),
    "misaligned_vector": ("y[i] = (*(const float4*)(x + 1)).x;",
                          r"a misaligned load from argument 'x' \(1000 elements\) at index 1"),
    "misaligned_vectors": ("y[i] = ((const float4*)(x + 2))[0].x;", "a misaligned load from"),
    "shared_one_past": ("    __shared__ float s[256];\n    s[t + 1] = 0;",
                        r"an array accessed at index 256 in line \d+"),
    "shared_negative": ("    __shared__ float s[256];\n    s[t - 1] = 0;",
                        "an array accessed at index"),
    "shared_rows": ("    __shared__ float s[16][16];\n    s[t][0] = 0;",
                    r"an array accessed at index \d+ in line"),
    "local_array": ("float a[4] = {};\n    y[i] = a[t];",
                    r"an array accessed at index \d+ in line"),
    "dynamic_shared": ("    extern __shared__ float s[];\n    s[t] = 0;",
                       r"dynamic shared memory \(64 bytes\) accessed at index \d+"),
    # -------------------------------------------------------------------------- races
    "shared_sum": ("    __shared__ float s;\n    if (t == 0) s = 0;\n    __syncthreads();\n"
                   "    s += x[t];\n    __syncthreads();\n    if (t == 0) y[blockIdx.x] = s;",
                   RACE.format("shared array 's'", 0)),
    "histogram": ("    __shared__ int h[8];\n    if (t < 8) h[t] = 0;\n    __syncthreads();\n"
                  "    h[t % 8] += 1;", RACE.format("shared array 'h'", r"\d")),
    "global_sum": ("y[0] += x[i];", RACE.format("argument 'y'", 0)),
    "sum_over_blocks": ("if (t == 0) y[0] += x[i];", RACE.format("argument 'y'", 0)),
    "no_barrier": (INIT + "\n    y[i] = s[255 - t];", SHARED_RACE),
    "no_barrier_in_tree": (INIT + "\n    __syncthreads();\n    for (int k = 128; k > 0; k /= 2)\n"
                           "        if (t < k) s[t] += s[t + k];\n    y[i] = s[t];",
                           SHARED_RACE),
    "barrier_before_the_tree_only_inside": (
        INIT + "\n    for (int k = 128; k > 0; k /= 2) {\n        if (t < k) s[t] += s[t + k];\n"
        "        __syncthreads();\n    }", SHARED_RACE),
    "no_barrier_after_zero": ("    __shared__ int count;\n    if (t == 0) count = 0;\n"
                              "    atomicAdd(&count, 1);", RACE.format("shared array 'count'", 0)),
    "next_tile_too_early": (
        "    __shared__ float s[256];\n    float sum = 0;\n    for (int k = 0; k < 3; ++k) {\n"
        "        s[t] = x[k * 256 + t];\n        __syncthreads();\n"
        "        sum += s[255 - t];\n    }\n    y[i] = sum;", SHARED_RACE),
    "transpose_without_barrier": (
        "    __shared__ float s[16][17];\n    s[t / 16][t % 16] = x[t];\n"
        "    y[i] = s[t % 16][t / 16];", SHARED_RACE),
    "all_write_one_place": ("y[blockIdx.x] = x[i];", RACE.format("argument 'y'", r"\d")),
    "colliding_scatter": ("y[i % 10] = x[i];", RACE.format("argument 'y'", r"\d")),
    "shift_in_place": ("if (i + 1 < n) y[i] = y[i + 1];", OUTPUT_RACE),
    "neighbour_of_this_launch": ("y[i] = x[i];\n    if (i > 0) y[i] += y[i - 1];",
                                 OUTPUT_RACE),
    "scan_in_place": (INIT + "\n    for (int k = 1; k < 256; k *= 2) {\n        __syncthreads();\n"
                      "        if (t >= k) s[t] += s[t - k];\n    }", SHARED_RACE),
    "warp_exchange": (INIT + "\n    y[i] = s[t ^ 1];", SHARED_RACE),
    "atomic_beside_plain": ("atomicAdd(&y[0], x[i]);\n    if (t == 9) y[1 + blockIdx.x] = y[0];",
                            RACE.format("argument 'y'", 0)),
    "vector_over_number": ("if (t < 64) *(float4*)(y + 4 * t) = {};\n    if (t == 70) y[5] = 1;",
                           OUTPUT_RACE),
    # -------------------------------------------------------------------------- barriers, warps
    "barrier_in_if": ("if (t < 100) __syncthreads();",
                      "__syncthreads at line .* not reached by all"),
    "return_before_barrier": ("if (i >= 700) return;\n    __syncthreads();",
                              "__syncthreads at line .* not reached by all threads.* has returned"),
    "barrier_in_loop": ("for (int k = 0; k < t; ++k) __syncthreads();", "__syncthreads at line"),
    "two_barriers": ("if (t % 2)\n        __syncthreads();\n    else\n        __syncthreads();",
                     "not reached by all threads: thread .* waits at line"),
    "shuffle_in_if": ("if (t % 32 < 16) y[i] = __shfl_down_sync(~0u, x[t], 1);",
                      "a warp operation at line .* not reached by all lanes of its mask"),
    "shuffle_wrong_mask": ("if (t % 32 < 16) y[i] = __shfl_xor_sync(0xFFFFFF, x[t], 1);",
                           "a warp operation at line"),
    # -------------------------------------------------------------------------- no end
    "while_true": ("while (true) { }", ENDLESS),
    "counter_stands": ("for (int k = 0; k < n; k += 0) y[i] += 1;", ENDLESS),
    "barriers_without_end": ("while (true) __syncthreads();", ENDLESS),
    "spin_lock": ("    __shared__ int lock;\n    if (t == 0) lock = 0;\n    __syncthreads();\n"
                  "    while (atomicCAS(&lock, 0, 1) != 0) { }\n    y[i] = 1;", ENDLESS),
    "waits_for_a_flag": ("    __shared__ int flag;\n    if (t == 0) flag = 0;\n"
                         "    __syncthreads();\n    if (t == 77) atomicExch(&flag, 1);\n"
                         "    while (atomicAdd(&flag, 0) == 0) { }\n    y[i] = 1;", ENDLESS),
    # -------------------------------------------------------------------------- crashes
    "null_pointer": ("float* p = nullptr;\n    p[t] = 1;",
                     "memory at address 0x.* belongs to no array"),
    "wild_pointer": ("const float* p = &x[0];\n    y[i] = p[1ll << 40];", "belongs to no array"),
    "plain_pointer_past_the_end": (
        "float* p = &y[0];\n    if (t == 0) p[n] = 1;",
        "belongs to no array"),
    "plain_pointer_before": (
        "float* p = &y[0];\n    if (t == 0) p[-1] = 1;",
        "belongs to no array"),
    "plain_pointer_reads": (
        "const float* p = &x[0];\n    if (t == 0) y[i] = p[n];",
        "belongs to no array"),
    "half_a_vector": ("if (i == 0) *(float4*)&(&y[0])[n - 2] = {};",
                      r"a misaligned access in line \d+"),
    "plain_shared_past_the_end": ("    __shared__ float s[256];\n    float* p = s;\n"
                                  "    p[t + 300] = 1;", "belongs to no array"),
    "plain_shared_negative": ("    __shared__ float s[256];\n    float* p = s;\n"
                              "    p[t - 300] = 1;", "belongs to no array"),
    "memory_of_its_own": ("float* p = new float[4];\n    p[t % 4] = x[i];\n"
                          "    y[i] = p[(t + 1) % 4];", "belongs to no array"),
    "clears_too_much": ("if (i == 0) memset(&y[0], 0, 4 * n + 4);", "accessed at index 0"),
    "copies_too_much": ("if (i == 0) memcpy(&y[0], &x[0], 4 * n + 4);", "accessed at index 0"),
    "recursion": ("y[i] = depth(n + 10000000);",
                  "the stack is full: functions that call themselves"),
    "lowest_by_minus_one": ("int a = -2147483647 - (n - 999);\n    y[i] = a / (n - 1001);",
                            "an integer divided by zero, or the lowest one by -1"),
    "division_by_zero": ("y[i] = 5 / (n - 1000);", r"divided by zero.*, in line \d+"),
    "modulo_zero": ("y[i] = i % (n - 1000);", r"divided by zero.*, in line \d+"),
    "assertion": ("assert(t < 200);", r"an assertion fails in line \d+, by thread \(2\d\d, 0, 0\)"),
    "trap": ("if (t == 3) __trap();", r"__trap\(\).*, by thread \(3, 0, 0\)"),
}
SHOWN_AS_NAN = {
    "unwritten_output": "if (t % 2) y[i] = x[i];",
    "unwritten_shared": "    __shared__ float s[256];\n    if (t < 100) s[t] = 0;\n"
                        "    __syncthreads();\n    y[i] = s[255 - t];",
}
RIGHT = {  # name: body, in which nothing must be found
    "copy": "if (i < n) y[i] = x[i];",
    "block_sum": INIT + "\n    for (int k = 128; k > 0; k /= 2) {\n        __syncthreads();\n"
                 "        if (t < k) s[t] += s[t + k];\n    }\n    if (t == 0) y[i / 256] = s[0];",
    "atomic_sum": "atomicAdd(&y[0], x[i]);",
    "atomic_histogram": "    __shared__ int h[8];\n    if (t < 8) h[t] = 0;\n    __syncthreads();\n"
                        "    atomicAdd(&h[t % 8], 1);\n    __syncthreads();\n"
                        "    if (t < 8) y[8 * blockIdx.x + t] = h[t];",
    "warp_sum": "float v = x[i];\n    for (int k = 16; k > 0; k /= 2)\n"
                "        v += __shfl_down_sync(~0u, v, k);\n    if (t % 32 == 0) y[i / 32] = v;",
    "warp_exchange_in_order": INIT + "\n    __syncwarp();\n    y[i] = s[t ^ 1];",
    "tiles": "    __shared__ float s[256];\n    float sum = 0;\n    for (int k = 0; k < 3; ++k) {\n"
             "        s[t] = x[k * 256 + t];\n        __syncthreads();\n"
             "        sum += s[255 - t];\n"
             "        __syncthreads();\n    }\n    y[i] = sum;",
    "vectors": "if (t < 64) ((float4*)y)[64 * blockIdx.x + t] = ((const float4*)x)[t];",
    "long_but_ends": "float sum = 0;\n    for (int k = 0; k < 20000; ++k) sum += k % 7;\n"
                     "    y[i] = sum;",
}
REFUSED = {  # name: (text of the file, the line that is expected)
    "uninitialized": ("float s;\n    for (int k = 0; k < n; ++k) s += x[k];\n    y[i] = s;",
                      "does not compile: refused.cu, line .: .s. (is|may be) used uninitialized"),
    "variable_shared": ("    __shared__ float s[n];\n    s[t] = 1;", "does not compile: .*array"),
    "undefined": ("y[i] = scale * x[i];", "does not compile: refused.cu, line 5: .scale. was not"),
    "semicolon": ("y[i] = x[i]\n", "does not compile: refused.cu, line .*: expected .;."),
    "writes_the_input": ("x[i] = 0;", "does not compile: refused.cu, line 5: .*read-only"),
    "large_local_array": ("float a[9000];\n    for (int k = 0; k < 9000; ++k) a[k] = k + t;\n"
                          "    y[i] = a[n];", "local arrays that do not fit the stack"),
    "large_shared": ("    __shared__ float s[13000];\n    s[t] = 1;",
                     "52000 bytes of shared memory, but a block gets 49152"),
}


@pytest.fixture(scope="module")
def device():
    return Emulator(seconds=0.5)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """All kernels that compile, in one file: to compile it takes a few seconds."""
    bodies = {name: body for name, (body, _) in FAULTS.items()} | SHOWN_AS_NAN | RIGHT
    path = tmp_path_factory.mktemp("student") / "student.cu"
    path.write_text(HELPERS + "".join(HEAD.format(name=name, body=body)
                                      for name, body in bodies.items()))
    return path


def run(device, file, kernel, grid=3, block=256):
    """What the kernel writes to y, of which every element is NaN at first, or 0 for sums."""
    x = device.upload(np.arange(N, dtype=np.float32))
    y = device.upload(np.zeros(N, np.float32))
    if kernel in SHOWN_AS_NAN:
        device.spoil(y)
    device.launch(file, kernel, grid, block, x, y, N, shared=64 * (kernel == "dynamic_shared"))
    return device.download(y)


@pytest.mark.parametrize("name", FAULTS)
def test_a_mistake_is_one_line(device, file, name):
    message = FAULTS[name][1]
    if os.name == "nt" and re.search("race|stopped|belongs|stack|lowest", message):
        pytest.skip("not looked for on Windows")
    with pytest.raises(KernelError, match=f"^student.cu: {name}: .*{message}") as error:
        run(device, file, name)
    assert "\n" not in str(error.value)
    assert np.isfinite(run(device, file, "copy")).all(), "the next launch works"


@pytest.mark.parametrize("name", SHOWN_AS_NAN)
def test_what_nobody_wrote_is_nan(device, file, name):
    assert np.isnan(run(device, file, name)[:256]).any()


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_kernel_runs(device, file, name):
    y = run(device, file, name)
    assert np.isfinite(y).all() and y.any()


@pytest.mark.parametrize("name", REFUSED)
def test_a_kernel_that_is_refused(device, tmp_path, name):
    """In the first line; what the compiler says follows."""
    body, message = REFUSED[name]
    path = tmp_path / "refused.cu"
    path.write_text(HEAD.format(name="test", body=body))
    with pytest.raises((KernelError, LaunchError), match=message) as error:
        run(device, path, "test")
    assert len(str(error.value).splitlines()[0]) < 300


@pytest.mark.parametrize("include", ["vector", "cmath", "iostream", "thrust/sort.h"])
def test_libraries_that_nvrtc_does_not_have(device, tmp_path, include):
    path = tmp_path / "library.cu"
    path.write_text(f"#include <{include}>\n" + HEAD.format(name="test", body="y[i] = 0;"))
    with pytest.raises(LaunchError, match=f"^library.cu: #include <{include}>: .* has no such"):
        run(device, path, "test")


@pytest.mark.parametrize("grid, block, message", [
    (N / 256, 256, "a grid or block of 3.90625: expected one to three whole numbers"),
    (3, 256.0, "a grid or block of 256.0"),
    ((1, 1, 1, 1), 256, "a grid or block of"),
    (0, 256, "expected a grid of 1 to"),
    (3, 512, "expected a block within the launch bound, 256 threads"),
])
def test_a_launch_that_cannot_be(device, file, grid, block, message):
    with pytest.raises(LaunchError, match=message):
        run(device, file, "copy", grid, block)


@pytest.mark.parametrize("change, message", [
    (lambda x, y: (x, y), r"expected 3 arguments \(x, y, n\), got 2"),
    (lambda x, y: (x, y, N, N), "expected 3 arguments"),
    (lambda x, y: (x, y, 2.5), "argument 'n': expected a number of type int, got 2.5"),
    (lambda x, y: (x, y, 1 << 31), "argument 'n': 2147483648 does not fit into int"),
    (lambda x, y: (x, None, N), "argument 'y': expected an array on the emulated device"),
    (lambda x, y: (np.zeros(N, np.float32), y, N), "argument 'x': .* got numpy.ndarray"),
    (lambda x, y: (x.view(np.int32), y, N), "argument 'x': expected float32, got int32"),
    (lambda x, y: (x[::2], y, N), "argument 'x': not contiguous"),
])
def test_arguments_that_do_not_fit(device, file, change, message):
    x, y = (device.upload(np.zeros(N, np.float32)) for _ in "xy")
    with pytest.raises(LaunchError, match=f"^copy: {message}"):
        device.launch(file, "copy", 3, 256, *change(x, y))


def test_at_least_sixty_mistakes():
    assert len(FAULTS) + len(SHOWN_AS_NAN) + len(REFUSED) >= 60


@POSIX
@pytest.mark.parametrize("path", launch.ladder("conv"), ids=lambda path: path.stem)
def test_the_projects_convolutions_have_no_races(path):
    precision = "tf32" if launch.takes_operands(path) else "fp32"
    ops = CudaOps(Emulator(precision=precision, check_races=True), path.stem)
    rng = np.random.default_rng(0)
    x, w = (ops.asarray(rng.standard_normal(shape)) for shape in ((1, 7, 6, 3), (3, 3, 3, 5)))
    y = ops.conv(x, w, 2, 1)
    dx = ops.conv_input_grad(y, w, x.shape, 2, 1)
    dw = ops.conv_weight_grad(x, y, w.shape, 2, 1)
    assert all(np.isfinite(ops.asnumpy(a)).all() for a in (y, dx, dw))


@POSIX
def test_ctrl_c_ends_a_launch(file):
    """Long before its time is up, also with kernels that would never end."""
    patient = Emulator(seconds=60)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # xdist ignores Ctrl-C
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(patient, file, "while_true")
    signal.signal(signal.SIGINT, before)
    assert time.monotonic() - began < 20
    assert np.isfinite(run(patient, file, "copy")).all()
