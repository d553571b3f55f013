// Step 9: larger tiles, and sums that several blocks share.
// Architectures: sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//   conv               y = act(x * w + bias), or a slice of its sum
//   conv_input_grad    dx = act(dy * w + bias), one output phase, or a slice of its sum
//   conv_weight_grad   dw, a slice of the pixels
//
// New: a warp computes 64 x 64 outputs. Four warps make a tile of 128 x 128, or of 256 x 64 where
// that fits the columns better. Few outputs with a long sum would now leave most of the GPU idle,
// so the sum is split: a block adds up `slice` steps, and another kernel adds up the slices.
//
// The sum covers TILE_K channels of all taps, then the next TILE_K channels. So the pixels that
// neighbouring taps share are read again while they are still in the L1 cache. A thread's place in
// the sum and its pixels stay in registers and advance without divisions (pipeline.cuh).
//
// It buys: 64 multiply-adds per word from shared memory instead of 32, and half the reads of global
// memory. On an H200 it computes 158 to 165 TFLOP/s in TF32 and about 290 in bf16.
// It costs: 63 KB of shared memory, requested at the launch, and up to 236 registers, so two blocks
// fit a multiprocessor; a pass over the slices, where there are any.
#include "common.cuh"
#include "implicit_gemm.cuh"
#include "tensor_cores.cuh"

constexpr int THREADS = 128;
constexpr int TILE_M = 128;         // rows of a block's tile
constexpr int TILE_N = 128;         // columns of a block's tile
constexpr int NARROW_TILE_M = 256;  // the same for a narrow tile
constexpr int NARROW_TILE_N = 64;
constexpr int BY_PHASE = 1;         // conv_input_grad: blockIdx.z is the output phase and the slice
constexpr int BLOCKS = 2;           // per multiprocessor at a time, if its shared memory suffices
constexpr int SHARED_BYTES = 64512; // requested at the launch
constexpr int STAGES = 3;
#include "pipeline.cuh"

template <int M, int N, class Input, class Bias, class Output, class Shared>
__device__ __forceinline__ void conv_tile(Shared shared, Input x, Input w, Bias bias_or_null,
                                          float slope, Output y, int columns, int slice, Conv c) {
    Forward p = {c};
    int first = blockIdx.z * slice;
    int steps = min(slice, steps_of_sum(c.kh, c.kw, c.Cin) - first);
    Window windows[M * VECTORS / THREADS];
    #pragma unroll
    for (int i = 0; i < M * VECTORS / THREADS; ++i)
        windows[i] = Window(p.pixel(blockIdx.x * M + own_line(i)), c.H, c.W, c.Cin);
    SumPlace at(first, c.kh, c.kw, c.Cin);
    float sum[4][8][4] = {};
    pipeline<BY_LINE, BY_TERM, M, N>(shared, steps, [&](Shared As, Shared Bs) {
        Tap tap = at.y < c.kh ? Tap{at.y, at.x} : NO_TAP;
        copy_windows<M>(As, x, c.H, c.W, windows, tap, (at.y * c.W + at.x) * c.Cin + at.c);
        // The tile's first row in w, seen as a matrix (kh kw Cin, Cout).
        int tile_row = (at.y * c.kw + at.x) * c.Cin + at.c - own_vector();
        copy_rows<N>(Bs, w, tile_row, c.kh * c.kw * c.Cin, blockIdx.y * N, c.Cout);
        at.advance(c.kh, c.kw, c.Cin);
    }, sum);
    store_tile<M, N>(sum, bias_or_null, slope, y, columns, [=](int m) {
        return m < p.rows ? blockIdx.z * p.rows + m : -1;
    });
}

extern "C" __global__ __launch_bounds__(THREADS)
void conv(const operand* __restrict__ x, const operand* __restrict__ w,
          const real* __restrict__ bias_or_null, real slope, real* __restrict__ y, int columns,
          int slice, int narrow, Conv c) {
    extern __shared__ __align__(16) operand shared[];
    if (narrow)
        conv_tile<NARROW_TILE_M, NARROW_TILE_N>(shared, x, w, bias_or_null, slope, y, columns,
                                                slice, c);
    else
        conv_tile<TILE_M, TILE_N>(shared, x, w, bias_or_null, slope, y, columns, slice, c);
}

template <int M, int N, class Input, class Bias, class Output, class Shared>
__device__ __forceinline__ void input_grad_tile(Shared shared, Input dy, Input w,
                                                Bias bias_or_null, float slope, Output dx,
                                                int columns, int slice, Conv c) {
    int part = blockIdx.z / (c.sy * c.sx);
    PhaseGrad p = {c, int(blockIdx.z) % (c.sy * c.sx)};
    int first = part * slice;
    int steps = min(slice, steps_of_sum(p.v.taps, p.h.taps, c.Cout) - first);
    if (blockIdx.x * M >= p.rows) return;  // the whole block: phases differ in size
    Window windows[M * VECTORS / THREADS];
    #pragma unroll
    for (int i = 0; i < M * VECTORS / THREADS; ++i)
        windows[i] = Window(p.pixel(blockIdx.x * M + own_line(i)), c.Ho, c.Wo, c.Cout);
    SumPlace at(first, max(1, p.v.taps), max(1, p.h.taps), c.Cout);
    float sum[4][8][4] = {};
    pipeline<BY_LINE, BY_LINE, M, N>(shared, steps, [&](Shared As, Shared Bs) {
        bool inside = at.y < p.v.taps;
        Tap back = inside ? Tap{-at.y, -at.x} : NO_TAP;
        copy_windows<M>(As, dy, c.Ho, c.Wo, windows, back, at.c - (at.y * c.Wo + at.x) * c.Cout);
        int tap = (p.v.first + at.y * c.sy) * c.kw + p.h.first + at.x * c.sx;
        #pragma unroll
        for (int i = 0; i < N * VECTORS / THREADS; ++i) {
            int n = blockIdx.y * N + own_line(i);
            auto to = Bs + tile_place<BY_LINE, N>(own_line(i), own_vector());
            copy_async(to, w + ((tap * c.Cin + n) * c.Cout + at.c), inside && n < c.Cin);
        }
        at.advance(p.v.taps, p.h.taps, c.Cout);
    }, sum);
    store_tile<M, N>(sum, bias_or_null, slope, dx, columns, [=](int m) {
        return m < p.rows ? part * c.B * c.H * c.W + p.place(m) : -1;
    });
}

extern "C" __global__ __launch_bounds__(THREADS)
void conv_input_grad(const operand* __restrict__ dy, const operand* __restrict__ w,
                     const real* __restrict__ bias_or_null, real slope, real* __restrict__ dx,
                     int columns, int slice, int narrow, Conv c) {
    extern __shared__ __align__(16) operand shared[];
    if (narrow)
        input_grad_tile<NARROW_TILE_M, NARROW_TILE_N>(shared, dy, w, bias_or_null, slope, dx,
                                                      columns, slice, c);
    else
        input_grad_tile<TILE_M, TILE_N>(shared, dy, w, bias_or_null, slope, dx, columns, slice,
                                        c);
}

template <int M, int N, class Input, class Output, class Shared, class Windows>
__device__ __forceinline__ void weight_grad_tile(Shared shared, Windows& windows, Input x,
                                                 Input dy, Output partial, int columns,
                                                 int channels, int slice, Conv c) {
    constexpr int ACROSS = M / VECTOR;  // threads that copy one row of A, which is a pixel
    PaddedWeightGrad p = {{c, slice}, channels};
    int steps = (p.last - p.first + TILE_K - 1) / TILE_K;
    int line = threadIdx.x % ACROSS * VECTOR, step = 0;
    // A thread's tap stays the same; its pixels change.
    Tap tap = p.tap(blockIdx.x * M + line);
    int along = (tap.y * c.W + tap.x) * c.Cin + tap.c;
    // The next pixel for find_window.
    int k = p.first + threadIdx.x;
    int ox = k % c.Wo;
    int oy = k / c.Wo % c.Ho;
    int b = k / c.Wo / c.Ho;
    auto find_window = [&](int step) {  // for a stage, one barrier before it is needed
        if (threadIdx.x >= TILE_K) return;
        Pixel pixel = {b, oy * c.sy - c.py, ox * c.sx - c.px};
        if (p.first + step * TILE_K + threadIdx.x >= p.last) pixel = NO_PIXEL;
        windows[step % STAGES][threadIdx.x] = Window(pixel, c.H, c.W, c.Cin);
        for (ox += TILE_K; ox >= c.Wo; ox -= c.Wo) ++oy;
        for (; oy >= c.Ho; oy -= c.Ho) ++b;
    };
    float sum[4][8][4] = {};
    for (int step = 0; step < STAGES - 1; ++step) find_window(step);
    __syncthreads();
    pipeline<BY_TERM, BY_TERM, M, N>(shared, steps, [&](Shared As, Shared Bs) {
        if (step + 1 >= STAGES - 1) find_window(step + 1);
        constexpr int ROWS = THREADS / ACROSS;  // rows of a stage that are copied at a time
        int k = threadIdx.x / ACROSS;
        // Read all windows before the first copy: the compiler moves no load across a copy.
        Window found[TILE_K / ROWS];
        #pragma unroll
        for (int i = 0; i < TILE_K / ROWS; ++i) found[i] = windows[step % STAGES][k + i * ROWS];
        #pragma unroll
        for (int i = 0; i < TILE_K / ROWS; ++i) {
            unsigned yy = found[i].y + tap.y, xx = found[i].x + tap.x;
            auto to = As + tile_place<BY_TERM, M>(line, k + i * ROWS);
            copy_async(to, x + (found[i].offset + along), yy < c.H && xx < c.W);
        }
        copy_rows<N>(Bs, dy, p.first + step * TILE_K, p.last, blockIdx.y * N, c.Cout);
        ++step;
    }, sum);
    store_tile<M, N>(sum, NO_BIAS, 1, partial, columns, [=](int m) { return p.place(m); });
}

extern "C" __global__ __launch_bounds__(THREADS)
void conv_weight_grad(const operand* __restrict__ x, const operand* __restrict__ dy,
                      real* __restrict__ partial, int columns, int channels, int slice,
                      int narrow, Conv c) {
    extern __shared__ __align__(16) operand shared[];
    __shared__ Window windows[STAGES][TILE_K];
    if (narrow)
        weight_grad_tile<NARROW_TILE_M, NARROW_TILE_N>(shared, windows, x, dy, partial, columns,
                                                       channels, slice, c);
    else
        weight_grad_tile<TILE_M, TILE_N>(shared, windows, x, dy, partial, columns, channels, slice,
                                         c);
}
