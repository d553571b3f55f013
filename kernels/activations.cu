// Bias and activation after a layer, where no convolution or batch norm applies them; the gradient.
// Architectures: sm_75 sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//   bias_activation        y = act(x + bias)        x, y (rows, C), bias (C,)
//   add                    y = a + b
//   bias_activation_grad   dx = dy act'(x + bias), computed from y, and the sums of dx over each
//                          slab of rows (slabs, C); reductions.cu adds them up to dbias
//
// In bias_activation and add neighbouring threads compute neighbouring numbers, one each.
// In the gradient each thread computes four columns (vectors.cuh), so the sums need no extra pass.
// All are limited by memory bandwidth: they move two or three numbers for each number computed.
#include "common.cuh"
#include "vectors.cuh"

constexpr int THREADS = 256;

extern "C" __global__ __launch_bounds__(THREADS)
void bias_activation(const real* __restrict__ x, const real* __restrict__ bias_or_null,
                     int activation, real* __restrict__ y, int n, int C) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = activate(x[i] + (bias_or_null ? bias_or_null[i % C] : 0), activation);
}

extern "C" __global__ __launch_bounds__(THREADS)
void add(const real* __restrict__ a, const real* __restrict__ b, real* __restrict__ y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = a[i] + b[i];
}

extern "C" __global__ __launch_bounds__(THREADS)
void bias_activation_grad(const real* __restrict__ dy, const real* __restrict__ y, int activation,
                          real* __restrict__ dx, real* __restrict__ partial_or_null, int rows,
                          int C, int slab) {
    __shared__ Four sums[THREADS];
    Columns mine = columns(rows, slab);
    int c = mine.c;
    Four sum = {};
    for_rows(mine, C, [&](auto io, int row) {
        int i = row * C + c, end = row * C + C;
        Four f = io.load(dy, i, end), fy = io.load(y, i, end);
        for (int k = 0; k < FOUR; ++k) {
            f.v[k] = activate_grad(f.v[k], fy.v[k], activation);
            sum.v[k] += f.v[k];
        }
        io.store(dx, i, end, f);
    }, dy, y, dx);
    if (!partial_or_null) return;
    sum = column_sum(sum, sums);
    if (threadIdx.y == 0) store4(partial_or_null, blockIdx.y * C + c, blockIdx.y * C + C, sum);
}
