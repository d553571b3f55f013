"""The launcher refuses what does not fit; the emulator catches what a GPU would let pass; every kernel compiles for every card."""
import contextlib
import importlib.util
import multiprocessing
import os
import re
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from kernels import cuda_ops, launch
from kernels.emulator import Emulator

CARDS = ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"]
FILES = sorted(launch.FOLDER.rglob("*.cu"))
HEAD = 'extern "C" __global__ __launch_bounds__(64)\nvoid test({parameters}) {{\n{body}\n}}\n'


def ids(path):
    return path.relative_to(launch.FOLDER).as_posix()


@pytest.fixture
def emulator():
    return Emulator()


def on_tensor_cores(path):
    return "tensor_cores.cuh" in path.read_text()


def numbers(emulator, n, dtype=np.float32):
    return emulator.upload(np.arange(n, dtype=dtype))


def write(tmp_path, parameters, body):
    """A .cu file with one kernel named test."""
    path = tmp_path / "test.cu"
    path.write_text('#include "common.cuh"\n' + HEAD.format(parameters=parameters, body=body))
    return str(path)


# ------------------------------------------------------------------------------------------ the files
@pytest.mark.parametrize("path", FILES, ids=ids)
def test_header_lists_the_kernels(path):
    """The comment at the top names exactly the kernels of the file, in their order, and the architectures."""
    header = path.read_text().split("#include")[0]
    listed = re.findall(r"^//   (\w+)  +\S", header, re.M)
    source = launch.read(path)
    assert listed == list(source.kernels) and source.architectures == (CARDS[1:] if on_tensor_cores(path) else CARDS)
    assert all(line.startswith("//") for line in header.strip().splitlines())
    assert max(map(len, path.read_text().splitlines())) <= 132


def test_all_steps_of_the_ladder_have_the_same_kernels():
    """With the same parameters; only step 5, which takes operands, has some of its own."""
    heads = [launch.read(path).kernels for path in FILES if path.parent.name == "conv"]
    assert len(heads) == 5 and all(head.keys() == heads[0].keys() for head in heads)
    for head in heads[1:4]:
        assert [k.parameters for k in head.values()] == [k.parameters for k in heads[0].values()]


def resources(log):
    """{kernel: (registers, bytes of stack and spills)} from ptxas -v."""
    found = {}
    for entry in log.split("Compiling entry function")[1:]:
        in_memory = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", entry).groups()
        found[entry.split("'")[1]] = int(re.search(r"Used (\d+) registers", entry)[1]), sum(map(int, in_memory))
    return found


@pytest.mark.skipif(not importlib.util.find_spec("cupy_backends"), reason="needs CuPy, which does not exist for macOS")
@pytest.mark.parametrize("path", FILES, ids=ids)
def test_compiles_for_every_architecture(path):
    """By NVRTC, without a GPU; everything in registers. Double, for gradient checks only, for one architecture."""
    source = launch.read(path)
    others = (np.float32, "bf16", source.architectures) if on_tensor_cores(path) else (np.float64, "fp32", ["sm_90"])
    options = [(*launch.compile_options(dtype, architecture, precision), "--ptxas-options=-v")
               for dtype, precision, architectures in ((np.float32, "tf32", source.architectures), others)
               for architecture in architectures]
    with ThreadPoolExecutor() as pool:
        compiled = list(pool.map(lambda options: launch.compile_cubin(source, options), options))
    for architecture, (cubin, log) in zip(options, compiled):
        used, (program_at, sections_at) = resources(log), struct.unpack_from("<QQ", cubin, 32)
        entry, entries, section, sections = struct.unpack_from("<HHHH", cubin, 54)
        assert cubin[:4] == b"\x7fELF" and used.keys() == source.kernels.keys()
        assert len(cubin) >= max(program_at + entry * entries, sections_at + section * sections), "the file is cut off"
        for kernel, (registers, spilled) in used.items():
            assert 0 < registers <= 255 and spilled == 0, (kernel, architecture, registers, spilled)
            assert registers * source.kernels[kernel].threads <= 65536, f"{kernel}: no block fits on {architecture}"


def test_a_compile_error_names_file_and_line(tmp_path):
    pytest.importorskip("cupy_backends")
    path = write(tmp_path, "real* y", "    y[0] = nonsense;")
    with pytest.raises(launch.KernelError, match=r"test.cu.*(?s:.*)test.cu\(4\).*nonsense"):
        launch.compile_cubin(launch.read(path), launch.compile_options(np.float32, "sm_90", "fp32"))
    with pytest.raises(launch.KernelError, match=r"test.cu:4.*nonsense"):
        Emulator().launch(path, "test", 1, 1, Emulator().allocate(4).view(np.float32))


@pytest.mark.parametrize("capability, expected", [((9, 0), "sm_90"), ((8, 9), "sm_89"), ((12, 1), "sm_120"),
                                                  ((10, 3), "sm_100"), ((7, 0), None), ((11, 0), None)])
def test_architecture_for_a_card(capability, expected):
    assert launch.best_architecture(launch.read("adam.cu").architectures, capability) == expected


@pytest.mark.parametrize("head", ["void test(real* x)", '__launch_bounds__(64)\nvoid test(char* x)',
                                  "__launch_bounds__(64)\nvoid test(real x[])"])
def test_a_head_that_cannot_be_read(tmp_path, head):
    path = tmp_path / "test.cu"
    path.write_text(f'extern "C" __global__ {head} {{ }}\n')
    with pytest.raises(launch.LaunchError, match="test.cu: (expected each kernel as|test: cannot read the parameter)"):
        launch.read(path)


# ---------------------------------------------------------------------------------------- wrong launches
def copies(emulator):
    x = numbers(emulator, 12)
    return [x, None, 0, emulator.allocate(48).view(np.float32), 12, 4]  # of bias_activation


def test_a_launch_without_fault(emulator):
    arguments = copies(emulator)
    emulator.launch("activations.cu", "bias_activation", 1, 256, *arguments)
    np.testing.assert_array_equal(emulator.download(arguments[3]), np.arange(12))


@pytest.mark.parametrize("change, message", [
    (lambda e, a: a[:-1], r"expected 6 arguments \(x, bias_or_null, activation, y, n, C\), got 5"),
    (lambda e, a: a + [1], "got 7"),
    (lambda e, a: [numbers(e, 12, np.float64), *a[1:]], "argument 'x': expected float32, got float64"),
    (lambda e, a: [numbers(e, 24)[::2], *a[1:]], r"argument 'x': not contiguous: shape \(12,\), strides \(8,\)"),
    (lambda e, a: [numbers(e, 12).reshape(3, 4).T, *a[1:]], "argument 'x': not contiguous"),
    (lambda e, a: [np.arange(12, dtype=np.float32), *a[1:]], "argument 'x': expected an array on the emulated device, got numpy"),
    (lambda e, a: [None, *a[1:]], "argument 'x': expected an array on the emulated device, got builtins.NoneType"),
    (lambda e, a: [12, *a[1:]], "argument 'x': expected an array"),
    (lambda e, a: [*a[:2], 1.0, *a[3:]], "argument 'activation': expected a number of type int, got 1.0"),
    (lambda e, a: [*a[:2], a[0], *a[3:]], "argument 'activation': expected a number of type int"),
    (lambda e, a: [*a[:2], 1j, *a[3:]], "argument 'activation': expected a number of type int"),
    (lambda e, a: [*a[:4], 1 << 31, 4], "argument 'n': 2147483648 does not fit into int")])
def test_wrong_arguments(emulator, change, message):
    with pytest.raises(launch.LaunchError, match=message):
        emulator.launch("activations.cu", "bias_activation", 1, 256, *change(emulator, copies(emulator)))


def test_a_kernel_that_is_not_there(emulator):
    with pytest.raises(launch.LaunchError, match="adam.cu has no kernel 'adamw', but adam_advance, adam"):
        emulator.launch("adam.cu", "adamw", 1, 1)


@pytest.mark.parametrize("grid, block", [(0, 256), ((1, 70000), 256), (1, 0), (1, 257), (1, (16, 32)), (1, (1, 1, 128))])
def test_wrong_grids(emulator, grid, block):
    with pytest.raises(launch.LaunchError, match="a grid of|a block of .* launch bound is 256 threads"):
        emulator.launch("activations.cu", "bias_activation", grid, block, *copies(emulator))


def test_device_arrays_are_for_kernels_only(emulator):
    """What would fail with CuPy's arrays fails here: NumPy's functions and operators, and writing to a slice."""
    a = numbers(emulator, 4)
    for use in (lambda: a + 1, lambda: np.ones(4) * a, lambda: np.exp(a), lambda: np.concatenate([a, a]),
                lambda: a.__setitem__(0, 1), lambda: a.sum()):
        with pytest.raises(TypeError):
            use()
    assert emulator.download(a).sum() == 6


# ---------------------------------------------------------------------------------------- planted faults
def plant(tmp_path, file, before, after, count=1):
    """A copy of a .cu file with one fault in it."""
    text = launch.read(file).text
    assert text.count(before) >= count, f"{file} has no {before!r}"
    pieces = text.split(before)
    path = tmp_path / "planted.cu"
    path.write_text(before.join(pieces[:count]) + after + before.join(pieces[count:]))
    return str(path)


def conv_with(file, rng, dtype=np.float32):
    """All three convolutions by the kernels of a file, on shapes with several tiles and a ragged edge."""
    ops = cuda_ops.CudaOps(Emulator(dtype, "tf32"))
    ops.conv_file, ops.tile, ops.few_channels = file, launch.read(file).constants, 0
    ops.takes_operands = "NARROW_TILE_M" in ops.tile
    x, w, dy = (ops.asarray(rng.standard_normal(shape)) for shape in ((2, 9, 10, 5), (3, 3, 5, 70), (2, 5, 5, 70)))
    results = ops.conv(x, w, 2, 1), ops.conv_input_grad(dy, w, x.shape, 2, 1), ops.conv_weight_grad(x, dy, w.shape, 2, 1)
    return [ops.asnumpy(a) for a in results]


@pytest.mark.parametrize("before, after, message", [
    ("if (i < n) ", "", r"bias_activation: argument 'x' \(12 elements\) accessed at index \d+, by thread \(\d+, 0, 0\) of block"),
    ("y[i] = activate(x[i]", "y[i] = activate(x[i + 1]", r"argument 'x' \(12 elements\) accessed at index 12, by thread \(11, 0"),
    ("y[i] = activate(x[i]", "y[i - 1] = activate(x[i]", r"argument 'y' \(12 elements\) accessed at index -1, by thread \(0, 0"),
    ("bias_or_null ? bias_or_null[i % C] : 0", "bias_or_null[i % C]", r"argument 'bias_or_null' \(0 elements\) accessed at")])
def test_out_of_bounds_is_caught(tmp_path, emulator, before, after, message):
    """A dropped guard, indices off by one in either direction, a null pointer."""
    with pytest.raises(launch.KernelError, match=message):
        emulator.launch(plant(tmp_path, "activations.cu", before, after), "bias_activation", 1, 256, *copies(emulator))


@pytest.mark.parametrize("file, before, after", [
    ("conv/2_shared_memory.cu", "As[along][", "As[along + 1]["), ("conv/2_shared_memory.cu", "+= As[k][", "+= As[k + 1]["),
    ("conv/3_register_tiles.cu", "As[along][", "As[along + 1]["), ("conv/3_register_tiles.cu", "= As[k][", "= As[k + 1][")])
def test_an_index_off_by_one_in_shared_memory_is_caught(tmp_path, file, before, after):
    with pytest.raises(launch.KernelError, match=r"planted.cu: conv: an array accessed at index 16 in line \d+"):
        conv_with(plant(tmp_path, file, before, after), np.random.default_rng(0))


@pytest.mark.parametrize("file, before, after", [
    ("conv/2_shared_memory.cu", "As[along][across] = at(x", "if (along < 15) As[along][across] = at(x"),
    ("conv/3_register_tiles.cu", "pixels[threadIdx.x] = output_pixel(m0", "if (threadIdx.x) pixels[threadIdx.x] = output_pixel(m0"),
    ("conv/1_naive.cu", "    y[pixel * Cout + co] =", "    if (co != 3) y[pixel * Cout + co] =")])
def test_unwritten_memory_is_seen(tmp_path, file, before, after):
    """Shared memory that nobody wrote, and an output that nobody wrote: NaN, or an index that cannot be."""
    try:
        assert np.isnan(conv_with(plant(tmp_path, file, before, after), np.random.default_rng(0))[0]).any()
    except launch.KernelError as error:  # 0xFF as a pixel's index
        assert "3_register" in file and "accessed at index" in str(error)


@pytest.mark.parametrize("before, after", [
    ("        wait_for_copies<STAGES - 2>();\n", ""), ("wait_for_copies<STAGES - 2>();", "wait_for_copies<STAGES - 1>();"),
    ("        commit_copies();\n        __syncwarp", "        __syncwarp"),
    ("+ (s + STAGES - 1) % STAGES * STAGE", "+ (s + STAGES) % STAGES * STAGE"),
    ("if (step + 1 >= STAGES - 1) find_window", "if (step + 1 >= STAGES) find_window")])
def test_a_fault_of_the_pipeline_is_seen(tmp_path, before, after):
    """Tiles multiplied before their copies have come, or overwritten while others still read them; windows found too late."""
    try:
        results = conv_with(plant(tmp_path, "conv/5_pipelined.cu", before, after), np.random.default_rng(0))
        assert any(np.isnan(a).any() for a in results)
    except launch.KernelError as error:  # 0xFF as a window's offset; or ever more copies on their way
        assert re.search("accessed at index|misaligned load from" if "window" in before else "asynchronous copies", str(error))


@pytest.mark.parametrize("body, message", [
    ("    if (threadIdx.x < 16) mma(sum, words);", "a warp operation at line 7 is not reached by all lanes of its mask"),
    ("    copy_async(tile + threadIdx.x, y, true);", "a misaligned"),
    ("    copy_async(tile + 4 * threadIdx.x, y + 4 * threadIdx.x, threadIdx.x < 9);",
     r"argument 'y' \(32 elements\) accessed at index 32"),
    ("    copy_async(tile + 4 * threadIdx.x + 4, y, true);", r"dynamic shared memory \(512 bytes\) accessed at index 128"),
    ("    for (int i = 0; i < 65; ++i) copy_async(tile + 4 * threadIdx.x, y, true);",
     "more than 64 asynchronous copies on their way")])
def test_faults_of_the_new_instructions_are_caught(tmp_path, body, message):
    path = tmp_path / "test.cu"
    path.write_text('#include "common.cuh"\n#include "tensor_cores.cuh"\n' + HEAD.format(parameters="float* y", body="""\
    extern __shared__ __align__(16) float tile[];
    Words words = {}; float sum[4] = {};
""" + body))
    emulator = Emulator(precision="tf32")
    with pytest.raises(launch.KernelError, match=message):
        emulator.launch(str(path), "test", 1, 32, numbers(emulator, 32), shared=512)


LOAD4 = "    float4 v = *(const float4*)(x + 4 * threadIdx.x);\n    y[threadIdx.x] = v.x + v.w;"


def test_a_misaligned_vector_load_is_caught(tmp_path, emulator):
    path = write(tmp_path, "const real* __restrict__ x, real* __restrict__ y", LOAD4)
    x, y = numbers(emulator, 20), emulator.allocate(16).view(np.float32)
    emulator.launch(path, "test", 1, 4, x[4:], y)
    np.testing.assert_array_equal(emulator.download(y), [11, 19, 27, 35])
    with pytest.raises(launch.KernelError, match=r"a misaligned load from argument 'x' \(16 elements\) at index"):
        emulator.launch(path, "test", 1, 4, x[1:17], y)
    with pytest.raises(launch.KernelError, match=r"argument 'x' \(12 elements\) accessed at index 12"):  # half a float4
        emulator.launch(path, "test", 1, 4, x[4:16], y)


def test_a_misaligned_load_from_shared_memory_is_caught(tmp_path, emulator):
    path = write(tmp_path, "real* __restrict__ y", "    __shared__ __align__(16) real tile[8];\n    tile[threadIdx.x] = 1;\n"
                 "    __syncthreads();\n    y[threadIdx.x] = (*(const float4*)&tile[1]).x;")
    with pytest.raises(launch.KernelError, match="test.cu: test: a misaligned access in line 7"):
        emulator.launch(path, "test", 1, 8, emulator.allocate(32).view(np.float32))


@pytest.mark.parametrize("body, message", [
    ("    if (threadIdx.x < 3) __syncthreads();", r"line 4 is not reached .* thread \((?![0-2],)\d+, 0, 0\) has returned, by "
                                                 r"thread \([0-2], 0, 0\)"),
    ("    if (threadIdx.x < 32) __syncthreads();\n    else\n    __syncthreads();", r"at line [46] .* waits at line [46]"),
    ("    if (threadIdx.x < 40) __syncwarp();", "a warp operation at line 4 is not reached by all lanes of its mask"),
    ("    if (threadIdx.x < 40) __syncwarp(ALL_LANES); else __syncthreads();", "a warp operation at line 4"),
    ("    y[0] = __shfl_xor_sync(threadIdx.x % 2 ? 0x55555555 : ALL_LANES, y[0], 1);", "a warp operation at line 4")])
def test_divergence_is_caught(tmp_path, emulator, body, message):
    """A barrier that some threads, or warps' lanes, do not reach."""
    path = write(tmp_path, "real* __restrict__ y", body)
    with pytest.raises(launch.KernelError, match=message):
        emulator.launch(path, "test", 2, 64, emulator.allocate(256).view(np.float32))
    emulator.launch("activations.cu", "bias_activation", 1, 256, *copies(emulator))  # and the emulator goes on working


@pytest.mark.parametrize("body, message", [
    ("    y[0] = 5 / (int(y[0]) - 1);", "test.cu: test: an integer divided by zero in line 4, by thread"),
    ("    float a[4] = {y[0]};\n    y[1] = a[int(y[0]) + 3];", "an array accessed at index 4 in line 5"),
    ("    float* p = y + 1;\n    p[0] = 1;", "Global<.*(?s:.*)write `auto p = x")])
def test_other_faults_of_a_kernel(tmp_path, emulator, body, message):
    y = emulator.upload(np.ones(2, np.float32))
    with pytest.raises(launch.KernelError, match=message):
        emulator.launch(write(tmp_path, "float* y", body), "test", 1, 1, y)


def test_a_function_without_its_return_does_not_compile(tmp_path, emulator):
    path = tmp_path / "test.cu"
    path.write_text("__device__ float half(float x) { if (x > 0) return x / 2; }\n"
                    + HEAD.format(parameters="float* y", body="    y[0] = half(y[0]);"))
    with pytest.raises(launch.KernelError, match="test.cu:1:"):
        emulator.launch(path, "test", 1, 1, numbers(emulator, 1))


@pytest.mark.parametrize("text, message", [
    ("__shared__ float tile[64];\n" + HEAD.format(parameters="float* y", body="    y[0] = tile[0];"), "inside the kernel"),
    (HEAD.format(parameters="float* y", body="    __shared__ float a[4], b[4];\n    y[0] = a[0] + b[0];"), "one array a line"),
    (HEAD.format(parameters="float* y", body="    __shared__ float a[4];\n" * 65), "at most 64 in a file")])
def test_shared_memory_that_cannot_be_rewritten(tmp_path, emulator, text, message):
    path = tmp_path / "test.cu"
    path.write_text(text)
    with pytest.raises(launch.LaunchError, match=message):
        emulator.launch(path, "test", 1, 1, numbers(emulator, 1))


def test_ordinary_cuda(tmp_path, emulator):
    """Comments anywhere, static shared memory, a device function's own attributes, float max, printf-free maths of CUDA C."""
    path = tmp_path / "test.cu"
    path.write_text('''// extern "C" __global__ __launch_bounds__(64) void old(float* y) {}
/* extern "C" __global__ */ constexpr int THREADS = 64;  // __global__
static __device__ __noinline__ float relu(float x) { return max(x, 0.0f); }
extern "C" __global__ __launch_bounds__(THREADS)
void test(const float * __restrict__ x,  // in
          float* y, /* out */ const int n) {
    static __shared__ volatile float  tile [64];
    tile[threadIdx.x] = relu(x[threadIdx.x] - 0.25f);
    __syncthreads();
    y[threadIdx.x] = expf(min(tile[n - 1 - threadIdx.x], 1.5f)) + max(3000000000u, 5u) * 0.0f + fmodf(5, 3) + abs(-2);
}''')
    x, y = emulator.upload(np.linspace(-1, 3, 64, dtype=np.float32)), emulator.allocate(256).view(np.float32)
    emulator.launch(path, "test", np.int64(2), 64, x, y, 64)
    expected = np.exp(np.minimum(np.maximum(emulator.download(x)[::-1] - 0.25, 0), 1.5)) + 4
    np.testing.assert_allclose(emulator.download(y), expected, rtol=1e-6)
    assert list(launch.read(path).kernels) == ["test"]


def test_an_edited_file_is_read_anew(tmp_path, emulator):
    for value in (1, 2):
        y = emulator.allocate(4).view(np.float32)
        emulator.launch(write(tmp_path, "float* y", f"    y[0] = {value};"), "test", 1, 1, y)
        assert emulator.download(y) == [value]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_can_launch(emulator):
    arguments = copies(emulator)
    emulator.launch("activations.cu", "bias_activation", 2, 256, *arguments)
    child = multiprocessing.get_context("fork").Process(
        target=emulator.launch, args=("activations.cu", "bias_activation", 2, 256, *arguments))
    child.start()
    child.join(30)
    assert child.exitcode == 0


def test_too_much_memory_is_refused(tmp_path, emulator):
    y = emulator.allocate(4).view(np.float32)
    with pytest.raises(launch.KernelError, match="65536 bytes of shared memory, but a block gets 49152"):
        emulator.launch(write(tmp_path, "real* y", "    __shared__ real big[16384];\n    y[0] = big[0];"), "test", 1, 1, y)
    local = "    volatile real big[16384];\n    for (int i = 0; i < 16384; ++i) big[i] = i;\n    y[0] = big[5];"
    with pytest.raises(launch.KernelError, match="frame"):
        emulator.launch(write(tmp_path, "real* y", local), "test", 1, 1, y)


def barriers():
    """Every __syncthreads that a file's kernels reach, as (file, its number among those in the text)."""
    found = []
    for path in FILES:
        pieces = launch.read(path).text.split("__syncthreads();")
        for number in range(1, len(pieces)):
            function = re.findall(r"(\w+)\([^;{]*\) \{\n", "".join(pieces[:number]))[-1]
            if f"{function}(" in path.read_text():  # else a function of common.cuh that this file does not use
                found.append((ids(path), number))
    return found


def all_results(file, instead):
    """What the operations that a file serves compute, with the kernels of the file `instead`."""
    rng, ops = np.random.default_rng(0), cuda_ops.CudaOps(Emulator())
    if file.startswith("conv"):
        return conv_with(instead, rng)
    device_launch = ops.device.launch
    ops.device.launch = lambda name, *rest, **shared: device_launch(instead if name == file else name, *rest, **shared)
    x, dy = (ops.asarray(rng.standard_normal((2, 40, 30, 5))) for _ in "xy")  # many slabs of rows
    zeros, ones, dgamma, dbeta, dbias, dbias_softmax = (ops.asarray(np.full(5, value)) for value in (0, 1, 0, 0, 0, 0))
    y, mean, var = ops.batch_norm(x, ones, ones, zeros, ones)
    ops.batch_norm_grad(dy, x, y, ones, mean, var, dgamma=dgamma, dbeta=dbeta)
    ops.bias_activation_grad(dy, y, None, dbias)
    ops.softmax_grad(dy, y, dbias_softmax)
    losses = ops.feature_matching(x, dy)[0], ops.feature_matching(x, dy, "paired")[0], ops.bce_with_logits(x, dy)[0]
    return [ops.asnumpy(a) for a in (y, mean, var, dgamma, dbeta, dbias, dbias_softmax, *losses)]


@pytest.mark.slow
@pytest.mark.parametrize("file, number", barriers())
def test_every_removed_barrier_is_caught(tmp_path, file, number):
    """Each __syncthreads is removed in turn: results change, or an index goes astray. So none is there for nothing either."""
    right, planted = all_results(file, launch.FOLDER / file), plant(tmp_path, file, "__syncthreads();", "", number)
    try:
        assert any(not np.array_equal(a, b) for _ in range(3) for a, b in zip(right, all_results(file, planted)))
    except launch.KernelError as error:
        assert re.search("accessed at index|misaligned", str(error))


# ---------------------------------------------------------------------------------------- the emulator's CUDA
def test_shuffles_votes_and_atomics(tmp_path, emulator):
    """Each against its definition in NumPy, with 64 threads in two warps; masks and widths of half a warp too."""
    path = write(tmp_path, "const int* __restrict__ x, int* __restrict__ y, int* __restrict__ count", """
    int t = threadIdx.x, v = x[t];
    unsigned half = t % 32 < 16 ? 0x0000FFFF : 0xFFFF0000;
    y[t] = __shfl_sync(ALL_LANES, v, 5);
    y[64 + t] = __shfl_down_sync(ALL_LANES, v, 3);
    y[128 + t] = __shfl_up_sync(ALL_LANES, v, 3);
    y[192 + t] = __shfl_xor_sync(ALL_LANES, v, 6, 8);
    y[256 + t] = __shfl_sync(half, v, 2, 16);
    y[320 + t] = __ballot_sync(ALL_LANES, v % 3 == 0);
    y[384 + t] = __any_sync(half, v == 63) + 2 * __all_sync(half, v >= 48);
    atomicAdd(count, 1);
    atomicMax(&count[1], v);
    atomicMin(count + 2, v);
    if (atomicCAS(&count[3], 0, v + 1) == 0) atomicExch(&count[4], v);""")
    x, y, count = numbers(emulator, 64, np.int32), emulator.allocate(4 * 448).view(np.int32), numbers(emulator, 5, np.int32)
    emulator.write(count, np.array([0, 0, 99, 0, 0], np.int32))
    emulator.launch(path, "test", 50, 64, x, y, count)
    y, count, t = emulator.download(y).reshape(7, 64), emulator.download(count), np.arange(64)
    lane, warp = t % 32, t - t % 32
    expected = [warp + 5, np.where(lane + 3 < 32, t + 3, t), np.where(lane >= 3, t - 3, t), t ^ 6, t - t % 16 + 2]
    for found, right in zip(y, expected):
        np.testing.assert_array_equal(found, right)
    ballots = [sum(1 << i for i in range(32) if (w + i) % 3 == 0) for w in (0, 32)]
    np.testing.assert_array_equal(y[5].astype(np.uint32), np.repeat(ballots, 32))
    np.testing.assert_array_equal(y[6], [3 if i >= 48 else 0 for i in range(64)])
    assert list(count[:3]) == [50 * 64, 63, 0] and count[3] == count[4] + 1


def test_dynamic_shared_memory(tmp_path, emulator):
    path = write(tmp_path, "real* __restrict__ y, int n", """    extern __shared__ real tile[];
    tile[threadIdx.x] = threadIdx.x;
    __syncthreads();
    y[threadIdx.x] = tile[n - 1 - threadIdx.x];""")
    y = emulator.allocate(32).view(np.float32)
    emulator.launch(path, "test", 1, 8, y, 8, shared=32)
    np.testing.assert_array_equal(emulator.download(y), np.arange(8)[::-1])
    with pytest.raises(launch.KernelError, match=r"dynamic shared memory \(28 bytes\) accessed at index 7"):
        emulator.launch(path, "test", 1, 8, y, 8, shared=28)
    emulator.launch(path, "test", 1, 8, y, 8, shared=60000)
    with pytest.raises(launch.LaunchError, match="110000 bytes of dynamic shared memory; a block gets 101376"):
        emulator.launch(path, "test", 1, 8, y, 8, shared=110000)


def test_threads_and_blocks_run_in_shuffled_order(tmp_path, emulator):
    """A race: the order in which threads take numbers differs from launch to launch, and is not the identity."""
    path = write(tmp_path, "int* counter, int* y", "    y[blockIdx.x * 64 + threadIdx.x] = atomicAdd(counter, 1);")
    orders = []
    for _ in range(3):
        counter, y = emulator.upload(np.zeros(1, np.int32)), emulator.allocate(4 * 64 * 4).view(np.int32)
        emulator.launch(path, "test", 4, 64, counter, y)
        orders.append(tuple(emulator.download(y)))
        assert sorted(orders[-1]) == list(range(256)) and orders[-1] != tuple(range(256))
    assert len(set(orders)) == 3


# ------------------------------------------------------------------------------------------------ graphs
@pytest.mark.parametrize("fails_in", ["begin_capture", "run", "end_capture"])
def test_a_card_that_cannot_record_goes_on_launch_by_launch(fails_in, capsys):
    class Stream(contextlib.nullcontext):
        def __init__(self, non_blocking):
            super().__init__()

        def __getattr__(self, name):  # begin_capture and end_capture
            def call():
                if name == fails_in:
                    raise RuntimeError("cudaErrorNotSupported: not on this card\nand a second line")
            return call

    def run():
        if gpu.recording is not None and fails_in == "run":
            raise RuntimeError("cudaErrorNotSupported: not on this card")
    gpu = object.__new__(launch.Gpu)
    gpu.recording, gpu.cupy = None, SimpleNamespace(cuda=SimpleNamespace(Stream=Stream))
    assert gpu.record(run) is run and gpu.recording is None
    assert capsys.readouterr().err == ("No CUDA graph (cudaErrorNotSupported: not on this card): every kernel is launched by "
                                       "itself, which is slower.\n")
    if fails_in == "run":
        with pytest.raises(launch.LaunchError, match="an upload while operations are recorded"):  # a fault of ours is no excuse
            gpu.record(lambda: gpu.write(None, None))


# ------------------------------------------------------------------------------------------------ cache
def test_compiled_files_are_cached_by_content(tmp_path, monkeypatch, emulator):
    monkeypatch.setenv("SEMGAN_CACHE", str(tmp_path / "cache"))
    built = []
    build = lambda path: (built.append(1), path.write_text("built"))
    for key in (("a", "b"), ("a", "b"), ("a", "c"), ("ab",)):
        assert launch.cached(key, ".so", build).read_text() == "built"
    assert len(built) == 3
    def fails(path):
        path.write_text("half")
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        launch.cached(("d",), ".so", fails)
    assert len(list((tmp_path / "cache").iterdir())) == 3, "something half-built was left"


@pytest.mark.parametrize("variable, value, message", [("CXX", "false", "CXX=false is no C++ compiler that runs"),
                                                      ("SEMGAN_CACHE", "/dev/null/cache", "set SEMGAN_CACHE to a folder")])
def test_a_compiler_or_cache_that_does_not_work_is_one_line(tmp_path, variable, value, message):
    done = subprocess.run([sys.executable, launch.FOLDER.parent / "semgan.py", "--device", "emulator", "--out", tmp_path / "run"],
                          capture_output=True, text=True, env=os.environ | {variable: value})
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_without_a_compiler_one_line_says_what_to_install(tmp_path):
    program = ("import importlib.util, shutil, sys; sys.path.insert(0, sys.argv[1]); from app.command_line import main; shutil.which = lambda _: None\n"
               "importlib.util.find_spec = lambda _: None; main(['--device', 'emulator', '--out', sys.argv[2]])")
    done = subprocess.run([sys.executable, "-c", program, str(launch.FOLDER.parent), str(tmp_path / "run")],
                          capture_output=True, text=True)
    assert done.returncode == 2 and not (tmp_path / "run").exists()
    assert done.stderr.strip() == ("semgan: device 'emulator': needs a C++ compiler: install g++ or clang++, or run: "
                                   "pip install ziglang")
