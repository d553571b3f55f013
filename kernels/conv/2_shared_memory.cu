// Step 2: tiles in shared memory. All threads of a block use what the block has loaded once.
// Architectures: sm_75 sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//                      result                     rows                 columns  sum over
//   conv               y = act(x * w + bias)      output pixels        Cout     ky, kx, ci
//   conv_input_grad    dx, by output phase        pixels of the phase  Cin      every s-th tap, co
//   conv_weight_grad   dw, a slice of the pixels  ky, kx, ci           Cout     output pixels
//
// The same sums as in step 1 (see there for formulas and shapes), seen as matrix products C = A B.
// A (rows, sum) is never built: implicit_gemm.cuh finds its elements in the map. New: a block
// computes a tile of 16x16 outputs in steps of 16 along the sum. In each step it loads 16x16
// numbers of A and of B into shared memory, waits until all have arrived, multiplies, and waits
// until all have been used. A thread still computes one output, but each number from global memory
// now serves 16 threads: 16 times fewer reads. Now shared memory, with two reads per multiply-add,
// is the bottleneck. Tiles are read by row and partly written by column: one extra number per row
// puts the numbers of a column into different banks.
#include "common.cuh"
#include "implicit_gemm.cuh"

constexpr int THREADS = 256;
constexpr int TILE_M = 16;   // rows of a block's tile
constexpr int TILE_N = 16;   // columns of a block's tile
constexpr int TILE_K = 16;   // step along the sum
constexpr int BY_PHASE = 1;  // conv_input_grad: blockIdx.z is the output phase
constexpr int BLOCKS = 8;    // per multiprocessor at a time; the host divides the work accordingly

// sum += (row m of As) (column n of Bs), for this thread's m and n
__device__ __forceinline__ void multiply(const real (&As)[TILE_K][TILE_M + 1],
                                         const real (&Bs)[TILE_K][TILE_N + 1], real& sum) {
    for (int k = 0; k < TILE_K; ++k)
        sum += As[k][threadIdx.x / TILE_N] * Bs[k][threadIdx.x % TILE_N];
}

extern "C" __global__ __launch_bounds__(THREADS)
void conv(const real* __restrict__ x, const real* __restrict__ w,
          const real* __restrict__ bias_or_null, int activation, real* __restrict__ y,
          int B, int H, int W, int Cin, int Ho, int Wo, int Cout,
          int kh, int kw, int sy, int sx, int py, int px) {
    __shared__ real As[TILE_K][TILE_M + 1];
    __shared__ real Bs[TILE_K][TILE_N + 1];
    int m = blockIdx.x * TILE_M + threadIdx.x / TILE_N;
    int n = blockIdx.y * TILE_N + threadIdx.x % TILE_N;  // this thread computes y[m, n]
    // this thread loads A[across, along] and B[across, along]
    int along = threadIdx.x % TILE_K, across = threadIdx.x / TILE_K;
    Pixel pixel = output_pixel(blockIdx.x * TILE_M + across, B, Ho, Wo, sy, sx, py, px);
    int K = kh * kw * Cin;
    real sum = 0;
    for (int k0 = 0; k0 < K; k0 += TILE_K) {
        As[along][across] = at(x, H, W, Cin, pixel, window_tap(k0 + along, kh, kw, Cin));
        Bs[across][along] = k0 + across < K && n < Cout ? w[(k0 + across) * Cout + n] : 0;
        __syncthreads();
        multiply(As, Bs, sum);
        __syncthreads();
    }
    if (m < B * Ho * Wo && n < Cout)
        y[m * Cout + n] = activate(sum + (bias_or_null ? bias_or_null[n] : 0), activation);
}

extern "C" __global__ __launch_bounds__(THREADS)
void conv_input_grad(const real* __restrict__ dy, const real* __restrict__ w,
                     const real* __restrict__ bias_or_null, int activation, real* __restrict__ dx,
                     int B, int H, int W, int Cin, int Ho, int Wo, int Cout,
                     int kh, int kw, int sy, int sx, int py, int px) {
    __shared__ real As[TILE_K][TILE_M + 1];
    __shared__ real Bs[TILE_K][TILE_N + 1];
    Phase v = output_phase(blockIdx.z / sx, sy, py, kh, H);
    Phase h = output_phase(blockIdx.z % sx, sx, px, kw, W);
    int pixels = B * v.size * h.size, K = v.taps * h.taps * Cout;
    int m = blockIdx.x * TILE_M + threadIdx.x / TILE_N;
    int n = blockIdx.y * TILE_N + threadIdx.x % TILE_N;
    // this thread loads A[across, along] and B[along, across]
    int along = threadIdx.x % TILE_K, across = threadIdx.x / TILE_K;
    int row = blockIdx.x * TILE_M + across, ci = blockIdx.y * TILE_N + across;
    if (blockIdx.x * TILE_M >= pixels) return;  // the whole block: phases differ in size
    Pixel pixel = phase_pixel(row, pixels, v, h);
    real sum = 0;
    for (int k0 = 0; k0 < K; k0 += TILE_K) {
        Tap tap = window_tap(k0 + along, v.taps, h.taps, Cout);
        int ky = v.first + tap.y * sy, kx = h.first + tap.x * sx;
        bool inside = k0 + along < K;
        Bs[along][across] = inside && ci < Cin ? w[((ky * kw + kx) * Cin + ci) * Cout + tap.c] : 0;
        As[along][across] = inside ? at(dy, Ho, Wo, Cout, pixel, {-tap.y, -tap.x, tap.c}) : 0;
        __syncthreads();
        multiply(As, Bs, sum);
        __syncthreads();
    }
    if (m >= pixels || n >= Cin) return;
    int ix = m % h.size * sx + h.r;
    int iy = m / h.size % v.size * sy + v.r;
    int b = m / h.size / v.size;
    dx[((b * H + iy) * W + ix) * Cin + n] =
        activate(sum + (bias_or_null ? bias_or_null[n] : 0), activation);
}

extern "C" __global__ __launch_bounds__(THREADS)
void conv_weight_grad(const real* __restrict__ x, const real* __restrict__ dy,
                      real* __restrict__ partial, int slice,
                      int B, int H, int W, int Cin, int Ho, int Wo, int Cout,
                      int kh, int kw, int sy, int sx, int py, int px) {
    __shared__ real As[TILE_K][TILE_M + 1];
    __shared__ real Bs[TILE_K][TILE_N + 1];
    int m = blockIdx.x * TILE_M + threadIdx.x / TILE_N;
    int n = blockIdx.y * TILE_N + threadIdx.x % TILE_N;
    // this thread loads A[along, across] and B[across, along]
    int along = threadIdx.x % TILE_K, across = threadIdx.x / TILE_K;
    Tap tap = window_tap(blockIdx.x * TILE_M + along, kh, kw, Cin);
    int first = blockIdx.z * slice, last = min(B * Ho * Wo, first + slice);
    real sum = 0;
    for (int k0 = first; k0 < last; k0 += TILE_K) {
        Pixel pixel = NO_PIXEL;
        if (k0 + across < last) pixel = output_pixel(k0 + across, B, Ho, Wo, sy, sx, py, px);
        As[across][along] = at(x, H, W, Cin, pixel, tap);
        Bs[across][along] = k0 + across < last && n < Cout ? dy[(k0 + across) * Cout + n] : 0;
        __syncthreads();
        multiply(As, Bs, sum);
        __syncthreads();
    }
    int rows = kh * kw * Cin;
    if (m < rows && n < Cout) partial[(blockIdx.z * rows + m) * Cout + n] = sum;
}
