// Step 1: a thread a pixel. The definition of softmax over the class channel, fused with the bias
// before it (paper, eq. 2), and of its gradient.
// Architectures: sm_75 sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//   softmax        p[k] = exp(x[k] + bias[k]) / sum over j of exp(x[j] + bias[j])
//   softmax_grad   dx[k] = p[k] (dp[k] - sum over j of p[j] dp[j]), and the sums of dx over each
//                  slab of rows, which reductions.cu adds up to dbias
//
//   shapes: x, p, dx (rows, K), bias (K,), partial (slabs, K)
//
// The largest value of a pixel is subtracted first, or exp would overflow. That makes three passes
// over x: the largest value, the sum, the results. It does little arithmetic, so its time is that
// of memory. Neighbouring threads read numbers that are K apart: a warp touches 32 pieces of memory
// in every load.
//
// All steps have the same kernels with the same parameters. A block has (lanes of a pixel, pixels)
// threads; here (1, 256).
#include "common.cuh"

constexpr int THREADS = 256;
constexpr int WIDEST = 1;  // lanes that share a pixel, at most

extern "C" __global__ __launch_bounds__(THREADS)
void softmax(const real* __restrict__ x, const real* __restrict__ bias_or_null,
             real* __restrict__ p, int rows, int K) {
    int row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;
    auto value = [&](int k) {
        return x[row * K + k] + (bias_or_null ? bias_or_null[k] : 0);
    };
    real largest = value(0), sum = 0;
    for (int k = 1; k < K; ++k) largest = fmax(largest, value(k));
    for (int k = 0; k < K; ++k) sum += exp(value(k) - largest);
    for (int k = 0; k < K; ++k) p[row * K + k] = exp(value(k) - largest) / sum;
}

extern "C" __global__ __launch_bounds__(THREADS)
void softmax_grad(const real* __restrict__ dp, const real* __restrict__ p, real* __restrict__ dx,
                  real* __restrict__ partial_or_null, int rows, int K, int slab) {
    int first = blockIdx.y * slab;
    int last = min(rows, first + slab);
    for (int row = first + threadIdx.y; row < last; row += blockDim.y) {
        real dot = 0;
        for (int k = 0; k < K; ++k) dot += p[row * K + k] * dp[row * K + k];
        for (int k = 0; k < K; ++k) dx[row * K + k] = p[row * K + k] * (dp[row * K + k] - dot);
    }
    if (!partial_or_null) return;
    __syncthreads();  // all of the slab's dx has been written; from here a thread takes a class
    for (int k = threadIdx.y; k < K; k += blockDim.y) {
        real sum = 0;
        for (int row = first; row < last; ++row) sum += dx[row * K + k];
        partial_or_null[blockIdx.y * K + k] = sum;
    }
}
