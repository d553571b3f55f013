// What steps 6 to 9 of conv/ need besides plain CUDA C++: the tensor core and copy instructions,
// each in a small function, as PTX (GPU assembly) for a GPU and as equivalent C++ for the emulator.
// And what they share: how a tile in shared memory becomes the registers of a warp, and back.
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

// A tile holds lines x TILE_K numbers in the order of global memory: as [line][k] (BY_LINE), 64
// bytes per line, or as [k][line] with a gap of 8 numbers after each row of lines. By line, the
// four vectors of a line change places, differently for lines 0-1, 2-3, 4-5 and 6-7. So the 32
// words that a warp reads or writes at once are in 32 different banks.
constexpr int TILE_K = 2 * MMA_K;
constexpr int VECTORS = TILE_K / VECTOR;  // along a line of a tile
constexpr int tile_size(Layout layout, int lines) {
    return layout == BY_LINE ? lines * TILE_K : TILE_K * (lines + 8);
}
template <Layout LAYOUT, int LINES> __device__ __forceinline__ int tile_place(int line, int k) {
    if (LAYOUT == BY_TERM) return k * (LINES + 8) + line;
    return line * TILE_K + (k / VECTOR ^ line / 2 % VECTORS) * VECTOR + k % VECTOR;
}

// A lane holds four words of 16 lines: t and t + 4 of lines g and g + 8. The instruction expects
// them ordered by word for A and by line for B.
enum Factor { A, B };

// The place of this lane's words in the 16 lines from `line` on, for the MMA_K terms from k on.
template <Factor FACTOR, Layout LAYOUT, int LINES>
__device__ __forceinline__ int lane_place(int line, int k) {
    int lane = threadIdx.x % WARP, row = lane % 8;
    int second_line = FACTOR == A ? lane / 8 % 2 : lane / 16;
    int second_word = FACTOR == A ? lane / 16 : lane / 8 % 2;
    if (LAYOUT == BY_LINE)
        return tile_place<BY_LINE, LINES>(line + second_line * 8 + row, k + second_word * VECTOR);
    if (TF32) return tile_place<BY_TERM, LINES>(line + lane / 4, k + lane % 4);
    return tile_place<BY_TERM, LINES>(line + second_line * 8, k + second_word * 8 + row);
}

// This lane's four words of the 16 lines from `line` on, a multiple of 16; `at` is a tile's pointer
// plus lane_place of line 0.
template <Factor FACTOR, Layout LAYOUT, int LINES, class At>
__device__ __forceinline__ void load_16_lines(At at, int line, unsigned (&words)[4]) {
    if constexpr (LAYOUT == BY_LINE) {
        load_matrices<false>(words, at + line * TILE_K);
    } else if constexpr (!TF32) {  // the two numbers of a word are in two rows
        load_matrices<true>(words, at + line);
    } else {
        #pragma unroll
        for (int i = 0; i < 4; ++i) {
            int second_line = FACTOR == A ? i % 2 : i / 2;
            int second_word = FACTOR == A ? i / 2 : i % 2;
            int place = tile_place<BY_TERM, LINES>(line + second_line * 8, second_word * 4);
            words[i] = *(const unsigned*)(at + place);
        }
    }
}

// sum += A B over a tile, for the 16 MI lines of A from m on and the 8 NI lines of B from n on.
template <Layout A_LAYOUT, Layout B_LAYOUT, int LINES_A, int LINES_B, int MI, int NI, class Tile>
__device__ __forceinline__ void multiply_tiles(Tile As, Tile Bs, int m, int n,
                                               float (&sum)[MI][NI][4]) {
    #pragma unroll
    for (int k = 0; k < TILE_K; k += MMA_K) {
        auto a_lane = As + lane_place<A, A_LAYOUT, LINES_A>(m, k);
        auto b_lane = Bs + lane_place<B, B_LAYOUT, LINES_B>(n, k);
        unsigned a[MI][4], b[NI / 2][4];
        #pragma unroll
        for (int i = 0; i < MI; ++i)
            load_16_lines<A, A_LAYOUT, LINES_A>(a_lane, 16 * i, a[i]);
        #pragma unroll
        for (int j = 0; j < NI / 2; ++j)
            load_16_lines<B, B_LAYOUT, LINES_B>(b_lane, 16 * j, b[j]);
        #pragma unroll
        for (int i = 0; i < MI; ++i)
            #pragma unroll
            for (int j = 0; j < NI; ++j)
                mma(sum[i][j], {{a[i][0], a[i][1], a[i][2], a[i][3]},
                                {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]}});
    }
}

// Calls store(place(row), column, value, value of the next column) for all outputs of this lane,
// except in rows whose place is negative.
template <int MI, int NI, class Place, class Store>
__device__ __forceinline__ void each_output(const float (&sum)[MI][NI][4], int m, int n,
                                            Place place, Store store) {
    int g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
    #pragma unroll
    for (int i = 0; i < 2 * MI; ++i) {
        int row = place(m + g + 8 * i);
        if (row < 0) continue;
        #pragma unroll
        for (int j = 0; j < NI; ++j) {
            const float* pair = sum[i / 2][j] + i % 2 * 2;
            store(row, n + 2 * t + 8 * j, pair[0], pair[1]);
        }
    }
}

// The corner of the outputs of a warp in the block's tile: WARPS_N warps share its columns.
struct Corner { int m, n; };
template <int WARP_M, int WARP_N, int TILE_N> __device__ __forceinline__ Corner own_corner() {
    constexpr int WARPS_N = TILE_N / WARP_N;
    int warp = threadIdx.x / WARP;
    return {warp / WARPS_N * WARP_M, warp % WARPS_N * WARP_N};
}

// Writes this lane's outputs to out[place(row) * columns + column], after bias and activation: the
// lane's rows and columns count from (m, n).
template <int MI, int NI, class Bias, class Output, class Place>
__device__ __forceinline__ void store_outputs(const float (&sum)[MI][NI][4], int m, int n,
                                              Bias bias_or_null, float slope, Output out,
                                              int columns, Place place) {
    each_output(sum, m, n, place, [=](int row, int n, float first, float second) {
        auto value = [=](int n, float v) {
            if (bias_or_null) v += bias_or_null[n];
            return v > 0 ? v : slope * v;
        };
        if (columns % 2 == 0 && n < columns) {  // 8 bytes at once
            *(float2*)(out + (row * columns + n)) = {value(n, first), value(n + 1, second)};
        } else {
            if (n < columns) out[row * columns + n] = value(n, first);
            if (n + 1 < columns) out[row * columns + n + 1] = value(n + 1, second);
        }
    });
}
