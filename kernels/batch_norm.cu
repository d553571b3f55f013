// Batch normalization (Ioffe and Szegedy 2015), fused with the activation behind it; statistics over maps and pixels.
// Architectures: sm_75 sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//   batch_norm_statistics   x (rows, C) -> per slab of rows: mean and m2 = sum of (x - mean)^2, (slabs, C) each
//   batch_norm_merge        those of all slabs -> mean, var (C,), and the running ones updated
//   batch_norm_apply        y = act(gamma (x - mean) / sqrt(var + eps) + beta)
//   batch_norm_grad_sums    per slab: sum of dn and of dn n, (slabs, C) each; reductions.cu adds them up to dbeta, dgamma
//   batch_norm_grad_apply   dx = gamma / std (dn - dbeta / rows - n dgamma / rows)
//
//   n = (x - mean) / std is the normalized input, dn = dy act'(y).
//
// Statistics are merged as (count, mean, m2) (Chan et al. 1983): E[x^2] - E[x]^2 loses all digits when |mean| >> std. A
// slab is read twice, the second time from the cache. All are bound by memory.
#include "common.cuh"

constexpr int THREADS = 256;

extern "C" __global__ __launch_bounds__(THREADS)
void batch_norm_statistics(const real* __restrict__ x, real* __restrict__ means, real* __restrict__ m2s,
                           int rows, int C, int slab) {
    __shared__ real values[THREADS];
    __shared__ real mean[WARP];
    int c = blockIdx.x * blockDim.x + threadIdx.x, first = blockIdx.y * slab, last = min(rows, first + slab);
    real sum = 0, m2 = 0;
    if (c < C)
        for (int row = first + threadIdx.y; row < last; row += blockDim.y) sum += x[row * C + c];
    sum = column_sum(sum, values);
    if (threadIdx.y == 0) mean[threadIdx.x] = sum / (last - first);
    __syncthreads();
    if (c < C)
        for (int row = first + threadIdx.y; row < last; row += blockDim.y) {
            real d = x[row * C + c] - mean[threadIdx.x];
            m2 += d * d;
        }
    m2 = column_sum(m2, values);
    if (threadIdx.y == 0 && c < C) {
        means[blockIdx.y * C + c] = mean[threadIdx.x];
        m2s[blockIdx.y * C + c] = m2;
    }
}

extern "C" __global__ __launch_bounds__(THREADS)
void batch_norm_merge(const real* __restrict__ means, const real* __restrict__ m2s, real* __restrict__ mean,
                      real* __restrict__ var, real* __restrict__ running_mean, real* __restrict__ running_var, real momentum,
                      int rows, int C, int slab) {
    int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= C) return;
    real m = 0, m2 = 0;
    for (int first = 0; first < rows; first += slab) {  // first = rows merged so far
        int i = first / slab * C + c, count = min(slab, rows - first);
        real delta = means[i] - m, share = real(count) / (first + count);
        m += delta * share;
        m2 += m2s[i] + delta * delta * first * share;
    }
    mean[c] = m;
    var[c] = m2 / rows;  // the biased variance normalizes, the unbiased one is what samples are drawn with
    running_mean[c] += momentum * (m - running_mean[c]);
    running_var[c] += momentum * (m2 / max(1, rows - 1) - running_var[c]);
}

extern "C" __global__ __launch_bounds__(THREADS)
void batch_norm_apply(const real* __restrict__ x, const real* __restrict__ gamma, const real* __restrict__ beta,
                      const real* __restrict__ mean, const real* __restrict__ var, real eps, int activation,
                      real* __restrict__ y, int n, int C) {
    int i = blockIdx.x * blockDim.x + threadIdx.x, c = i % C;
    if (i < n) y[i] = activate((x[i] - mean[c]) * (gamma[c] / sqrt(var[c] + eps)) + beta[c], activation);
}

extern "C" __global__ __launch_bounds__(THREADS)
void batch_norm_grad_sums(const real* __restrict__ dy, const real* __restrict__ x, const real* __restrict__ y,
                          const real* __restrict__ mean, const real* __restrict__ var, real eps, int activation,
                          real* __restrict__ dn_sums, real* __restrict__ dn_n_sums, int rows, int C, int slab) {
    __shared__ real values[THREADS];
    int c = blockIdx.x * blockDim.x + threadIdx.x, first = blockIdx.y * slab, last = min(rows, first + slab);
    real sum = 0, sum_n = 0;
    if (c < C) {
        real scale = 1 / sqrt(var[c] + eps);
        for (int row = first + threadIdx.y; row < last; row += blockDim.y) {
            int i = row * C + c;
            real dn = activate_grad(dy[i], y[i], activation);
            sum += dn;
            sum_n += dn * ((x[i] - mean[c]) * scale);
        }
    }
    sum = column_sum(sum, values);
    sum_n = column_sum(sum_n, values);
    if (threadIdx.y == 0 && c < C) {
        dn_sums[blockIdx.y * C + c] = sum;
        dn_n_sums[blockIdx.y * C + c] = sum_n;
    }
}

extern "C" __global__ __launch_bounds__(THREADS)
void batch_norm_grad_apply(const real* __restrict__ dy, const real* __restrict__ x, const real* __restrict__ y,
                           const real* __restrict__ gamma, const real* __restrict__ mean, const real* __restrict__ var, real eps,
                           int activation, const real* __restrict__ dgamma, const real* __restrict__ dbeta,
                           real* __restrict__ dx, int n, int C) {
    int i = blockIdx.x * blockDim.x + threadIdx.x, c = i % C;
    if (i >= n) return;
    real scale = 1 / sqrt(var[c] + eps), rows = n / C;
    real dn = activate_grad(dy[i], y[i], activation);
    dx[i] = gamma[c] * scale * (dn - dbeta[c] / rows - (x[i] - mean[c]) * scale * dgamma[c] / rows);
}
