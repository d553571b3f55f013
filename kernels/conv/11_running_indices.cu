// Step 11: indices that advance without divisions.
// Architectures: sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//   conv               y = act(x * w + bias), or a slice of its sum
//   conv_input_grad    dx = act(dy * w + bias), one output phase, or a slice of its sum
//   conv_weight_grad   dw, a slice of the pixels
//
// New: so far a thread divides to find the taps and the pixels of what it copies. Now it keeps its
// place in the sum and the offsets of its pixels in registers, and advances them by additions from
// one step to the next (running_indices.cuh; the weight gradient shares its offsets). If TILE_K
// divides the channels, the sum takes TILE_K channels of all taps, then the next TILE_K. So the
// pixels that neighbouring taps share are still in the L1 cache.
//
// It buys: a main loop without divisions, and fewer reads from L2. On an H200 it computes 158 to
// 165 TFLOP/s in TF32 and about 290 in bf16.
// It costs: code of its own for each of the three functions, and up to 236 registers.
#include "common.cuh"
#include "implicit_gemm.cuh"
#include "tensor_cores.cuh"
#include "warp_tiles.cuh"

constexpr int THREADS = 128;        // four warps
constexpr int TILE_M = 128;         // rows of a block's tile
constexpr int TILE_N = 128;         // columns of a block's tile
constexpr int NARROW_TILE_M = 256;  // the same for a narrow tile
constexpr int NARROW_TILE_N = 64;
constexpr int BY_PHASE = 1;         // conv_input_grad: blockIdx.z is the phase and the slice
constexpr int BLOCKS = 2;           // per multiprocessor at a time, if its shared memory suffices
constexpr int SHARED_BYTES = 64512; // requested at the launch
constexpr int STAGES = 3;           // one is multiplied while the others are filled
constexpr int WARP_M = 64, WARP_N = 64;  // rows and columns of a warp
#include "running_indices.cuh"

template <int M, int N, class Product, class Input, class Bias, class Output>
__device__ __forceinline__ void compute_tile(Window (&windows)[STAGES][TILE_K], Product p,
                                             Input left, Input right, Bias bias_or_null,
                                             float slope, Output out, int columns) {
    constexpr Layout LAYOUT_A = Product::A_LAYOUT, LAYOUT_B = Product::B_LAYOUT;
    constexpr int SIZE_A = tile_size(LAYOUT_A, M), STAGE = SIZE_A + tile_size(LAYOUT_B, N);
    static_assert(STAGES * STAGE * sizeof(operand) <= SHARED_BYTES, "the stages fit");
    extern __shared__ __align__(16) operand shared[];
    int m0 = blockIdx.x * M, n0 = blockIdx.y * N;
    if (m0 >= p.rows) return;  // the whole block: phases differ in size
    int steps = (p.last - p.first + TILE_K - 1) / TILE_K;
    float sum[WARP_M / 16][WARP_N / 8][4] = {};
    Corner corner = own_corner<WARP_M, WARP_N, N>();
    Copies<M, N, Product, Input> copies(windows, p, left, right);
    // Starts this thread's copies for a step. Past the last step the group is empty.
    auto start_copies = [&](int step) {
        auto As = shared + step % STAGES * STAGE;
        if (step < steps) copies.start(As, As + SIZE_A);
        commit_copies();
    };
    for (int step = 0; step < STAGES - 1; ++step) start_copies(step);
    for (int step = 0; step < steps; ++step) {
        wait_for_copies<STAGES - 2>();
        __syncthreads();  // now this step is complete, and the last one's stage may be filled
        start_copies(step + STAGES - 1);
        __syncwarp();  // mma needs all lanes at once
        auto now = shared + step % STAGES * STAGE;
        multiply_tiles<LAYOUT_A, LAYOUT_B, M, N>(now, now + SIZE_A, corner.m, corner.n, sum);
    }
    auto place = [=](int m) { return p.place(m); };
    store_outputs(sum, m0 + corner.m, n0 + corner.n, bias_or_null, slope, out, columns, place);
}

// With the tile whose columns fit better: the host decides.
template <class... Arguments>
__device__ __forceinline__ void compute(int narrow, Arguments... arguments) {
    __shared__ Window windows[STAGES][TILE_K];
    if (narrow) compute_tile<NARROW_TILE_M, NARROW_TILE_N>(windows, arguments...);
    else compute_tile<TILE_M, TILE_N>(windows, arguments...);
}

extern "C" __global__ __launch_bounds__(THREADS)
void conv(const operand* __restrict__ x, const operand* __restrict__ w,
          const real* __restrict__ bias_or_null, real slope, real* __restrict__ y, int columns,
          int slice, int narrow, Conv c) {
    Sliced<Forward> p({c}, blockIdx.z, slice * TILE_K, c.B * c.Ho * c.Wo);
    compute(narrow, p, x, w, bias_or_null, slope, y, columns);
}

extern "C" __global__ __launch_bounds__(THREADS)
void conv_input_grad(const operand* __restrict__ dy, const operand* __restrict__ w,
                     const real* __restrict__ bias_or_null, real slope, real* __restrict__ dx,
                     int columns, int slice, int narrow, Conv c) {
    int phases = c.sy * c.sx, phase = blockIdx.z % phases;
    Sliced<PhaseGrad> p({c, phase}, blockIdx.z / phases, slice * TILE_K, c.B * c.H * c.W);
    compute(narrow, p, dy, w, bias_or_null, slope, dx, columns);
}

extern "C" __global__ __launch_bounds__(THREADS)
void conv_weight_grad(const operand* __restrict__ x, const operand* __restrict__ dy,
                      real* __restrict__ partial, int columns, int channels, int slice,
                      int narrow, Conv c) {
    PaddedWeightGrad p = {{c, slice}, channels};
    compute(narrow, p, x, dy, NO_BIAS, 1, partial, columns);
}
