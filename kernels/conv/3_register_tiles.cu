// Step 3: each thread computes 8x8 outputs in registers. It reads shared memory four numbers at a
// time, and loads the next tiles while it multiplies these.
// Architectures: sm_75 sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//                      result                     rows                 columns  sum over
//   conv               y = act(x * w + bias)      output pixels        Cout     ky, kx, ci
//   conv_input_grad    dx, by output phase        pixels of the phase  Cin      every s-th tap, co
//   conv_weight_grad   dw, a slice of the pixels  ky, kx, ci           Cout     output pixels
//
// The same matrix products as in step 2, and A's and B's elements are found in the same way. New: a
// block of 64 threads computes 64x64 outputs, and each thread 8x8 of them. For each k it reads 8
// numbers of A and 8 of B from shared memory, in four reads of four, and does 64 multiply-adds: 16
// per read instead of half of one in step 2. So shared memory is no longer the bottleneck. The
// pixel of each row is computed once and kept in shared memory.
//
// Loads from global memory take hundreds of cycles, and in step 2 all threads wait for them. Here a
// thread loads its numbers of the next tiles into registers, then multiplies the tiles in shared
// memory, and needs what it has loaded only after that.
//
// The 64 sums, 16 numbers of A and B, 16 of the next tiles and some indices take 121 to 147 of the
// 255 registers that a thread can have. The compiler can only keep them in registers because all
// loops over them are unrolled. On an H200 this computes 27 to 29 TFLOP/s; with single reads, and
// without loads ahead, it was 10 to 15.
#include "common.cuh"
#include "implicit_gemm.cuh"
#include "vectors.cuh"

constexpr int THREADS = 64;
constexpr int TILE_M = 64;   // rows of a block's tile
constexpr int TILE_N = 64;   // columns of a block's tile
constexpr int TILE_K = 8;    // step along the sum; so many numbers of A, and of B, a thread loads
constexpr int BY_PHASE = 1;  // conv_input_grad: blockIdx.z is the output phase
constexpr int BLOCKS = 8;    // per multiprocessor at a time; the host divides the work accordingly
constexpr int OWN = 8;       // rows and columns of a thread
constexpr int LINES = THREADS / TILE_K;  // a block loads TILE_K x LINES numbers of a tile at a time
constexpr int GAP = 4;       // numbers after each row of a tile: rows stay aligned, and a warp that
                             // writes 8 x 4 numbers of a tile writes to 32 different banks

// A thread's rows and columns: four neighbours, and four neighbours half a tile further on.
__device__ __forceinline__ int own_row(int i) {
    return i / FOUR * (TILE_M / 2) + threadIdx.x / OWN * FOUR + i % FOUR;
}
__device__ __forceinline__ int own_column(int j) {
    return j / FOUR * (TILE_N / 2) + threadIdx.x % OWN * FOUR + j % FOUR;
}

// sum += As^T Bs, for this thread's rows and columns
__device__ __forceinline__ void multiply(const real (&As)[TILE_K][TILE_M + GAP],
                                         const real (&Bs)[TILE_K][TILE_N + GAP],
                                         real (&sum)[OWN][OWN]) {
    #pragma unroll
    for (int k = 0; k < TILE_K; ++k) {
        Four a[OWN / FOUR], b[OWN / FOUR];
        #pragma unroll
        for (int i = 0; i < OWN / FOUR; ++i) {
            a[i] = *(const Four*)&As[k][own_row(FOUR * i)];
            b[i] = *(const Four*)&Bs[k][own_column(FOUR * i)];
        }
        #pragma unroll
        for (int i = 0; i < OWN; ++i)
            #pragma unroll
            for (int j = 0; j < OWN; ++j)
                sum[i][j] += a[i / FOUR].v[i % FOUR] * b[j / FOUR].v[j % FOUR];
    }
}

extern "C" __global__ __launch_bounds__(THREADS)
void conv(const real* __restrict__ x, const real* __restrict__ w,
          const real* __restrict__ bias_or_null, int activation, real* __restrict__ y,
          int B, int H, int W, int Cin, int Ho, int Wo, int Cout,
          int kh, int kw, int sy, int sx, int py, int px) {
    __shared__ __align__(16) real As[TILE_K][TILE_M + GAP];
    __shared__ __align__(16) real Bs[TILE_K][TILE_N + GAP];
    __shared__ Pixel pixels[TILE_M];
    int m0 = blockIdx.x * TILE_M;
    int n0 = blockIdx.y * TILE_N;
    int K = kh * kw * Cin;
    int along = threadIdx.x % TILE_K, across = threadIdx.x / TILE_K;
    pixels[threadIdx.x] = output_pixel(m0 + threadIdx.x, B, Ho, Wo, sy, sx, py, px);
    __syncthreads();
    real sum[OWN][OWN] = {}, a[TILE_K], b[TILE_K];
    // This thread's numbers of the tiles that begin at k0, into registers
    auto load = [&](int k0) {
        Tap tap = window_tap(k0 + along, kh, kw, Cin);
        int n = n0 + threadIdx.x;
        #pragma unroll
        for (int i = 0; i < TILE_K; ++i) {
            a[i] = at(x, H, W, Cin, pixels[across + LINES * i], tap);
            b[i] = k0 + i < K && n < Cout ? w[(k0 + i) * Cout + n] : 0;
        }
    };
    load(0);
    for (int k0 = 0; k0 < K; k0 += TILE_K) {
        #pragma unroll
        for (int i = 0; i < TILE_K; ++i) {
            As[along][across + LINES * i] = a[i];
            Bs[i][threadIdx.x] = b[i];
        }
        __syncthreads();
        if (k0 + TILE_K < K) load(k0 + TILE_K);  // arrives during multiply()
        multiply(As, Bs, sum);
        __syncthreads();
    }
    #pragma unroll
    for (int i = 0; i < OWN; ++i)
        #pragma unroll
        for (int j = 0; j < OWN; ++j) {
            int m = m0 + own_row(i), n = n0 + own_column(j);
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
    __shared__ __align__(16) real As[TILE_K][TILE_M + GAP];
    __shared__ __align__(16) real Bs[TILE_K][TILE_N + GAP];
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
    real sum[OWN][OWN] = {}, a[TILE_K], b[TILE_K];
    auto load = [&](int k0) {
        Tap tap = window_tap(k0 + along, v.taps, h.taps, Cout);
        int ky = v.first + tap.y * sy, kx = h.first + tap.x * sx;
        bool inside = k0 + along < K;
        #pragma unroll
        for (int i = 0; i < TILE_K; ++i) {
            int line = across + LINES * i, n = n0 + line;
            a[i] = at(dy, Ho, Wo, Cout, pixels[line], {-tap.y, -tap.x, tap.c});
            b[i] = inside && n < Cin ? w[((ky * kw + kx) * Cin + n) * Cout + tap.c] : 0;
        }
    };
    if (K > 0) load(0);
    for (int k0 = 0; k0 < K; k0 += TILE_K) {
        #pragma unroll
        for (int i = 0; i < TILE_K; ++i) {
            As[along][across + LINES * i] = a[i];
            Bs[along][across + LINES * i] = b[i];
        }
        __syncthreads();
        if (k0 + TILE_K < K) load(k0 + TILE_K);  // arrives during multiply()
        multiply(As, Bs, sum);
        __syncthreads();
    }
    #pragma unroll
    for (int i = 0; i < OWN; ++i) {
        int m = m0 + own_row(i), place = phase_place(m, v, h, sy, sx, H, W);
        #pragma unroll
        for (int j = 0; j < OWN; ++j) {
            int n = n0 + own_column(j);
            if (m < M && n < Cin)
                dx[place * Cin + n] =
                    activate(sum[i][j] + (bias_or_null ? bias_or_null[n] : 0), activation);
        }
    }
}

extern "C" __global__ __launch_bounds__(THREADS)
void conv_weight_grad(const real* __restrict__ x, const real* __restrict__ dy,
                      real* __restrict__ partial, int slice,
                      int B, int H, int W, int Cin, int Ho, int Wo, int Cout,
                      int kh, int kw, int sy, int sx, int py, int px) {
    __shared__ __align__(16) real As[TILE_K][TILE_M + GAP];
    __shared__ __align__(16) real Bs[TILE_K][TILE_N + GAP];
    __shared__ Pixel pixels[TILE_K];
    int m0 = blockIdx.x * TILE_M;
    int n0 = blockIdx.y * TILE_N;
    int first = blockIdx.z * slice;
    int last = min(B * Ho * Wo, first + slice);
    // This thread loads one row of A and one column of B.
    Tap tap = window_tap(m0 + threadIdx.x, kh, kw, Cin);
    int n = n0 + threadIdx.x;
    real sum[OWN][OWN] = {}, a[TILE_K], b[TILE_K];
    auto find_pixels = [&](int k0) {
        int k = k0 + threadIdx.x;
        if (threadIdx.x < TILE_K)
            pixels[threadIdx.x] = k < last ? output_pixel(k, B, Ho, Wo, sy, sx, py, px) : NO_PIXEL;
    };
    auto load = [&](int k0) {
        #pragma unroll
        for (int k = 0; k < TILE_K; ++k) {
            a[k] = at(x, H, W, Cin, pixels[k], tap);
            b[k] = k0 + k < last && n < Cout ? dy[(k0 + k) * Cout + n] : 0;
        }
    };
    find_pixels(first);
    __syncthreads();
    load(first);
    __syncthreads();
    for (int k0 = first; k0 < last; k0 += TILE_K) {
        #pragma unroll
        for (int k = 0; k < TILE_K; ++k) {
            As[k][threadIdx.x] = a[k];
            Bs[k][threadIdx.x] = b[k];
        }
        find_pixels(k0 + TILE_K);
        __syncthreads();
        load(k0 + TILE_K);  // arrives during multiply(); zeros from `last` on
        multiply(As, Bs, sum);
        __syncthreads();
    }
    int rows = kh * kw * Cin;
    #pragma unroll
    for (int i = 0; i < OWN; ++i)
        #pragma unroll
        for (int j = 0; j < OWN; ++j) {
            int m = m0 + own_row(i), n = n0 + own_column(j);
            if (m < rows && n < Cout) partial[(blockIdx.z * rows + m) * Cout + n] = sum[i][j];
        }
}
