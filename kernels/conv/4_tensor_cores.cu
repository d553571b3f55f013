// Step 4: warps multiply on the tensor cores. One instruction does 16 x 8 x 8 multiply-adds, for
// which a warp needs 32 instructions in step 3.
// Architectures: sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//                      result                     rows                 columns  sum over
//   conv               y = act(x * w + bias)      output pixels        Cout     ky, kx, ci
//   conv_input_grad    dx, by output phase        pixels of the phase  Cin      every s-th tap, co
//   conv_weight_grad   dw, a slice of the pixels  ky, kx, ci           Cout     output pixels
//
// The same matrix products as in step 3 and again tiles of 64 x 64 outputs, but four warps share a
// tile, each computing 32 x 32. Numbers are rounded to TF32 (or bf16) when they are written to
// shared memory; sums stay float32. tensor_cores.cuh describes how a tile becomes the registers of
// a warp. For that, a tile keeps the order of global memory: [line][k] where the sum runs along
// memory, and [k][line] where it does not. The 32 words that a warp reads at once are in 32
// different banks.
#include "common.cuh"
#include "implicit_gemm.cuh"
#include "tensor_cores.cuh"

constexpr int THREADS = 128; // BLOCKS such blocks fit with 128 registers per thread at most
constexpr int TILE_M = 64;   // rows of a block's tile
constexpr int TILE_N = 64;   // columns of a block's tile; a step along the sum is 64 bytes
constexpr int BY_PHASE = 1;  // conv_input_grad: blockIdx.z is the output phase
constexpr int BLOCKS = 4;    // per multiprocessor at a time; the host divides the work accordingly

struct Own { int m, n; };    // the corner of the 32 x 32 outputs of a warp
__device__ __forceinline__ Own own_outputs() {
    return {int(threadIdx.x) / WARP / 2 * 32, int(threadIdx.x) / WARP % 2 * 32};
}

extern "C" __global__ __launch_bounds__(THREADS, 4)
void conv(const real* __restrict__ x, const real* __restrict__ w,
          const real* __restrict__ bias_or_null, int activation, real* __restrict__ y,
          int B, int H, int W, int Cin, int Ho, int Wo, int Cout,
          int kh, int kw, int sy, int sx, int py, int px) {
    __shared__ __align__(16) operand As[tile_size(true, TILE_M)];
    __shared__ __align__(16) operand Bs[tile_size(false, TILE_N)];
    __shared__ Pixel pixels[TILE_M];
    int m0 = blockIdx.x * TILE_M;
    int n0 = blockIdx.y * TILE_N;
    int K = kh * kw * Cin;
    int along = threadIdx.x % TILE_K, line = threadIdx.x % TILE_N;
    if (threadIdx.x < TILE_M)
        pixels[threadIdx.x] = output_pixel(m0 + threadIdx.x, B, Ho, Wo, sy, sx, py, px);
    __syncthreads();
    float sum[2][4][4] = {};
    Own own = own_outputs();
    for (int k0 = 0; k0 < K; k0 += TILE_K) {
        Tap tap = window_tap(k0 + along, kh, kw, Cin);
        for (int m = threadIdx.x / TILE_K; m < TILE_M; m += THREADS / TILE_K)
            rounded(at(x, H, W, Cin, pixels[m], tap), As[tile_place<true, TILE_M>(m, along)]);
        for (int k = threadIdx.x / TILE_N; k < TILE_K; k += THREADS / TILE_N)
            rounded(k0 + k < K && n0 + line < Cout ? w[(k0 + k) * Cout + n0 + line] : 0,
                    Bs[tile_place<false, TILE_N>(line, k)]);
        __syncthreads();
        multiply_tiles<true, false, TILE_M, TILE_N>(As, Bs, own.m, own.n, sum);
        __syncthreads();
    }
    auto place = [=](int m) { return m < B * Ho * Wo ? m : -1; };
    auto store = [=](int pixel, int n, float first, float second) {
        for (int i = 0; i < 2 && n + i < Cout; ++i)
            y[pixel * Cout + n + i] = activate(
                (i ? second : first) + (bias_or_null ? bias_or_null[n + i] : 0), activation);
    };
    each_output(sum, m0 + own.m, n0 + own.n, place, store);
}

extern "C" __global__ __launch_bounds__(THREADS, 4)
void conv_input_grad(const real* __restrict__ dy, const real* __restrict__ w,
                     const real* __restrict__ bias_or_null, int activation, real* __restrict__ dx,
                     int B, int H, int W, int Cin, int Ho, int Wo, int Cout,
                     int kh, int kw, int sy, int sx, int py, int px) {
    __shared__ __align__(16) operand As[tile_size(true, TILE_M)];
    __shared__ __align__(16) operand Bs[tile_size(true, TILE_N)];
    __shared__ Pixel pixels[TILE_M];
    Phase v = output_phase(blockIdx.z / sx, sy, py, kh, H);
    Phase h = output_phase(blockIdx.z % sx, sx, px, kw, W);
    int m0 = blockIdx.x * TILE_M;
    int n0 = blockIdx.y * TILE_N;
    int M = B * v.size * h.size;
    int K = v.taps * h.taps * Cout;
    int along = threadIdx.x % TILE_K;
    if (m0 >= M) return;  // the whole block: phases differ in size
    if (threadIdx.x < TILE_M) pixels[threadIdx.x] = phase_pixel(m0 + threadIdx.x, M, v, h);
    __syncthreads();
    float sum[2][4][4] = {};
    Own own = own_outputs();
    for (int k0 = 0; k0 < K; k0 += TILE_K) {
        Tap tap = window_tap(k0 + along, v.taps, h.taps, Cout);
        int ky = v.first + tap.y * sy, kx = h.first + tap.x * sx;
        bool inside = k0 + along < K;
        for (int line = threadIdx.x / TILE_K; line < TILE_M; line += THREADS / TILE_K) {
            int place = tile_place<true, TILE_M>(line, along), n = n0 + line;
            rounded(inside ? at(dy, Ho, Wo, Cout, pixels[line], {-tap.y, -tap.x, tap.c}) : 0,
                    As[place]);
            rounded(inside && n < Cin ? w[((ky * kw + kx) * Cin + n) * Cout + tap.c] : 0,
                    Bs[place]);
        }
        __syncthreads();
        multiply_tiles<true, true, TILE_M, TILE_N>(As, Bs, own.m, own.n, sum);
        __syncthreads();
    }
    auto place = [=](int m) { return m < M ? phase_place(m, v, h, sy, sx, H, W) : -1; };
    auto store = [=](int pixel, int n, float first, float second) {
        for (int i = 0; i < 2 && n + i < Cin; ++i)
            dx[pixel * Cin + n + i] = activate(
                (i ? second : first) + (bias_or_null ? bias_or_null[n + i] : 0), activation);
    };
    each_output(sum, m0 + own.m, n0 + own.n, place, store);
}

extern "C" __global__ __launch_bounds__(THREADS, 4)
void conv_weight_grad(const real* __restrict__ x, const real* __restrict__ dy,
                      real* __restrict__ partial, int slice,
                      int B, int H, int W, int Cin, int Ho, int Wo, int Cout,
                      int kh, int kw, int sy, int sx, int py, int px) {
    __shared__ __align__(16) operand As[tile_size(false, TILE_M)];
    __shared__ __align__(16) operand Bs[tile_size(false, TILE_N)];
    __shared__ Pixel pixels[TILE_K];
    int m0 = blockIdx.x * TILE_M;
    int n0 = blockIdx.y * TILE_N;
    int first = blockIdx.z * slice;
    int last = min(B * Ho * Wo, first + slice);
    // This thread loads one row of A and one column of B.
    int line = threadIdx.x % TILE_M;
    int n = n0 + line;
    Tap tap = window_tap(m0 + line, kh, kw, Cin);
    float sum[2][4][4] = {};
    Own own = own_outputs();
    for (int k0 = first; k0 < last; k0 += TILE_K) {
        if (threadIdx.x < TILE_K) {
            int k = k0 + threadIdx.x;
            pixels[threadIdx.x] = k < last ? output_pixel(k, B, Ho, Wo, sy, sx, py, px) : NO_PIXEL;
        }
        __syncthreads();  // also: all have multiplied the last tiles, which are overwritten now
        for (int k = threadIdx.x / TILE_M; k < TILE_K; k += THREADS / TILE_M) {
            int place = tile_place<false, TILE_M>(line, k);
            rounded(at(x, H, W, Cin, pixels[k], tap), As[place]);
            rounded(k0 + k < last && n < Cout ? dy[(k0 + k) * Cout + n] : 0, Bs[place]);
        }
        __syncthreads();
        multiply_tiles<false, false, TILE_M, TILE_N>(As, Bs, own.m, own.n, sum);
    }
    int rows = kh * kw * Cin;
    auto place = [=](int m) { return m < rows ? blockIdx.z * rows + m : -1; };
    auto store = [=](int row, int n, float first, float second) {
        for (int i = 0; i < 2 && n + i < Cout; ++i)
            partial[row * Cout + n + i] = i ? second : first;
    };
    each_output(sum, m0 + own.m, n0 + own.n, place, store);
}
