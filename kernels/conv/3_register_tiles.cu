// Step 3: each thread computes 8x8 outputs in registers. One number read from shared memory serves
// eight multiply-adds.
// Architectures: sm_75 sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//                      result                     rows                 columns  sum over
//   conv               y = act(x * w + bias)      output pixels        Cout     ky, kx, ci
//   conv_input_grad    dx, by output phase        pixels of the phase  Cin      every s-th tap, co
//   conv_weight_grad   dw, a slice of the pixels  ky, kx, ci           Cout     output pixels
//
// The same matrix products as in step 2, and A's and B's elements are found in the same way. New: a
// block of 64 threads computes 64x64 outputs. Each thread computes 8x8 of them, rows
// ty + 8 i and columns tx + 8 j. For each k it reads 8 numbers of A and 8 of B from shared memory
// and does 64 multiply-adds: 4 per read instead of half of one in step 2. So arithmetic, and no
// longer shared memory, is the bottleneck. The pixel of each row is computed once and kept in
// shared memory.
//
// Strided rows and columns (ty + 8 i, not 8 ty + i) let neighbouring threads read neighbouring
// words, without bank conflicts. The accumulators are 64 registers per thread. The compiler can
// only keep them in registers because all loops over them are unrolled.
#include "common.cuh"
#include "implicit_gemm.cuh"

constexpr int THREADS = 64;
constexpr int TILE_M = 64;   // rows of a block's tile
constexpr int TILE_N = 64;   // columns of a block's tile
constexpr int TILE_K = 16;   // step along the sum
constexpr int BY_PHASE = 1;  // conv_input_grad: blockIdx.z is the output phase
constexpr int BLOCKS = 8;    // per multiprocessor at a time; the host divides the work accordingly
constexpr int OWN = 8;       // rows and columns of a thread: ty + 8 i and tx + 8 j
constexpr int LINES = THREADS / TILE_K;  // a block loads TILE_K x LINES numbers of a tile at a time

__device__ __forceinline__ void multiply(const real (&As)[TILE_K][TILE_M + 1],
                                         const real (&Bs)[TILE_K][TILE_N + 1],
                                         real (&sum)[OWN][OWN]) {
    int ty = threadIdx.x / OWN, tx = threadIdx.x % OWN;
    for (int k = 0; k < TILE_K; ++k) {
        real a[OWN], b[OWN];
        for (int i = 0; i < OWN; ++i) a[i] = As[k][ty + OWN * i];
        for (int j = 0; j < OWN; ++j) b[j] = Bs[k][tx + OWN * j];
        for (int i = 0; i < OWN; ++i)
            for (int j = 0; j < OWN; ++j) sum[i][j] += a[i] * b[j];
    }
}

extern "C" __global__ __launch_bounds__(THREADS)
void conv(const real* __restrict__ x, const real* __restrict__ w,
          const real* __restrict__ bias_or_null, int activation, real* __restrict__ y,
          int B, int H, int W, int Cin, int Ho, int Wo, int Cout,
          int kh, int kw, int sy, int sx, int py, int px) {
    __shared__ real As[TILE_K][TILE_M + 1];
    __shared__ real Bs[TILE_K][TILE_N + 1];
    __shared__ Pixel pixels[TILE_M];
    int m0 = blockIdx.x * TILE_M;
    int n0 = blockIdx.y * TILE_N;
    int K = kh * kw * Cin;
    int along = threadIdx.x % TILE_K, across = threadIdx.x / TILE_K;
    pixels[threadIdx.x] = output_pixel(m0 + threadIdx.x, B, Ho, Wo, sy, sx, py, px);
    __syncthreads();
    real sum[OWN][OWN] = {};
    for (int k0 = 0; k0 < K; k0 += TILE_K) {
        Tap tap = window_tap(k0 + along, kh, kw, Cin);
        for (int m = across; m < TILE_M; m += LINES)
            As[along][m] = at(x, H, W, Cin, pixels[m], tap);
        int n = n0 + threadIdx.x;
        for (int k = 0; k < TILE_K; ++k)
            Bs[k][threadIdx.x] = k0 + k < K && n < Cout ? w[(k0 + k) * Cout + n] : 0;
        __syncthreads();
        multiply(As, Bs, sum);
        __syncthreads();
    }
    #pragma unroll
    for (int i = 0; i < OWN; ++i)
        #pragma unroll
        for (int j = 0; j < OWN; ++j) {
            int m = m0 + threadIdx.x / OWN + OWN * i, n = n0 + threadIdx.x % OWN + OWN * j;
            if (m < B * Ho * Wo && n < Cout)
                y[m * Cout + n] =
                    activate(sum[i][j] + (bias_or_null ? bias_or_null[n] : 0), activation);
        }
}

extern "C" __global__ __launch_bounds__(THREADS)
void conv_input_grad(const real* __restrict__ dy, const real* __restrict__ w,
                     const real* __restrict__ bias_or_null, int activation, real* __restrict__ dx,
                     int B, int H, int W, int Cin, int Ho, int Wo, int Cout,
                     int kh, int kw, int sy, int sx, int py, int px) {
    __shared__ real As[TILE_K][TILE_M + 1];
    __shared__ real Bs[TILE_K][TILE_N + 1];
    __shared__ Pixel pixels[TILE_M];
    Phase v = output_phase(blockIdx.z / sx, sy, py, kh, H);
    Phase h = output_phase(blockIdx.z % sx, sx, px, kw, W);
    int m0 = blockIdx.x * TILE_M;
    int n0 = blockIdx.y * TILE_N;
    int M = B * v.size * h.size;
    int K = v.taps * h.taps * Cout;
    int along = threadIdx.x % TILE_K, across = threadIdx.x / TILE_K;
    if (m0 >= M) return;  // the whole block: phases differ in size
    pixels[threadIdx.x] = phase_pixel(m0 + threadIdx.x, M, v, h);
    __syncthreads();
    real sum[OWN][OWN] = {};
    for (int k0 = 0; k0 < K; k0 += TILE_K) {
        Tap tap = window_tap(k0 + along, v.taps, h.taps, Cout);
        int ky = v.first + tap.y * sy, kx = h.first + tap.x * sx;
        bool inside = k0 + along < K;
        for (int m = across; m < TILE_M; m += LINES)
            As[along][m] = inside ? at(dy, Ho, Wo, Cout, pixels[m], {-tap.y, -tap.x, tap.c}) : 0;
        for (int n = across; n < TILE_N; n += LINES)
            Bs[along][n] =
                inside && n0 + n < Cin ? w[((ky * kw + kx) * Cin + n0 + n) * Cout + tap.c] : 0;
        __syncthreads();
        multiply(As, Bs, sum);
        __syncthreads();
    }
    #pragma unroll
    for (int i = 0; i < OWN; ++i) {
        int m = m0 + threadIdx.x / OWN + OWN * i;
        #pragma unroll
        for (int j = 0; j < OWN; ++j) {
            int n = n0 + threadIdx.x % OWN + OWN * j;
            if (m < M && n < Cin)
                dx[phase_place(m, v, h, sy, sx, H, W) * Cin + n] =
                    activate(sum[i][j] + (bias_or_null ? bias_or_null[n] : 0), activation);
        }
    }
}

extern "C" __global__ __launch_bounds__(THREADS)
void conv_weight_grad(const real* __restrict__ x, const real* __restrict__ dy,
                      real* __restrict__ partial, int slice,
                      int B, int H, int W, int Cin, int Ho, int Wo, int Cout,
                      int kh, int kw, int sy, int sx, int py, int px) {
    __shared__ real As[TILE_K][TILE_M + 1];
    __shared__ real Bs[TILE_K][TILE_N + 1];
    __shared__ Pixel pixels[TILE_K];
    int m0 = blockIdx.x * TILE_M;
    int n0 = blockIdx.y * TILE_N;
    int first = blockIdx.z * slice;
    int last = min(B * Ho * Wo, first + slice);
    // This thread loads one row of A and one column of B.
    Tap tap = window_tap(m0 + threadIdx.x, kh, kw, Cin);
    int n = n0 + threadIdx.x;
    real sum[OWN][OWN] = {};
    for (int k0 = first; k0 < last; k0 += TILE_K) {
        if (threadIdx.x < TILE_K) {
            int k = k0 + threadIdx.x;
            pixels[threadIdx.x] = k < last ? output_pixel(k, B, Ho, Wo, sy, sx, py, px) : NO_PIXEL;
        }
        __syncthreads();  // also: all have multiplied the last tiles, which are overwritten now
        for (int k = 0; k < TILE_K; ++k) {
            As[k][threadIdx.x] = at(x, H, W, Cin, pixels[k], tap);
            Bs[k][threadIdx.x] = k0 + k < last && n < Cout ? dy[(k0 + k) * Cout + n] : 0;
        }
        __syncthreads();
        multiply(As, Bs, sum);
    }
    int rows = kh * kw * Cin;
    #pragma unroll
    for (int i = 0; i < OWN; ++i)
        #pragma unroll
        for (int j = 0; j < OWN; ++j) {
            int m = m0 + threadIdx.x / OWN + OWN * i, n = n0 + threadIdx.x % OWN + OWN * j;
            if (m < rows && n < Cout) partial[(blockIdx.z * rows + m) * Cout + n] = sum[i][j];
        }
}
