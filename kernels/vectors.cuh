// Four neighbouring numbers at a time: loads and stores of 16 bytes, which is what it takes to reach a card's bandwidth.
#pragma once

constexpr int FOUR = 4;
struct __align__(16) Four { real v[FOUR]; };

// x[i] to x[i + 3]; 0 from x[n] on. In one piece where the address allows it: with 3 or 22 channels not every row does.
template <class Pointer> __device__ __forceinline__ Four load4(Pointer x, int i, int n) {
    if (n - i >= FOUR && (size_t)&x[i] % alignof(Four) == 0) return *(const Four*)(x + i);
    Four f = {};
    #pragma unroll
    for (int k = 0; k < FOUR; ++k)
        if (k < n - i) f.v[k] = x[i + k];
    return f;
}

// y[i] to y[i + 3] = f, but nothing from y[n] on.
template <class Pointer> __device__ __forceinline__ void store4(Pointer y, int i, int n, Four f) {
    if (n - i >= FOUR && (size_t)&y[i] % alignof(Four) == 0) {
        *(Four*)(y + i) = f;
        return;
    }
    #pragma unroll
    for (int k = 0; k < FOUR; ++k)
        if (k < n - i) y[i + k] = f.v[k];
}

// ------------------------------------------------------------------------------------ columns
// x (rows, C): a block of (width, height) threads has 4 width columns of a slab of the rows, a thread four neighbouring
// columns in every height-th row. So what belongs to a channel is worked out once a thread, and no index is divided.
struct Columns { int c, first, last; };  // the first of the four, and the rows of the block

__device__ __forceinline__ Columns columns(int rows, int slab) {
    int first = blockIdx.y * slab;
    return {FOUR * int(blockIdx.x * blockDim.x + threadIdx.x), first, min(rows, first + slab)};
}

// Sums over the rows of the block; only the threads of row 0 receive them.
__device__ __forceinline__ Four column_sum(Four f, Four* sums /* shared, one a thread */) {
    int place = threadIdx.y * blockDim.x + threadIdx.x;
    sums[place] = f;
    __syncthreads();
    for (int rows = blockDim.y / 2; rows > 0; rows /= 2) {
        if (threadIdx.y < rows)
            for (int k = 0; k < FOUR; ++k) sums[place].v[k] += sums[place + rows * blockDim.x].v[k];
        __syncthreads();
    }
    return sums[threadIdx.x];
}
