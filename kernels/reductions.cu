// Sums of what other kernels left: their partial sums, in a fixed order. No atomics, so the same bits every time.
// Architectures: sm_75 sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//   sum_slices   partial (slices, n) -> out (n); a second sum of the same shape may come along, as blockIdx.z = 1
//   sum_all      partial (n) -> out (1), scaled: one block
//
// sum_slices has a block of (width, height) threads: a thread owns four neighbouring outputs and every height-th slice. Weight
// gradients are few slices of many numbers: height 1. Sums over pixels are many slices of few: several threads share an
// output, else a handful of threads would wait for one slice after the other.
#include "common.cuh"
#include "vectors.cuh"

constexpr int THREADS = 256;

extern "C" __global__ __launch_bounds__(THREADS)
void sum_slices(const real* __restrict__ partial, real* __restrict__ out, const real* __restrict__ partial_2_or_null,
                real* __restrict__ out_2_or_null, int slices, int n) {
    __shared__ Four sums[THREADS];
    auto from = blockIdx.z ? partial_2_or_null : partial;
    auto to = blockIdx.z ? out_2_or_null : out;
    Columns mine = columns(slices, slices);
    Four sum = {};
    for_rows(mine, n, [&](auto io, int slice) {
        Four f = io.load(from, slice * n + mine.c, slice * n + n);
        for (int k = 0; k < FOUR; ++k) sum.v[k] += f.v[k];
    }, from);
    sum = column_sum(sum, sums);
    if (threadIdx.y == 0) store4(to, mine.c, n, sum);
}

extern "C" __global__ __launch_bounds__(THREADS)
void sum_all(const real* __restrict__ partial, real* __restrict__ out, int n, real scale) {
    __shared__ real warp_sums[WARP];
    real sum = 0;
    #pragma unroll 4
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += partial[i];
    sum = block_sum(sum, warp_sums);
    if (threadIdx.x == 0) out[0] = scale * sum;
}
