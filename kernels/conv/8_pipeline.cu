// Step 8: asynchronous copies fill the next tiles while the tensor cores multiply these.
// Architectures: sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//   conv               y = act(x * w + bias)
//   conv_input_grad    dx = act(dy * w + bias), one output phase
//   conv_weight_grad   dw, a slice of the pixels
//
// New: cp.async copies 16 bytes from global to shared memory without a register, while the thread
// goes on. Shared memory holds three stages, each with a tile of A and one of B: while one is
// multiplied, copies fill the other two. A thread waits until its own copies for a stage have
// arrived, and the barrier until those of all threads have.
//
// It buys: two tiles on their way instead of one, for the latency of memory; no registers for them;
// one barrier per stage instead of two.
// It costs: three times the shared memory, up to 28 KB. A warp still does only 16 multiply-adds per
// number that it reads from shared memory: step 9.
#include "common.cuh"
#include "implicit_gemm.cuh"
#include "tensor_cores.cuh"
#include "warp_tiles.cuh"

constexpr int THREADS = 128; // four warps
constexpr int TILE_M = 64;   // rows of a block's tile
constexpr int TILE_N = 64;   // columns of a block's tile; a step along the sum is 64 bytes
constexpr int BY_PHASE = 1;  // conv_input_grad: blockIdx.z is the output phase
constexpr int BLOCKS = 4;    // per multiprocessor at a time; the host divides the work accordingly
constexpr int COUNT = TILE_M * TILE_K / VECTOR / THREADS;  // of A, and of B, that a thread copies
constexpr int STAGES = 3;
constexpr int WARP_M = 32;   // rows of a warp
constexpr int WARP_N = 32;   // columns of a warp

template <class Product, class Input, class Bias, class Output>
__device__ __forceinline__ void compute_tile(Product p, Input left, Input right, Bias bias_or_null,
                                             float slope, Output out, int columns) {
    constexpr bool ROWS_ARE_PIXELS = Product::A_LAYOUT == BY_LINE;  // else the terms are
    __shared__ __align__(16) operand As[STAGES][tile_size(Product::A_LAYOUT, TILE_M)];
    __shared__ __align__(16) operand Bs[STAGES][tile_size(Product::B_LAYOUT, TILE_N)];
    __shared__ Pixel pixels[ROWS_ARE_PIXELS ? 1 : STAGES][ROWS_ARE_PIXELS ? TILE_M : TILE_K];
    int m0 = blockIdx.x * TILE_M;
    int n0 = blockIdx.y * TILE_N;
    if (m0 >= p.rows) return;  // the whole block: phases differ in size
    int steps = (p.last - p.first + TILE_K - 1) / TILE_K;
    auto find_pixels = [&](int step) {
        int first = ROWS_ARE_PIXELS ? m0 : p.first + step * TILE_K;
        if (threadIdx.x < (ROWS_ARE_PIXELS ? TILE_M : TILE_K))
            pixels[ROWS_ARE_PIXELS ? 0 : step % STAGES][threadIdx.x] = p.pixel(first + threadIdx.x);
    };
    float sum[WARP_M / 16][WARP_N / 8][4] = {};
    Corner corner = own_corner<WARP_M, WARP_N, TILE_N>();
    Place own = own_place<Product::A_LAYOUT, TILE_M, TILE_K, THREADS, VECTOR>(0);
    Tap own_tap = p.tap(m0 + own.line);  // if the rows are taps
    // Starts this thread's copies for a step. Past the last step the group is empty.
    auto start_copies = [&](int step) {
        int stage = step % STAGES, k0 = p.first + step * TILE_K;
        Tap tap = ROWS_ARE_PIXELS ? p.tap(k0 + own.k) : own_tap;
        #pragma unroll
        for (int i = 0; i < COUNT && step < steps; ++i) {
            Place of_a = own_place<Product::A_LAYOUT, TILE_M, TILE_K, THREADS, VECTOR>(i);
            Place of_b = own_place<Product::B_LAYOUT, TILE_N, TILE_K, THREADS, VECTOR>(i);
            Pixel pixel = ROWS_ARE_PIXELS ? pixels[0][of_a.line] : pixels[stage][of_a.k];
            Element a = p.a(pixel, tap), b = p.b(tap, k0 + of_b.k, n0 + of_b.line);
            copy_async(&As[stage][tile_place<Product::A_LAYOUT, TILE_M>(of_a.line, of_a.k)],
                       left + a.index, a.inside);
            copy_async(&Bs[stage][tile_place<Product::B_LAYOUT, TILE_N>(of_b.line, of_b.k)],
                       right + b.index, b.inside);
        }
        commit_copies();
    };
    for (int step = 0; step < (ROWS_ARE_PIXELS ? 1 : STAGES); ++step) find_pixels(step);
    __syncthreads();
    for (int step = 0; step < STAGES - 1; ++step) start_copies(step);
    for (int step = 0; step < steps; ++step) {
        wait_for_copies<STAGES - 2>();
        // Now all copies of this step have arrived, and all threads have multiplied the last one,
        // whose stage is filled next.
        __syncthreads();
        start_copies(step + STAGES - 1);
        if (!ROWS_ARE_PIXELS) find_pixels(step + STAGES);  // one barrier before they are needed
        __syncwarp();  // mma needs all lanes at once
        multiply_tiles<Product::A_LAYOUT, Product::B_LAYOUT, TILE_M, TILE_N>(
            As[step % STAGES], Bs[step % STAGES], corner.m, corner.n, sum);
    }
    auto place = [=](int m) { return p.place(m); };
    store_outputs(sum, m0 + corner.m, n0 + corner.n, bias_or_null, slope, out, columns, place);
}

extern "C" __global__ __launch_bounds__(THREADS, 4)
void conv(const operand* __restrict__ x, const operand* __restrict__ w,
          const real* __restrict__ bias_or_null, real slope, real* __restrict__ y, int columns,
          Conv c) {
    compute_tile(Forward{c}, x, w, bias_or_null, slope, y, columns);
}

extern "C" __global__ __launch_bounds__(THREADS, 4)
void conv_input_grad(const operand* __restrict__ dy, const operand* __restrict__ w,
                     const real* __restrict__ bias_or_null, real slope, real* __restrict__ dx,
                     int columns, Conv c) {
    compute_tile(PhaseGrad{c, int(blockIdx.z)}, dy, w, bias_or_null, slope, dx, columns);
}

extern "C" __global__ __launch_bounds__(THREADS, 4)
void conv_weight_grad(const operand* __restrict__ x, const operand* __restrict__ dy,
                      real* __restrict__ partial, int columns, int channels, int slice, Conv c) {
    PaddedWeightGrad p = {{c, slice}, channels};
    compute_tile(p, x, dy, NO_BIAS, 1, partial, columns);
}
