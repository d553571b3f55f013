"""Counts of reads, writes, sectors and bank conflicts, against kernels counted by hand."""
import numpy as np
import pytest

from kernels.cuda_ops import CudaOps
from kernels.emulator import Emulator
from kernels.emulator_counts import Counts, warp_accesses

HEAD = """
extern "C" __global__ __launch_bounds__(256)
void test(const float* __restrict__ x, float* __restrict__ y, int n) {
    int t = threadIdx.x, i = blockIdx.x * blockDim.x + t;
"""
TILE = """    __shared__ float s[32][%d];
    for (int row = t / 32; row < 32; row += 8) s[row][t %% 32] = x[row * 32 + t %% 32];
    __syncthreads();
    for (int row = t / 32; row < 32; row += 8) y[row * 32 + t %% 32] = s[t %% 32][row];
"""
SUM = """    __shared__ float s[256];
    s[t] = x[i];
    for (int k = 128; k > 0; k /= 2) {
        __syncthreads();
        if (t < k) s[t] += s[t + k];
    }
    if (t == 0) y[blockIdx.x] = s[0];
"""
# name: (body, blocks, what is counted). Every block has 256 threads, 8 warps.
CASES = {
    "copy": ("y[i] = x[i];", 2, dict(global_reads=512, global_writes=512, global_read_bytes=2048,
                                     global_accesses=32, sectors=128, shared_accesses=0)),
    "copy_in_fours": ("((float4*)y)[i] = ((const float4*)x)[i];", 1,
                      dict(global_read_bytes=4096, global_write_bytes=4096, sectors=256)),
    "fours_through_registers": ("float4 f = ((const float4*)x)[i];\n    f.x += f.w; f.z *= f.y;\n"
                                "    ((float4*)y)[i] = f;", 1,
                                dict(global_read_bytes=4096, global_accesses=16, sectors=256)),
    "every_second": ("y[i] = x[2 * i];", 2, dict(global_accesses=32, sectors=16 * 8 + 16 * 4)),
    "every_eighth": ("y[i] = x[i * 8 % 1024];", 1, dict(sectors=8 * 32 + 8 * 4)),
    "one_for_all": ("y[i] = x[7];", 1, dict(global_reads=256, sectors=8 + 8 * 4)),
    "shifted_by_one": ("y[i] = x[i + 1];", 1, dict(sectors=8 * 5 + 8 * 4)),
    "transpose": (TILE % 32, 1, dict(shared_reads=1024, shared_writes=1024, shared_accesses=64,
                                     bank_conflicts=32 * 31, sectors=256, barriers=1)),
    "transpose_padded": (TILE % 33, 1, dict(shared_accesses=64, bank_conflicts=0)),
    "stride_of_two": ("    __shared__ float s[512];\n    s[2 * t] = 1;", 1,
                      dict(shared_writes=256, shared_accesses=8, bank_conflicts=8)),
    "one_word_for_all": ("    __shared__ float s[4];\n    if (t < 4) s[t] = t;\n"
                         "    __syncthreads();\n    y[i] = s[2];", 1,
                         dict(shared_accesses=9, bank_conflicts=0)),
    "vectors_in_shared": ("    __shared__ __align__(16) float s[1024];\n"
                          "    *(float4*)&s[4 * t] = {};", 1,
                          dict(shared_writes=256, shared_accesses=32, bank_conflicts=0)),
    "sum": (SUM, 3, dict(global_reads=768, global_writes=3, shared_writes=3 * (256 + 255),
                         barriers=3 * 8)),
    "atomics": ("atomicAdd(&y[0], x[i]);", 2, dict(atomics=512, global_reads=512)),
    "nothing": ("if (n < 0) y[i] = 0;", 2, dict(global_writes=0, sectors=0, global_accesses=0)),
}


def launched(folder, body, blocks, **options):
    path = folder / "test.cu"
    path.write_text(HEAD + body + "\n}\n")
    device = Emulator(count=True, **options)
    x, y = (device.upload(np.arange(1100, dtype=np.float32)) for _ in "xy")
    device.launch(path, "test", blocks, 256, x, y, 1024)
    return device


@pytest.mark.parametrize("name", CASES)
def test_counts(tmp_path, name):
    body, blocks, expected = CASES[name]
    found = vars(launched(tmp_path, body, blocks).counts["test"])
    assert {key: found[key] for key in expected} == expected and found["launches"] == 1


def test_launches_add_up(tmp_path):
    device = launched(tmp_path, "y[i] = x[i];", 2)
    once = Counts(**vars(device.counts["test"]))
    x, y = (device.upload(np.zeros(1100, np.float32)) for _ in "xy")
    device.launch(tmp_path / "test.cu", "test", 2, 256, x, y, 1024)
    assert vars(device.counts["test"]) == {name: 2 * n for name, n in vars(once).items()}


def test_the_addresses_of_a_warp(tmp_path):
    """A lane for each of 32 offsets, in bytes; -1 for lanes that do not take part."""
    device = launched(tmp_path, "y[i] = x[2 * i];\n    if (t % 2) y[t] = 0;", 2, check_races=False)
    read, write, odd = warp_accesses(device.accesses["test"], block=1, warp=2)
    lanes = 256 + 64 + np.arange(32)
    assert read[:2] == ("read", 0) and write[:2] == ("write", 1) and odd[0] == "write"
    np.testing.assert_array_equal(read[2], 4 * 2 * lanes)
    np.testing.assert_array_equal(write[2], 4 * lanes)
    np.testing.assert_array_equal(odd[2], np.where(lanes % 2, 4 * (lanes - 256), -1))


def test_the_projects_kernels():
    """Softmax reads each number twice and writes it once; results are those without counting."""
    x = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
    device = Emulator(count=True)
    ops, plain = CudaOps(device), CudaOps(Emulator())
    p = ops.asnumpy(ops.softmax(ops.asarray(x)))
    np.testing.assert_array_equal(p, plain.asnumpy(plain.softmax(plain.asarray(x))))
    counts = device.counts["softmax"]
    assert counts.global_read_bytes == 2 * x.nbytes and counts.global_write_bytes == x.nbytes


def test_too_many_accesses_are_counted_but_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("kernels.emulator_counts.MOST", 100)
    counts = launched(tmp_path, "y[i] = x[i];", 2).counts["test"]
    assert counts.global_reads == 512 and counts.sectors is None
