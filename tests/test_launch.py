"""The launcher, the emulator, and the compilation of every kernel.

The launcher refuses arguments that do not fit. The emulator catches faults that a GPU lets pass.
Every kernel compiles for the oldest and the newest architecture; with --slow, for all of them.
"""
import contextlib
import functools
import importlib.util
import multiprocessing
import os
import re
import struct
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import conftest
import numpy as np
import pluggy
import pytest

import kernels
from kernels import cuda_ops, gpu, launch, workers
from kernels import emulator as emulator_module

# Planted faults stand in files of their own. Here they must show without the search for races.
Emulator = functools.partial(emulator_module.Emulator, check_races=False)
CARDS = ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"]
FILES = sorted(launch.FOLDER.rglob("*.cu"))
HEAD = 'extern "C" __global__ __launch_bounds__(64)\nvoid test({parameters}) {{\n{body}\n}}\n'
NO_CUPY = "needs CuPy, which does not exist for macOS"


def ids(path):
    return path.relative_to(launch.FOLDER).as_posix()


@pytest.fixture
def emulator():
    return Emulator()


@pytest.fixture
def cards(request):
    """Which of a file's architectures to compile for: the oldest and newest, or all with --slow."""
    if request.config.getoption("--slow"):
        return lambda architectures: architectures
    return lambda architectures: [architectures[0], architectures[-1]]


def on_tensor_cores(path):
    return "tensor_cores.cuh" in path.read_text()


def numbers(emulator, n, dtype=np.float32):
    return emulator.upload(np.arange(n, dtype=dtype))


def write(tmp_path, parameters, body):
    """A .cu file with one kernel named test. Its body starts at line 4."""
    path = tmp_path / "test.cu"
    path.write_text('#include "common.cuh"\n' + HEAD.format(parameters=parameters, body=body))
    return str(path)


# ----------------------------------------------------------------------------------- the files
@pytest.mark.parametrize("path", FILES, ids=ids)
def test_header_lists_the_kernels(path):
    """The comment at the top names exactly the file's kernels, in order, and the architectures."""
    header = path.read_text().split("#include")[0]
    listed = re.findall(r"^//   (\w+)  +\S", header, re.M)
    source = launch.read(path)
    assert listed == list(source.kernels)
    assert source.architectures == (CARDS[1:] if on_tensor_cores(path) else CARDS)
    assert all(line.startswith("//") for line in header.strip().splitlines())


TEXTS = sorted([*FILES, *launch.FOLDER.glob("*.cuh"), *launch.FOLDER.glob("*.h")])


@pytest.mark.parametrize("path", TEXTS, ids=ids)
def test_lines_have_at_most_100_columns(path):
    assert max(map(len, path.read_text().splitlines())) <= 100


def test_all_steps_of_the_ladder_have_the_same_kernels():
    """And the same parameters: steps 1 to 5, 6 to 8, and 10 and 11."""
    heads = [launch.read(path).kernels for path in launch.ladder("conv")]
    assert len(heads) == 11 and all(head.keys() == heads[0].keys() for head in heads)
    for same in heads[:5], heads[5:8], heads[9:]:
        for head in same[1:]:
            assert [k.parameters for k in head.values()] == [
                k.parameters for k in same[0].values()]


LADDERS = [path for path in FILES if path.parent != launch.FOLDER]


@pytest.mark.parametrize("path", LADDERS, ids=ids)
def test_a_step_is_a_short_lesson(path):
    """One page, which says what is new, what it buys and what it costs."""
    lines = path.read_text().splitlines()
    assert len(lines) <= 120
    if not path.name.startswith("1_"):
        assert all(any(line.startswith(f"// {word}") for line in lines)
                   for word in ("New: ", "It buys: ", "It costs: "))


def resources(log):
    """{kernel: (registers, bytes of stack and spills)} from ptxas -v."""
    found = {}
    memory = r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
    for entry in log.split("Compiling entry function")[1:]:
        registers = int(re.search(r"Used (\d+) registers", entry)[1])
        found[entry.split("'")[1]] = registers, sum(map(int, re.search(memory, entry).groups()))
    return found


def is_whole(cubin):
    """Whether an ELF file has all the program and section headers that it declares."""
    program_at, sections_at = struct.unpack_from("<QQ", cubin, 32)
    entry, entries, section, sections = struct.unpack_from("<HHHH", cubin, 54)
    end = max(program_at + entry * entries, sections_at + section * sections)
    return cubin[:4] == b"\x7fELF" and len(cubin) >= end


@pytest.mark.skipif(not importlib.util.find_spec("cupy_backends"), reason=NO_CUPY)
@pytest.mark.parametrize("path", FILES, ids=ids)
def test_compiles_for_every_architecture(path, cards):
    """By NVRTC, without a GPU: all variables are in registers, and a block's registers suffice.

    For the oldest and the newest architecture of the file; with --slow, for every one. float64,
    which only gradient checks use, for one. Steps 9 and 10 differ little from 11: the newest.
    """
    source = launch.read(path)
    if path.name in ("9_larger_tiles.cu", "10_split_sums.cu"):
        few, cards = cards, lambda architectures: few(architectures)[-1:]
    variants = [(np.float32, "tf32", a) for a in cards(source.architectures)]
    if on_tensor_cores(path):
        variants += [(np.float32, "bf16", a) for a in cards(source.architectures)]
    else:
        variants += [(np.float64, "fp32", "sm_90")]

    def compiled(variant):
        dtype, precision, architecture = variant
        options = gpu.compile_options(dtype, architecture, precision)
        return gpu.compile_cubin(source, (*options, "--ptxas-options=-v"))
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(compiled, variants))
    for variant, (cubin, log) in zip(variants, results):
        used = resources(log)
        assert used.keys() == source.kernels.keys()
        assert is_whole(cubin), "the file is cut off"
        for kernel, (registers, spilled) in used.items():
            assert 0 < registers <= 255 and spilled == 0, (kernel, variant, registers, spilled)
            needed = registers * source.kernels[kernel].threads
            assert needed <= 65536, f"{kernel}: no block fits on {variant}"


def test_a_compile_error_names_file_and_line(tmp_path):
    pytest.importorskip("cupy_backends")
    path = write(tmp_path, "real* y", "    y[0] = nonsense;")
    options = gpu.compile_options(np.float32, "sm_90", "fp32")
    with pytest.raises(launch.KernelError, match=r"test.cu.*(?s:.*)test.cu\(4\).*nonsense"):
        gpu.compile_cubin(launch.read(path), options)
    emulator = Emulator()
    with pytest.raises(launch.KernelError, match=r"test.cu:4.*nonsense"):
        emulator.launch(path, "test", 1, 1, emulator.allocate(4).view(np.float32))


@pytest.mark.parametrize("capability, expected", [
    ((9, 0), "sm_90"),
    ((8, 9), "sm_89"),
    ((12, 1), "sm_120"),
    ((10, 3), "sm_100"),
    ((7, 0), None),
    ((11, 0), None)])
def test_architecture_for_a_card(capability, expected):
    assert gpu.best_architecture(launch.read("adam.cu").architectures, capability) == expected


def test_a_card_without_machine_code_is_an_error():
    device = fake_gpu()
    device.card, device.capability = "Tesla V100", (7, 0)
    message = "^Tesla V100 has compute capability 7.0; the kernels of adam.cu are for sm_75, sm_80"
    with pytest.raises(launch.DeviceError, match=message):
        device.architecture(launch.read("adam.cu"))


@pytest.mark.parametrize("error, becomes", [
    (launch.PrecisionError("no TF32"), pytest.skip.Exception),
    (launch.DeviceError("no GPU"), launch.DeviceError)])
def test_what_an_old_card_lacks_is_skipped(error, becomes):
    """As a test that raises the error would be."""
    def test():
        raise error
    call = conftest.pytest_pyfunc_call(None)
    next(call)
    outcome = pluggy.Result.from_call(test)
    with contextlib.suppress(StopIteration):
        call.send(outcome)
    with pytest.raises(becomes, match=str(error)):
        outcome.get_result()


@pytest.mark.parametrize("precision", ["tf32", "bf16", None])
def test_a_card_without_tensor_cores(monkeypatch, precision):
    card = dict(name=b"Tesla T4", major=7, minor=5, multiProcessorCount=40,
                sharedMemPerMultiprocessor=65536)
    monkeypatch.setattr(gpu, "find_gpu", lambda: (None, card))
    monkeypatch.setattr(gpu, "nvrtc_version", lambda: (12, 8))
    if precision:
        with pytest.raises(launch.PrecisionError, match=f"T4 cannot multiply in {precision}"):
            gpu.Gpu(precision=precision)
    else:
        assert gpu.Gpu().precision == "fp32"


def test_write_waits_for_the_copy():
    """CuPy copies asynchronously; the values are a temporary."""
    done = []
    stream = SimpleNamespace(synchronize=lambda: done.append("waited"))
    device = fake_gpu(get_current_stream=lambda: stream)
    device.write(SimpleNamespace(set=lambda values: done.append("copied")), np.zeros(3))
    assert done == ["copied", "waited"]


@pytest.mark.parametrize("shared, expected", [
    (0, {}),
    (512, {"PREFERRED_SHARED_MEMORY_CARVEOUT": 100}),
    (65536, {"PREFERRED_SHARED_MEMORY_CARVEOUT": 100, "MAX_DYNAMIC_SHARED_SIZE_BYTES": 65536})])
def test_shared_memory_is_asked_for(monkeypatch, shared, expected):
    """At the first launch: of what L1 cache and shared memory divide, all that can be shared."""
    device, found = fake_gpu(), {}
    device.load = lambda source, kernel: Function(found)
    monkeypatch.setattr(gpu, "check", lambda *_: [])
    device.launch("adam.cu", "adam", 1, 1, shared=shared)
    assert found == expected | dict(launched=shared)


class Function:
    """What CuPy makes of a kernel, and a driver that notes what is set."""
    def __init__(self, found):
        self.ptr = self.found = found

    def __call__(self, grid, block, arguments, shared_mem):
        self.found["launched"] = shared_mem


class Driver:
    def __getattr__(self, name):
        return name.removeprefix("CU_FUNC_ATTRIBUTE_")

    def funcSetAttribute(self, found, name, value):
        found[name] = value


def fake_gpu(**cuda):
    device = object.__new__(gpu.Gpu)
    device.dtype, device.precision, device.nvrtc = np.dtype(np.float32), "fp32", (12, 8)
    device.functions, device.recording, device.capability = {}, None, (7, 5)
    device.cupy = SimpleNamespace(cuda=SimpleNamespace(driver=Driver(), **cuda))
    return device


def test_a_cache_whose_path_is_not_ascii(monkeypatch, tmp_path):
    """The driver gets the compiled kernels as bytes, because Windows may not find the file."""
    loaded = []
    module = SimpleNamespace(load=loaded.append, get_function=lambda name: name)
    device = fake_gpu(function=SimpleNamespace(Module=lambda: module))
    monkeypatch.setenv("SEMGAN_CACHE", str(tmp_path / "Zwischenspeicher für Größen"))
    monkeypatch.setattr(gpu, "compile_cubin", lambda source, options: (b"cubin", ""))
    assert device.load(launch.read("adam.cu"), "adam") == "adam" and loaded == [b"cubin"]


@pytest.mark.parametrize("head", [
    "void test(real* x)",
    "__launch_bounds__(64)\nvoid test(char* x)",
    "__launch_bounds__(64)\nvoid test(real x[])"])
def test_a_head_that_cannot_be_read(tmp_path, head):
    path = tmp_path / "test.cu"
    path.write_text(f'extern "C" __global__ {head} {{ }}\n')
    message = "test.cu: (expected each kernel as|test: cannot read the parameter)"
    with pytest.raises(launch.LaunchError, match=message):
        launch.read(path)


PLACE = "struct Place {\n    int line,\n        word;\n};\n"


@pytest.mark.parametrize("device", conftest.CUDA_DEVICES)
def test_a_struct_of_ints_is_one_argument(tmp_path, device):
    path = tmp_path / "test.cu"
    head = HEAD.replace("64", "1").format(parameters="Place p, int* y",
                                          body="    y[p.line] = p.word;")
    path.write_text(PLACE + head)
    ops = kernels.load(device, precision="fp32")
    y = ops.asarray(np.zeros(3), np.int32)
    ops.device.launch(str(path), "test", 1, 1, (2, 7), y)
    np.testing.assert_array_equal(ops.asnumpy(y), [0, 0, 7])
    message = r"argument 'p': expected 2 ints \(line, word\), got "
    for wrong in (2, 7, 1), [2, 7], 5, None, y:
        with pytest.raises(launch.LaunchError, match=message):
            ops.device.launch(str(path), "test", 1, 1, wrong, y)
    with pytest.raises(launch.LaunchError, match="argument 'p': word: expected a number of type"):
        ops.device.launch(str(path), "test", 1, 1, (2, 0.5), y)


# ------------------------------------------------------------------------------- wrong launches
def copies(emulator):
    """Arguments of bias_activation that make it copy 12 numbers."""
    x = numbers(emulator, 12)
    return [x, None, 0, emulator.allocate(48).view(np.float32), 12, 4]


def launch_copy(emulator, arguments=None, file="activations.cu", grid=1, block=256):
    arguments = arguments or copies(emulator)
    emulator.launch(file, "bias_activation", grid, block, *arguments)
    return emulator.download(arguments[3])


def test_a_launch_without_fault(emulator):
    np.testing.assert_array_equal(launch_copy(emulator), np.arange(12))


NOT_A_DEVICE_ARRAY = "argument 'x': expected an array on the emulated device, got "
NOT_AN_INT = "argument 'activation': expected a number of type int"


@pytest.mark.parametrize("change, message", [
    (lambda e, a: a[:-1],
     r"expected 6 arguments \(x, bias_or_null, activation, y, n, C\), got 5"),
    (lambda e, a: a + [1], "got 7"),
    (lambda e, a: [numbers(e, 12, np.float64), *a[1:]],
     "argument 'x': expected float32, got float64"),
    (lambda e, a: [numbers(e, 24)[::2], *a[1:]],
     r"argument 'x': not contiguous: shape \(12,\), strides \(8,\)"),
    (lambda e, a: [numbers(e, 12).reshape(3, 4).T, *a[1:]], "argument 'x': not contiguous"),
    (lambda e, a: [np.arange(12, dtype=np.float32), *a[1:]], NOT_A_DEVICE_ARRAY + "numpy"),
    (lambda e, a: [None, *a[1:]], NOT_A_DEVICE_ARRAY + "builtins.NoneType"),
    (lambda e, a: [12, *a[1:]], "argument 'x': expected an array"),
    (lambda e, a: [*a[:2], 1.0, *a[3:]], NOT_AN_INT + ", got 1.0"),
    (lambda e, a: [*a[:2], a[0], *a[3:]], NOT_AN_INT),
    (lambda e, a: [*a[:2], 1j, *a[3:]], NOT_AN_INT),
    (lambda e, a: [*a[:4], 1 << 31, 4], "argument 'n': 2147483648 does not fit into int")])
def test_wrong_arguments(emulator, change, message):
    with pytest.raises(launch.LaunchError, match=message):
        launch_copy(emulator, change(emulator, copies(emulator)))


def test_a_kernel_that_is_not_there(emulator):
    message = "adam.cu has no kernel 'adamw', but adam_advance, adam"
    with pytest.raises(launch.LaunchError, match=message):
        emulator.launch("adam.cu", "adamw", 1, 1)


@pytest.mark.parametrize("grid, block, message", [
    (0, 256, r"expected a grid of .* got \(0, 1, 1\)"),
    ((1, 70000), 256, r"expected a grid of .* got \(1, 70000, 1\)"),
    (1, 0, "expected a block within the launch bound, 256 threads, .* got"),
    (1, 257, r"launch bound, 256 threads, .* got \(257, 1, 1\)"),
    (1, (16, 32), r"launch bound, 256 threads, .* got \(16, 32, 1\)"),
    (1, (1, 1, 128), r"at most 64 of them along z, got \(1, 1, 128\)")])
def test_wrong_grids(emulator, grid, block, message):
    with pytest.raises(launch.LaunchError, match=message):
        launch_copy(emulator, grid=grid, block=block)


def test_device_arrays_are_for_kernels_only(emulator):
    """What fails with CuPy's arrays fails here: NumPy functions, operators, writing to a slice."""
    a = numbers(emulator, 4)
    uses = [
        lambda: a + 1,
        lambda: np.ones(4) * a,
        lambda: np.exp(a),
        lambda: np.concatenate([a, a]),
        lambda: a.__setitem__(0, 1),
        lambda: a.sum(),
    ]
    for use in uses:
        with pytest.raises(TypeError):
            use()
    assert emulator.download(a).sum() == 6


def some_gpu():
    """The GPU if there is one, else a Gpu with NumPy in the place of CuPy."""
    try:
        return gpu.Gpu()
    except launch.DeviceError:
        device = fake_gpu()
        device.cupy = np
        return device


@pytest.mark.parametrize("device", [Emulator, some_gpu])
def test_upload_copies(device):
    """A device array never shares memory with the host's array, whatever its order."""
    device = device()
    for array in (np.arange(6.0).reshape(2, 3), np.arange(6.0).reshape(3, 2).T):
        before = array.copy()
        a = device.upload(array)
        assert a.flags.c_contiguous
        array[:] = 9
        there = a.get() if hasattr(a, "get") else np.asarray(a)
        np.testing.assert_array_equal(there, before)


def test_download_copies(emulator):
    a = numbers(emulator, 4)
    emulator.download(a)[:] = 9
    np.testing.assert_array_equal(emulator.download(a), np.arange(4))


# ------------------------------------------------------------------------------- planted faults
def plant(tmp_path, file, before, after, count=1):
    """A copy of a .cu file where `after` replaces the occurrence number `count` of `before`."""
    text = launch.read(file).text
    assert text.count(before) >= count, f"{file} has no {before!r}"
    pieces = text.split(before)
    path = tmp_path / "planted.cu"
    path.write_text(before.join(pieces[:count]) + after + before.join(pieces[count:]))
    return str(path)


def conv_with(file, dtype=np.float32):
    """All three convolutions by the kernels of a file, on several tiles with a ragged edge."""
    rng, ops = np.random.default_rng(0), cuda_ops.CudaOps(Emulator(dtype, "tf32"))
    ops.conv_file, ops.constants, ops.few_channels = file, launch.read(file).constants, 0
    ops.takes_operands = launch.read(file).kernels["conv"].parameters[0].type == "operand"
    shapes = (2, 9, 10, 5), (3, 3, 5, 70), (2, 5, 5, 70)
    x, w, dy = (ops.asarray(rng.standard_normal(shape)) for shape in shapes)
    results = [
        ops.conv(x, w, 2, 1),
        ops.conv_input_grad(dy, w, x.shape, 2, 1),
        ops.conv_weight_grad(x, dy, w.shape, 2, 1),
    ]
    return [ops.asnumpy(a) for a in results]


@pytest.mark.parametrize("before, after, message", [
    ("if (i < n) ", "",
     r"bias_activation: argument 'x' \(12 elements\) accessed at index \d+, "
     r"by thread \(\d+, 0, 0\) of block"),
    ("y[i] = activate(x[i]", "y[i] = activate(x[i + 1]",
     r"argument 'x' \(12 elements\) accessed at index 12, by thread \(11, 0"),
    ("y[i] = activate(x[i]", "y[i - 1] = activate(x[i]",
     r"argument 'y' \(12 elements\) accessed at index -1, by thread \(0, 0"),
    ("bias_or_null ? bias_or_null[i % C] : 0", "bias_or_null[i % C]",
     r"argument 'bias_or_null' \(0 elements\) accessed at")])
def test_out_of_bounds_is_caught(tmp_path, emulator, before, after, message):
    """A dropped guard, indices off by one in either direction, a null pointer."""
    with pytest.raises(launch.KernelError, match=message):
        launch_copy(emulator, file=plant(tmp_path, "activations.cu", before, after))


@pytest.mark.parametrize("file, rows, before, after", [
    ("conv/2_shared_tiles.cu", 16, "As[a.k][", "As[a.k + 1]["),
    ("conv/2_shared_tiles.cu", 16, "+= As[k][", "+= As[k + 1]["),
    ("conv/5_loads_ahead.cu", 8, "As[of_a.k][", "As[of_a.k + 1]["),
    ("conv/5_loads_ahead.cu", 8, "&As[k][", "&As[k + 1][")])
def test_an_index_off_by_one_in_shared_memory_is_caught(tmp_path, file, rows, before, after):
    message = rf"planted.cu: conv: an array accessed at index {rows} in line \d+"
    with pytest.raises(launch.KernelError, match=message):
        conv_with(plant(tmp_path, file, before, after))


@pytest.mark.parametrize("file, before, after", [
    ("conv/2_shared_tiles.cu", "As[a.k][a.line] = read",
     "if (a.k < 15) As[a.k][a.line] = read"),
    ("conv/5_loads_ahead.cu", "pixels[threadIdx.x] = p.pixel",
     "if (threadIdx.x) pixels[threadIdx.x] = p.pixel"),
    ("conv/1_naive.cu", "    y[pixel * c.Cout + co] =",
     "    if (co != 3) y[pixel * c.Cout + co] =")])
def test_unwritten_memory_is_seen(tmp_path, file, before, after):
    """Shared memory or an output that nobody wrote: results are NaN, or an index is impossible."""
    try:
        assert np.isnan(conv_with(plant(tmp_path, file, before, after))[0]).any()
    except launch.KernelError as error:  # the bytes 0xFF as a pixel's index
        assert "5_loads" in file and "accessed at index" in str(error)


@pytest.mark.parametrize("before, after", [
    ("        wait_for_copies<STAGES - 2>();\n", ""),
    ("wait_for_copies<STAGES - 2>();", "wait_for_copies<STAGES - 1>();"),
    ("        commit_copies();\n", ""),
    ("auto As = shared + step % STAGES", "auto As = shared + (step + 1) % STAGES"),
    ("if (step + 1 >= STAGES - 1) find_window", "if (step + 1 >= STAGES) find_window")])
def test_a_fault_of_the_pipeline_is_seen(tmp_path, before, after):
    """Tiles are used before they are complete or overwritten too early; windows are found late."""
    try:
        results = conv_with(plant(tmp_path, "conv/11_running_indices.cu", before, after))
        assert any(np.isnan(a).any() for a in results)
    except launch.KernelError as error:
        if "window" in before:  # the bytes 0xFF as a window's offset
            assert re.search("accessed at index|misaligned load from", str(error))
        else:
            assert "unfinished asynchronous copies" in str(error)


@pytest.mark.parametrize("body, message", [
    ("    if (threadIdx.x < 16) mma(sum, words);",
     "a warp operation at line 7 is not reached by all lanes of its mask"),
    ("    copy_async(tile + threadIdx.x, y, true);", "a misaligned"),
    ("    copy_async(tile + 4 * threadIdx.x, y + 4 * threadIdx.x, threadIdx.x < 9);",
     r"argument 'y' \(32 elements\) accessed at index 32"),
    ("    copy_async(tile + 4 * threadIdx.x + 4, y, true);",
     r"dynamic shared memory \(512 bytes\) accessed at index 128"),
    ("    for (int i = 0; i < 65; ++i) copy_async(tile + 4 * threadIdx.x, y, true);",
     "more than 64 unfinished asynchronous copies")])
def test_faults_of_the_new_instructions_are_caught(tmp_path, body, message):
    path = tmp_path / "test.cu"
    declarations = ("    extern __shared__ __align__(16) float tile[];\n"
                    "    Words words = {}; float sum[4] = {};\n")
    path.write_text('#include "common.cuh"\n#include "tensor_cores.cuh"\n'
                    + HEAD.format(parameters="float* y", body=declarations + body))
    emulator = Emulator(precision="tf32")
    with pytest.raises(launch.KernelError, match=message):
        emulator.launch(str(path), "test", 1, 32, numbers(emulator, 32), shared=512)


LOAD4 = """    float4 v = *(const float4*)(x + 4 * threadIdx.x);
    y[threadIdx.x] = v.x + v.w;"""


def test_a_misaligned_vector_load_is_caught(tmp_path, emulator):
    path = write(tmp_path, "const real* __restrict__ x, real* __restrict__ y", LOAD4)
    x, y = numbers(emulator, 20), emulator.allocate(16).view(np.float32)
    emulator.launch(path, "test", 1, 4, x[4:], y)
    np.testing.assert_array_equal(emulator.download(y), [11, 19, 27, 35])
    misaligned = r"a misaligned load from argument 'x' \(16 elements\) at index"
    with pytest.raises(launch.KernelError, match=misaligned):
        emulator.launch(path, "test", 1, 4, x[1:17], y)
    outside = r"argument 'x' \(12 elements\) accessed at index 12"
    with pytest.raises(launch.KernelError, match=outside):
        emulator.launch(path, "test", 1, 4, x[4:16], y)


def test_a_misaligned_load_from_shared_memory_is_caught(tmp_path, emulator):
    path = write(tmp_path, "real* __restrict__ y", """    __shared__ __align__(16) real tile[8];
    tile[threadIdx.x] = 1;
    __syncthreads();
    y[threadIdx.x] = (*(const float4*)&tile[1]).x;""")
    message = "test.cu: test: a misaligned access in line 7"
    with pytest.raises(launch.KernelError, match=message):
        emulator.launch(path, "test", 1, 8, emulator.allocate(32).view(np.float32))


@pytest.mark.parametrize("body, message", [
    ("    if (threadIdx.x < 3) __syncthreads();",
     r"line 4 is not reached .* thread \((?![0-2],)\d+, 0, 0\) has returned, "
     r"by thread \([0-2], 0, 0\)"),
    ("    if (threadIdx.x < 32) __syncthreads();\n    else\n    __syncthreads();",
     r"at line [46] .* waits at line [46]"),
    ("    if (threadIdx.x < 40) __syncwarp();",
     "a warp operation at line 4 is not reached by all lanes of its mask"),
    ("    if (threadIdx.x < 40) __syncwarp(ALL_LANES); else __syncthreads();",
     "a warp operation at line 4"),
    ("    y[0] = __shfl_xor_sync(threadIdx.x % 2 ? 0x55555555 : ALL_LANES, y[0], 1);",
     "a warp operation at line 4")])
def test_divergence_is_caught(tmp_path, emulator, body, message):
    """A barrier that some threads, or some lanes of a warp, do not reach."""
    path = write(tmp_path, "real* __restrict__ y", body)
    with pytest.raises(launch.KernelError, match=message):
        emulator.launch(path, "test", 2, 64, emulator.allocate(256).view(np.float32))
    launch_copy(emulator)  # the emulator still works


@pytest.mark.parametrize("body, message", [
    ("    y[0] = 5 / (int(y[0]) - 1);",
     "test.cu: test: an integer divided by zero, or the lowest one by -1, in line 4, by thread"),
    ("    float a[4] = {y[0]};\n    y[1] = a[int(y[0]) + 3];",
     "an array accessed at index 4 in line 5"),
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


def kernel(body):
    return HEAD.format(parameters="float* y", body=body)


@pytest.mark.parametrize("text, message", [
    ("__shared__ float tile[64];\n" + kernel("    y[0] = tile[0];"), "inside the kernel"),
    (kernel("    __shared__ float a[4], b[4];\n    y[0] = a[0] + b[0];"), "one array a line"),
    (kernel("    __shared__ float a[4];\n" * 65), "at most 64 in a file")])
def test_shared_memory_that_cannot_be_rewritten(tmp_path, emulator, text, message):
    path = tmp_path / "test.cu"
    path.write_text(text)
    with pytest.raises(launch.LaunchError, match=message):
        emulator.launch(path, "test", 1, 1, numbers(emulator, 1))


ORDINARY_CUDA = '''// extern "C" __global__ __launch_bounds__(64) void old(float* y) {}
/* extern "C" __global__ */ constexpr int THREADS = 64;  // __global__
static __device__ __noinline__ float relu(float x) { return max(x, 0.0f); }
extern "C" __global__ __launch_bounds__(THREADS)
void test(const float * __restrict__ x,  // in
          float* y, /* out */ const int n) {
    static __shared__ volatile float  tile [64];
    tile[threadIdx.x] = relu(x[threadIdx.x] - 0.25f);
    __syncthreads();
    float value = expf(min(tile[n - 1 - threadIdx.x], 1.5f));
    y[threadIdx.x] = value + max(3000000000u, 5u) * 0.0f + fmodf(5, 3) + abs(-2);
}'''


def test_ordinary_cuda(tmp_path, emulator):
    """Comments anywhere, static shared memory, attributes of a function, CUDA's maths functions."""
    path = tmp_path / "test.cu"
    path.write_text(ORDINARY_CUDA)
    x = emulator.upload(np.linspace(-1, 3, 64, dtype=np.float32))
    y = emulator.allocate(256).view(np.float32)
    emulator.launch(path, "test", np.int64(2), 64, x, y, 64)
    expected = np.exp(np.clip(emulator.download(x)[::-1] - 0.25, 0, 1.5)) + 4
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
    launch_copy(emulator, arguments, grid=2)
    child = multiprocessing.get_context("fork").Process(
        target=launch_copy, args=(emulator, arguments, "activations.cu", 2))
    child.start()
    child.join(30)
    assert child.exitcode == 0


@pytest.mark.parametrize("allowed", [0, 1])
def test_threads_that_cannot_be_started(tmp_path, monkeypatch, allowed):
    """Fewer threads compute, or only the calling one; errors of the kernel are reported too."""
    started, start = [], threading.Thread.start

    def start_some(thread):
        if len(started) == allowed:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)
    monkeypatch.setattr(threading.Thread, "start", start_some)
    monkeypatch.setattr(emulator_module, "worker_pool", functools.cache(workers.Pool))
    emulator = Emulator(workers=4)
    for _ in range(3):
        y = emulator.allocate(4 * 4 * 64).view(np.float32)
        emulator.launch("activations.cu", "bias_activation", 4, 64,
                        numbers(emulator, 256), None, 0, y, 256, 1)
        np.testing.assert_array_equal(emulator.download(y), np.arange(256))
    assert len(started) == allowed
    with pytest.raises(launch.KernelError, match="accessed at index"):
        launch_copy(emulator, file=plant(tmp_path, "activations.cu", "if (i < n) ", ""), grid=4)


def test_an_error_in_a_worker_is_raised():
    """The calling thread waits for all workers, then raises the error of any of them."""
    def fail(_):
        if threading.current_thread() is not threading.main_thread():
            raise MemoryError("no scratch memory")
    with pytest.raises(MemoryError, match="no scratch memory"):
        workers.worker_pool(2).run(fail, 3)


def test_too_much_memory_is_refused(tmp_path, emulator):
    y = emulator.allocate(4).view(np.float32)
    shared = write(tmp_path, "real* y", "    __shared__ real big[16384];\n    y[0] = big[0];")
    message = "65536 bytes of shared memory, but a block gets 49152"
    with pytest.raises(launch.KernelError, match=message):
        emulator.launch(shared, "test", 1, 1, y)
    local = write(tmp_path, "real* y", """    volatile real big[16384];
    for (int i = 0; i < 16384; ++i) big[i] = i;
    y[0] = big[5];""")
    with pytest.raises(launch.KernelError, match="frame"):
        emulator.launch(local, "test", 1, 1, y)


def barriers():
    """Every __syncthreads in use, as (file, its number among those in the text with includes)."""
    found = []
    for path in FILES:
        pieces = launch.read(path).text.split("__syncthreads();")
        for number in range(1, len(pieces)):
            function = re.findall(r"(\w+)\([^;{]*\) \{\n", "".join(pieces[:number]))[-1]
            if f"{function}(" in path.read_text():  # else the file includes but does not call it
                found.append((ids(path), number))
    return found


def all_results(file, instead):
    """The results of all operations that use `file`, computed with the file `instead`."""
    if file.startswith("conv"):
        return conv_with(instead)
    steps = dict(softmax_step=file[8:-3]) if file.startswith("softmax/") else {}
    rng, ops = np.random.default_rng(0), cuda_ops.CudaOps(Emulator(), **steps)
    device_launch = ops.device.launch

    def redirected(name, *rest, **shared):
        device_launch(instead if name == file else name, *rest, **shared)
    ops.device.launch = redirected
    x, dy = (ops.asarray(rng.standard_normal((2, 40, 30, 5))) for _ in "xy")  # many slabs of rows
    zeros, ones = ops.asarray(np.zeros(5)), ops.asarray(np.ones(5))
    y, mean, var, _, _ = ops.batch_norm(x, ones, ones, zeros, ones)
    results = [y, mean, var]
    results += ops.batch_norm_grad(dy, x, y, ones, mean, var)
    results += ops.bias_activation_grad(dy, y)
    results += ops.softmax_grad(dy, y)
    results += [
        ops.feature_matching(x, dy)[0],
        ops.feature_matching(x, dy, "paired")[0],
        ops.moment_matching(x, dy, 0.5)[0],
        ops.bce_with_logits(x, dy)[0],
        ops.softmax_cross_entropy(x, dy)[0],
    ]
    return [ops.asnumpy(a) for a in results]


@functools.cache
def right_results(file):
    return all_results(file, launch.FOLDER / file)


@pytest.mark.slow
@pytest.mark.parametrize("file, number", barriers())
def test_every_removed_barrier_is_caught(tmp_path, file, number):
    """Without any one __syncthreads, results change or an index is wrong: all are needed."""
    right = right_results(file)
    planted = plant(tmp_path, file, "__syncthreads();", "", number)
    try:
        assert any(not np.array_equal(a, b)
                   for _ in range(3) for a, b in zip(right, all_results(file, planted)))
    except launch.KernelError as error:
        assert re.search("accessed at index|misaligned", str(error))


# --------------------------------------------------------------------------- the emulator's CUDA
WARP_OPERATIONS = """
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
    if (atomicCAS(&count[3], 0, v + 1) == 0) atomicExch(&count[4], v);"""


def test_shuffles_votes_and_atomics(tmp_path, emulator):
    """Against their definitions in NumPy: two warps of threads, and masks of half a warp too."""
    parameters = "const int* __restrict__ x, int* __restrict__ y, int* __restrict__ count"
    path = write(tmp_path, parameters, WARP_OPERATIONS)
    x, y = numbers(emulator, 64, np.int32), emulator.allocate(4 * 448).view(np.int32)
    count = emulator.upload(np.array([0, 0, 99, 0, 0], np.int32))
    emulator.launch(path, "test", 50, 64, x, y, count)
    y, count = emulator.download(y).reshape(7, 64), emulator.download(count)
    t = np.arange(64)
    lane, warp = t % 32, t - t % 32
    expected = [
        warp + 5,
        np.where(lane + 3 < 32, t + 3, t),
        np.where(lane >= 3, t - 3, t),
        t ^ 6,
        t - t % 16 + 2,
    ]
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
    outside = r"dynamic shared memory \(28 bytes\) accessed at index 7"
    with pytest.raises(launch.KernelError, match=outside):
        emulator.launch(path, "test", 1, 8, y, 8, shared=28)
    emulator.launch(path, "test", 1, 8, y, 8, shared=60000)
    too_much = "110000 bytes of dynamic shared memory; a block gets 101376"
    with pytest.raises(launch.LaunchError, match=too_much):
        emulator.launch(path, "test", 1, 8, y, 8, shared=110000)


def test_threads_and_blocks_run_in_shuffled_order(tmp_path, emulator):
    """A race: threads take numbers in an order that differs from launch to launch."""
    body = "    y[blockIdx.x * 64 + threadIdx.x] = atomicAdd(counter, 1);"
    path = write(tmp_path, "int* counter, int* y", body)
    orders = []
    for _ in range(3):
        counter = emulator.upload(np.zeros(1, np.int32))
        y = emulator.allocate(4 * 64 * 4).view(np.int32)
        emulator.launch(path, "test", 4, 64, counter, y)
        orders.append(tuple(emulator.download(y)))
        assert sorted(orders[-1]) == list(range(256)) and orders[-1] != tuple(range(256))
    assert len(set(orders)) == 3


# --------------------------------------------------------------------------------------- graphs
def gpu_that_fails_in(step):
    """A Gpu whose streams fail in one step of a capture."""
    class Stream(contextlib.nullcontext):
        def __init__(self, non_blocking):
            super().__init__()

        def __getattr__(self, name):  # begin_capture and end_capture
            def call():
                if name == step:
                    raise RuntimeError("cudaErrorNotSupported: not on this card\nand more")
            return call
    return fake_gpu(Stream=Stream)


@pytest.mark.parametrize("fails_in", ["begin_capture", "run", "end_capture"])
def test_a_card_that_cannot_record_goes_on_launch_by_launch(fails_in, capsys):
    device = gpu_that_fails_in(fails_in)

    def run():
        if device.recording is not None and fails_in == "run":
            raise RuntimeError("cudaErrorNotSupported: not on this card")
    assert device.record(run) is run and device.recording is None
    assert capsys.readouterr().err == ("No CUDA graph (cudaErrorNotSupported: not on this card): "
                                       "kernels are launched one by one, which is slower.\n")


@pytest.mark.parametrize("seconds, launched", [(0.1, ["run", "graph", "graph"]),
                                               (1.5, ["run", "run", "run"])])
def test_on_windows_a_long_step_is_no_graph(monkeypatch, seconds, launched):
    """Windows resets a GPU after two seconds of one piece of work."""
    done, clock = [], iter([0, seconds])
    stream = SimpleNamespace(synchronize=lambda: None)
    device = gpu_that_fails_in("nothing")
    device.cupy.cuda.get_current_stream = lambda: stream
    device.capture = lambda run: SimpleNamespace(launch=lambda: done.append("graph"))
    monkeypatch.setattr(gpu, "os", SimpleNamespace(name="nt"))
    monkeypatch.setattr(gpu, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    replay = device.record(lambda: done.append("run"))
    for _ in range(3):
        replay()
    assert done == launched


def test_a_mistake_while_recording_is_raised():
    device = gpu_that_fails_in("run")
    message = "an upload while operations are recorded"
    with pytest.raises(launch.LaunchError, match=message):
        device.record(lambda: device.write(None, None))


# ---------------------------------------------------------------------------------------- cache
def test_compiled_files_are_cached_by_content(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMGAN_CACHE", str(tmp_path / "cache"))
    built = []

    def build(path):
        built.append(path)
        path.write_text("built")
    for key in (("a", "b"), ("a", "b"), ("a", "c"), ("ab",)):
        assert launch.cached(key, ".so", build).read_text() == "built"
    assert len(built) == 3

    def fails(path):
        path.write_text("half")
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        launch.cached(("d",), ".so", fails)
    files = sorted((tmp_path / "cache").iterdir())
    assert [path.suffix for path in files] == [".sha256", ".so"] * 3, "something half-built is left"


def test_a_compiled_file_that_is_damaged_is_made_again(tmp_path, monkeypatch):
    """A library with a wrong byte would end the process when it is loaded (SIGBUS)."""
    monkeypatch.setenv("SEMGAN_CACHE", str(tmp_path / "cache"))
    build = lambda path: path.write_bytes(b"built")
    path = launch.cached(("a",), ".so", build)
    for damage in (lambda: path.write_bytes(b"bui"), lambda: path.write_bytes(b"buIlt"),
                   path.unlink, path.with_suffix(".sha256").unlink,
                   lambda: path.with_suffix(".sha256").write_text("0")):
        damage()
        assert launch.cached(("a",), ".so", build) == path and path.read_bytes() == b"built"


@pytest.mark.parametrize("variable, value, message", [
    ("CXX", "false", "CXX=false is not a C++ compiler that runs here"),
    ("SEMGAN_CACHE", "/dev/null/cache", "set SEMGAN_CACHE to a folder")])
def test_a_compiler_or_cache_that_does_not_work_is_one_line(tmp_path, variable, value, message):
    command = [sys.executable, launch.FOLDER.parent / "semgan.py", "--device", "emulator",
               "--out", tmp_path / "run"]
    done = subprocess.run(command, capture_output=True, text=True,
                          env=os.environ | {variable: value})
    assert done.returncode == 2 and message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


WITHOUT_COMPILER = """
import importlib.util, shutil, sys
sys.path.insert(0, sys.argv[1])
from app.command_line import main
shutil.which = lambda _: None
importlib.util.find_spec = lambda _: None
main(["--device", "emulator", "--out", sys.argv[2]])
"""


def test_without_a_compiler_one_line_says_what_to_install(tmp_path):
    command = [sys.executable, "-c", WITHOUT_COMPILER, str(launch.FOLDER.parent),
               str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and not (tmp_path / "run").exists()
    assert done.stderr.strip() == ("semgan: device 'emulator': needs a C++ compiler: install g++ "
                                   "or clang++, or run: pip install ziglang")
