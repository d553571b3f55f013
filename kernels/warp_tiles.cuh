// How a tile in shared memory becomes the registers of a warp, as tensor_cores.cuh describes them,
// and how its sums become outputs. For conv/ from step 7 on.
#pragma once

// A tile holds lines x TILE_K numbers in the order of global memory: as [line][k] (BY_LINE), 64
// bytes per line, or as [k][line] with a gap of 8 numbers after each row of lines. By line, the
// four vectors of a line change places, differently for lines 0-1, 2-3, 4-5 and 6-7. So the 32
// words that a warp reads or writes at once are in 32 different banks.
constexpr int tile_size(Layout layout, int lines) {
    return layout == BY_LINE ? lines * TILE_K : TILE_K * (lines + 8);
}
template <Layout LAYOUT, int LINES> __device__ __forceinline__ int tile_place(int line, int k) {
    if (LAYOUT == BY_TERM) return k * (LINES + 8) + line;
    return line * TILE_K + (k / VECTOR ^ line / 2 % VECTORS) * VECTOR + k % VECTOR;
}

// A lane holds four words of 16 lines: t and t + 4 of lines g and g + 8. The instruction expects
// them ordered by word for A and by line for B.
enum Factor { A, B };

// The place of this lane's words in the 16 lines from `line` on, for the MMA_K terms from k on.
template <Factor FACTOR, Layout LAYOUT, int LINES>
__device__ __forceinline__ int lane_place(int line, int k) {
    int lane = threadIdx.x % WARP, row = lane % 8;
    int second_line = FACTOR == A ? lane / 8 % 2 : lane / 16;
    int second_word = FACTOR == A ? lane / 16 : lane / 8 % 2;
    if (LAYOUT == BY_LINE)
        return tile_place<BY_LINE, LINES>(line + second_line * 8 + row, k + second_word * VECTOR);
    if (TF32) return tile_place<BY_TERM, LINES>(line + lane / 4, k + lane % 4);
    return tile_place<BY_TERM, LINES>(line + second_line * 8, k + second_word * 8 + row);
}

// This lane's four words of the 16 lines from `line` on, a multiple of 16; `at` is a tile's pointer
// plus lane_place of line 0.
template <Factor FACTOR, Layout LAYOUT, int LINES, class At>
__device__ __forceinline__ void load_16_lines(At at, int line, unsigned (&words)[4]) {
    if constexpr (LAYOUT == BY_LINE) {
        load_matrices<false>(words, at + line * TILE_K);
    } else if constexpr (!TF32) {  // the two numbers of a word are in two rows
        load_matrices<true>(words, at + line);
    } else {
        #pragma unroll
        for (int i = 0; i < 4; ++i) {
            int second_line = FACTOR == A ? i % 2 : i / 2;
            int second_word = FACTOR == A ? i / 2 : i % 2;
            int place = tile_place<BY_TERM, LINES>(line + second_line * 8, second_word * 4);
            words[i] = *(const unsigned*)(at + place);
        }
    }
}

// sum += A B over a tile, for the 16 MI lines of A from m on and the 8 NI lines of B from n on.
template <Layout A_LAYOUT, Layout B_LAYOUT, int LINES_A, int LINES_B, int MI, int NI, class Tile>
__device__ __forceinline__ void multiply_tiles(Tile As, Tile Bs, int m, int n,
                                               float (&sum)[MI][NI][4]) {
    #pragma unroll
    for (int k = 0; k < TILE_K; k += MMA_K) {
        auto a_lane = As + lane_place<A, A_LAYOUT, LINES_A>(m, k);
        auto b_lane = Bs + lane_place<B, B_LAYOUT, LINES_B>(n, k);
        unsigned a[MI][4], b[NI / 2][4];
        #pragma unroll
        for (int i = 0; i < MI; ++i)
            load_16_lines<A, A_LAYOUT, LINES_A>(a_lane, 16 * i, a[i]);
        #pragma unroll
        for (int j = 0; j < NI / 2; ++j)
            load_16_lines<B, B_LAYOUT, LINES_B>(b_lane, 16 * j, b[j]);
        #pragma unroll
        for (int i = 0; i < MI; ++i)
            #pragma unroll
            for (int j = 0; j < NI; ++j)
                mma(sum[i][j], {{a[i][0], a[i][1], a[i][2], a[i][3]},
                                {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]}});
    }
}

// Calls store(place(row), column, value, value of the next column) for all outputs of this lane,
// except in rows whose place is negative.
template <int MI, int NI, class Place, class Store>
__device__ __forceinline__ void each_output(const float (&sum)[MI][NI][4], int m, int n,
                                            Place place, Store store) {
    int g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
    #pragma unroll
    for (int i = 0; i < 2 * MI; ++i) {
        int row = place(m + g + 8 * i);
        if (row < 0) continue;
        #pragma unroll
        for (int j = 0; j < NI; ++j) {
            const float* pair = sum[i / 2][j] + i % 2 * 2;
            store(row, n + 2 * t + 8 * j, pair[0], pair[1]);
        }
    }
}

// The corner of the outputs of a warp in the block's tile: WARPS_N warps share its columns.
struct Corner { int m, n; };
template <int WARP_M, int WARP_N, int TILE_N> __device__ __forceinline__ Corner own_corner() {
    constexpr int WARPS_N = TILE_N / WARP_N;
    int warp = threadIdx.x / WARP;
    return {warp / WARPS_N * WARP_M, warp % WARPS_N * WARP_N};
}

// Writes this lane's outputs to out[place(row) * columns + column], after bias and activation: the
// lane's rows and columns count from (m, n).
template <int MI, int NI, class Bias, class Output, class Place>
__device__ __forceinline__ void store_outputs(const float (&sum)[MI][NI][4], int m, int n,
                                              Bias bias_or_null, float slope, Output out,
                                              int columns, Place place) {
    each_output(sum, m, n, place, [=](int row, int n, float first, float second) {
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
