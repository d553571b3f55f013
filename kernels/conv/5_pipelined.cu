// Step 5: asynchronous copies load the next tiles while the tensor cores multiply the current ones.
// Larger tiles; TF32 or bf16.
// Architectures: sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//                      result                     rows                 columns  sum over
//   conv               y = act(x * w + bias)      output pixels        Cout     ky, kx, ci
//   conv_input_grad    dx, by output phase        pixels of the phase  Cin      every s-th tap, co
//   conv_weight_grad   dw, a slice of the pixels  ky, kx, ci           Cout     output pixels
//
// Step 4 waits for memory, then multiplies. Here shared memory holds three stages: while one
// is multiplied, asynchronous copies fill the other two. They need no registers and only one
// barrier per stage. A warp computes 64 x 64 outputs, so a word from shared memory serves 64
// multiply-adds, twice as many as in step 4. Four warps make a tile of 128 x 128, or of 256 x 64
// where that fits the columns better. Every copy moves 16 bytes: operands.cu has rounded the
// numbers to `operand` and padded the channels (Cin and Cout here) to a multiple of VECTOR;
// `columns` and `channels` are the numbers without padding. Negative outputs are multiplied by
// `slope`: 1, or 0 for ReLU, or the slope of leaky ReLU. tanh is left to another kernel: 128 calls
// in a row would make a long program.
//
// The sum over taps and channels covers TILE_K channels of all taps, then the next TILE_K channels.
// So the pixels that neighbouring taps share are read again while they are still in the L1 cache.
// Few outputs with a long sum would leave most of the GPU idle, so the sum is split: a block adds
// up `slice` stages, and another kernel adds up the slices.
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

// Multiplies `steps` stages. load(As, Bs) fills them one after the other.
template <bool A_BY_LINE, bool B_BY_LINE, int M, int N, class Shared, class Load>
__device__ __forceinline__ void pipeline(Shared shared, int steps, Load load,
                                         float (&sum)[4][8][4]) {
    constexpr int A = tile_size(A_BY_LINE, M), STAGE = A + tile_size(B_BY_LINE, N);
    static_assert(STAGES * STAGE * sizeof(operand) <= SHARED_BYTES, "the stages fit");
    int warp = threadIdx.x / WARP;
    for (int s = 0; s < STAGES - 1; ++s) {
        if (s < steps) load(shared + s * STAGE, shared + s * STAGE + A);
        commit_copies();
    }
    for (int s = 0; s < steps; ++s) {
        wait_for_copies<STAGES - 2>();
        // Now all copies of stage s have arrived, and all threads have multiplied stage s - 1,
        // which is overwritten next.
        __syncthreads();
        auto next = shared + (s + STAGES - 1) % STAGES * STAGE, now = shared + s % STAGES * STAGE;
        if (s + STAGES - 1 < steps) load(next, next + A);
        commit_copies();
        __syncwarp();  // mma needs all lanes at once, and load() has loops
        multiply_tiles<A_BY_LINE, B_BY_LINE, M, N>(now, now + A, warp / (N / 64) * 64,
                                                   warp % (N / 64) * 64, sum);
    }
}

// Writes the outputs to out[place(row) * columns + column], after bias and activation.
template <int M, int N, class Bias, class Output, class Place>
__device__ __forceinline__ void store_tile(const float (&sum)[4][8][4], Bias bias_or_null,
                                           float slope, Output out, int columns, Place place) {
    int warp = threadIdx.x / WARP;
    int m0 = blockIdx.x * M + warp / (N / 64) * 64;
    int n0 = blockIdx.y * N + warp % (N / 64) * 64;
    each_output(sum, m0, n0, place, [=](int row, int n, float first, float second) {
        auto value = [=](int n, float v) {
            if (bias_or_null) v += bias_or_null[n];
            return v > 0 ? v : slope * v;
        };
        if (columns % 2 == 0 && n < columns) {  // 8 bytes at once
            *(float2*)(out + (row * columns + n)) = {value(n, first), value(n + 1, second)};
        } else {
            if (n < columns) out[row * columns + n] = value(n, first);
            if (n + 1 < columns) out[row * columns + n + 1] = value(n + 1, second);
        }
    });
}

// For tiles [line][k], a thread copies the vectors at one place in the sum, from many lines. Four
// neighbouring lanes copy the 64 bytes of a line, so that the cache looks up few lines at a time.
__device__ __forceinline__ int own_vector() { return threadIdx.x % VECTORS * VECTOR; }
__device__ __forceinline__ int own_line(int i) {
    return threadIdx.x / VECTORS + i * (THREADS / VECTORS);
}

// A thread's place in the sum over (kh, kw, C): the tap and the first channel of its vector.
struct Place {
    int y, x, c;
    __device__ Place(int step, int kh, int kw, int C) {
        int vector = own_vector();
        int k = step * TILE_K + vector;
        int taps = kh * kw;
        if (C % TILE_K == 0) {  // a step stays within one tap
            y = step % taps / kw;
            x = step % taps % kw;
            c = step / taps * TILE_K + vector;
        } else {
            y = k / C / kw;
            x = k / C % kw;
            c = k % C;
        }
    }
    __device__ __forceinline__ void advance(int kh, int kw, int C) {
        if (C % TILE_K == 0) {
            if (++x == kw) x = 0, ++y;
            if (y == kh) y = 0, c += TILE_K;
        } else {
            for (c += TILE_K; c >= C; c -= C)
                if (++x == kw) x = 0, ++y;
        }
    }
};
__device__ __forceinline__ int steps_of_sum(int kh, int kw, int C) {
    return (kh * kw * C + TILE_K - 1) / TILE_K;
}

// A pixel of a map and the offset of its first channel, which gives the offsets of its neighbours.
struct __align__(16) Window {
    int offset, y, x;
    __device__ Window() {}
    __device__ Window(Pixel p, int H, int W, int C)  // NO_PIXEL's offset may overflow
        : offset((unsigned(p.b * H + p.y) * W + p.x) * C), y(p.y), x(p.x) {}
};

// Copies this thread's vectors of a map: those at `tap` from the corners `windows`, which is `step`
// numbers further on in memory.
template <int LINES, class Shared, class Pointer>
__device__ __forceinline__ void copy_windows(Shared tile, Pointer map, int H, int W,
                                             const Window (&windows)[LINES * VECTORS / THREADS],
                                             Tap tap, int step) {
    #pragma unroll
    for (int i = 0; i < LINES * VECTORS / THREADS; ++i) {
        unsigned y = windows[i].y + tap.y, x = windows[i].x + tap.x;  // negative: becomes large
        auto to = tile + tile_place<true, LINES>(own_line(i), own_vector());
        copy_async(to, map + (windows[i].offset + step), y < H && x < W);
    }
}

// Copies rows of a matrix (rows, C), columns n0 to n0 + LINES - 1, into a tile [k][line]: row k of
// the tile is row first + k of the matrix.
template <int LINES, class Shared, class Pointer>
__device__ __forceinline__ void copy_rows(Shared tile, Pointer matrix, int first, int rows,
                                          int n0, int C) {
    constexpr int ACROSS = LINES / VECTOR;  // threads that copy one row
    int n = threadIdx.x % ACROSS * VECTOR;
    #pragma unroll
    for (int i = 0; i < TILE_K * ACROSS / THREADS; ++i) {
        int k = threadIdx.x / ACROSS + i * (THREADS / ACROSS);
        auto to = tile + tile_place<false, LINES>(n, k);
        copy_async(to, matrix + ((first + k) * C + n0 + n), first + k < rows && n0 + n < C);
    }
}

template <int M, int N, class Input, class Bias, class Output, class Shared>
__device__ __forceinline__ void conv_tile(Shared shared, Input x, Input w, Bias bias_or_null,
                                          float slope, Output y, int columns, int slice, Sizes s) {
    int rows = s.B * s.Ho * s.Wo;
    int first = blockIdx.z * slice;
    int steps = min(slice, steps_of_sum(s.kh, s.kw, s.Cin) - first);
    Window windows[M * VECTORS / THREADS];
    #pragma unroll
    for (int i = 0; i < M * VECTORS / THREADS; ++i) {
        int m = blockIdx.x * M + own_line(i);
        Pixel pixel = output_pixel(m, s.B, s.Ho, s.Wo, s.sy, s.sx, s.py, s.px);
        windows[i] = Window(pixel, s.H, s.W, s.Cin);
    }
    Place at(first, s.kh, s.kw, s.Cin);
    float sum[4][8][4] = {};
    pipeline<true, false, M, N>(shared, steps, [&](Shared As, Shared Bs) {
        Tap tap = at.y < s.kh ? Tap{at.y, at.x} : NO_TAP;
        copy_windows<M>(As, x, s.H, s.W, windows, tap, (at.y * s.W + at.x) * s.Cin + at.c);
        // The tile's first row in w, seen as a matrix (kh kw Cin, Cout).
        int tile_row = (at.y * s.kw + at.x) * s.Cin + at.c - own_vector();
        copy_rows<N>(Bs, w, tile_row, s.kh * s.kw * s.Cin, blockIdx.y * N, s.Cout);
        at.advance(s.kh, s.kw, s.Cin);
    }, sum);
    auto place = [=](int m) { return m < rows ? blockIdx.z * rows + m : -1; };
    store_tile<M, N>(sum, bias_or_null, slope, y, columns, place);
}

extern "C" __global__ __launch_bounds__(THREADS)
void conv(const operand* __restrict__ x, const operand* __restrict__ w,
          const real* __restrict__ bias_or_null, real slope, real* __restrict__ y, int columns,
          int slice, int narrow,
          int B, int H, int W, int Cin, int Ho, int Wo, int Cout,
          int kh, int kw, int sy, int sx, int py, int px) {
    extern __shared__ __align__(16) operand shared[];
    Sizes sizes = {B, H, W, Cin, Ho, Wo, Cout, kh, kw, sy, sx, py, px};
    if (narrow)
        conv_tile<NARROW_TILE_M, NARROW_TILE_N>(shared, x, w, bias_or_null, slope, y, columns,
                                                slice, sizes);
    else
        conv_tile<TILE_M, TILE_N>(shared, x, w, bias_or_null, slope, y, columns, slice, sizes);
}

template <int M, int N, class Input, class Bias, class Output, class Shared>
__device__ __forceinline__ void input_grad_tile(Shared shared, Input dy, Input w,
                                                Bias bias_or_null, float slope, Output dx,
                                                int columns, int slice, Sizes s) {
    int part = blockIdx.z / (s.sy * s.sx);
    int phase = blockIdx.z % (s.sy * s.sx);
    int first = part * slice;
    Phase v = output_phase(phase / s.sx, s.sy, s.py, s.kh, s.H);
    Phase h = output_phase(phase % s.sx, s.sx, s.px, s.kw, s.W);
    int rows = s.B * v.size * h.size;
    int steps = min(slice, steps_of_sum(v.taps, h.taps, s.Cout) - first);
    if (blockIdx.x * M >= rows) return;  // the whole block: phases differ in size
    Window windows[M * VECTORS / THREADS];
    #pragma unroll
    for (int i = 0; i < M * VECTORS / THREADS; ++i) {
        Pixel pixel = phase_pixel(blockIdx.x * M + own_line(i), rows, v, h);
        windows[i] = Window(pixel, s.Ho, s.Wo, s.Cout);
    }
    Place at(first, max(1, v.taps), max(1, h.taps), s.Cout);
    float sum[4][8][4] = {};
    pipeline<true, true, M, N>(shared, steps, [&](Shared As, Shared Bs) {
        bool inside = at.y < v.taps;
        Tap back = inside ? Tap{-at.y, -at.x} : NO_TAP;
        copy_windows<M>(As, dy, s.Ho, s.Wo, windows, back, at.c - (at.y * s.Wo + at.x) * s.Cout);
        int tap = (v.first + at.y * s.sy) * s.kw + h.first + at.x * s.sx;
        #pragma unroll
        for (int i = 0; i < N * VECTORS / THREADS; ++i) {
            int n = blockIdx.y * N + own_line(i);
            auto to = Bs + tile_place<true, N>(own_line(i), own_vector());
            copy_async(to, w + ((tap * s.Cin + n) * s.Cout + at.c), inside && n < s.Cin);
        }
        at.advance(v.taps, h.taps, s.Cout);
    }, sum);
    store_tile<M, N>(sum, bias_or_null, slope, dx, columns, [=](int m) {
        return m < rows ? part * s.B * s.H * s.W + phase_place(m, v, h, s.sy, s.sx, s.H, s.W) : -1;
    });
}

extern "C" __global__ __launch_bounds__(THREADS)
void conv_input_grad(const operand* __restrict__ dy, const operand* __restrict__ w,
                     const real* __restrict__ bias_or_null, real slope, real* __restrict__ dx,
                     int columns, int slice, int narrow,
                     int B, int H, int W, int Cin, int Ho, int Wo, int Cout,
                     int kh, int kw, int sy, int sx, int py, int px) {
    extern __shared__ __align__(16) operand shared[];
    Sizes sizes = {B, H, W, Cin, Ho, Wo, Cout, kh, kw, sy, sx, py, px};
    if (narrow)
        input_grad_tile<NARROW_TILE_M, NARROW_TILE_N>(shared, dy, w, bias_or_null, slope, dx,
                                                      columns, slice, sizes);
    else
        input_grad_tile<TILE_M, TILE_N>(shared, dy, w, bias_or_null, slope, dx, columns, slice,
                                        sizes);
}

template <int M, int N, class Input, class Output, class Shared, class Windows>
__device__ __forceinline__ void weight_grad_tile(Shared shared, Windows& windows, Input x,
                                                 Input dy, Output partial, int columns,
                                                 int channels, int slice, Sizes s) {
    constexpr int ACROSS = M / VECTOR;  // threads that copy one row of A, which is a pixel
    int first = blockIdx.z * slice;
    int last = min(s.B * s.Ho * s.Wo, first + slice);
    int steps = (last - first + TILE_K - 1) / TILE_K;
    int line = threadIdx.x % ACROSS * VECTOR, step = 0;
    // A thread's tap stays the same; its pixels change.
    Tap tap = window_tap(blockIdx.x * M + line, s.kh, s.kw, s.Cin);
    int along = (tap.y * s.W + tap.x) * s.Cin + tap.c;
    // The next pixel for find_window.
    int k = first + threadIdx.x;
    int ox = k % s.Wo;
    int oy = k / s.Wo % s.Ho;
    int b = k / s.Wo / s.Ho;
    auto find_window = [&](int step) {  // for a stage, one barrier before it is needed
        if (threadIdx.x >= TILE_K) return;
        Pixel pixel = {b, oy * s.sy - s.py, ox * s.sx - s.px};
        if (first + step * TILE_K + threadIdx.x >= last) pixel = NO_PIXEL;
        windows[step % STAGES][threadIdx.x] = Window(pixel, s.H, s.W, s.Cin);
        for (ox += TILE_K; ox >= s.Wo; ox -= s.Wo) ++oy;
        for (; oy >= s.Ho; oy -= s.Ho) ++b;
    };
    float sum[4][8][4] = {};
    for (int step = 0; step < STAGES - 1; ++step) find_window(step);
    __syncthreads();
    pipeline<false, false, M, N>(shared, steps, [&](Shared As, Shared Bs) {
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
            auto to = As + tile_place<false, M>(line, k + i * ROWS);
            copy_async(to, x + (found[i].offset + along), yy < s.H && xx < s.W);
        }
        copy_rows<N>(Bs, dy, first + step * TILE_K, last, blockIdx.y * N, s.Cout);
        ++step;
    }, sum);
    store_tile<M, N>(sum, (const real*)nullptr, 1, partial, columns, [=](int m) {
        int taps = s.kh * s.kw;
        int tap = m / s.Cin;
        int c = m % s.Cin;
        return tap < taps && c < channels ? (blockIdx.z * taps + tap) * channels + c : -1;
    });
}

extern "C" __global__ __launch_bounds__(THREADS)
void conv_weight_grad(const operand* __restrict__ x, const operand* __restrict__ dy,
                      real* __restrict__ partial, int columns, int channels, int slice, int narrow,
                      int B, int H, int W, int Cin, int Ho, int Wo, int Cout,
                      int kh, int kw, int sy, int sx, int py, int px) {
    extern __shared__ __align__(16) operand shared[];
    Sizes sizes = {B, H, W, Cin, Ho, Wo, Cout, kh, kw, sy, sx, py, px};
    __shared__ Window windows[STAGES][TILE_K];
    if (narrow)
        weight_grad_tile<NARROW_TILE_M, NARROW_TILE_N>(shared, windows, x, dy, partial, columns,
                                                       channels, slice, sizes);
    else
        weight_grad_tile<TILE_M, TILE_N>(shared, windows, x, dy, partial, columns, channels, slice,
                                         sizes);
}
