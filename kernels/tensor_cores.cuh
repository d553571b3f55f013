// What conv/ needs from step 6 on besides plain CUDA C++: the tensor core and copy instructions,
// each in a small function, as PTX (GPU assembly) for a GPU and as equivalent C++ for the emulator.
//
// Tensor cores multiply a 16 x MMA_K matrix by an MMA_K x 8 matrix, both spread over the registers
// of a warp, and add to float32. The factors are TF32 (a float whose last 13 bits are ignored) or
// bf16 (the upper half of a float). `operand`, a compile option, is float or bf16 accordingly.
// Either way a lane holds words of 4 bytes: 1 TF32 number, or 2 bf16 numbers that are neighbours in
// the sum.
//
//   lane = 4 g + t    A:   word t of lines g, g + 8; word t + 4 of lines g, g + 8
//                     B:   words t, t + 4 of line g
//                     sum: lines g, g, g + 8, g + 8 of A with lines 2t, 2t + 1, 2t, 2t + 1 of B
//
// A line is a row of A or a column of B: 8 words along the sum.
#pragma once

constexpr bool TF32 = sizeof(operand) == 4;
constexpr int VECTOR = 16 / sizeof(operand);  // numbers in one asynchronous copy
constexpr int MMA_K = 32 / sizeof(operand);   // terms of the sum in one instruction
constexpr int TILE_K = 2 * MMA_K;             // along the sum in a tile: 64 bytes
constexpr int VECTORS = TILE_K / VECTOR;      // of 16 bytes, for those 64

struct Words { unsigned a[4], b[2]; };
struct __align__(16) Vector { operand values[VECTOR]; };

// ------------------------------------------------------------------------------ instructions
// y = x rounded to the nearest number of the tensor cores' type. TF32 keeps 10 bits of the mantissa
// (ties away from 0), bf16 keeps 7 (ties to even). NaN stays NaN. A TF32 number is stored as a
// float.
#ifdef EMULATOR
inline void rounded(float x, float& y) {
    unsigned bits;
    memcpy(&bits, &x, 4);
    bits = x - x == 0 ? bits + 0x1000 & 0xFFFFE000 : bits;
    memcpy(&y, &bits, 4);
}
inline void rounded(float x, bf16& y) {
    unsigned bits;
    memcpy(&bits, &x, 4);
    y = x == x ? bits + 0x7FFF + (bits >> 16 & 1) >> 16 : 0x7FFF;
}
#else
__device__ __forceinline__ void rounded(float x, float& y) {
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    y = __uint_as_float(bits);
}
__device__ __forceinline__ void rounded(float x, bf16& y) {
    unsigned bits;
    asm("cvt.rn.bf16x2.f32 %0, %1, %1;" : "=r"(bits) : "f"(x));
    y = bits;
}
#endif

// The number that an operand stands for.
__device__ __forceinline__ float widened(float x) { return x; }
__device__ __forceinline__ float widened(bf16 x) {
    unsigned bits = x << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

#ifdef EMULATOR
inline float word_value(unsigned word, int k) {  // TF32 ignores the last bits
    unsigned bits = TF32 ? word & 0xFFFFE000 : k % 2 ? word & 0xFFFF0000 : word << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
inline void mma(float (&sum)[4], const Words& words, int line = __builtin_LINE()) {
    int g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
    emulator::meet(words, line, [&](auto get) {
        for (int i = 0; i < 4; ++i)
            for (int k = 0; k < MMA_K; ++k) {
                int word = TF32 ? k : k / 2;
                const Words& a = get(4 * g + word % 4), & b = get(4 * (2 * t + i % 2) + word % 4);
                sum[i] += word_value(a.a[i / 2 + 2 * (word / 4)], k) * word_value(b.b[word / 4], k);
            }
    });
}
template <bool TRANSPOSED, class Pointer>
static void load_matrices(unsigned (&words)[4], Pointer row, int line = __builtin_LINE()) {
    const int4* place = (const int4*)row;  // this cast checks size and alignment
    emulator::meet(place, line, [&](auto get) {
        int g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
        for (int i = 0; i < 4; ++i)
            for (int half = 0; half < 2; ++half) {
                int row = TRANSPOSED ? 2 * t + half : g, column = TRANSPOSED ? g : 2 * t + half;
                memcpy((char*)&words[i] + 2 * half, (const char*)get(8 * i + row) + 2 * column, 2);
            }
    });
}
template <class To, class From>
static void copy_async(To to, From from, bool inside, int line = __builtin_LINE()) {
    const int4* source = inside ? (const int4*)from : nullptr;
    emulator::start_copy((int4*)to, source, 16, inside ? 16 : 0, line);
}
inline void commit_copies(int line = __builtin_LINE()) { emulator::commit_group(line); }
template <int PENDING> static void wait_for_copies() { emulator::wait_groups(PENDING); }

#else
// sum += A B
__device__ __forceinline__ void mma(float (&sum)[4], const Words& w) {
    if constexpr (TF32)
        asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
            "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
            : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
            : "r"(w.a[0]), "r"(w.a[1]), "r"(w.a[2]), "r"(w.a[3]), "r"(w.b[0]), "r"(w.b[1]));
    else
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
            "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
            : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
            : "r"(w.a[0]), "r"(w.a[1]), "r"(w.a[2]), "r"(w.a[3]), "r"(w.b[0]), "r"(w.b[1]));
}
__device__ __forceinline__ unsigned shared_address(const void* p) {
    return __cvta_generic_to_shared(p);
}
// Loads four matrices of 8 rows of 16 bytes; each lane receives one word of each matrix. Lanes 8 i
// to 8 i + 7 pass the addresses of the rows of matrix i. If TRANSPOSED, these are transposed
// matrices of 8 x 8 numbers of 2 bytes.
template <bool TRANSPOSED>
__device__ __forceinline__ void load_matrices(unsigned (&words)[4], const operand* row) {
    if constexpr (TRANSPOSED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                     : "r"(shared_address(row)) : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                     : "r"(shared_address(row)) : "memory");
}
// Copies 16 bytes from global to shared memory, without registers and while the thread continues;
// writes zeros if not `inside`.
__device__ __forceinline__ void copy_async(operand* to, const operand* from, bool inside) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;"
                 :: "r"(shared_address(to)), "l"(from), "r"(inside ? 16 : 0) : "memory");
}
__device__ __forceinline__ void commit_copies() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
// Waits for all copies of this thread except its last PENDING groups.
template <int PENDING> __device__ __forceinline__ void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" :: "n"(PENDING) : "memory");
}
#endif
