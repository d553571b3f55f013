// Adds up the partial sums of other kernels, always in the same order. Without atomics, the same
// numbers give the same bits every time.
// Architectures: sm_75 sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//   sum_slices   partial (slices, n) -> out (n); blockIdx.z = 1 does the same for a second pair
//   sum_all      partial (n) -> out (1), times `scale`; one block
//
// sum_slices has blocks of (width, height) threads: each thread adds up every height-th slice of
// four neighbouring outputs. Weight gradients are few slices of many numbers, so height is 1. Sums
// over pixels are many slices of few numbers: there several threads share an output. Otherwise a
// handful of threads would read one slice after another.
#include "common.cuh"
#include "vectors.cuh"

constexpr int THREADS = 256;

extern "C" __global__ __launch_bounds__(THREADS)
void sum_slices(const real* __restrict__ partial, real* __restrict__ out,
                const real* __restrict__ partial_2_or_null, real* __restrict__ out_2_or_null,
                int slices, int n) {
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
