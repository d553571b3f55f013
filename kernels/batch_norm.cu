// Batch normalization (Ioffe and Szegedy 2015) over maps and pixels, and the activation after it.
// Architectures: sm_75 sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//   batch_norm_statistics   x (rows, C) -> for each slab of rows, the mean and m2 = sum of
//                           (x - mean)^2, both (slabs, C)
//   batch_norm_merge        the statistics of all slabs -> mean, var (C,); updates running_*
//   batch_norm_apply        y = act(gamma (x - mean) / sqrt(var + eps) + beta)
//
// Statistics are merged as (count, mean, m2) (Chan et al. 1983), because E[x^2] - E[x]^2 loses all
// digits when |mean| >> std. Each slab is read twice, the second time from the cache. All three are
// limited by memory bandwidth. Columns and Four: see vectors.cuh.
#include "common.cuh"
#include "vectors.cuh"

constexpr int THREADS = 256;

extern "C" __global__ __launch_bounds__(THREADS)
void batch_norm_statistics(const real* __restrict__ x, real* __restrict__ means,
                           real* __restrict__ m2s, int rows, int C, int slab) {
    __shared__ Four sums[THREADS];
    __shared__ Four means_here[WARP];
    Columns mine = columns(rows, slab);
    int c = mine.c;
    Four mean = {}, m2 = {};
    for_rows(mine, C, [&](auto io, int row) {
        Four f = io.load(x, row * C + c, row * C + C);
        for (int k = 0; k < FOUR; ++k) mean.v[k] += f.v[k];
    }, x);
    mean = column_sum(mean, sums);
    for (int k = 0; k < FOUR; ++k) mean.v[k] /= mine.last - mine.first;
    if (threadIdx.y == 0) means_here[threadIdx.x] = mean;
    __syncthreads();
    mean = means_here[threadIdx.x];
    for_rows(mine, C, [&](auto io, int row) {
        Four f = io.load(x, row * C + c, row * C + C);
        for (int k = 0; k < FOUR; ++k) m2.v[k] += (f.v[k] - mean.v[k]) * (f.v[k] - mean.v[k]);
    }, x);
    m2 = column_sum(m2, sums);
    if (threadIdx.y == 0) {
        store4(means, blockIdx.y * C + c, blockIdx.y * C + C, mean);
        store4(m2s, blockIdx.y * C + c, blockIdx.y * C + C, m2);
    }
}

// One block merges its columns of all slabs: first the mean, as the mean of slab 0 plus the others'
// differences from it; then m2.
extern "C" __global__ __launch_bounds__(THREADS)
void batch_norm_merge(const real* __restrict__ means, const real* __restrict__ m2s,
                      real* __restrict__ mean, real* __restrict__ var,
                      real* __restrict__ running_mean, real* __restrict__ running_var,
                      real momentum, int rows, int C, int slab) {
    __shared__ Four sums[THREADS];
    __shared__ Four means_here[WARP];
    int slabs = (rows + slab - 1) / slab;
    Columns mine = columns(slabs, slabs);
    int c = mine.c;
    Four start = load4(means, c, C);
    Four m = {};
    Four m2 = {};
    for_rows(mine, C, [&](auto io, int i) {
        Four f = io.load(means, i * C + c, i * C + C);
        for (int k = 0; k < FOUR; ++k) m.v[k] += (f.v[k] - start.v[k]) * min(slab, rows - i * slab);
    }, means, m2s);
    m = column_sum(m, sums);
    for (int k = 0; k < FOUR; ++k) m.v[k] = start.v[k] + m.v[k] / rows;
    if (threadIdx.y == 0) means_here[threadIdx.x] = m;
    __syncthreads();
    m = means_here[threadIdx.x];
    for_rows(mine, C, [&](auto io, int i) {
        Four f = io.load(means, i * C + c, i * C + C), f2 = io.load(m2s, i * C + c, i * C + C);
        for (int k = 0; k < FOUR; ++k)
            m2.v[k] += f2.v[k] + (f.v[k] - m.v[k]) * (f.v[k] - m.v[k]) * min(slab, rows - i * slab);
    }, means, m2s);
    m2 = column_sum(m2, sums);
    if (threadIdx.y > 0) return;
    for (int k = 0; k < FOUR && c + k < C; ++k) {
        mean[c + k] = m.v[k];
        // The biased variance normalizes this batch; the unbiased one is kept for generating
        // samples.
        var[c + k] = m2.v[k] / rows;
        running_mean[c + k] += momentum * (m.v[k] - running_mean[c + k]);
        running_var[c + k] += momentum * (m2.v[k] / max(1, rows - 1) - running_var[c + k]);
    }
}

extern "C" __global__ __launch_bounds__(THREADS)
void batch_norm_apply(const real* __restrict__ x, const real* __restrict__ gamma,
                      const real* __restrict__ beta, const real* __restrict__ mean,
                      const real* __restrict__ var, real eps, int activation, real* __restrict__ y,
                      int rows, int C, int slab) {
    Columns mine = columns(rows, slab);
    int c = mine.c;
    Four scale = load4(gamma, c, C);
    Four shift = load4(beta, c, C);
    Four m = load4(mean, c, C);
    Four v = load4(var, c, C);
    for (int k = 0; k < FOUR; ++k) scale.v[k] /= sqrt(v.v[k] + eps);
    for_rows(mine, C, [&](auto io, int row) {
        Four f = io.load(x, row * C + c, row * C + C);
        for (int k = 0; k < FOUR; ++k)
            f.v[k] = activate((f.v[k] - m.v[k]) * scale.v[k] + shift.v[k], activation);
        io.store(y, row * C + c, row * C + C, f);
    }, x, y);
}
