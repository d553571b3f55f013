// Step 3: the largest value and the sum in one pass ("online softmax").
// Architectures: sm_75 sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//   softmax        p (rows, K) of x (rows, K) and bias (K,)
//   softmax_grad   dx (rows, K), and its sums over each slab of rows
//
// New: when a larger value appears, the sum so far is scaled down by exp(before - largest), as if
// it had been subtracted from the start (Milakov and Gimelshein 2018). Two lanes merge their sums
// likewise.
//
// It buys: x is read twice instead of three times. The kernel is limited by memory bandwidth.
// With the writing of p it makes three passes instead of four, so its time falls towards 3/4.
// It costs: one exp more for every four classes. The gradient is that of step 2.
#include "common.cuh"
#include "vectors.cuh"

constexpr int THREADS = 256;
constexpr int WIDEST = 32;            // lanes that share a pixel, at most
constexpr real LOWEST = real(-3e38);  // not infinity: infinity - infinity is NaN

// f + bias, but LOWEST past the last class.
template <class Pointer>
__device__ __forceinline__ Four biased(Four f, Pointer bias_or_null, int k, int K) {
    Four b = bias_or_null ? load4(bias_or_null, k, K) : Four();
    for (int j = 0; j < FOUR; ++j) f.v[j] = k + j < K ? f.v[j] + b.v[j] : LOWEST;
    return f;
}

extern "C" __global__ __launch_bounds__(THREADS)
void softmax(const real* __restrict__ x, const real* __restrict__ bias_or_null,
             real* __restrict__ p, int rows, int K) {
    int row = blockIdx.x * blockDim.y + threadIdx.y;
    int lane = FOUR * threadIdx.x;
    int step = FOUR * blockDim.x;
    // lanes past the end stay, because shuffles need whole warps
    int begin = min(row, rows) * K;
    int end = min(begin + K, rows * K);
    real largest = LOWEST, sum = 0;  // sum of exp(value - largest)
    for (int k = lane; begin + k < end; k += step) {
        Four f = biased(load4(x, begin + k, end), bias_or_null, k, K);
        real before = largest;
        for (int j = 0; j < FOUR; ++j) largest = fmax(largest, f.v[j]);
        sum *= exp(before - largest);
        for (int j = 0; j < FOUR; ++j) sum += exp(f.v[j] - largest);
    }
    for (int bits = blockDim.x / 2; bits > 0; bits /= 2) {
        real other = __shfl_xor_sync(ALL_LANES, largest, bits);
        real other_sum = __shfl_xor_sync(ALL_LANES, sum, bits);
        real before = largest;
        largest = fmax(largest, other);
        sum = sum * exp(before - largest) + other_sum * exp(other - largest);
    }
    for (int k = lane; begin + k < end; k += step) {
        Four f = biased(load4(x, begin + k, end), bias_or_null, k, K);
        for (int j = 0; j < FOUR; ++j) f.v[j] = exp(f.v[j] - largest) / sum;
        store4(p, begin + k, end, f);
    }
}

extern "C" __global__ __launch_bounds__(THREADS)
void softmax_grad(const real* __restrict__ dp, const real* __restrict__ p, real* __restrict__ dx,
                  real* __restrict__ partial_or_null, int rows, int K, int slab) {
    __shared__ Four sums[THREADS];
    int c = columns(rows, slab).c;
    int first = blockIdx.y * slab;
    int last = min(rows, first + slab);
    Four sum = {};
    for (int above = first; above < last; above += blockDim.y) {  // all lanes, for the shuffles
        int begin = min(above + int(threadIdx.y), last) * K, end = min(begin + K, last * K);
        real dot = 0;
        for (int k = FOUR * threadIdx.x; begin + k < end; k += FOUR * blockDim.x) {
            Four f = load4(dp, begin + k, end), q = load4(p, begin + k, end);
            for (int j = 0; j < FOUR; ++j) dot += f.v[j] * q.v[j];
        }
        dot = group_sum(dot, blockDim.x);
        Four f = load4(dp, begin + c, end), q = load4(p, begin + c, end);
        for (int j = 0; j < FOUR; ++j) {
            f.v[j] = q.v[j] * (f.v[j] - dot);
            sum.v[j] += f.v[j];
        }
        store4(dx, begin + c, end, f);
    }
    if (!partial_or_null) return;
    sum = column_sum(sum, sums);
    if (threadIdx.y == 0) store4(partial_or_null, blockIdx.y * K + c, blockIdx.y * K + K, sum);
}
