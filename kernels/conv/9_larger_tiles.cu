// Step 9: larger tiles. A warp computes 64 x 64 outputs in place of 32 x 32.
// Architectures: sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//   conv               y = act(x * w + bias)
//   conv_input_grad    dx = act(dy * w + bias), one output phase
//   conv_weight_grad   dw, a slice of the pixels
//
// New: four warps make a tile of 128 x 128, or of 256 x 64 where the columns fit better. Three
// stages of such tiles need more than the 48 KB that a kernel may declare. So the host requests the
// memory at the launch, and the kernel divides it into stages.
//
// It buys: per number from shared memory a warp does 32 multiply-adds instead of 16, and per number
// from global memory a block 64 instead of 32.
// It costs: 66 KB of shared memory and over 200 registers, so two blocks fit a multiprocessor, or
// one if it has only 100 KB (sm_86, sm_89, sm_120). A layer has fewer tiles, sometimes too few to
// keep a GPU busy: step 10.
#include "common.cuh"
#include "implicit_gemm.cuh"
#include "tensor_cores.cuh"
#include "warp_tiles.cuh"

constexpr int THREADS = 128;        // four warps
constexpr int TILE_M = 128;         // rows of a block's tile
constexpr int TILE_N = 128;         // columns of a block's tile
constexpr int NARROW_TILE_M = 256;  // the same for a narrow tile
constexpr int NARROW_TILE_N = 64;
constexpr int BY_PHASE = 1;         // conv_input_grad: blockIdx.z is the output phase
constexpr int BLOCKS = 2;           // per multiprocessor at a time, if its shared memory suffices
constexpr int SHARED_BYTES = 64512; // requested at the launch
constexpr int STAGES = 3;           // one is multiplied while the others are filled
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
          int narrow, Conv c) {
    compute(narrow, Forward{c}, x, w, bias_or_null, slope, y, columns);
}

extern "C" __global__ __launch_bounds__(THREADS)
void conv_input_grad(const operand* __restrict__ dy, const operand* __restrict__ w,
                     const real* __restrict__ bias_or_null, real slope, real* __restrict__ dx,
                     int columns, int narrow, Conv c) {
    compute(narrow, PhaseGrad{c, int(blockIdx.z)}, dy, w, bias_or_null, slope, dx, columns);
}

extern "C" __global__ __launch_bounds__(THREADS)
void conv_weight_grad(const operand* __restrict__ x, const operand* __restrict__ dy,
                      real* __restrict__ partial, int columns, int channels, int slice,
                      int narrow, Conv c) {
    PaddedWeightGrad p = {{c, slice}, channels};
    compute(narrow, p, x, dy, NO_BIAS, 1, partial, columns);
}
