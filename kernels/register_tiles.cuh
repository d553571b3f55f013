// What steps 4 to 6 of conv/ share: how a thread multiplies and stores its 8 x 8 numbers of a tile.
// The including file defines TILE_M, TILE_N and TILE_K.
#pragma once

constexpr int OWN = 8;  // rows and columns of a thread
constexpr int GAP = 4;  // numbers after each row of a tile: rows stay aligned, and a warp that
                        // writes 8 x 4 numbers of a tile (steps 4, 5) meets 32 different banks

// A thread's rows and columns: four neighbours, which one read of 16 bytes takes, and four
// neighbours half a tile further on.
__device__ __forceinline__ int own_row(int i) {
    return i / FOUR * (TILE_M / 2) + threadIdx.x / OWN * FOUR + i % FOUR;
}
__device__ __forceinline__ int own_column(int j) {
    return j / FOUR * (TILE_N / 2) + threadIdx.x % OWN * FOUR + j % FOUR;
}

// sum += As^T Bs, for this thread's rows and columns
__device__ __forceinline__ void multiply(const real (&As)[TILE_K][TILE_M + GAP],
                                         const real (&Bs)[TILE_K][TILE_N + GAP],
                                         real (&sum)[OWN][OWN]) {
    #pragma unroll
    for (int k = 0; k < TILE_K; ++k) {
        Four a[OWN / FOUR], b[OWN / FOUR];
        #pragma unroll
        for (int i = 0; i < OWN / FOUR; ++i) {
            a[i] = *(const Four*)&As[k][own_row(FOUR * i)];
            b[i] = *(const Four*)&Bs[k][own_column(FOUR * i)];
        }
        #pragma unroll
        for (int i = 0; i < OWN; ++i)
            #pragma unroll
            for (int j = 0; j < OWN; ++j)
                sum[i][j] += a[i / FOUR].v[i % FOUR] * b[j / FOUR].v[j % FOUR];
    }
}

// Writes this thread's numbers of the result, after bias and activation.
template <class Product, class Output, class Bias, class Activation>
__device__ __forceinline__ void store_own(Output out, Product p, int m0, int n0, int columns,
                                          const real (&sum)[OWN][OWN], Bias bias_or_null,
                                          Activation activation) {
    #pragma unroll
    for (int i = 0; i < OWN; ++i) {
        int place = p.place(m0 + own_row(i));
        #pragma unroll
        for (int j = 0; j < OWN; ++j)
            store(out, place, n0 + own_column(j), columns, sum[i][j], bias_or_null, activation);
    }
}
