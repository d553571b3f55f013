// Bias and activation behind a layer, where no convolution or batch norm does it in passing; and its gradient.
// Architectures: sm_75 sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//   bias_activation        y = act(x + bias)              x, y (rows, C), bias (C,)
//   bias_activation_grad   dx = dy act'(y)                dbias is the sum of dx over the rows: reductions.cu
//
// A thread owns one number; neighbouring threads, neighbouring numbers. Bound by memory: two, three numbers moved a number.
#include "common.cuh"

constexpr int THREADS = 256;

extern "C" __global__ __launch_bounds__(THREADS)
void bias_activation(const real* __restrict__ x, const real* __restrict__ bias_or_null, int activation,
                     real* __restrict__ y, int n, int C) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = activate(x[i] + (bias_or_null ? bias_or_null[i % C] : 0), activation);
}

extern "C" __global__ __launch_bounds__(THREADS)
void bias_activation_grad(const real* __restrict__ dy, const real* __restrict__ y, int activation,
                          real* __restrict__ dx, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) dx[i] = activate_grad(dy[i], y[i], activation);
}
