// Convolutions as matrix products C = A B ("GEMM") whose left matrix A is never built: its elements
// are looked up in a map when they are needed ("implicit").
//
//                  C                        rows             columns  sum over         A    B
//   Forward        y                        output pixels    Cout     ky, kx, ci       x    w
//   InputGrad      dx                       input pixels     Cin      ky, kx, co       dy   w
//   PhaseGrad      dx, one output phase     its pixels       Cin      some ky, kx, co  dy   w
//   WeightGrad     dw, a slice of the sum   ky, kx, ci       Cout     output pixels    x    dy
//
// An element of A belongs to a pixel and to a tap with its channel: row and term, or in WeightGrad
// term and row. For Forward, the pixel (b, oy sy - py, ox sx - px) and the tap (ky, kx, ci) select
// x[b, oy sy - py + ky, ox sx - px + kx, ci]. Each product has the same members:
//
//   rows, first, last  the number of rows; the sum runs over the terms first ... last - 1
//   A_LAYOUT, B_LAYOUT how the factor lies in memory
//   pixel(i), tap(i)   of row or term i
//   a(pixel, tap)      where A's element is; also a(m, k): row m, term k
//   b(tap, k, n)       where B's element is: term k, column n; tap is that of the term, if any
//   place(m)           row m's place in the result, or -1 past the last row
#pragma once

struct Pixel { int b, y, x; };
struct Tap { int y, x, c; };
constexpr Pixel NO_PIXEL = {0, -(1 << 20), 0};  // past the last one: outside every map, so 0
constexpr Tap NO_TAP = {1 << 19, 0, 0};

struct Element { int index; bool inside; };     // 0 if it is not inside
template <class Pointer> __device__ __forceinline__ real read(Pointer x, Element e) {
    return e.inside ? x[e.index] : 0;
}

// The same for a vector of 16 bytes.
template <class Vector, class Pointer>
__device__ __forceinline__ Vector read_vector(Pointer x, Element e) {
    return e.inside ? *(const Vector*)(x + e.index) : Vector();
}

// The element that a pixel and a tap select in a map (B, H, W, C).
__device__ __forceinline__ Element in_map(Pixel pixel, Tap tap, int H, int W, int C) {
    int y = pixel.y + tap.y, x = pixel.x + tap.x;
    bool inside = y >= 0 && y < H && x >= 0 && x < W;
    return {int((unsigned(pixel.b * H + y) * W + x) * C + tap.c), inside};
}

// Pixel i of conv's output, as the corner of its window in x.
__device__ __forceinline__ Pixel output_pixel(int i, int last, Conv c) {
    if (i >= last) return NO_PIXEL;
    return {i / c.Wo / c.Ho, i / c.Wo % c.Ho * c.sy - c.py, i % c.Wo * c.sx - c.px};
}

// Tap i of a (kh, kw, C) window.
__device__ __forceinline__ Tap window_tap(int i, int kh, int kw, int C) {
    if (i >= kh * kw * C) return NO_TAP;
    return {i / C / kw, i / C % kw, i % C};
}

struct Forward {
    static constexpr Layout A_LAYOUT = BY_LINE, B_LAYOUT = BY_TERM;
    Conv c;
    int rows = c.B * c.Ho * c.Wo;
    int first = 0, last = c.kh * c.kw * c.Cin;

    __device__ Pixel pixel(int m) const { return output_pixel(m, rows, c); }
    __device__ Tap tap(int k) const { return window_tap(k, c.kh, c.kw, c.Cin); }
    __device__ Element a(Pixel pixel, Tap tap) const { return in_map(pixel, tap, c.H, c.W, c.Cin); }
    __device__ Element a(int m, int k) const { return a(pixel(m), tap(k)); }
    __device__ Element b(Tap, int k, int n) const {
        return {k * c.Cout + n, k < last && n < c.Cout};
    }
    __device__ int place(int m) const { return m < rows ? m : -1; }
};

// The definition turned around: input pixel (iy, ix) and tap (ky, kx) use the output
// ((iy + py - ky) / sy, (ix + px - kx) / sx), if both divide without remainder.
struct InputGrad {
    static constexpr Layout A_LAYOUT = BY_LINE, B_LAYOUT = BY_LINE;
    Conv c;
    int rows = c.B * c.H * c.W;
    int first = 0, last = c.kh * c.kw * c.Cout;

    __device__ Pixel pixel(int m) const {
        if (m >= rows) return NO_PIXEL;
        return {m / c.W / c.H, m / c.W % c.H + c.py, m % c.W + c.px};
    }
    __device__ Tap tap(int k) const { return window_tap(k, c.kh, c.kw, c.Cout); }
    __device__ Element a(Pixel pixel, Tap tap) const {
        int y = pixel.y - tap.y, x = pixel.x - tap.x;
        Element e = in_map({pixel.b, y / c.sy, x / c.sx}, {0, 0, tap.c}, c.Ho, c.Wo, c.Cout);
        e.inside = e.inside && y >= 0 && x >= 0 && y % c.sy == 0 && x % c.sx == 0;
        return e;
    }
    __device__ Element a(int m, int k) const { return a(pixel(m), tap(k)); }
    __device__ Element b(Tap t, int k, int n) const {
        return {((t.y * c.kw + t.x) * c.Cin + n) * c.Cout + t.c, k < last && n < c.Cin};
    }
    __device__ int place(int m) const { return m < rows ? m : -1; }
};

// An output phase along one axis: pixels of dx with iy % sy = r use only every sy-th tap,
// ky = first, first + sy, ..., where first = (r + py) % sy. Tap j of these (from 0) connects
// iy = i sy + r to oy = i + shift - j, where shift = (r + py) / sy.
struct Phase { int r, first, taps, shift, size; };
__device__ __forceinline__ Phase output_phase(int r, int stride, int pad, int kernel, int size) {
    int first = (r + pad) % stride;
    int taps = (kernel - first + stride - 1) / stride;
    return {r, first, taps, (r + pad) / stride, (size - r + stride - 1) / stride};
}

struct PhaseGrad {
    static constexpr Layout A_LAYOUT = BY_LINE, B_LAYOUT = BY_LINE;
    Conv c;
    int phase;  // of sy * sx
    Phase v = output_phase(phase / c.sx, c.sy, c.py, c.kh, c.H);
    Phase h = output_phase(phase % c.sx, c.sx, c.px, c.kw, c.W);
    int rows = c.B * v.size * h.size;
    int first = 0, last = v.taps * h.taps * c.Cout;

    __device__ Pixel pixel(int m) const {
        if (m >= rows) return NO_PIXEL;
        return {m / h.size / v.size, m / h.size % v.size + v.shift, m % h.size + h.shift};
    }
    __device__ Tap tap(int k) const { return window_tap(k, v.taps, h.taps, c.Cout); }
    __device__ Element a(Pixel pixel, Tap tap) const {
        return in_map(pixel, {-tap.y, -tap.x, tap.c}, c.Ho, c.Wo, c.Cout);
    }
    __device__ Element a(int m, int k) const { return a(pixel(m), tap(k)); }
    __device__ Element b(Tap t, int k, int n) const {
        int ky = v.first + t.y * c.sy, kx = h.first + t.x * c.sx;
        return {((ky * c.kw + kx) * c.Cin + n) * c.Cout + t.c, k < last && n < c.Cin};
    }
    __device__ int place(int m) const {
        if (m >= rows) return -1;
        int iy = m / h.size % v.size * c.sy + v.r;
        return (m / h.size / v.size * c.H + iy) * c.W + m % h.size * c.sx + h.r;
    }
};

struct WeightGrad {
    static constexpr Layout A_LAYOUT = BY_TERM, B_LAYOUT = BY_TERM;
    Conv c;
    int slice;  // terms of a slice; slice number blockIdx.z goes to partial (slices, rows, Cout)
    int rows = c.kh * c.kw * c.Cin;
    int first = blockIdx.z * slice, last = min(c.B * c.Ho * c.Wo, first + slice);

    __device__ Pixel pixel(int k) const { return output_pixel(k, last, c); }
    __device__ Tap tap(int m) const { return window_tap(m, c.kh, c.kw, c.Cin); }
    __device__ Element a(Pixel pixel, Tap tap) const { return in_map(pixel, tap, c.H, c.W, c.Cin); }
    __device__ Element a(int m, int k) const { return a(pixel(k), tap(m)); }
    __device__ Element b(Tap, int k, int n) const {
        return {k * c.Cout + n, k < last && n < c.Cout};
    }
    __device__ int place(int m) const { return m < rows ? blockIdx.z * rows + m : -1; }
};

// The same where x has zeros as padding after its channels, which the result does not have.
struct PaddedWeightGrad : WeightGrad {
    int channels;
    __device__ int place(int m) const {
        int tap = m / c.Cin, taps = c.kh * c.kw;
        int ci = m % c.Cin;
        return tap < taps && ci < channels ? (blockIdx.z * taps + tap) * channels + ci : -1;
    }
};

// A slice of a product's sum: `terms` of it. Its results follow those of the slices before it,
// `size` rows each.
template <class Product> struct Sliced : Product {
    int number, size;
    __device__ Sliced(Product p, int number, int terms, int size)
        : Product(p), number(number), size(size) {
        this->first = number * terms;
        this->last = min(p.last, this->first + terms);
    }
    __device__ int place(int m) const {
        int row = Product::place(m);
        return row < 0 ? -1 : number * size + row;
    }
};

// ---------------------------------------------------------------------------- loading a tile
// A tile of a factor is LINES x TERMS numbers. The threads of a block load it in the order of
// memory, VECTOR numbers each at a time: vector number i of this thread begins at this place.
struct Place { int line, k; };
template <Layout LAYOUT, int LINES, int TERMS, int THREADS, int VECTOR = 1>
__device__ __forceinline__ Place own_place(int i) {
    constexpr int IN_A_ROW = (LAYOUT == BY_LINE ? TERMS : LINES) / VECTOR;
    static_assert(THREADS % IN_A_ROW == 0, "a thread stays at one place along memory");
    int across = threadIdx.x / IN_A_ROW + i * (THREADS / IN_A_ROW);
    int along = threadIdx.x % IN_A_ROW * VECTOR;
    if (LAYOUT == BY_LINE) return {across, along};
    return {along, across};
}

// ------------------------------------------------------------------------------ the results
// The weight gradient has no bias.
constexpr const real* NO_BIAS = nullptr;

// An activation that multiplies negative numbers by a slope: 1, 0 for ReLU or that of leaky ReLU.
struct Slope { real negative; };
__device__ __forceinline__ real activate(real x, Slope slope) {
    return x > 0 ? x : slope.negative * x;
}

// Writes one number of the result, after bias and activation, unless it is outside.
template <class Output, class Bias, class Activation>
__device__ __forceinline__ void store(Output out, int place, int column, int columns, real sum,
                                      Bias bias_or_null, Activation activation) {
    if (place < 0 || column >= columns) return;
    real bias = bias_or_null ? bias_or_null[column] : 0;
    out[place * columns + column] = activate(sum + bias, activation);
}
