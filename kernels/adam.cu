// Adam (Kingma and Ba 2015, algorithm 1) on the flat buffers of a whole network.
// Architectures: sm_75 sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//   adam_advance   counts the update, and prepares what all parameters share: scales = (lr / (1 - beta1^t), 1 / (1 - beta2^t))
//   adam           m += (1 - beta1) (g - m), v += (1 - beta2) (g^2 - v), params -= scales[0] m / (sqrt(v scales[1]) + eps)
//
// Counter and learning rate live on the device, so a recorded sequence of launches stays right when it is played again.
// adam_advance is one thread; it computes in double, because 1 - 0.999 in float has lost four digits. In adam a thread
// owns one parameter. Bound by memory: 7 numbers moved for each.
#include "common.cuh"

constexpr int THREADS = 256;

extern "C" __global__ __launch_bounds__(1)
void adam_advance(real* __restrict__ step, const real* __restrict__ lr, real* __restrict__ scales, double beta1, double beta2) {
    step[0] += 1;
    scales[0] = lr[0] / (1 - pow(beta1, double(step[0])));
    scales[1] = 1 / (1 - pow(beta2, double(step[0])));
}

extern "C" __global__ __launch_bounds__(THREADS)
void adam(real* __restrict__ params, const real* __restrict__ grads, real* __restrict__ m, real* __restrict__ v,
          const real* __restrict__ scales, real beta1, real beta2, real eps, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    real g = grads[i];
    m[i] += (1 - beta1) * (g - m[i]);
    v[i] += (1 - beta2) * (g * g - v[i]);
    params[i] -= scales[0] * m[i] / (sqrt(v[i] * scales[1]) + eps);
}
