// Softmax over the class channel, fused with the bias before it (paper, eq. 2); and its gradient.
// Architectures: sm_75 sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//   softmax        p[k] = exp(x[k] + bias[k]) / sum over j of exp(x[j] + bias[j])       x, p (rows, K), bias (K,)
//   softmax_grad   dx[k] = p[k] (dp[k] - sum over j of p[j] dp[j])                      dbias = sum of dx: reductions.cu
//
// A pixel belongs to a group of `width` lanes of one warp, width the power of two that K needs, up to 32: neighbouring lanes
// read neighbouring classes, and sums run through shuffles. Largest value and sum are found in the same pass ("online",
// Milakov and Gimelshein 2018): when a larger value comes, the sum so far is scaled down. Bound by memory.
#include "common.cuh"

constexpr int THREADS = 256;
constexpr real LOWEST = real(-3e38);  // not infinity: infinity - infinity is NaN

extern "C" __global__ __launch_bounds__(THREADS)
void softmax(const real* __restrict__ x, const real* __restrict__ bias_or_null, real* __restrict__ p, int rows, int K, int width) {
    int row = (blockIdx.x * blockDim.x + threadIdx.x) / width, lane = threadIdx.x % width;
    real largest = LOWEST, sum = 0;  // sum of exp(value - largest)
    if (row < rows)  // lanes past the end stay: the shuffles below need whole warps
        for (int k = lane; k < K; k += width) {
            real v = x[row * K + k] + (bias_or_null ? bias_or_null[k] : 0), before = largest;
            largest = fmax(largest, v);
            sum = sum * exp(before - largest) + exp(v - largest);
        }
    for (int bits = width / 2; bits > 0; bits /= 2) {
        real other = __shfl_xor_sync(ALL_LANES, largest, bits, width), other_sum = __shfl_xor_sync(ALL_LANES, sum, bits, width);
        real before = largest;
        largest = fmax(largest, other);
        sum = sum * exp(before - largest) + other_sum * exp(other - largest);
    }
    if (row < rows)
        for (int k = lane; k < K; k += width)
            p[row * K + k] = exp(x[row * K + k] + (bias_or_null ? bias_or_null[k] : 0) - largest) / sum;
}

extern "C" __global__ __launch_bounds__(THREADS)
void softmax_grad(const real* __restrict__ dp, const real* __restrict__ p, real* __restrict__ dx, int rows, int K, int width) {
    int row = (blockIdx.x * blockDim.x + threadIdx.x) / width, lane = threadIdx.x % width;
    real dot = 0;
    if (row < rows)
        for (int k = lane; k < K; k += width) dot += p[row * K + k] * dp[row * K + k];
    dot = group_sum(dot, width);
    if (row < rows)
        for (int k = lane; k < K; k += width) dx[row * K + k] = p[row * K + k] * (dp[row * K + k] - dot);
}
