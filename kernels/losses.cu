// The losses, each with its gradient.
// Architectures: sm_75 sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//   bce_with_logits           loss = weight times the mean of log(1 + exp(-|z|)) + max(z, 0) - z t,
//                             dlogits = weight (sigmoid(z) - t) / n, in one block
//   softmax_cross_entropy     loss = mean over the pixels of -sum over k of t[k] log p[k], where
//                             p = softmax(x); dx[k] = (p[k] sum(t) - t[k]) / pixels
//   feature_matching_mean     gap = mean over b of fake - mean over b of x,
//                             loss = mean of gap^2 over (H, W, C); if `unbiased` is set,
//                             of gap^2 - (variance of fake) / B
//   feature_matching_paired   loss = mean of |fake - x| over all numbers
//
// In softmax_cross_entropy, x, target and dx are (pixels, K), and each thread computes one pixel.
// In feature matching, x and fake (B, positions) are a layer's features of real and of generated
// maps. All but the first kernel write one sum per block, which reductions.cu adds up and scales.
// If `add` is set, dfake holds the gradient from the layers above, and they add to it. Then dfake
// goes through the gradient of the layer's activation, as in bias_activation_grad. In
// feature_matching_mean each thread computes one position (h, w, c) of all B maps. Limited by
// memory bandwidth.
#include "common.cuh"

constexpr int THREADS = 256;

extern "C" __global__ __launch_bounds__(THREADS)
void bce_with_logits(const real* __restrict__ logits, const real* __restrict__ target,
                     real weight, real* __restrict__ loss, real* __restrict__ dlogits, int n) {
    __shared__ real warp_sums[WARP];
    real sum = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        // e <= 1: no overflow for any z
        real z = logits[i];
        real t = target[i];
        real e = exp(-fabs(z));
        sum += log1p(e) + fmax(z, real(0)) - z * t;
        dlogits[i] = ((z >= 0 ? 1 : e) / (1 + e) - t) * (weight / n);
    }
    sum = block_sum(sum, warp_sums);
    if (threadIdx.x == 0) loss[0] = sum * weight / n;
}

extern "C" __global__ __launch_bounds__(THREADS)
void softmax_cross_entropy(const real* __restrict__ x, const real* __restrict__ target,
                           real* __restrict__ partial, real* __restrict__ dx, int pixels, int K) {
    __shared__ real warp_sums[WARP];
    int pixel = blockIdx.x * blockDim.x + threadIdx.x;
    real loss = 0;
    if (pixel < pixels) {
        int first = pixel * K, last = first + K;
        real largest = x[first], sum = 0, total = 0;
        for (int i = first + 1; i < last; ++i) largest = fmax(largest, x[i]);
        for (int i = first; i < last; ++i) {
            sum += exp(x[i] - largest);
            total += target[i];
            loss -= target[i] * (x[i] - largest);
        }
        loss += total * log(sum);
        for (int i = first; i < last; ++i)
            dx[i] = (exp(x[i] - largest) / sum * total - target[i]) / pixels;
    }
    loss = block_sum(loss, warp_sums);
    if (threadIdx.x == 0) partial[blockIdx.x] = loss;
}

extern "C" __global__ __launch_bounds__(THREADS)
void feature_matching_mean(const real* __restrict__ x, const real* __restrict__ fake,
                           real* __restrict__ partial, real* __restrict__ dfake, int add,
                           int activation, int unbiased, int B, int positions) {
    __shared__ real warp_sums[WARP];
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    real loss = 0;
    if (i < positions) {
        real mean = 0, gap = 0;
        #pragma unroll 8
        for (int b = 0; b < B; ++b) {
            mean += fake[b * positions + i];
            gap += fake[b * positions + i] - x[b * positions + i];
        }
        mean /= B;
        gap /= B;
        real share = unbiased && B > 1 ? real(1) / (B - 1) : 0;  // of each squared deviation
        real scale = 2 / (real(B) * positions);
        real squares = 0;
        #pragma unroll 8
        for (int b = 0, j = i; b < B; ++b, j += positions) {
            real deviation = fake[j] - mean;
            squares += deviation * deviation;
            real gradient = scale * (gap - share * deviation);
            dfake[j] = activate_grad(gradient + (add ? dfake[j] : 0), fake[j], activation);
        }
        loss = gap * gap - share * squares / B;
    }
    loss = block_sum(loss, warp_sums);
    if (threadIdx.x == 0) partial[blockIdx.x] = loss;
}

extern "C" __global__ __launch_bounds__(THREADS)
void feature_matching_paired(const real* __restrict__ x, const real* __restrict__ fake,
                             real* __restrict__ partial, real* __restrict__ dfake, int add,
                             int activation, int n) {
    __shared__ real warp_sums[WARP];
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    real gap = 0;
    if (i < n) {
        gap = fake[i] - x[i];
        real gradient = real((gap > 0) - (gap < 0)) / n;
        dfake[i] = activate_grad(gradient + (add ? dfake[i] : 0), fake[i], activation);
    }
    gap = block_sum(fabs(gap), warp_sums);
    if (threadIdx.x == 0) partial[blockIdx.x] = gap;
}
