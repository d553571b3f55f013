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
// channels, so in conv 16 of them read the same x, and neighbouring w (few transactions per warp).
// But each multiply-add needs two numbers from memory. Caches serve most of them. Still, while the
// memory of an H200 delivers one number, its cores could do 28 multiply-adds.
//
// All steps have the same three kernels, and the first five the same parameters. From step 6 on
// factors are rounded beforehand, step 9 adds which of two tiles to use, and step 10 the slice. So
// cuda_conv.py can use any step.
#include "common.cuh"

constexpr int THREADS = 256;
constexpr int TILE_M = 16;   // pixels of a block (in conv_weight_grad: rows ky, kx, ci)
constexpr int TILE_N = 16;   // channels of a block
constexpr int BY_PHASE = 0;  // conv_input_grad computes all pixels in one grid
constexpr int BLOCKS = 8;    // per multiprocessor at a time; the host divides the work accordingly

extern "C" __global__ __launch_bounds__(THREADS)
void conv(const real* __restrict__ x, const real* __restrict__ w,
          const real* __restrict__ bias_or_null, int activation, real* __restrict__ y, Conv c) {
    int pixel = blockIdx.x * TILE_M + threadIdx.x / TILE_N;
    int co = blockIdx.y * TILE_N + threadIdx.x % TILE_N;
    if (pixel >= c.B * c.Ho * c.Wo || co >= c.Cout) return;
    int ox = pixel % c.Wo;
    int oy = pixel / c.Wo % c.Ho;
    int b = pixel / c.Wo / c.Ho;
    real sum = 0;
    for (int ky = 0; ky < c.kh; ++ky) {
        int iy = oy * c.sy + ky - c.py;
        if (iy < 0 || iy >= c.H) continue;
        for (int kx = 0; kx < c.kw; ++kx) {
            int ix = ox * c.sx + kx - c.px;
            if (ix < 0 || ix >= c.W) continue;
            for (int ci = 0; ci < c.Cin; ++ci)
                sum += x[((b * c.H + iy) * c.W + ix) * c.Cin + ci]
                     * w[((ky * c.kw + kx) * c.Cin + ci) * c.Cout + co];
        }
    }
    y[pixel * c.Cout + co] = activate(sum + (bias_or_null ? bias_or_null[co] : 0), activation);
}

extern "C" __global__ __launch_bounds__(THREADS)
void conv_input_grad(const real* __restrict__ dy, const real* __restrict__ w,
                     const real* __restrict__ bias_or_null, int activation, real* __restrict__ dx,
                     Conv c) {
    int pixel = blockIdx.x * TILE_M + threadIdx.x / TILE_N;
    int ci = blockIdx.y * TILE_N + threadIdx.x % TILE_N;
    if (pixel >= c.B * c.H * c.W || ci >= c.Cin) return;
    int ix = pixel % c.W;
    int iy = pixel / c.W % c.H;
    int b = pixel / c.W / c.H;
    real sum = 0;
    for (int ky = (iy + c.py) % c.sy; ky < c.kh; ky += c.sy) {  // sy divides iy + py - ky
        int oy = (iy + c.py - ky) / c.sy;
        if (iy + c.py < ky || oy >= c.Ho) continue;
        for (int kx = (ix + c.px) % c.sx; kx < c.kw; kx += c.sx) {
            int ox = (ix + c.px - kx) / c.sx;
            if (ix + c.px < kx || ox >= c.Wo) continue;
            for (int co = 0; co < c.Cout; ++co)
                sum += dy[((b * c.Ho + oy) * c.Wo + ox) * c.Cout + co]
                     * w[((ky * c.kw + kx) * c.Cin + ci) * c.Cout + co];
        }
    }
    dx[pixel * c.Cin + ci] = activate(sum + (bias_or_null ? bias_or_null[ci] : 0), activation);
}

// The sum is long and dw may be small, so the sum is cut into slices of `slice` output pixels.
// Slice number blockIdx.z goes to partial (slices, kh, kw, Cin, Cout); sum_slices in reductions.cu
// adds the slices up in order.
extern "C" __global__ __launch_bounds__(THREADS)
void conv_weight_grad(const real* __restrict__ x, const real* __restrict__ dy,
                      real* __restrict__ partial, int slice, Conv c) {
    int row = blockIdx.x * TILE_M + threadIdx.x / TILE_N;
    int co = blockIdx.y * TILE_N + threadIdx.x % TILE_N;
    if (row >= c.kh * c.kw * c.Cin || co >= c.Cout) return;
    int ci = row % c.Cin;
    int kx = row / c.Cin % c.kw;
    int ky = row / c.Cin / c.kw;
    real sum = 0;
    for (int pixel = blockIdx.z * slice;
         pixel < min(c.B * c.Ho * c.Wo, int(blockIdx.z + 1) * slice); ++pixel) {
        int ox = pixel % c.Wo;
        int oy = pixel / c.Wo % c.Ho;
        int b = pixel / c.Wo / c.Ho;
        int iy = oy * c.sy + ky - c.py, ix = ox * c.sx + kx - c.px;
        if (iy >= 0 && iy < c.H && ix >= 0 && ix < c.W)
            sum += x[((b * c.H + iy) * c.W + ix) * c.Cin + ci] * dy[pixel * c.Cout + co];
    }
    partial[(blockIdx.z * c.kh * c.kw * c.Cin + row) * c.Cout + co] = sum;
}
