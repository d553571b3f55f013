// Sums over maps and pixels, in two stages of fixed order: no atomics, so the same bits every time.
// Architectures: sm_75 sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//   column_sums   x (rows, C) -> partial (slabs, C): block (column tile, slab) sums its slab of rows
//   sum_slices    partial (slices, n) -> out (n): a thread an output, slice by slice
//   sum_all       partial (n) -> out (1), scaled: one block
//
// Bound by memory: column_sums reads every number once. A block is COLUMNS wide or as wide as C needs, so that its threads
// read neighbouring numbers.
#include "common.cuh"

constexpr int THREADS = 256;

extern "C" __global__ __launch_bounds__(THREADS)
void column_sums(const real* __restrict__ x, real* __restrict__ partial, int rows, int C, int slab) {
    __shared__ real values[THREADS];
    int c = blockIdx.x * blockDim.x + threadIdx.x, first = blockIdx.y * slab, last = min(rows, first + slab);
    real sum = 0;
    if (c < C)
        for (int row = first + threadIdx.y; row < last; row += blockDim.y) sum += x[row * C + c];
    sum = column_sum(sum, values);
    if (threadIdx.y == 0 && c < C) partial[blockIdx.y * C + c] = sum;
}

extern "C" __global__ __launch_bounds__(THREADS)
void sum_slices(const real* __restrict__ partial, real* __restrict__ out, int slices, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    real sum = 0;
    for (int slice = 0; slice < slices; ++slice) sum += partial[slice * n + i];
    out[i] = sum;
}

extern "C" __global__ __launch_bounds__(THREADS)
void sum_all(const real* __restrict__ partial, real* __restrict__ out, int n, real scale) {
    __shared__ real warp_sums[WARP];
    real sum = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += partial[i];
    sum = block_sum(sum, warp_sums);
    if (threadIdx.x == 0) out[0] = scale * sum;
}
