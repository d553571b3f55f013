// Convolutions as matrix products C = A B ("GEMM") whose left matrix A is never built: its elements
// are looked up in the map when they are needed.
//
// An element of A belongs to a pixel of the result and to a tap of the sum. For conv, the pixel
// (b, oy sy - py, ox sx - px) and the tap (ky, kx, ci) select
// x[b, oy sy - py + ky, ox sx - px + kx, ci]. The gradients use other rows, columns and sums.
#pragma once

// The sizes of a convolution: the last parameters of every kernel.
struct Sizes { int B, H, W, Cin, Ho, Wo, Cout, kh, kw, sy, sx, py, px; };
struct Pixel { int b, y, x; };
struct Tap { int y, x, c; };
constexpr Pixel NO_PIXEL = {0, -(1 << 20), 0};  // past the last row: outside every map, so 0
constexpr Tap NO_TAP = {1 << 19, 0, 0};         // past the end of the sum: 0 too

// The element that a pixel and a tap select in a map (B, H, W, C); 0 outside the map. Pointer is
// const real*; in the emulator it is a checked pointer.
template <class Pointer>
__device__ __forceinline__ real at(Pointer map, int H, int W, int C, Pixel pixel, Tap tap) {
    int y = pixel.y + tap.y, x = pixel.x + tap.x;
    return y >= 0 && y < H && x >= 0 && x < W ? map[((pixel.b * H + y) * W + x) * C + tap.c] : 0;
}

// Pixel m of conv's output (B, Ho, Wo), as the corner of its window in x.
__device__ __forceinline__ Pixel output_pixel(int m, int B, int Ho, int Wo,
                                              int sy, int sx, int py, int px) {
    if (m >= B * Ho * Wo) return NO_PIXEL;
    return {m / Wo / Ho, m / Wo % Ho * sy - py, m % Wo * sx - px};
}

// Tap k of a (kh, kw, C) window.
__device__ __forceinline__ Tap window_tap(int k, int kh, int kw, int C) {
    if (k >= kh * kw * C) return NO_TAP;
    return {k / C / kw, k / C % kw, k % C};
}

// conv_input_grad by output phase. Pixels of dx with iy % sy = ry use only every sy-th tap:
// ky = first, first + sy, ..., where first = (ry + py) % sy. Tap j of these (from 0) connects
// iy = m sy + ry to oy = m + shift - j, where shift = (ry + py) / sy. The same holds along x.
// So each phase is an ordinary correlation with `taps` taps, without the multiplications by zero
// that inserting zeros into dy would cost.
struct Phase { int r, first, taps, shift, size; };
__device__ __forceinline__ Phase output_phase(int r, int stride, int pad, int kernel, int size) {
    int first = (r + pad) % stride;
    int taps = (kernel - first + stride - 1) / stride;
    return {r, first, taps, (r + pad) / stride, (size - r + stride - 1) / stride};
}

// Pixel m of the M pixels of a phase: the pixel of dy that tap (0, 0) connects it to, and its index
// in dx.
__device__ __forceinline__ Pixel phase_pixel(int m, int M, Phase v, Phase h) {
    if (m >= M) return NO_PIXEL;
    return {m / h.size / v.size, m / h.size % v.size + v.shift, m % h.size + h.shift};
}
__device__ __forceinline__ int phase_place(int m, Phase v, Phase h, int sy, int sx, int H, int W) {
    return (m / h.size / v.size * H + m / h.size % v.size * sy + v.r) * W + m % h.size * sx + h.r;
}
