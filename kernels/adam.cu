// Adam (Kingma and Ba 2015, algorithm 1) on the flat buffers of a whole network.
// Architectures: sm_75 sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//   adam_advance   t += 1, then what all parameters share:
//                  scales = (lr / (1 - beta1^t), 1 / (1 - beta2^t))
//   adam           m += share1 (g - m),  v += share2 (g^2 - v),
//                  params -= scales[0] m / (sqrt(v scales[1]) + eps)
//
// share1 = 1 - beta1 and share2 = 1 - beta2 come from the host, and adam_advance computes in
// double, because 1 - 0.999 loses two digits in float. The counter t (`step`) and the learning rate
// are kept on the device, so a recorded sequence of launches stays correct when it is launched
// again. adam_advance runs as one thread and in a launch of its own, so every block of adam sees
// the same count. In adam each thread updates four neighbouring parameters. Limited by memory
// bandwidth: 7 numbers are moved for each parameter.
#include "common.cuh"
#include "vectors.cuh"

constexpr int THREADS = 256;

extern "C" __global__ __launch_bounds__(1)
void adam_advance(real* __restrict__ step, const real* __restrict__ lr, real* __restrict__ scales,
                  double beta1, double beta2) {
    step[0] += 1;
    scales[0] = lr[0] / (1 - pow(beta1, double(step[0])));
    scales[1] = 1 / (1 - pow(beta2, double(step[0])));
}

extern "C" __global__ __launch_bounds__(THREADS)
void adam(real* __restrict__ params, const real* __restrict__ grads, real* __restrict__ m,
          real* __restrict__ v, const real* __restrict__ scales, real share1, real share2,
          real eps, int n) {
    int i = FOUR * (blockIdx.x * blockDim.x + threadIdx.x);
    Four g = load4(grads, i, n);
    Four fm = load4(m, i, n);
    Four fv = load4(v, i, n);
    Four p = load4(params, i, n);
    for (int k = 0; k < FOUR; ++k) {
        fm.v[k] += share1 * (g.v[k] - fm.v[k]);
        fv.v[k] += share2 * (g.v[k] * g.v[k] - fv.v[k]);
        p.v[k] -= scales[0] * fm.v[k] / (sqrt(fv.v[k] * scales[1]) + eps);
    }
    store4(m, i, n, fm);
    store4(v, i, n, fv);
    store4(params, i, n, p);
}
