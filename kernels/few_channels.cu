// Convolutions with few output channels: K classes or RGB would leave most of a tile's 64 columns
// empty. So the kw taps of a row become columns too, kw * C of them. A matrix product computes all
// products for every pixel, and the kernels below shift them and add them up.
// Architectures: sm_75 sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//   swap_axes          x (n, a, b, c) -> y (n, b, a, c), between the weights (kh, kw, Cin, Cout)
//                      and (kh, Cin, kw * Cout)
//   sum_shifted        y[ox, c] = act(bias + sum over kx of products[ox sx + kx - px, kx, c]),
//                      for conv
//   sum_shifted_grad   dproducts[x, kx, c] = dy[ox, c] where ox sx + kx - px = x, else 0,
//                      for conv_weight_grad
//   sum_strided        dx[ix, c] = act(bias + sum of products[ox, kx, c]
//                      where ox sx + kx - px = ix), for conv_input_grad
//
// Maps are rows of pixels (rows, Wo, C); products are (rows, W, kw, C). sum_shifted_grad moves
// operands, which are rounded already: dy has `stride` channels per pixel and dproducts `columns`,
// both with padding at the end; one row of threads writes one pixel. In the other kernels each
// thread computes one number of the result. All are limited by memory bandwidth.
#include "common.cuh"

constexpr int THREADS = 256;

extern "C" __global__ __launch_bounds__(THREADS)
void swap_axes(const real* __restrict__ x, real* __restrict__ y, int size, int A, int B, int C) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < size) y[i] = x[((i / C / A / B * A + i / C % A) * B + i / C / A % B) * C + i % C];
}

extern "C" __global__ __launch_bounds__(THREADS)
void sum_shifted(const real* __restrict__ products, const real* __restrict__ bias_or_null,
                 int activation, real* __restrict__ y, int size, int W, int Wo, int C, int kw,
                 int sx, int px) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;
    int row = i / C / Wo;
    int first = i / C % Wo * sx - px;
    int c = i % C;
    real sum = bias_or_null ? bias_or_null[c] : 0;
    for (int kx = max(0, -first); kx < min(kw, W - first); ++kx)
        sum += products[((row * W + first + kx) * kw + kx) * C + c];
    y[i] = activate(sum, activation);
}

extern "C" __global__ __launch_bounds__(THREADS)
void sum_shifted_grad(const operand* __restrict__ dy, operand* __restrict__ dproducts, int pixels,
                      int W, int Wo, int C, int stride, int columns, int kw, int sx, int px) {
    int pixel = blockIdx.x * blockDim.y + threadIdx.y;
    int x = pixel % W;
    int row = pixel / W;
    if (pixel >= pixels) return;
    for (int i = threadIdx.x; i < columns; i += blockDim.x) {
        int kx = i / C;
        int left = x - kx + px;  // = ox sx, if they meet
        int ox = left / sx;
        bool meets = kx < kw && left >= 0 && ox * sx == left && ox < Wo;
        dproducts[pixel * columns + i] =
            meets ? dy[(row * Wo + ox) * stride + i - kx * C] : operand(0);
    }
}

extern "C" __global__ __launch_bounds__(THREADS)
void sum_strided(const real* __restrict__ products, const real* __restrict__ bias_or_null,
                 int activation, real* __restrict__ dx, int size, int W, int Wo, int C, int kw,
                 int sx, int px) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;
    int row = i / C / W;
    int right = i / C % W + px;  // = ox sx + kx
    int c = i % C;
    real sum = bias_or_null ? bias_or_null[c] : 0;
    for (int kx = right % sx; kx < min(kw, right + 1); kx += sx) {
        int ox = (right - kx) / sx;
        if (ox < Wo) sum += products[((row * Wo + ox) * kw + kx) * C + c];
    }
    dx[i] = activate(sum, activation);
}
