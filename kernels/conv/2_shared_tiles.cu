// Step 2: tiles in shared memory. All threads of a block use what the block has loaded once.
// Architectures: sm_75 sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//   conv               y = act(x * w + bias)
//   conv_input_grad    dx = act(dy * w + bias), over all taps
//   conv_weight_grad   dw, a slice of the pixels
//
// New: the sums of step 1 are matrix products C = A B (implicit_gemm.cuh says of what), and a block
// computes a tile of 16 x 16 numbers of C in steps of 16 along the sum. In each step its threads
// load 16 x 16 numbers of A and of B into shared memory, wait until all have arrived, multiply, and
// wait until all have been used.
//
// It buys: a number from global memory serves 16 threads. Reads of global memory per multiply-add
// fall from 2 to 1/8.
// It costs: 2 KB of shared memory and two barriers per step. Now shared memory, with two reads per
// multiply-add, is the bottleneck. And conv_input_grad multiplies by zeros: of the taps only those
// whose output exists count, at stride 2 one in four.
#include "common.cuh"
#include "implicit_gemm.cuh"

constexpr int THREADS = 256;
constexpr int TILE_M = 16;   // rows of a block's tile
constexpr int TILE_N = 16;   // columns of a block's tile
constexpr int TILE_K = 16;   // step along the sum
constexpr int BY_PHASE = 0;  // conv_input_grad computes all pixels in one grid
constexpr int BLOCKS = 8;    // per multiprocessor at a time; the host divides the work accordingly

template <class Product, class Input, class Bias, class Output>
__device__ __forceinline__ void compute_tile(Product p, Input left, Input right, Bias bias_or_null,
                                             int activation, Output out, int columns) {
    // One number more per row: the numbers of a column lie in different banks.
    __shared__ real As[TILE_K][TILE_M + 1];
    __shared__ real Bs[TILE_K][TILE_N + 1];
    int m0 = blockIdx.x * TILE_M;
    int n0 = blockIdx.y * TILE_N;
    // This thread loads one number of A and one of B in each step, and computes one of C.
    Place a = own_place<Product::A_LAYOUT, TILE_M, TILE_K, THREADS>(0);
    Place b = own_place<Product::B_LAYOUT, TILE_N, TILE_K, THREADS>(0);
    int m = threadIdx.x / TILE_N;
    int n = threadIdx.x % TILE_N;
    real sum = 0;
    for (int k0 = p.first; k0 < p.last; k0 += TILE_K) {
        As[a.k][a.line] = read(left, p.a(m0 + a.line, k0 + a.k));
        Bs[b.k][b.line] = read(right, p.b(p.tap(k0 + b.k), k0 + b.k, n0 + b.line));
        __syncthreads();  // all numbers have arrived
        for (int k = 0; k < TILE_K; ++k) sum += As[k][m] * Bs[k][n];
        __syncthreads();  // all numbers have been used
    }
    store(out, p.place(m0 + m), n0 + n, columns, sum, bias_or_null, activation);
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
    compute_tile(InputGrad{c}, dy, w, bias_or_null, activation, dx, c.Cin);
}

extern "C" __global__ __launch_bounds__(THREADS)
void conv_weight_grad(const real* __restrict__ x, const real* __restrict__ dy,
                      real* __restrict__ partial, int slice, Conv c) {
    compute_tile(WeightGrad{c, slice}, x, dy, NO_BIAS, NO_ACTIVATION, partial, c.Cout);
}
