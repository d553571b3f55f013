// Step 6: the factors are rounded beforehand, and loaded in vectors of 16 bytes.
// Architectures: sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//   conv               y = act(x * w + bias)
//   conv_input_grad    dx = act(dy * w + bias), one output phase
//   conv_weight_grad   dw, a slice of the pixels
//
// New: operands.cu has rounded the factors to TF32 (4 bytes) or bf16 (2 bytes), which tensor cores
// multiply (step 7), and padded their channels to whole vectors (Cin and Cout here; `columns` and
// `channels` are the numbers without padding). So every vector lies within one tap, and one load
// takes 4 or 8 numbers. Sums stay float32. Negative outputs are multiplied by `slope`; tanh is left
// to another kernel.
//
// It buys: a fourth or an eighth of the load instructions and of the index arithmetic before them;
// bf16 also half the bytes.
// It costs: cards from sm_80 on; of 24 significant bits TF32 loses 13, bf16 16; a pass over each
// factor to round it. Tiles stay float32 and grow to 9 (bf16: 17) KB, and where vectors are written
// line by line, 2 (bf16: 4) threads meet in a bank.
#include "common.cuh"
#include "implicit_gemm.cuh"
#include "tensor_cores.cuh"
#include "vectors.cuh"

constexpr int THREADS = 64;
constexpr int TILE_M = 64;   // rows of a block's tile
constexpr int TILE_N = 64;   // columns of a block's tile; a step along the sum is 64 bytes
constexpr int BY_PHASE = 1;  // conv_input_grad: blockIdx.z is the output phase
constexpr int BLOCKS = 8;    // per multiprocessor at a time; the host divides the work accordingly
constexpr int COUNT = TILE_M * TILE_K / VECTOR / THREADS;  // vectors of A, and of B, of a thread
#include "register_tiles.cuh"

// Writes a vector into a tile, as float32: its numbers follow each other by term or by line.
template <Layout LAYOUT, int LINES>
__device__ __forceinline__ void write_vector(const Vector& vector, real (&tile)[TILE_K][LINES],
                                             Place place) {
    #pragma unroll
    for (int j = 0; j < VECTOR; ++j) {
        int k = place.k + (LAYOUT == BY_LINE ? j : 0);
        int line = place.line + (LAYOUT == BY_TERM ? j : 0);
        tile[k][line] = widened(vector.values[j]);
    }
}

template <class Product, class Input, class Bias, class Output>
__device__ __forceinline__ void compute_tile(Product p, Input left, Input right, Bias bias_or_null,
                                             float slope, Output out, int columns) {
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
    real sum[OWN][OWN] = {};
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
            write_vector<Product::A_LAYOUT>(a[i], As, of_a);
            write_vector<Product::B_LAYOUT>(b[i], Bs, of_b);
        }
        if (!ROWS_ARE_PIXELS) find_pixels(k0 + TILE_K);
        __syncthreads();
        load(k0 + TILE_K);  // arrives during multiply(); zeros from `last` on
        multiply(As, Bs, sum);
        __syncthreads();
    }
    store_own(out, p, m0, n0, columns, sum, bias_or_null, Slope{slope});
}

extern "C" __global__ __launch_bounds__(THREADS)
void conv(const operand* __restrict__ x, const operand* __restrict__ w,
          const real* __restrict__ bias_or_null, real slope, real* __restrict__ y, int columns,
          Conv c) {
    compute_tile(Forward{c}, x, w, bias_or_null, slope, y, columns);
}

extern "C" __global__ __launch_bounds__(THREADS)
void conv_input_grad(const operand* __restrict__ dy, const operand* __restrict__ w,
                     const real* __restrict__ bias_or_null, real slope, real* __restrict__ dx,
                     int columns, Conv c) {
    compute_tile(PhaseGrad{c, int(blockIdx.z)}, dy, w, bias_or_null, slope, dx, columns);
}

extern "C" __global__ __launch_bounds__(THREADS)
void conv_weight_grad(const operand* __restrict__ x, const operand* __restrict__ dy,
                      real* __restrict__ partial, int columns, int channels, int slice, Conv c) {
    PaddedWeightGrad p = {{c, slice}, channels};
    compute_tile(p, x, dy, NO_BIAS, 1, partial, columns);
}
