// Copies of tiles whose indices advance without divisions, for step 11 of conv/. The including file
// defines THREADS and STAGES.
#pragma once

// For tiles [line][k], a thread copies the vectors at one place in the sum, from many lines. Four
// neighbouring lanes copy the 64 bytes of a line, so that the cache looks up few lines at a time.
__device__ __forceinline__ int own_vector() { return threadIdx.x % VECTORS * VECTOR; }
__device__ __forceinline__ int own_line(int i) {
    return threadIdx.x / VECTORS + i * (THREADS / VECTORS);
}

// A thread's place in the sum over (kh, kw, C): the tap and the first channel of its vector.
struct SumPlace {
    int y, x, c;
    __device__ SumPlace(int step, int kh, int kw, int C) {
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

// A pixel of a map and the offset of its first channel, which gives the offsets of its neighbours.
struct __align__(16) Window {
    int offset, y, x;
    __device__ Window() {}
    __device__ Window(Pixel p, int H, int W, int C)  // NO_PIXEL's offset may overflow
        : offset((unsigned(p.b * H + p.y) * W + p.x) * C), y(p.y), x(p.x) {}
};

// The windows of this thread's rows, for products whose rows are pixels.
template <int M, class Product>
__device__ __forceinline__ void find_windows(Window (&windows)[M * VECTORS / THREADS],
                                             const Product& p, int H, int W, int C) {
    #pragma unroll
    for (int i = 0; i < M * VECTORS / THREADS; ++i)
        windows[i] = Window(p.pixel(blockIdx.x * M + own_line(i)), H, W, C);
}

// Copies this thread's vectors of a map: those at `tap` from the corners `windows`, which is `step`
// numbers further on in memory.
template <int LINES, class Shared, class Pointer>
__device__ __forceinline__ void copy_windows(Shared tile, Pointer map, int H, int W,
                                             const Window (&windows)[LINES * VECTORS / THREADS],
                                             Tap tap, int step) {
    #pragma unroll
    for (int i = 0; i < LINES * VECTORS / THREADS; ++i) {
        unsigned y = windows[i].y + tap.y, x = windows[i].x + tap.x;  // negative: becomes large
        auto to = tile + tile_place<BY_LINE, LINES>(own_line(i), own_vector());
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
        auto to = tile + tile_place<BY_TERM, LINES>(n, k);
        copy_async(to, matrix + ((first + k) * C + n0 + n), first + k < rows && n0 + n < C);
    }
}

// ------------------------------------------------------------------------- the three functions
// This thread's copies for one of the products of implicit_gemm.cuh, from term p.first on. start()
// starts those of the next step. As, Bs: the stage that they fill.
template <int M, int N, class Product, class Input> struct Copies;

template <int M, int N, class Input> struct Copies<M, N, Sliced<Forward>, Input> {
    Sliced<Forward> p;
    Input x, w;
    SumPlace at;
    Window windows[M * VECTORS / THREADS];

    template <class Windows> __device__ Copies(Windows&, Sliced<Forward> p, Input x, Input w)
        : p(p), x(x), w(w), at(p.first / TILE_K, p.c.kh, p.c.kw, p.c.Cin) {
        find_windows<M>(windows, p, p.c.H, p.c.W, p.c.Cin);
    }
    template <class Shared> __device__ __forceinline__ void start(Shared As, Shared Bs) {
        Conv c = p.c;
        Tap tap = at.y < c.kh ? Tap{at.y, at.x} : NO_TAP;
        copy_windows<M>(As, x, c.H, c.W, windows, tap, (at.y * c.W + at.x) * c.Cin + at.c);
        // The tile's first row in w, seen as a matrix (kh kw Cin, Cout).
        int tile_row = (at.y * c.kw + at.x) * c.Cin + at.c - own_vector();
        copy_rows<N>(Bs, w, tile_row, c.kh * c.kw * c.Cin, blockIdx.y * N, c.Cout);
        at.advance(c.kh, c.kw, c.Cin);
    }
};

template <int M, int N, class Input> struct Copies<M, N, Sliced<PhaseGrad>, Input> {
    Sliced<PhaseGrad> p;
    Input dy, w;
    SumPlace at;
    Window windows[M * VECTORS / THREADS];

    template <class Windows> __device__ Copies(Windows&, Sliced<PhaseGrad> p, Input dy, Input w)
        : p(p), dy(dy), w(w),
          at(p.first / TILE_K, max(1, p.v.taps), max(1, p.h.taps), p.c.Cout) {
        find_windows<M>(windows, p, p.c.Ho, p.c.Wo, p.c.Cout);
    }
    template <class Shared> __device__ __forceinline__ void start(Shared As, Shared Bs) {
        Conv c = p.c;
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
    }
};

// A thread's tap stays the same; its pixels change. All threads need their windows, so these lie in
// shared memory, for as many steps as there are stages.
template <int M, int N, class Input> struct Copies<M, N, PaddedWeightGrad, Input> {
    static constexpr int ACROSS = M / VECTOR;      // threads that copy one row of A: a pixel
    static constexpr int ROWS = THREADS / ACROSS;  // that are copied at a time
    PaddedWeightGrad p;
    Input x, dy;
    Window (&windows)[STAGES][TILE_K];
    int step = 0, line, along;
    Tap tap;
    int b, oy, ox;  // the next pixel for find_window

    __device__ Copies(Window (&windows)[STAGES][TILE_K], PaddedWeightGrad p, Input x, Input dy)
        : p(p), x(x), dy(dy), windows(windows) {
        Conv c = p.c;
        line = threadIdx.x % ACROSS * VECTOR;
        tap = p.tap(blockIdx.x * M + line);
        along = (tap.y * c.W + tap.x) * c.Cin + tap.c;
        int k = p.first + threadIdx.x;
        ox = k % c.Wo;
        oy = k / c.Wo % c.Ho;
        b = k / c.Wo / c.Ho;
        for (int step = 0; step < STAGES - 1; ++step) find_window(step);
        __syncthreads();
    }
    __device__ __forceinline__ void find_window(int step) {  // one barrier before it is needed
        if (threadIdx.x >= TILE_K) return;
        Conv c = p.c;
        Pixel pixel = {b, oy * c.sy - c.py, ox * c.sx - c.px};
        if (p.first + step * TILE_K + threadIdx.x >= p.last) pixel = NO_PIXEL;
        windows[step % STAGES][threadIdx.x] = Window(pixel, c.H, c.W, c.Cin);
        for (ox += TILE_K; ox >= c.Wo; ox -= c.Wo) ++oy;
        for (; oy >= c.Ho; oy -= c.Ho) ++b;
    }
    template <class Shared> __device__ __forceinline__ void start(Shared As, Shared Bs) {
        Conv c = p.c;
        if (step + 1 >= STAGES - 1) find_window(step + 1);
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
    }
};
