// Step 3: the input gradient by output phases, without multiplications by zero.
// Architectures: sm_75 sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//   conv               y = act(x * w + bias)
//   conv_input_grad    dx = act(dy * w + bias), one output phase
//   conv_weight_grad   dw, a slice of the pixels
//
// New: at stride s a pixel of dx uses only every s-th tap, and which ones depends on iy % sy and
// ix % sx alone. Pixels of dx that agree in both remainders form an output phase. (dx is the output
// of a transposed convolution.) A phase is an ordinary convolution with fewer taps, PhaseGrad in
// implicit_gemm.cuh, and blockIdx.z numbers the sy sx phases.
//
// It buys: at stride 2 only a fourth of the multiply-adds of conv_input_grad, and no divisions by
// the stride in its inner loop.
// It costs: index arithmetic per phase; a block of a small phase may have nothing to do. The other
// two kernels are those of step 2.
#include "common.cuh"
#include "implicit_gemm.cuh"

constexpr int THREADS = 256;
constexpr int TILE_M = 16;   // rows of a block's tile
constexpr int TILE_N = 16;   // columns of a block's tile
constexpr int TILE_K = 16;   // step along the sum
constexpr int BY_PHASE = 1;  // conv_input_grad: blockIdx.z is the output phase
constexpr int BLOCKS = 8;    // per multiprocessor at a time; the host divides the work accordingly

template <class Product, class Input, class Bias, class Output>
__device__ __forceinline__ void compute_tile(Product p, Input left, Input right, Bias bias_or_null,
                                             int activation, Output out, int columns) {
    // One number more per row: the numbers of a column lie in different banks.
    __shared__ real As[TILE_K][TILE_M + 1];
    __shared__ real Bs[TILE_K][TILE_N + 1];
    int m0 = blockIdx.x * TILE_M;
    int n0 = blockIdx.y * TILE_N;
    if (m0 >= p.rows) return;  // the whole block: phases differ in size
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
    compute_tile(PhaseGrad{c, int(blockIdx.z)}, dy, w, bias_or_null, activation, dx, c.Cin);
}

extern "C" __global__ __launch_bounds__(THREADS)
void conv_weight_grad(const real* __restrict__ x, const real* __restrict__ dy,
                      real* __restrict__ partial, int slice, Conv c) {
    compute_tile(WeightGrad{c, slice}, x, dy, NO_BIAS, NO_ACTIVATION, partial, c.Cout);
}
