// The gradients of batch normalization and of the activation after it (forward: batch_norm.cu).
// Architectures: sm_75 sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//   batch_norm_grad_sums    for each slab, the sums of dn and of dn n, both (slabs, C);
//                           reductions.cu adds them up to dbeta and dgamma
//   batch_norm_grad_apply   dx = gamma / std (dn - dbeta / rows - n dgamma / rows)
//
//   n = (x - mean) / std is the normalized input; dn is dy before the activation, dy act', which
//   is computed from y.
//
// Both are limited by memory bandwidth. Columns and Four: see vectors.cuh.
#include "common.cuh"
#include "vectors.cuh"

constexpr int THREADS = 256;

extern "C" __global__ __launch_bounds__(THREADS)
void batch_norm_grad_sums(const real* __restrict__ dy, const real* __restrict__ x,
                          const real* __restrict__ y, const real* __restrict__ mean,
                          const real* __restrict__ var, real eps, int activation,
                          real* __restrict__ dn_sums, real* __restrict__ dn_n_sums, int rows,
                          int C, int slab) {
    __shared__ Four sums[THREADS];
    Columns mine = columns(rows, slab);
    int c = mine.c;
    Four m = load4(mean, c, C);
    Four v = load4(var, c, C);
    Four sum = {};
    Four sum_n = {};
    for_rows(mine, C, [&](auto io, int row) {
        int i = row * C + c, end = row * C + C;
        Four dn = io.load(dy, i, end);
        Four fx = io.load(x, i, end);
        Four fy = io.load(y, i, end);
        for (int k = 0; k < FOUR; ++k) {
            dn.v[k] = activate_grad(dn.v[k], fy.v[k], activation);
            sum.v[k] += dn.v[k];
            sum_n.v[k] += dn.v[k] * (fx.v[k] - m.v[k]);
        }
    }, dy, x, y);
    for (int k = 0; k < FOUR; ++k) sum_n.v[k] /= sqrt(v.v[k] + eps);
    sum = column_sum(sum, sums);
    sum_n = column_sum(sum_n, sums);
    if (threadIdx.y == 0) {
        store4(dn_sums, blockIdx.y * C + c, blockIdx.y * C + C, sum);
        store4(dn_n_sums, blockIdx.y * C + c, blockIdx.y * C + C, sum_n);
    }
}

extern "C" __global__ __launch_bounds__(THREADS)
void batch_norm_grad_apply(const real* __restrict__ dy, const real* __restrict__ x,
                           const real* __restrict__ y, const real* __restrict__ gamma,
                           const real* __restrict__ mean, const real* __restrict__ var, real eps,
                           int activation, const real* __restrict__ dgamma,
                           const real* __restrict__ dbeta, real* __restrict__ dx, int rows, int C,
                           int slab) {
    Columns mine = columns(rows, slab);
    int c = mine.c;
    Four m = load4(mean, c, C);
    Four v = load4(var, c, C);
    Four g = load4(gamma, c, C);
    Four dg = load4(dgamma, c, C), db = load4(dbeta, c, C);
    for (int k = 0; k < FOUR; ++k) {
        real scale = 1 / sqrt(v.v[k] + eps);
        g.v[k] *= scale;
        dg.v[k] *= scale / rows;
        db.v[k] /= rows;
    }
    for_rows(mine, C, [&](auto io, int row) {
        int i = row * C + c, end = row * C + C;
        Four dn = io.load(dy, i, end);
        Four fx = io.load(x, i, end);
        Four fy = io.load(y, i, end);
        for (int k = 0; k < FOUR; ++k) {
            dn.v[k] = activate_grad(dn.v[k], fy.v[k], activation);
            dn.v[k] = g.v[k] * (dn.v[k] - db.v[k] - (fx.v[k] - m.v[k]) * dg.v[k]);
        }
        io.store(dx, i, end, dn);
    }, dy, x, y, dx);
}
