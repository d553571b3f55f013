// Convolutions with few output channels, K classes or RGB: a tile of 64 columns would be almost empty. So the kw taps of a row
// stand side by side as columns (kw * C of them), the products are computed once for every pixel, and added up shifted.
// Architectures: sm_75 sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//   swap_axes           x (n, a, b, c) -> y (n, b, a, c): weights (kh, kw, Cin, Cout) <-> (kh, Cin, kw * Cout)
//   sum_shifted         y[ox, c] = act(sum over kx of products[ox sx + kx - px, kx, c] + bias)             conv
//   sum_shifted_grad    dproducts[x, kx, c] = dy[ox, c] where ox sx + kx - px = x, else 0                  conv_weight_grad
//   sum_strided         dx[ix, c] = act(sum over kx of products[ox, kx, c], ox sx + kx - px = ix, + bias)  conv_input_grad
//
// Rows of maps, (rows, Wo, C), and products (rows, W, kw, C). The third moves operands, rounded already: dy has `stride` channels
// and dproducts `columns`, filled up behind the true ones; a row of threads writes a pixel. In the others a thread owns one number
// of the result. Bound by memory.
#include "common.cuh"

constexpr int THREADS = 256;

extern "C" __global__ __launch_bounds__(THREADS)
void swap_axes(const real* __restrict__ x, real* __restrict__ y, int size, int A, int B, int C) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < size) y[i] = x[((i / C / A / B * A + i / C % A) * B + i / C / A % B) * C + i % C];
}

extern "C" __global__ __launch_bounds__(THREADS)
void sum_shifted(const real* __restrict__ products, const real* __restrict__ bias_or_null, int activation, real* __restrict__ y,
                 int size, int W, int Wo, int C, int kw, int sx, int px) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;
    int row = i / C / Wo, first = i / C % Wo * sx - px, c = i % C;
    real sum = bias_or_null ? bias_or_null[c] : 0;
    for (int kx = max(0, -first); kx < min(kw, W - first); ++kx) sum += products[((row * W + first + kx) * kw + kx) * C + c];
    y[i] = activate(sum, activation);
}

extern "C" __global__ __launch_bounds__(THREADS)
void sum_shifted_grad(const operand* __restrict__ dy, operand* __restrict__ dproducts, int pixels, int W, int Wo, int C, int stride,
                      int columns, int kw, int sx, int px) {
    int pixel = blockIdx.x * blockDim.y + threadIdx.y, x = pixel % W, row = pixel / W;
    if (pixel >= pixels) return;
    for (int i = threadIdx.x; i < columns; i += blockDim.x) {
        int kx = i / C, left = x - kx + px, ox = left / sx;  // left = ox sx, if they meet
        bool meets = kx < kw && left >= 0 && ox * sx == left && ox < Wo;
        dproducts[pixel * columns + i] = meets ? dy[(row * Wo + ox) * stride + i - kx * C] : operand(0);
    }
}

extern "C" __global__ __launch_bounds__(THREADS)
void sum_strided(const real* __restrict__ products, const real* __restrict__ bias_or_null, int activation, real* __restrict__ dx,
                 int size, int W, int Wo, int C, int kw, int sx, int px) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;
    int row = i / C / W, right = i / C % W + px, c = i % C;  // = ox sx + kx
    real sum = bias_or_null ? bias_or_null[c] : 0;
    for (int kx = right % sx; kx < min(kw, right + 1); kx += sx) {
        int ox = (right - kx) / sx;
        if (ox < Wo) sum += products[((row * Wo + ox) * kw + kx) * C + c];
    }
    dx[i] = activate(sum, activation);
}
