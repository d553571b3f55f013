// Step 1: one thread per output. The definition of a convolution and of its two gradients.
// Architectures: sm_75 sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//   conv               y[b, oy, ox, co] =
//                        act(bias[co] + sum over ky, kx, ci of x[b, iy, ix, ci] w[ky, kx, ci, co])
//   conv_input_grad    dx[b, iy, ix, ci] =
//                        act(bias[ci] + sum over ky, kx, co of dy[b, oy, ox, co] w[ky, kx, ci, co])
//   conv_weight_grad   dw[ky, kx, ci, co] =
//                        sum over b, oy, ox of x[b, iy, ix, ci] dy[b, oy, ox, co], in slices
//
//   A tap (ky, kx) connects input and output: iy = oy sy + ky - py,  ix = ox sx + kx - px.
//   shapes: x (B, H, W, Cin), w (kh, kw, Cin, Cout), y (B, Ho, Wo, Cout); x is 0 outside its map.
//
// conv_input_grad with bias and activation is the forward pass of the transposed convolution. It
// gathers: each input pixel reads the outputs that used it, which at stride s is every s-th tap.
// Scattering from dy would need atomic additions.
//
// Each thread computes one output in a loop over its sum. Neighbouring threads compute neighbouring
// channels, so in conv they read the same x (one broadcast) and neighbouring w (few transactions
// per warp). But each multiply-add needs two numbers from memory. Caches serve most of them, but a
// GPU that multiplies 50 times faster than it reads still has to wait. All steps have the same
// three kernels with the same arguments (step 5: some of its own), so cuda_conv.py can use any.
#include "common.cuh"

constexpr int THREADS = 256;
constexpr int TILE_M = 16;   // pixels of a block (in conv_weight_grad: rows ky, kx, ci)
constexpr int TILE_N = 16;   // channels of a block
constexpr int BY_PHASE = 0;  // conv_input_grad computes all pixels in one grid
constexpr int BLOCKS = 8;    // per multiprocessor at a time; the host divides the work accordingly

extern "C" __global__ __launch_bounds__(THREADS)
void conv(const real* __restrict__ x, const real* __restrict__ w,
          const real* __restrict__ bias_or_null, int activation, real* __restrict__ y,
          int B, int H, int W, int Cin, int Ho, int Wo, int Cout,
          int kh, int kw, int sy, int sx, int py, int px) {
    int pixel = blockIdx.x * TILE_M + threadIdx.x / TILE_N;
    int co = blockIdx.y * TILE_N + threadIdx.x % TILE_N;
    if (pixel >= B * Ho * Wo || co >= Cout) return;
    int ox = pixel % Wo;
    int oy = pixel / Wo % Ho;
    int b = pixel / Wo / Ho;
    real sum = 0;
    for (int ky = 0; ky < kh; ++ky) {
        int iy = oy * sy + ky - py;
        if (iy < 0 || iy >= H) continue;
        for (int kx = 0; kx < kw; ++kx) {
            int ix = ox * sx + kx - px;
            if (ix < 0 || ix >= W) continue;
            for (int ci = 0; ci < Cin; ++ci)
                sum += x[((b * H + iy) * W + ix) * Cin + ci]
                     * w[((ky * kw + kx) * Cin + ci) * Cout + co];
        }
    }
    y[pixel * Cout + co] = activate(sum + (bias_or_null ? bias_or_null[co] : 0), activation);
}

extern "C" __global__ __launch_bounds__(THREADS)
void conv_input_grad(const real* __restrict__ dy, const real* __restrict__ w,
                     const real* __restrict__ bias_or_null, int activation, real* __restrict__ dx,
                     int B, int H, int W, int Cin, int Ho, int Wo, int Cout,
                     int kh, int kw, int sy, int sx, int py, int px) {
    int pixel = blockIdx.x * TILE_M + threadIdx.x / TILE_N;
    int ci = blockIdx.y * TILE_N + threadIdx.x % TILE_N;
    if (pixel >= B * H * W || ci >= Cin) return;
    int ix = pixel % W;
    int iy = pixel / W % H;
    int b = pixel / W / H;
    real sum = 0;
    for (int ky = (iy + py) % sy; ky < kh; ky += sy) {  // taps where sy divides iy + py - ky
        int oy = (iy + py - ky) / sy;
        if (iy + py < ky || oy >= Ho) continue;
        for (int kx = (ix + px) % sx; kx < kw; kx += sx) {
            int ox = (ix + px - kx) / sx;
            if (ix + px < kx || ox >= Wo) continue;
            for (int co = 0; co < Cout; ++co)
                sum += dy[((b * Ho + oy) * Wo + ox) * Cout + co]
                     * w[((ky * kw + kx) * Cin + ci) * Cout + co];
        }
    }
    dx[pixel * Cin + ci] = activate(sum + (bias_or_null ? bias_or_null[ci] : 0), activation);
}

// The sum is long and dw may be small, so the sum is cut into slices of `slice` output pixels.
// Slice number blockIdx.z goes to partial (slices, kh, kw, Cin, Cout); sum_slices in reductions.cu
// adds the slices up in order.
extern "C" __global__ __launch_bounds__(THREADS)
void conv_weight_grad(const real* __restrict__ x, const real* __restrict__ dy,
                      real* __restrict__ partial, int slice,
                      int B, int H, int W, int Cin, int Ho, int Wo, int Cout,
                      int kh, int kw, int sy, int sx, int py, int px) {
    int row = blockIdx.x * TILE_M + threadIdx.x / TILE_N;
    int co = blockIdx.y * TILE_N + threadIdx.x % TILE_N;
    if (row >= kh * kw * Cin || co >= Cout) return;
    int ci = row % Cin;
    int kx = row / Cin % kw;
    int ky = row / Cin / kw;
    real sum = 0;
    for (int pixel = blockIdx.z * slice;
         pixel < min(B * Ho * Wo, int(blockIdx.z + 1) * slice); ++pixel) {
        int ox = pixel % Wo;
        int oy = pixel / Wo % Ho;
        int b = pixel / Wo / Ho;
        int iy = oy * sy + ky - py, ix = ox * sx + kx - px;
        if (iy >= 0 && iy < H && ix >= 0 && ix < W)
            sum += x[((b * H + iy) * W + ix) * Cin + ci] * dy[pixel * Cout + co];
    }
    partial[(blockIdx.z * kh * kw * Cin + row) * Cout + co] = sum;
}
