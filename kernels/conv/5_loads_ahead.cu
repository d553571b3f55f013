// Step 5: a thread loads its numbers of the next tiles while it multiplies these.
// Architectures: sm_75 sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//   conv               y = act(x * w + bias)
//   conv_input_grad    dx = act(dy * w + bias), one output phase
//   conv_weight_grad   dw, a slice of the pixels
//
// New: loads from global memory take hundreds of cycles, and in step 4 all threads wait for them.
// Here a thread loads its numbers of the next tiles into registers, then multiplies the tiles in
// shared memory, and writes what it has loaded there after that. A load stops a thread only where
// its result is used.
//
// It buys: loads and multiply-adds at the same time. On an H200 this computes 27 to 29 TFLOP/s. A
// forerunner without loads ahead, which also read single numbers from shared memory where step 4
// reads four, reached 10 to 15. Step 4 itself has not been measured.
// It costs: 16 registers for the next numbers: 121 to 147 of 255 in all.
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
    auto find_pixels = [&](int k0) {
        int first = ROWS_ARE_PIXELS ? m0 : k0;
        if (ROWS_ARE_PIXELS || threadIdx.x < TILE_K)
            pixels[threadIdx.x] = p.pixel(first + threadIdx.x);
    };
    real sum[OWN][OWN] = {}, a[TILE_K], b[TILE_K];
    Tap own_tap = p.tap(m0 + threadIdx.x);  // if the rows are taps
    // This thread's numbers of the tiles that begin at k0, into registers
    auto load = [&](int k0) {
        Tap tap = ROWS_ARE_PIXELS ? p.tap(k0 + threadIdx.x % TILE_K) : own_tap;
        #pragma unroll
        for (int i = 0; i < TILE_K; ++i) {
            Place of_a = own_place<Product::A_LAYOUT, TILE_M, TILE_K, THREADS>(i);
            Place of_b = own_place<Product::B_LAYOUT, TILE_N, TILE_K, THREADS>(i);
            Pixel pixel = pixels[ROWS_ARE_PIXELS ? of_a.line : of_a.k];
            a[i] = read(left, p.a(pixel, tap));
            b[i] = read(right, p.b(tap, k0 + of_b.k, n0 + of_b.line));
        }
    };
    find_pixels(p.first);
    __syncthreads();
    load(p.first);
    if (!ROWS_ARE_PIXELS) __syncthreads();  // all have used the first pixels
    for (int k0 = p.first; k0 < p.last; k0 += TILE_K) {
        #pragma unroll
        for (int i = 0; i < TILE_K; ++i) {
            Place of_a = own_place<Product::A_LAYOUT, TILE_M, TILE_K, THREADS>(i);
            Place of_b = own_place<Product::B_LAYOUT, TILE_N, TILE_K, THREADS>(i);
            As[of_a.k][of_a.line] = a[i];
            Bs[of_b.k][of_b.line] = b[i];
        }
        if (!ROWS_ARE_PIXELS) find_pixels(k0 + TILE_K);
        __syncthreads();
        load(k0 + TILE_K);  // arrives during multiply(); zeros from `last` on
        multiply(As, Bs, sum);
        __syncthreads();
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
