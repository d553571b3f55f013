// Step 4: each thread computes 8 x 8 outputs in registers.
// Architectures: sm_75 sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//   conv               y = act(x * w + bias)
//   conv_input_grad    dx = act(dy * w + bias), one output phase
//   conv_weight_grad   dw, a slice of the pixels
//
// New: a block of 64 threads computes a tile of 64 x 64, and each thread 8 x 8 numbers of it. For
// each term it reads 8 numbers of A and 8 of B from shared memory, in four reads of 16 bytes, and
// does 64 multiply-adds. The divisions that find a pixel are done once, by one thread, and shared.
//
// It buys: 16 multiply-adds per read of shared memory, 4 per number, instead of half of one. So
// shared memory is no longer the bottleneck. And 32 per number from global memory instead of 8.
// It costs: the 64 sums and 16 factors live in registers, of which a thread can have 255, so
// fewer threads fit. The compiler can keep an array in registers only if all loops over it are
// unrolled. With few threads, more of the time is spent waiting for global memory: step 5.
#include "common.cuh"
#include "implicit_gemm.cuh"
#include "vectors.cuh"

constexpr int THREADS = 64;
constexpr int TILE_M = 64;   // rows of a block's tile
constexpr int TILE_N = 64;   // columns of a block's tile
constexpr int TILE_K = 8;    // step along the sum; so many numbers of A, and of B, a thread loads
constexpr int BY_PHASE = 1;  // conv_input_grad: blockIdx.z is the output phase
constexpr int BLOCKS = 8;    // per multiprocessor at a time; the host divides the work accordingly
#include "register_tiles.cuh"

template <class Product, class Input, class Bias, class Output>
__device__ __forceinline__ void compute_tile(Product p, Input left, Input right, Bias bias_or_null,
                                             int activation, Output out, int columns) {
    constexpr bool ROWS_ARE_PIXELS = Product::A_LAYOUT == BY_LINE;  // else the terms are
    __shared__ __align__(16) real As[TILE_K][TILE_M + GAP];
    __shared__ __align__(16) real Bs[TILE_K][TILE_N + GAP];
    __shared__ Pixel pixels[ROWS_ARE_PIXELS ? TILE_M : TILE_K];
    int m0 = blockIdx.x * TILE_M;
    int n0 = blockIdx.y * TILE_N;
    if (m0 >= p.rows) return;  // the whole block: phases differ in size
    if (ROWS_ARE_PIXELS) pixels[threadIdx.x] = p.pixel(m0 + threadIdx.x);
    real sum[OWN][OWN] = {};
    Tap own_tap = p.tap(m0 + threadIdx.x);  // if the rows are taps
    for (int k0 = p.first; k0 < p.last; k0 += TILE_K) {
        if (!ROWS_ARE_PIXELS && threadIdx.x < TILE_K)
            pixels[threadIdx.x] = p.pixel(k0 + threadIdx.x);
        __syncthreads();  // the pixels are known; the last tiles have been used
        Tap tap = ROWS_ARE_PIXELS ? p.tap(k0 + threadIdx.x % TILE_K) : own_tap;
        #pragma unroll
        for (int i = 0; i < TILE_K; ++i) {
            Place a = own_place<Product::A_LAYOUT, TILE_M, TILE_K, THREADS>(i);
            Place b = own_place<Product::B_LAYOUT, TILE_N, TILE_K, THREADS>(i);
            Pixel pixel = pixels[ROWS_ARE_PIXELS ? a.line : a.k];
            As[a.k][a.line] = read(left, p.a(pixel, tap));
            Bs[b.k][b.line] = read(right, p.b(tap, k0 + b.k, n0 + b.line));
        }
        __syncthreads();  // the tiles have arrived
        multiply(As, Bs, sum);
    }
    store_own(out, p, m0, n0, columns, sum, bias_or_null, activation);
}

extern "C" __global__ __launch_bounds__(THREADS)
void conv(const real* __restrict__ x, const real* __restrict__ w,
          const real* __restrict__ bias_or_null, int activation, real* __restrict__ y, Conv c) {
    compute_tile(Forward{c}, x, w, bias_or_null, activation, y, c.Cout);
}

extern "C" __global__ __launch_bounds__(THREADS)
void conv_input_grad(const real* __restrict__ dy, const real* __restrict__ w,
                     const real* __restrict__ bias_or_null, int activation, real* __restrict__ dx,
                     Conv c) {
    compute_tile(PhaseGrad{c, int(blockIdx.z)}, dy, w, bias_or_null, activation, dx, c.Cin);
}

extern "C" __global__ __launch_bounds__(THREADS)
void conv_weight_grad(const real* __restrict__ x, const real* __restrict__ dy,
                      real* __restrict__ partial, int slice, Conv c) {
    compute_tile(WeightGrad{c, slice}, x, dy, NO_BIAS, NO_ACTIVATION, partial, c.Cout);
}
