// How fast can this card multiply and add? Loops in registers alone: ceilings for convolutions.
// Architectures: sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
//
//   fma_loop   float32:  16 independent sums a thread
//   mma_tf32   mma.sync m16n8k8:   8 independent 16x8 tiles a warp
//   mma_bf16   mma.sync m16n8k16:  the same
//
// Each sum waits for its own previous result only, so there is always another one to work on.
// The operands are not zeros, whose multiplication takes less power. Every sum ends in `out`, or
// the compiler would leave the loop out.
constexpr int THREADS = 256;
constexpr int SUMS = 16;   // of a thread, in fma_loop
constexpr int TILES = 8;   // of a warp, in mma_tf32 and mma_bf16

extern "C" __global__ __launch_bounds__(THREADS)
void fma_loop(float* __restrict__ out, int steps) {
    float a = 0.9f + threadIdx.x * 1e-4f;
    float b = 1 + blockIdx.x * 1e-4f;
    float sum[SUMS], total = 0;
    #pragma unroll
    for (int i = 0; i < SUMS; ++i) sum[i] = i;
    for (int step = 0; step < steps; ++step)
        #pragma unroll
        for (int i = 0; i < SUMS; ++i) sum[i] = a * sum[i] + b;
    #pragma unroll
    for (int i = 0; i < SUMS; ++i) total += sum[i];
    out[blockIdx.x * THREADS + threadIdx.x] = total;
}

// The same loop for both types. A register holds one tf32 number or two bf16 numbers, all from 1 to
// 2 with random fractions.
#define MMA_LOOP(INSTRUCTION, ONES, FRACTION)                                               \
    unsigned a[4], b[2];                                                                    \
    float d[TILES][4] = {}, total = 0;                                                      \
    for (int i = 0; i < 4; ++i)                                                             \
        a[i] = ONES | (0x9e3779b9u * (threadIdx.x * 8 + i) & FRACTION);                     \
    for (int i = 0; i < 2; ++i)                                                             \
        b[i] = ONES | (0x9e3779b9u * (threadIdx.x * 8 + 4 + i) & FRACTION);                 \
    for (int step = 0; step < steps; ++step) {                                              \
        _Pragma("unroll")                                                                   \
        for (int i = 0; i < TILES; ++i)                                                     \
            asm volatile(INSTRUCTION                                                        \
                         " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
                         : "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])       \
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]),                      \
                           "r"(b[0]), "r"(b[1]));                                           \
    }                                                                                       \
    _Pragma("unroll")                                                                       \
    for (int i = 0; i < TILES; ++i) total += d[i][0] + d[i][1] + d[i][2] + d[i][3];         \
    out[blockIdx.x * THREADS + threadIdx.x] = total;

extern "C" __global__ __launch_bounds__(THREADS)
void mma_tf32(float* __restrict__ out, int steps) {
    MMA_LOOP("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", 0x3f800000u, 0x7fffffu)
}

extern "C" __global__ __launch_bounds__(THREADS)
void mma_bf16(float* __restrict__ out, int steps) {
    MMA_LOOP("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", 0x3f803f80u, 0x7f007fu)
}
