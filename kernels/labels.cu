// Label maps stay on the device as one byte per pixel and become vectors when a batch needs them.
// Architectures: sm_75 sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//   gather   y[b, pixel] = table[labels[index[b], pixel]]
//
//   shapes: labels (N, pixels) uint8, index (B,), table (K, C), y (B, pixels, C)
//
// With the identity as the table, y is one-hot; with a table of colours, y is RGB. Each thread
// writes four neighbouring numbers of y: it computes map, pixel and channel of the first one and
// counts on from there. Limited by the bandwidth of writing y.
#include "common.cuh"
#include "vectors.cuh"

constexpr int THREADS = 256;

extern "C" __global__ __launch_bounds__(THREADS)
void gather(const uint8* __restrict__ labels, const int* __restrict__ index,
            const real* __restrict__ table, real* __restrict__ y, int n, int pixels, int K,
            int C) {
    int i = FOUR * (blockIdx.x * blockDim.x + threadIdx.x);
    int c = i % C;
    int pixel = i / C % pixels;
    int b = i / C / pixels;
    Four f = {};
    for (int k = 0; k < FOUR && i + k < n; ++k) {
        int label = labels[index[b] * pixels + pixel];
        f.v[k] = table[min(label, K - 1) * C + c];
        if (++c == C) {
            c = 0;
            if (++pixel == pixels) pixel = 0, ++b;
        }
    }
    store4(y, i, n, f);
}
