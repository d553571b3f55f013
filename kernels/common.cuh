// Shared by several kernels. `real` is a compile option: float, or double for gradient checks.
#pragma once
typedef unsigned char uint8;
typedef unsigned short bf16;  // the upper half of a float

// The sizes of a convolution: x (B, H, W, Cin), w (kh, kw, Cin, Cout), y (B, Ho, Wo, Cout); strides
// and padding along y and x.
struct Conv { int B, H, W, Cin, Ho, Wo, Cout, kh, kw, sy, sx, py, px; };

// How a matrix lies in memory that is a factor of a product. A line is a row of the left factor or
// a column of the right one. In BY_LINE the terms of a line are neighbours, in BY_TERM the lines of
// a term. Neighbouring threads load neighbours.
enum Layout { BY_LINE, BY_TERM };

constexpr int WARP = 32;
constexpr unsigned ALL_LANES = 0xFFFFFFFF;

// ------------------------------------------------------------------------------- activations
// The gradients are computed from the output y = act(x), which all three activations allow.
enum Activation { NO_ACTIVATION, RELU, LEAKY_RELU, TANH };  // in the order of contract.py
constexpr real LEAKY_SLOPE = real(0.2);

__device__ __forceinline__ real activate(real x, int activation) {
    if (activation == RELU) return x < 0 ? 0 : x;  // NaN stays NaN
    if (activation == LEAKY_RELU) return x > 0 ? x : LEAKY_SLOPE * x;
    if (activation == TANH) return tanh(x);
    return x;
}

__device__ __forceinline__ real activate_grad(real dy, real y, int activation) {
    if (activation == RELU) return y > 0 ? dy : 0;
    if (activation == LEAKY_RELU) return y > 0 ? dy : LEAKY_SLOPE * dy;
    if (activation == TANH) return dy * (1 - y * y);
    return dy;
}

// -------------------------------------------------------------------------------- reductions
// Always in the same order, because floating-point addition is not associative: the same numbers
// give the same bits.

// Sum over groups of `width` lanes (a power of two, up to 32); every lane of the group receives it.
__device__ __forceinline__ real group_sum(real v, int width) {
    for (int bits = width / 2; bits > 0; bits /= 2) v += __shfl_xor_sync(ALL_LANES, v, bits, width);
    return v;
}

// Sum over all threads of a one-dimensional block (a multiple of 32, up to 1024). Only thread 0
// receives it.
__device__ __forceinline__ real block_sum(real v, real* warp_sums /* shared, [32] */) {
    v = group_sum(v, WARP);
    if (threadIdx.x % WARP == 0) warp_sums[threadIdx.x / WARP] = v;
    __syncthreads();
    if (threadIdx.x >= WARP) return v;
    return group_sum(threadIdx.x < blockDim.x / WARP ? warp_sums[threadIdx.x] : 0, WARP);
}
