// Convolutions as matrix products whose left matrix is never built: its elements are found in the map when they are needed.
//
// An element belongs to a pixel of the result and to a tap of the sum. For conv, pixel (b, oy sy - py, ox sx - px) and tap
// (ky, kx, ci) meet at x[b, oy sy - py + ky, ox sx - px + kx, ci]; the gradients differ in what are rows, columns and sum.
#pragma once

struct Sizes { int B, H, W, Cin, Ho, Wo, Cout, kh, kw, sy, sx, py, px; };  // of a convolution, as every kernel takes them
struct Pixel { int b, y, x; };
struct Tap { int y, x, c; };
constexpr Pixel NO_PIXEL = {0, -(1 << 20), 0};  // past the last row: outside every map, so its elements are 0
constexpr Tap NO_TAP = {1 << 19, 0, 0};         // past the end of the sum

// Where a tap meets a pixel in a map (B, H, W, C); 0 outside the map. Pointer is const real*, and in the emulator a checked one.
template <class Pointer> __device__ __forceinline__ real at(Pointer map, int H, int W, int C, Pixel pixel, Tap tap) {
    int y = pixel.y + tap.y, x = pixel.x + tap.x;
    return y >= 0 && y < H && x >= 0 && x < W ? map[((pixel.b * H + y) * W + x) * C + tap.c] : 0;
}

// The m-th of all pixels (B, Ho, Wo) of conv's output, as the corner of its window in x.
__device__ __forceinline__ Pixel output_pixel(int m, int B, int Ho, int Wo, int sy, int sx, int py, int px) {
    if (m >= B * Ho * Wo) return NO_PIXEL;
    return {m / Wo / Ho, m / Wo % Ho * sy - py, m % Wo * sx - px};
}

// The k-th tap of a (kh, kw, C) window.
__device__ __forceinline__ Tap window_tap(int k, int kh, int kw, int C) {
    if (k >= kh * kw * C) return NO_TAP;
    return {k / C / kw, k / C % kw, k % C};
}

// conv_input_grad by output phase. Pixels of dx with iy % sy = ry meet only the taps ky = first, first + sy, ..., with first =
// (ry + py) % sy; the j-th of them joins iy = m sy + ry to oy = m + shift - j, with shift = (ry + py) / sy. The same along x.
// So each phase is an ordinary correlation with `taps` taps, and nothing is multiplied by inserted zeros.
struct Phase { int r, first, taps, shift, size; };
__device__ __forceinline__ Phase output_phase(int r, int stride, int pad, int kernel, int size) {
    int first = (r + pad) % stride;
    return {r, first, (kernel - first + stride - 1) / stride, (r + pad) / stride, (size - r + stride - 1) / stride};
}

// The m-th of the M pixels of a phase: the pixel of dy that tap (0, 0) joins it to, and its place in dx.
__device__ __forceinline__ Pixel phase_pixel(int m, int M, Phase v, Phase h) {
    if (m >= M) return NO_PIXEL;
    return {m / h.size / v.size, m / h.size % v.size + v.shift, m % h.size + h.shift};
}
__device__ __forceinline__ int phase_place(int m, Phase v, Phase h, int sy, int sx, int H, int W) {
    return (m / h.size / v.size * H + m / h.size % v.size * sy + v.r) * W + m % h.size * sx + h.r;
}
