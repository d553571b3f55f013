// Four neighbouring numbers at a time. A GPU reaches its memory bandwidth only with loads and
// stores of 16 bytes.
#pragma once

constexpr int FOUR = 4;
struct __align__(16) Four { real v[FOUR]; };

template <class Pointer>
__device__ __forceinline__ bool aligned(Pointer x, int i) {
    return (size_t)&x[i] % alignof(Four) == 0;
}

// Reads x[i] ... x[i + 3], with 0 from x[n] on. One load if the address is a multiple of 16 bytes:
// with 3 or 22 channels, not every row starts at one.
template <class Pointer> __device__ __forceinline__ Four load4(Pointer x, int i, int n) {
    if (n - i >= FOUR && aligned(x, i)) return *(const Four*)(x + i);
    Four f = {};
    #pragma unroll
    for (int k = 0; k < FOUR; ++k)
        if (k < n - i) f.v[k] = x[i + k];
    return f;
}

// Writes f to y[i] ... y[i + 3], but nothing from y[n] on.
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
// x (rows, C): a block of (width, height) threads processes 4 * width columns of a slab of rows.
// Each thread takes four neighbouring columns and every height-th row. So a thread computes the
// values that belong to its channels only once, and its indices need no division.
struct Columns { int c, first, last; };  // the first of the four columns; the rows of the block

__device__ __forceinline__ Columns columns(int rows, int slab) {
    int first = blockIdx.y * slab;
    return {FOUR * int(blockIdx.x * blockDim.x + threadIdx.x), first, min(rows, first + slab)};
}

// Calls body(io, row) for each of the thread's rows. There are two loops. If C is a multiple of
// four and all arrays are aligned, io.load and io.store need no checks, and the loads of four rows
// can run at the same time.
struct Whole {
    template <class Pointer> __device__ __forceinline__ Four load(Pointer x, int i, int) {
        return *(const Four*)(x + i);
    }
    template <class Pointer> __device__ __forceinline__ void store(Pointer y, int i, int, Four f) {
        *(Four*)(y + i) = f;
    }
};
struct Ragged {
    template <class Pointer> __device__ __forceinline__ Four load(Pointer x, int i, int n) {
        return load4(x, i, n);
    }
    template <class Pointer>
    __device__ __forceinline__ void store(Pointer y, int i, int n, Four f) {
        store4(y, i, n, f);
    }
};
template <class Body, class... Pointers>
__device__ __forceinline__ void for_rows(Columns v, int C, Body body, Pointers... arrays) {
    int row = v.first + threadIdx.y;
    int height = blockDim.y;
    int count = v.c < C ? (v.last - row + height - 1) / height : 0;
    if (C % FOUR == 0 && (aligned(arrays, 0) && ...)) {
        #pragma unroll 4
        for (int k = 0; k < count; ++k) body(Whole(), row + k * height);
    } else
        for (int k = 0; k < count; ++k) body(Ragged(), row + k * height);
}

// Sums over the rows of the block. Only the threads of row 0 receive them. A thread reads its own
// place alone after the last barrier, so the same `sums` can be used again at once.
__device__ __forceinline__ Four column_sum(Four f, Four* sums /* shared, one per thread */) {
    int place = threadIdx.y * blockDim.x + threadIdx.x;
    sums[place] = f;
    __syncthreads();
    for (int rows = blockDim.y / 2; rows > 0; rows /= 2) {
        if (threadIdx.y < rows)
            for (int k = 0; k < FOUR; ++k) sums[place].v[k] += sums[place + rows * blockDim.x].v[k];
        __syncthreads();
    }
    return sums[place];
}
