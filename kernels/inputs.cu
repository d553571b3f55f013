// The inputs of one training step: a row of a table, chosen by a counter on the device.
// Architectures: sm_75 sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//   take_row       out = table[number % rows]        table (rows, n), number (1,), out (n)
//   take_row_int   the same for tables of int
//
// The arguments of a recorded launch cannot change. So the latents, map indices and learning rates
// of many steps are kept in tables, and Adam's counter selects the row of the current step. Each
// thread copies one number. `number` is a real, which is exact up to 2^24 steps.
#include "common.cuh"

constexpr int THREADS = 256;

extern "C" __global__ __launch_bounds__(THREADS)
void take_row(const real* __restrict__ table, const real* __restrict__ number,
              real* __restrict__ out, int rows, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = table[int(number[0]) % rows * n + i];
}

extern "C" __global__ __launch_bounds__(THREADS)
void take_row_int(const int* __restrict__ table, const real* __restrict__ number,
                  int* __restrict__ out, int rows, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = table[int(number[0]) % rows * n + i];
}
