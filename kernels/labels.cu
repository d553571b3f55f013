// Label maps stay on the device as one byte a pixel and become vectors when a batch needs them.
// Architectures: sm_75 sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//   gather   y[b, pixel] = table[labels[index[b], pixel]]      labels (N, pixels) uint8, index (B,), table (K, C), y (B, pixels, C)
//
// With the identity as the table that is one-hot, with colours RGB. A thread owns one number of y. Bound by writing y.
#include "common.cuh"

constexpr int THREADS = 256;

extern "C" __global__ __launch_bounds__(THREADS)
void gather(const uint8* __restrict__ labels, const int* __restrict__ index, const real* __restrict__ table,
            real* __restrict__ y, int n, int pixels, int K, int C) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int label = labels[index[i / C / pixels] * pixels + i / C % pixels];
    y[i] = table[min(label, K - 1) * C + i % C];
}
