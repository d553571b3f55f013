// Step 10: several blocks share the sum of a tile.
// Architectures: sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//   conv               y = act(x * w + bias), or a slice of its sum
//   conv_input_grad    dx = act(dy * w + bias), one output phase, or a slice of its sum
//   conv_weight_grad   dw, a slice of the pixels
//
// New: where few outputs have long sums, there are too few tiles for all of a GPU. So a sum is cut
// into slices of `slice` steps (`Sliced` in implicit_gemm.cuh) for several blocks. Another kernel
// adds them up, before bias and activation. The weight gradient's slices, of pixels, are old.
//
// It buys: work for more multiprocessors. The host chooses the slices so that few of them idle.
// It costs: memory for the slices, and a pass over them, where there are any.
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
constexpr int STAGES = 3;
constexpr int WARP_M = 64, WARP_N = 64;  // rows and columns of a warp
constexpr int PIXELS = 256;         // those of the largest tile's rows, or of three stages' terms

template <int M, int N, class Product, class Input, class Bias, class Output>
__device__ __forceinline__ void compute_tile(Pixel (&pixels)[PIXELS], Product p, Input left,
                                             Input right, Bias bias_or_null, float slope,
                                             Output out, int columns) {
    constexpr Layout LAYOUT_A = Product::A_LAYOUT, LAYOUT_B = Product::B_LAYOUT;
    constexpr bool ROWS_ARE_PIXELS = LAYOUT_A == BY_LINE;  // else the terms are
    constexpr int SIZE_A = tile_size(LAYOUT_A, M), STAGE = SIZE_A + tile_size(LAYOUT_B, N);
    static_assert(STAGES * STAGE * sizeof(operand) <= SHARED_BYTES, "the stages fit");
    extern __shared__ __align__(16) operand shared[];
    int m0 = blockIdx.x * M, n0 = blockIdx.y * N;
    if (m0 >= p.rows) return;  // the whole block: phases differ in size
    int steps = (p.last - p.first + TILE_K - 1) / TILE_K;
    auto find_pixels = [&](int step) {
        int place = ROWS_ARE_PIXELS ? 0 : step % STAGES * TILE_K;
        int first = ROWS_ARE_PIXELS ? m0 : p.first + step * TILE_K;
        for (int i = threadIdx.x; i < (ROWS_ARE_PIXELS ? M : TILE_K); i += THREADS)
            pixels[place + i] = p.pixel(first + i);
    };
    float sum[WARP_M / 16][WARP_N / 8][4] = {};
    Corner corner = own_corner<WARP_M, WARP_N, N>();
    Place own = own_place<LAYOUT_A, M, TILE_K, THREADS, VECTOR>(0);
    Tap own_tap = p.tap(m0 + own.line);  // if the rows are taps
    // Starts this thread's copies for a step. Past the last step the group is empty.
    auto start_copies = [&](int step) {
        auto As = shared + step % STAGES * STAGE, Bs = As + SIZE_A;
        int k0 = p.first + step * TILE_K;
        Tap tap = ROWS_ARE_PIXELS ? p.tap(k0 + own.k) : own_tap;
        #pragma unroll
        for (int i = 0; i < M * VECTORS / THREADS && step < steps; ++i) {
            Place at = own_place<LAYOUT_A, M, TILE_K, THREADS, VECTOR>(i);
            Pixel pixel = pixels[ROWS_ARE_PIXELS ? at.line : step % STAGES * TILE_K + at.k];
            Element a = p.a(pixel, tap);
            copy_async(As + tile_place<LAYOUT_A, M>(at.line, at.k), left + a.index, a.inside);
        }
        #pragma unroll
        for (int i = 0; i < N * VECTORS / THREADS && step < steps; ++i) {
            Place at = own_place<LAYOUT_B, N, TILE_K, THREADS, VECTOR>(i);
            Element b = p.b(tap, k0 + at.k, n0 + at.line);
            copy_async(Bs + tile_place<LAYOUT_B, N>(at.line, at.k), right + b.index, b.inside);
        }
        commit_copies();
    };
    for (int step = 0; step < (ROWS_ARE_PIXELS ? 1 : STAGES); ++step) find_pixels(step);
    __syncthreads();
    for (int step = 0; step < STAGES - 1; ++step) start_copies(step);
    for (int step = 0; step < steps; ++step) {
        wait_for_copies<STAGES - 2>();
        __syncthreads();  // now this step is complete, and the last one's stage may be filled
        start_copies(step + STAGES - 1);
        if (!ROWS_ARE_PIXELS) find_pixels(step + STAGES);  // one barrier before they are needed
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
    __shared__ Pixel pixels[PIXELS];
    if (narrow) compute_tile<NARROW_TILE_M, NARROW_TILE_N>(pixels, arguments...);
    else compute_tile<TILE_M, TILE_N>(pixels, arguments...);
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
