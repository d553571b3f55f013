// What step 9 of conv/ needs besides tensor_cores.cuh: a pipeline over dynamic shared memory, and
// copies whose indices advance without divisions. The including file defines THREADS, STAGES and
// SHARED_BYTES.
#pragma once

// Multiplies `steps` stages. load(As, Bs) fills them one after the other.
template <Layout A_LAYOUT, Layout B_LAYOUT, int M, int N, class Shared, class Load>
__device__ __forceinline__ void pipeline(Shared shared, int steps, Load load,
                                         float (&sum)[4][8][4]) {
    constexpr int A = tile_size(A_LAYOUT, M), STAGE = A + tile_size(B_LAYOUT, N);
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
        multiply_tiles<A_LAYOUT, B_LAYOUT, M, N>(now, now + A, warp / (N / 64) * 64,
                                                   warp % (N / 64) * 64, sum);
    }
}

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

// Writes a warp's 64 x 64 outputs, after bias and activation.
template <int M, int N, class Bias, class Output, class Rows>
__device__ __forceinline__ void store_tile(const float (&sum)[4][8][4], Bias bias_or_null,
                                           float slope, Output out, int columns, Rows place) {
    Corner corner = own_corner<64, 64, N>();
    store_outputs(sum, blockIdx.x * M + corner.m, blockIdx.y * N + corner.n, bias_or_null, slope,
                  out, columns, place);
}
