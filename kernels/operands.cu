// Before and after the tensor cores of conv/: round the operands, add up partial sums.
// Architectures: sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//   prepare                x (n, rows, C) -> y (n, padded_rows, padded_C), rounded to TF32 or bf16,
//                          with zeros as padding
//   sum_slices_activate    out = act(bias + sum of partial (slices, n) over its slices), bias (C,);
//                          the channels are the last axis of out
//
// In prepare each thread writes one vector of 16 bytes; in sum_slices_activate it computes one
// output. Limited by memory bandwidth.
#include "common.cuh"
#include "tensor_cores.cuh"

constexpr int THREADS = 256;

extern "C" __global__ __launch_bounds__(THREADS)
void prepare(const real* __restrict__ x, operand* __restrict__ y, int vectors, int rows, int C,
             int padded_rows, int padded_C) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= vectors) return;
    int per_row = padded_C / VECTOR;
    int c = i % per_row * VECTOR;
    int row = i / per_row % padded_rows;
    int n = i / per_row / padded_rows;
    auto from = x + ((n * rows + row) * C + c);
    float values[VECTOR] = {};
    if (row < rows && C % 4 == 0) {
        for (int j = 0; j < VECTOR && c + j < C; j += 4) {
            float4 four = *(const float4*)(from + j);
            values[j] = four.x;
            values[j + 1] = four.y;
            values[j + 2] = four.z;
            values[j + 3] = four.w;
        }
    } else if (row < rows) {
        for (int j = 0; j < VECTOR; ++j)
            if (c + j < C) values[j] = from[j];
    }
    Vector vector;
    for (int j = 0; j < VECTOR; ++j) rounded(values[j], vector.values[j]);
    *(Vector*)(y + i * VECTOR) = vector;
}

extern "C" __global__ __launch_bounds__(THREADS)
void sum_slices_activate(const real* __restrict__ partial, const real* __restrict__ bias_or_null,
                         int activation, real* __restrict__ out, int slices, int n, int C) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    real sum = bias_or_null ? bias_or_null[i % C] : 0;
    for (int slice = 0; slice < slices; ++slice) sum += partial[slice * n + i];
    out[i] = activate(sum, activation);
}
