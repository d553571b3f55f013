// Four neighbouring numbers at a time: loads and stores of 16 bytes, which is what it takes to reach a card's bandwidth.
#pragma once

constexpr int FOUR = 4;
struct __align__(16) Four { real v[FOUR]; };

template <class Pointer>
__device__ __forceinline__ bool aligned(Pointer x, int i) { return (size_t)&x[i] % alignof(Four) == 0; }

// x[i] to x[i + 3]; 0 from x[n] on. In one piece where the address allows it: with 3 or 22 channels not every row does.
template <class Pointer> __device__ __forceinline__ Four load4(Pointer x, int i, int n) {
    if (n - i >= FOUR && aligned(x, i)) return *(const Four*)(x + i);
    Four f = {};
    #pragma unroll
    for (int k = 0; k < FOUR; ++k)
        if (k < n - i) f.v[k] = x[i + k];
    return f;
}

// y[i] to y[i + 3] = f, but nothing from y[n] on.
template <class Pointer> __device__ __forceinline__ void store4(Pointer y, int i, int n, Four f) {
    if (n - i >= FOUR && aligned(y, i)) {
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

// body(io, row) for each of the thread's rows. The loop is there twice: with C a multiple of four and all arrays aligned,
// io.load and io.store need not look at the place, so that the loads of four rows are under way at the same time.
struct Whole {
    template <class Pointer> __device__ __forceinline__ Four load(Pointer x, int i, int) { return *(const Four*)(x + i); }
    template <class Pointer> __device__ __forceinline__ void store(Pointer y, int i, int, Four f) { *(Four*)(y + i) = f; }
};
struct Ragged {
    template <class Pointer> __device__ __forceinline__ Four load(Pointer x, int i, int n) { return load4(x, i, n); }
    template <class Pointer> __device__ __forceinline__ void store(Pointer y, int i, int n, Four f) { store4(y, i, n, f); }
};
template <class Body, class... Pointers>
__device__ __forceinline__ void for_rows(Columns v, int C, Body body, Pointers... arrays) {
    int row = v.first + threadIdx.y, height = blockDim.y, count = v.c < C ? (v.last - row + height - 1) / height : 0;
    if (C % FOUR == 0 && (aligned(arrays, 0) && ...)) {
        #pragma unroll 4
        for (int k = 0; k < count; ++k) body(Whole(), row + k * height);
    } else
        for (int k = 0; k < count; ++k) body(Ragged(), row + k * height);
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
