// Step 7: warps multiply on the tensor cores. One instruction does 16 x 8 x 8 multiply-adds (bf16:
// 16 x 8 x 16), for which a warp needs 32 (64) instructions in step 6.
// Architectures: sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//   conv               y = act(x * w + bias)
//   conv_input_grad    dx = act(dy * w + bias), one output phase
//   conv_weight_grad   dw, a slice of the pixels
//
// New: a warp multiplies together. The instruction `mma` takes its factors from the registers of
// its 32 threads (lanes), in a fixed order that tensor_cores.cuh describes. So tiles keep the order
// of global memory, [line][k] or [k][line], and vectors are written as they are; `ldmatrix` brings
// them into that order (for TF32 in [k][line]: single loads). Four warps share a tile of 64 x 64,
// each computing 32 x 32.
//
// It buys: on an H200 a loop of `mma` does 5 (bf16: 10) times as many multiply-adds as a loop of
// ordinary ones. A thread needs 32 sums instead of 64.
// It costs: the tensor cores now wait for memory most of the time: step 8.
#include "common.cuh"
#include "implicit_gemm.cuh"
#include "tensor_cores.cuh"
#include "warp_tiles.cuh"

constexpr int THREADS = 128; // four warps
constexpr int TILE_M = 64;   // rows of a block's tile
constexpr int TILE_N = 64;   // columns of a block's tile; a step along the sum is 64 bytes
constexpr int BY_PHASE = 1;  // conv_input_grad: blockIdx.z is the output phase
constexpr int BLOCKS = 4;    // per multiprocessor at a time; the host divides the work accordingly
constexpr int COUNT = TILE_M * TILE_K / VECTOR / THREADS;  // vectors of A, and of B, of a thread
constexpr int WARP_M = 32;   // rows of a warp
constexpr int WARP_N = 32;   // columns of a warp

template <class Product, class Input, class Bias, class Output>
__device__ __forceinline__ void compute_tile(Product p, Input left, Input right, Bias bias_or_null,
                                             float slope, Output out, int columns) {
    constexpr bool ROWS_ARE_PIXELS = Product::A_LAYOUT == BY_LINE;  // else the terms are
    __shared__ __align__(16) operand As[tile_size(Product::A_LAYOUT, TILE_M)];
    __shared__ __align__(16) operand Bs[tile_size(Product::B_LAYOUT, TILE_N)];
    __shared__ Pixel pixels[ROWS_ARE_PIXELS ? TILE_M : TILE_K];
    int m0 = blockIdx.x * TILE_M;
    int n0 = blockIdx.y * TILE_N;
    if (m0 >= p.rows) return;  // the whole block: phases differ in size
    auto find_pixels = [&](int k0) {
        int first = ROWS_ARE_PIXELS ? m0 : k0;
        if (threadIdx.x < (ROWS_ARE_PIXELS ? TILE_M : TILE_K))
            pixels[threadIdx.x] = p.pixel(first + threadIdx.x);
    };
    float sum[WARP_M / 16][WARP_N / 8][4] = {};
    Corner corner = own_corner<WARP_M, WARP_N, TILE_N>();
    Vector a[COUNT], b[COUNT];
    Place own = own_place<Product::A_LAYOUT, TILE_M, TILE_K, THREADS, VECTOR>(0);
    Tap own_tap = p.tap(m0 + own.line);  // if the rows are taps
    // This thread's vectors of the tiles that begin at k0, into registers
    auto load = [&](int k0) {
        Tap tap = ROWS_ARE_PIXELS ? p.tap(k0 + own.k) : own_tap;
        #pragma unroll
        for (int i = 0; i < COUNT; ++i) {
            Place of_a = own_place<Product::A_LAYOUT, TILE_M, TILE_K, THREADS, VECTOR>(i);
            Place of_b = own_place<Product::B_LAYOUT, TILE_N, TILE_K, THREADS, VECTOR>(i);
            Pixel pixel = pixels[ROWS_ARE_PIXELS ? of_a.line : of_a.k];
            a[i] = read_vector<Vector>(left, p.a(pixel, tap));
            b[i] = read_vector<Vector>(right, p.b(tap, k0 + of_b.k, n0 + of_b.line));
        }
    };
    find_pixels(p.first);
    __syncthreads();
    load(p.first);
    if (!ROWS_ARE_PIXELS) __syncthreads();  // all have used the first pixels
    for (int k0 = p.first; k0 < p.last; k0 += TILE_K) {
        #pragma unroll
        for (int i = 0; i < COUNT; ++i) {
            Place of_a = own_place<Product::A_LAYOUT, TILE_M, TILE_K, THREADS, VECTOR>(i);
            Place of_b = own_place<Product::B_LAYOUT, TILE_N, TILE_K, THREADS, VECTOR>(i);
            *(Vector*)&As[tile_place<Product::A_LAYOUT, TILE_M>(of_a.line, of_a.k)] = a[i];
            *(Vector*)&Bs[tile_place<Product::B_LAYOUT, TILE_N>(of_b.line, of_b.k)] = b[i];
        }
        if (!ROWS_ARE_PIXELS) find_pixels(k0 + TILE_K);
        __syncthreads();
        load(k0 + TILE_K);  // arrives meanwhile; zeros from `last` on
        multiply_tiles<Product::A_LAYOUT, Product::B_LAYOUT, TILE_M, TILE_N>(As, Bs, corner.m,
                                                                             corner.n, sum);
        __syncthreads();
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
