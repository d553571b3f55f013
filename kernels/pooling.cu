// Concatenation and its gradient. Pooling and resizing for Inception's features: forward only.
// Architectures: sm_75 sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//   concat         y[..., first + c] = x[..., c]; one launch for each of the maps to concatenate
//   split          x[..., c] = y[..., first + c], the gradient of concat; one launch likewise
//   max_pool       y[b, oy, ox, c] = largest x[b, iy, ix, c] in the size x size window; pixels of
//                  the padding do not count
//   average_pool   the mean of the same pixels
//   resize         bilinear: row i of y lies between rows low[i] and low[i] + 1 of x, at a
//                  fraction weight[i] of the way; columns likewise
//
//   shapes: x (B, H, W, C), y (B, Ho, Wo, C); of concat and split, y (B, H, W, channels)
//
// Each thread writes one number of y (concat: reads one of x; split: writes one of x). Neighbouring
// threads take neighbouring channels.
#include "common.cuh"

constexpr int THREADS = 256;

extern "C" __global__ __launch_bounds__(THREADS)
void concat(const real* __restrict__ x, real* __restrict__ y, int n, int C, int channels,
            int first) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i / C * channels + first + i % C] = x[i];
}

extern "C" __global__ __launch_bounds__(THREADS)
void split(const real* __restrict__ y, real* __restrict__ x, int n, int C, int channels,
           int first) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] = y[i / C * channels + first + i % C];
}

extern "C" __global__ __launch_bounds__(THREADS)
void max_pool(const real* __restrict__ x, real* __restrict__ y, int B, int H, int W, int C, int Ho,
              int Wo, int size, int stride, int pad) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= B * Ho * Wo * C) return;
    int c = i % C;
    int ix = i / C % Wo * stride - pad;
    int iy = i / C / Wo % Ho * stride - pad;
    int b = i / C / Wo / Ho;
    int first_y = max(iy, 0), first_x = max(ix, 0);
    real largest = x[((b * H + first_y) * W + first_x) * C + c];
    for (int yy = first_y; yy < min(iy + size, H); ++yy)
        for (int xx = first_x; xx < min(ix + size, W); ++xx)
            largest = fmax(largest, x[((b * H + yy) * W + xx) * C + c]);
    y[i] = largest;
}

extern "C" __global__ __launch_bounds__(THREADS)
void average_pool(const real* __restrict__ x, real* __restrict__ y, int B, int H, int W, int C,
                  int Ho, int Wo, int size, int stride, int pad) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= B * Ho * Wo * C) return;
    int c = i % C;
    int ix = i / C % Wo * stride - pad;
    int iy = i / C / Wo % Ho * stride - pad;
    int b = i / C / Wo / Ho;
    int first_y = max(iy, 0);
    int first_x = max(ix, 0);
    int last_y = min(iy + size, H);
    int last_x = min(ix + size, W);
    real sum = 0;
    for (int yy = first_y; yy < last_y; ++yy)
        for (int xx = first_x; xx < last_x; ++xx) sum += x[((b * H + yy) * W + xx) * C + c];
    y[i] = sum / ((last_y - first_y) * (last_x - first_x));
}

extern "C" __global__ __launch_bounds__(THREADS)
void resize(const real* __restrict__ x, real* __restrict__ y, const int* __restrict__ low_y,
            const real* __restrict__ weight_y, const int* __restrict__ low_x,
            const real* __restrict__ weight_x, int B, int H, int W, int C, int Ho, int Wo) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= B * Ho * Wo * C) return;
    int c = i % C;
    int ox = i / C % Wo;
    int oy = i / C / Wo % Ho;
    int b = i / C / Wo / Ho;
    int top = low_y[oy];
    int left = low_x[ox];
    int bottom = min(top + 1, H - 1);
    int right = min(left + 1, W - 1);
    real v = weight_y[oy], h = weight_x[ox];
    real above = x[((b * H + top) * W + left) * C + c] * (1 - h)
               + x[((b * H + top) * W + right) * C + c] * h;
    real below = x[((b * H + bottom) * W + left) * C + c] * (1 - h)
               + x[((b * H + bottom) * W + right) * C + c] * h;
    y[i] = above * (1 - v) + below * v;
}
