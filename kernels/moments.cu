// Moment matching: means and standard deviations of pooled features, of real and of generated maps.
// Architectures: sm_75 sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//   pool_features      pooled (maps, C) = mean of x (maps, pixels, C) over the pixels
//   match_moments      from both sets of pooled features (B, C), with mean m, variance v and
//                      standard deviation s over the B maps of a channel:
//                      partial = [(m_fake - m_real)^2 + (s_fake - s_real)^2] / (v_real C), summed
//                      over the channels of a block; dpooled = its gradient, times weight / pixels
//   add_to_pixels      dfake = dpooled of its map and channel, for every pixel; if `add` is set,
//                      dfake holds the gradient from the layers above, and this adds to it
//
// A block of pool_features takes 32 channels of one map, so that its loads are next to each other;
// its 8 rows of threads share the pixels. The other two have a thread per channel and per number.
#include "common.cuh"

constexpr int THREADS = 256;
constexpr int ROWS = THREADS / WARP;
constexpr real SMALL_VARIANCE = real(1e-10);  // both as in contract.py
constexpr real SMALL_DIVISOR = real(1e-6);

extern "C" __global__ __launch_bounds__(THREADS)
void pool_features(const real* __restrict__ x, real* __restrict__ pooled, int pixels, int C) {
    __shared__ real sums[ROWS][WARP];
    int c = blockIdx.x * WARP + threadIdx.x;
    int map = blockIdx.y;
    real sum = 0;
    if (c < C) {
        #pragma unroll 4
        for (int pixel = threadIdx.y; pixel < pixels; pixel += ROWS)
            sum += x[(map * pixels + pixel) * C + c];
    }
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y > 0 || c >= C) return;
    for (int row = 1; row < ROWS; ++row) sum += sums[row][threadIdx.x];
    pooled[map * C + c] = sum / pixels;
}

struct Moments { real mean, variance; };

// Over the maps of a batch, for one channel of pooled features. With one map the variance is 1.
template <class Pointer>
__device__ __forceinline__ Moments moments(Pointer pooled, int B, int c, int C) {
    real mean = 0;
    for (int b = 0; b < B; ++b) mean += pooled[b * C + c];
    mean /= B;
    if (B == 1) return {mean, 1};
    real squares = 0;
    for (int b = 0; b < B; ++b) {
        real deviation = pooled[b * C + c] - mean;
        squares += deviation * deviation;
    }
    return {mean, squares / (B - 1) + SMALL_VARIANCE};
}

extern "C" __global__ __launch_bounds__(THREADS)
void match_moments(const real* __restrict__ pooled_real, const real* __restrict__ pooled_fake,
                   real* __restrict__ partial, real* __restrict__ dpooled, real weight,
                   int pixels, int B, int C) {
    __shared__ real warp_sums[WARP];
    int c = blockIdx.x * blockDim.x + threadIdx.x;
    real loss = 0;
    if (c < C) {
        Moments of_real = moments(pooled_real, B, c, C);
        Moments of_fake = moments(pooled_fake, B, c, C);
        real scale = 1 / (C * (of_real.variance + SMALL_DIVISOR));
        real gap = of_fake.mean - of_real.mean;
        real deviation = sqrt(of_fake.variance);
        real deviation_gap = deviation - sqrt(of_real.variance);  // 0 with one map
        loss = scale * (gap * gap + deviation_gap * deviation_gap);
        real factor = 2 * weight * scale / pixels;
        real spread = B > 1 ? deviation_gap / ((B - 1) * deviation) : 0;
        for (int b = 0; b < B; ++b) {
            real distance = pooled_fake[b * C + c] - of_fake.mean;
            dpooled[b * C + c] = factor * (gap / B + spread * distance);
        }
    }
    loss = block_sum(loss, warp_sums);
    if (threadIdx.x == 0) partial[blockIdx.x] = loss;
}

extern "C" __global__ __launch_bounds__(THREADS)
void add_to_pixels(const real* __restrict__ dpooled, real* __restrict__ dfake, int add,
                   int n, int pixels, int C) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int map = i / (pixels * C);
    dfake[i] = dpooled[map * C + i % C] + (add ? dfake[i] : 0);
}
