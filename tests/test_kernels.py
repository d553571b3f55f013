"""Every operation against formulas in plain loops or float64 NumPy, over odd shapes."""
import functools
import inspect
import itertools
import threading

import numpy as np
import pytest
from conftest import CUDA_DEVICES, TINY, load
from shared import sum_tolerance
from threadpoolctl import threadpool_info

import kernels
from kernels import contract, fourier_conv, launch, numpy_engine, numpy_ops, workers
from kernels.buffers import ReusingArena
from kernels.cuda_conv import CONV_STEPS
from kernels.cuda_ops import CudaOps
from kernels.emulator import Emulator
from kernels.gradient_check import check_operation, on_host, value_cases
from kernels.numpy_engine import NumpyEngine
from kernels.plain import PlainOps

# (input height, width), kernel, stride, padding: odd, prime, non-square, one pixel, kernels larger
# than the map; rows of nothing but padding.
CONV_SHAPES = [
    ((1, 1), (1, 1), 1, 0), ((1, 1), (3, 3), 1, 1), ((7, 5), (1, 1), 2, 0), ((5, 7), (3, 3), 1, 1),
    ((16, 15), (3, 3), 2, 1), ((15, 16), (3, 3), 2, 1), ((8, 8), (5, 5), 2, 2),
    ((13, 8), (1, 7), 1, (1, 3)), ((8, 13), (7, 1), (2, 1), (3, 0)), ((4, 6), (11, 11), 2, 5),
    ((9, 9), (11, 11), 1, 5), ((17, 3), (5, 2), (3, 2), (2, 1)), ((6, 6), (2, 2), 3, 0),
    ((3, 19), (3, 4), (1, 3), (2, 0)), ((2, 2), (5, 5), 3, 2), ((7, 7), (1, 1), 3, 2),
    ((5, 5), (4, 4), (2, 3), 0), ((11, 7), (6, 8), (2, 3), (3, 4)), ((7, 11), (9, 10), 3, (4, 5)),
    ((11, 11), (7, 7), 2, 3)]
CHANNELS = [(1, 1, 1), (2, 3, 5), (3, 2, 17), (1, 18, 4)]  # B, Cin, Cout
LARGE = ((13, 11), (3, 3), 2, 1), (2, 70, 67)  # several tiles in every direction, none full
# Channels of whole stages along the sum, and several tiles of each kind in both directions.
WIDE = [(((9, 6), (3, 5), (2, 1), (1, 2)), (6, 32, 130)), (((5, 7), (4, 3), 2, 2), (3, 64, 34)),
        (((3, 3), (3, 3), 1, 1), (2, 160, 96))]

STEPS = [path.stem for path in launch.ladder("conv")]
OPERANDS = [path.stem for path in launch.ladder("conv") if launch.takes_operands(path)]


def cuda_engines(choices):
    """Test parameters: each device with CUDA kernels with each (step, precision, few_channels)."""
    for device in CUDA_DEVICES:
        values, marks = (device.values, device.marks) if hasattr(device, "values") else \
            ((device,), ())
        for choice in choices:
            yield pytest.param((*values, *choice), marks=marks,
                               id="-".join(map(str, (*values, *choice))))


# (device, step or method, precision, few_channels). few_channels: up to this many output channels
# the taps of a row are put side by side; with 0 each convolution runs the step's kernels directly.
FP32 = list(cuda_engines([(step, "fp32", 0) for step in STEPS if step not in OPERANDS]))
ROUNDED = list(cuda_engines([*itertools.product(OPERANDS, ("tf32", "bf16"), [0]),
                             *itertools.product(OPERANDS[-1:], ("tf32", "bf16"), [24])]))
FEW = list(cuda_engines([("5_loads_ahead", "fp32", 24)]))
HOST = [("plain", None, "fp32", 0), ("numpy", "im2col", "fp32", 0), ("numpy", "fourier", "fp32", 0)]
ENGINES = [*(pytest.param(engine, id="-".join(map(str, engine[:2]))) for engine in HOST),
           *FP32, *FEW, *ROUNDED]
EXACT_ENGINES = ENGINES[:len(HOST) + len(FP32)]  # in float64 too


def engine(choice, dtype):
    device, step, precision, few_channels = choice
    if device == "plain":
        return load("plain", dtype)
    if device == "numpy":
        return on_host(NumpyEngine(dtype, conv_method=step))
    ops = CudaOps(kernels.load(device, dtype, precision).device, step)
    ops.few_channels = few_channels
    return on_host(ops)


# ------------------------------------------------------------------------------------ convolution
def meeting(x_shape, kernel, stride, pad):
    """All pixels (y, x), outputs (oy, ox) and taps (ky, kx) that meet: the definition."""
    (sy, sx), (py, px) = contract.pair(stride), contract.pair(pad)
    ho = (x_shape[0] + 2 * py - kernel[0]) // sy + 1
    wo = (x_shape[1] + 2 * px - kernel[1]) // sx + 1
    for oy, ox, ky, kx in itertools.product(*map(range, (ho, wo, *kernel))):
        y, x = oy * sy + ky - py, ox * sx + kx - px
        if 0 <= y < x_shape[0] and 0 <= x < x_shape[1]:
            yield y, x, oy, ox, ky, kx


def rounded(x, precision):
    """x as tensor cores take it: TF32 keeps 10 bits of the mantissa, bf16 keeps 7.

    Ties go away from zero in TF32, to even in bf16.
    """
    if precision == "fp32":
        return x
    bits = x.astype(np.float32).view(np.uint32)
    if precision == "tf32":
        bits = bits + 0x1000 & 0xFFFFE000
    else:
        bits = bits + 0x7FFF + (bits >> 16 & 1) & 0xFFFF0000
    return bits.view(np.float32).astype(np.float64)


@functools.cache
def defined(shape, channels, precision="fp32"):
    """x, w, dy and, by loops over rounded numbers, y, dx, dw; all float64."""
    (size, kernel, stride, pad), (b, cin, cout) = shape, channels
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((b, *size, cin)), rng.standard_normal((*kernel, cin, cout))
    y = np.zeros(contract.conv_shape(x.shape, w.shape, stride, pad))
    dy = rng.standard_normal(y.shape)
    rx, rw, rdy = (rounded(a, precision) for a in (x, w, dy))
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for iy, ix, oy, ox, ky, kx in meeting(size, kernel, stride, pad):
        y[:, oy, ox] += rx[:, iy, ix] @ rw[ky, kx]
        dx[:, iy, ix] += rdy[:, oy, ox] @ rw[ky, kx].T
        dw[ky, kx] += rx[:, iy, ix].T @ rdy[:, oy, ox]
    return x, w, dy, y, dx, dw


def convolutions(ops, x, w, dy, stride, pad):
    return (ops.conv(x, w, stride, pad), ops.conv_input_grad(dy, w, x.shape, stride, pad),
            ops.conv_weight_grad(x, dy, w.shape, stride, pad))


@pytest.mark.parametrize("choice", ENGINES)
@pytest.mark.parametrize("shape", [*CONV_SHAPES, "large", "wide"], ids=str)
def test_convolution_and_its_gradients(choice, shape, pytestconfig):
    """Against the definition, on equally rounded numbers: float64 to 1e-12.

    With half of the channels for those steps of the ladder that no program takes by itself, unless
    with --slow.
    """
    taken = choice[1] not in STEPS or choice[1] in CONV_STEPS.values()
    channels = CHANNELS if taken or pytestconfig.getoption("--slow") else CHANNELS[1::2]
    cases = {"large": [LARGE], "wide": WIDE}.get(shape) or [(shape, c) for c in channels]
    dtypes = [np.float32]
    if choice[2] == "fp32" and choice[3] == 0:
        dtypes.append(np.float64)
    for dtype in dtypes:
        ops = engine(choice, dtype)
        for (size, kernel, stride, pad), channels in cases:
            x, w, dy, *expected = defined((size, kernel, stride, pad), channels, choice[2])
            taps = w[..., 0, 0].size
            lengths = taps * w.shape[2], taps * w.shape[3], dy[..., 0].size
            results = convolutions(ops, x, w, dy, stride, pad)
            for found, right, terms in zip(results, expected, lengths):
                assert found.dtype == dtype
                tolerance = 1e-12 if dtype == np.float64 else sum_tolerance(terms, choice[2])
                np.testing.assert_allclose(found, right, rtol=0, err_msg=str(channels),
                                           atol=tolerance * max(1, abs(right).max()))


@pytest.mark.parametrize("choice", EXACT_ENGINES)
def test_input_and_weight_gradient_are_adjoints(choice):
    """<conv(x), dy> = <x, conv_input_grad(dy)> = <w, conv_weight_grad(x, dy)>."""
    ops, rng = engine(choice, np.float64), np.random.default_rng(1)
    for size, kernel, stride, pad in CONV_SHAPES[4::3]:
        x, w = rng.standard_normal((2, *size, 3)), rng.standard_normal((*kernel, 3, 20))
        dy = rng.standard_normal(contract.conv_shape(x.shape, w.shape, stride, pad))
        y, dx, dw = convolutions(ops, x, w, dy, stride, pad)
        expected = (y * dy).sum()
        assert abs(expected) > 1e-3
        assert (x * dx).sum() == pytest.approx(expected, rel=1e-10)
        assert (w * dw).sum() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("choice", EXACT_ENGINES)
def test_long_sums_are_sliced(choice):
    """conv_weight_grad over more pixels than one slice takes."""
    ops, rng = engine(choice, np.float64), np.random.default_rng(0)
    x, dy = rng.standard_normal((2, 40, 33, 2)), rng.standard_normal((2, 40, 33, 3))
    expected = np.einsum("byxi,byxo->io", x, dy)
    found = ops.conv_weight_grad(x, dy, (1, 1, 2, 3))[0, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-11)


@pytest.mark.parametrize("choice", ROUNDED)
def test_long_sums_on_tensor_cores(choice):
    """15,488 terms, all products positive: so a truncated sum would be too small everywhere."""
    ops, rng = engine(choice, np.float32), np.random.default_rng(0)
    x, w = rng.random((1, 11, 11, 128)), rng.random((11, 11, 128, 8))
    expected = np.einsum("byxi,yxio->bo", rounded(x, choice[2]), rounded(w, choice[2]))
    error = abs(ops.conv(x, w)[:, 0, 0] / expected - 1).max()
    assert error < sum_tolerance(x.size, choice[2])


def test_the_tolerance_of_a_sum():
    """It covers the predicted errors by a factor of about two; float32 sums have none to add."""
    for terms, predicted in (1440, 5.4e-6), (15488, 6e-5):
        assert 2 * predicted < sum_tolerance(terms, "tf32") < 2.3 * predicted
    assert sum_tolerance(10, "bf16") == sum_tolerance(15488, "fp32") == 1e-5


FUSED_SHAPES = [((2, 6, 5, 3), (3, 3, 3, 6)), ((3, 2, 2, 1600), (2, 2, 1600, 3)),
                ((3, 2, 2, 3), (2, 2, 3, 1600))]  # x, w; with a long sum, several blocks share it


@pytest.mark.parametrize("choice", ENGINES)
@pytest.mark.parametrize("activation", contract.ACTIVATIONS)
def test_fused_forms_are_their_parts(choice, activation):
    ops, rng = engine(choice, np.float32), np.random.default_rng(0)
    for x_shape, w_shape in FUSED_SHAPES:
        x, w = rng.standard_normal(x_shape), rng.standard_normal(w_shape)
        bias, w_bias = rng.standard_normal(w_shape[3]), rng.standard_normal(w_shape[2])
        y = ops.conv(x, w, 2, 1)
        dx = ops.conv_input_grad(y, w, x.shape, 2, 1)
        assert abs(y).max() > 0.1
        for found, parts in (
                (ops.conv(x, w, 2, 1, bias, activation), ops.bias_activation(y, bias, activation)),
                (ops.conv_input_grad(y, w, x.shape, 2, 1, w_bias, activation),
                 ops.bias_activation(dx, w_bias, activation))):
            np.testing.assert_allclose(found, parts, rtol=1e-5, atol=1e-5 * abs(parts).max())
    with pytest.raises(ValueError, match="expected None, 'relu'"):
        ops.conv(x, w, 1, 1, bias, "gelu")


@pytest.mark.parametrize("choice", ROUNDED)
def test_numbers_that_are_not_finite_stay_so(choice):
    """Rounding must not turn NaN into a number, nor a large number that fits into infinity."""
    ops, largest = engine(choice, np.float32), 3e38
    x, w = np.ones((1, 4, 4, 1), np.float32), np.ones((1, 1, 1, 1), np.float32)
    for bits in (0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000):  # NaN as CUDA, the emulator and NumPy make it
        x[0, 1, 2, 0] = np.uint32(bits).view(np.float32)
        assert np.array_equal(np.isnan(ops.conv(x, w)), np.isnan(x))
        assert np.isnan(ops.conv(w, x[:, 1:2, 2:3])).all()
    x[0, 1, 2] = np.inf
    assert np.array_equal(ops.conv(x, w), x)
    x[0, 1, 2] = largest
    assert np.isfinite(ops.conv(x, w)).all()


@pytest.mark.parametrize("operation, args, message", [
    ("conv", [(1, 4, 4, 3), (3, 3, 2, 5)], "3 channels"),
    ("conv", [(1, 2, 2, 3), (5, 5, 3, 5)], "does not fit"),
    ("conv_input_grad", [(1, 2, 2, 5), (3, 3, 3, 5)], "dy is"),
    ("conv_weight_grad", [(1, 4, 4, 3), (1, 9, 9, 5)], "dy is")])
def test_wrong_shapes_are_refused(device, operation, args, message):
    extra = {"conv": (), "conv_input_grad": ((1, 9, 9, 3),), "conv_weight_grad": ((3, 3, 3, 5),)}
    with pytest.raises(ValueError, match=message):
        getattr(load(device), operation)(*map(np.zeros, args), *extra[operation])


# -------------------------------------------------------------------------- the Fourier transform
@pytest.mark.parametrize("size, kernel, stride, pad", [
    (32, 11, 2, 5), (32, 11, 1, 5), (4, 11, 2, 5), (4, 11, 1, 5), (7, 5, 3, 2), (9, 4, 1, 0),
    (8, 7, 2, 6), (1, 1, 1, 0), (2, 9, 1, 4), (5, 2, 4, 1)])
def test_tables_of_the_transform(size, kernel, stride, pad):
    """Products of the three add up to 1 where output, pixel and tap meet, and to 0 elsewhere."""
    out = (size + 2 * pad - kernel) // stride + 1
    of_x, of_w, of_y = fourier_conv.tables(size, kernel, stride, pad, out, np.dtype(np.float64))
    first = -pad // stride
    meets = [[[o + tap + first == m for tap in range(of_w.shape[1])]
              for m in range(of_x.shape[1])] for o in range(out)]
    np.testing.assert_allclose(np.einsum("ro,rm,rd->omd", of_y, of_x, of_w), meets, atol=1e-13)
    np.testing.assert_array_equal((of_w != 0).any(0), np.any(meets, (0, 1)))


def test_taps_that_reach_no_pixel_have_no_gradient():
    """Adam divides by the gradient's size, so it would take rounding errors for a direction."""
    ops, rng = NumpyEngine(conv_method="fourier"), np.random.default_rng(0)
    x, dy = rng.standard_normal((2, 3, 4, 4, 2)).astype(np.float32)
    dw = ops.conv_weight_grad(x, dy, (11, 11, 2, 2), 1, 5)
    assert not dw[[0, 1, 9, 10]].any() and not dw[:, [0, 1, 9, 10]].any()
    assert (dw[2:9, 2:9] != 0).all()


@pytest.mark.parametrize("cin, cout, side, stride",
                         [(64, 128, 8, 2), (16, 32, 32, 2), (16, 4, 32, 1)])
def test_float32_keeps_its_digits_in_layers_of_the_presets(cin, cout, side, stride):
    rng, results = np.random.default_rng(0), []
    x, w = rng.standard_normal((4, side, side, cin)), rng.standard_normal((11, 11, cin, cout))
    dy = rng.standard_normal((4, side // stride, side // stride, cout))
    for dtype in np.float32, np.float64:
        ops = on_host(NumpyEngine(dtype, conv_method="fourier"))
        results.append(convolutions(ops, x, w, dy, stride, 5))
    for found, expected in zip(*results):
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * abs(expected).max())


@pytest.mark.parametrize("x_shape, w_shape, stride, pad, fourier", [
    ((32, 16, 16, 64), (4, 4, 64, 128), 2, 1, False),  # half the time by im2col
    ((32, 32, 32, 16), (3, 3, 16, 32), 1, 1, False),
    ((32, 1, 1, 100), (1, 1, 100, 2048), 1, 0, False),
    ((32, 32, 32, 16), (11, 11, 16, 32), 2, 5, True),
    ((32, 16, 16, 64), (7, 7, 64, 128), 2, 3, True)])
def test_the_cheaper_way_is_chosen(x_shape, w_shape, stride, pad, fourier):
    assert fourier_conv.is_cheaper(x_shape, w_shape, stride, pad) is fourier


# ---------------------------------------------------------------------------------------- workers
def test_workers_and_chunks_do_not_change_the_result(monkeypatch):
    """Large enough for several chunks on several workers, against one chunk on one worker."""
    rng, results = np.random.default_rng(2), []
    x, w = rng.standard_normal((7, 32, 30, 16)), rng.standard_normal((5, 5, 16, 24))
    for count, chunk_bytes in ((1, 1 << 40), (3, 1 << 16)):
        monkeypatch.setattr(workers, "CHUNK_BYTES", chunk_bytes)
        monkeypatch.setattr(numpy_engine, "CHUNK_BYTES", chunk_bytes)
        found = []
        for method in "im2col", "fourier":
            ops = NumpyEngine(np.float64, count, method)
            y = ops.conv(x, w, 2, 2)
            found += [y, ops.conv(x, w[:3, :3], (2, 1), 1),
                      ops.conv_input_grad(y, w, x.shape, 2, 2),
                      ops.conv_weight_grad(x, y, w.shape, 2, 2)]
        zeros, ones = np.zeros(16), np.ones(16)
        found += [ops.max_pool(x, 3, 2), ops.average_pool(x, 3, 1, 1), ops.concat([x, x]),
                  *ops.batch_norm(x, ones, zeros, zeros, ones), ops.softmax(x),
                  *ops.softmax_grad(x, x)]
        results.append(found)
    for a, b in zip(*results):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def test_an_error_in_a_worker_reaches_the_caller():
    def compute(worker, chunk):
        if worker == 1:
            raise RuntimeError("in worker 1")
    two = workers.Workers(2)
    with pytest.raises(RuntimeError, match="in worker 1"):
        two.share(compute, 8, 1 << 20)
    two.share(lambda worker, chunk: None, 8, 1 << 20)  # and the workers still work


def test_where_threads_cannot_be_started(monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")
    monkeypatch.setattr(workers, "worker_pool", functools.cache(workers.Pool))
    monkeypatch.setattr(threading.Thread, "start", refuse)
    ops = NumpyEngine(np.float64, workers=3)
    assert ops.workers.count == 1 and str(ops) == "1 CPU core"
    x = np.random.default_rng(0).standard_normal((7, 32, 30, 16))
    np.testing.assert_array_equal(ops.softmax(x), numpy_ops.softmax(x))
    with workers.thread_map(4) as mapped:
        assert list(mapped(abs, [-1, 2])) == [1, 2]


def test_blas_keeps_its_threads():
    """One thread for each worker, and afterwards as many as before."""
    def blas_threads():
        return {lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"}
    seen = []
    workers._blas.cache_clear()  # other tests may have loaded more libraries, such as SciPy's
    with workers.blas_threads(2):
        before = blas_threads()
        ops = NumpyEngine()
        with ops.arena:
            ops.workers.share(lambda worker, chunk: seen.append(blas_threads()), 4, 1 << 20)
            seen.append(blas_threads())  # a loop inside does not end it
        assert before == blas_threads() == {2}
        ops.workers.share(lambda worker, chunk: seen.append(blas_threads()), 4, 1 << 20)
        with workers.thread_map(2):
            seen.append(blas_threads())
        assert before == blas_threads() == {2} and all(threads == {1} for threads in seen)


# -------------------------------------------------------------------------------- single formulas
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 5, 7, 4), (2, 1, 13, 22)])
def test_batch_norm(device, shape):
    ops, rng = load(device, np.float64), np.random.default_rng(0)
    # The mean is far above the deviation: E[x^2] - E[x]^2 would lose 8 digits here.
    x = 1e4 + rng.standard_normal(shape)
    gamma, beta = rng.standard_normal((2, shape[-1]))
    threes, twos = np.full(shape[-1], 3.0), np.full(shape[-1], 2.0)
    y, mean, var, running_mean, running_var = ops.batch_norm(x, gamma, beta, threes, twos, 0.1,
                                                             1e-5, "relu")
    right_mean, right_var, n = x.mean((0, 1, 2)), x.var((0, 1, 2)), x[..., 0].size
    right = np.maximum(gamma * (x - right_mean) / np.sqrt(right_var + 1e-5) + beta, 0)
    np.testing.assert_allclose(mean, right_mean, rtol=1e-14)
    np.testing.assert_allclose(var, right_var, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(y, right, atol=1e-7)
    np.testing.assert_allclose(running_mean, 0.9 * 3 + 0.1 * right_mean)
    np.testing.assert_allclose(running_var, 0.9 * 2 + 0.1 * right_var * n / max(1, n - 1))
    assert (threes == 3).all() and (twos == 2).all()
    same = ops.batch_norm_inference(x, gamma, beta, mean, var, 1e-5, "relu")
    np.testing.assert_allclose(same, y, atol=1e-9)


def test_every_activation_is_one_of_its_own(device):
    """An activation that is listed but not written would be the identity, and so its gradient."""
    ops, x = load(device, np.float64), np.linspace(-2, 2, 7).reshape(1, 1, 1, 7)
    y = [ops.bias_activation(x, None, activation) for activation in contract.ACTIVATIONS]
    for i, one in enumerate(y):
        assert all(not np.allclose(one, other) for other in y[:i])
        assert (np.diff(one) >= 0).all()  # so that act'(x) can be computed from y


def test_softmax_is_stable(device):
    ops = load(device, np.float64)
    p = ops.softmax(np.array([[[[1e4, 1e4 - 1, -1e4], [0, 0, 0]]]]), np.array([0, 0, np.log(2)]))
    e = np.exp(-1)
    np.testing.assert_allclose(p[0, 0], [[1 / (1 + e), e / (1 + e), 0], [0.25, 0.25, 0.5]])


def test_bce_is_stable(device):
    """For any logit; against the definition where that can be computed."""
    ops = load(device, np.float64)
    z = np.array([-3.0, 0.5, 2.0]).reshape(3, 1, 1, 1)
    t = np.array([1.0, 0.0, 1.0]).reshape(3, 1, 1, 1)
    sigmoid = 1 / (1 + np.exp(-z))
    loss, dz = ops.bce_with_logits(z, t)
    expected = -(t * np.log(sigmoid) + (1 - t) * np.log(1 - sigmoid)).mean()
    assert loss[0] == pytest.approx(expected)
    np.testing.assert_allclose(dz, (sigmoid - t) / 3)
    loss, dz = ops.bce_with_logits(np.array([-2000.0, 2000.0]).reshape(2, 1, 1, 1),
                                   np.array([1.0, 0.0]).reshape(2, 1, 1, 1))
    assert loss[0] == 2000
    np.testing.assert_allclose(dz.ravel(), [-0.5, 0.5])


def test_cross_entropy(device):
    """Against the definition; stable for any logit; a pixel without a target counts as 0."""
    ops, rng = load(device, np.float64), np.random.default_rng(0)
    x, t = rng.standard_normal((2, 3, 4, 5)), np.eye(5)[rng.integers(5, size=(2, 3, 4))]
    t[1, 2, 3] = 0
    p = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    loss, dx = ops.softmax_cross_entropy(x, t)
    assert loss[0] == pytest.approx(-(t * np.log(p)).sum() / 24)
    right = (p - t) / 24
    right[1, 2, 3] = 0
    np.testing.assert_allclose(dx, right, atol=1e-15)
    far = np.array([[[[2000.0, -2000], [-2000, 2000]]]])
    loss, dx = ops.softmax_cross_entropy(far, np.array([[[[1.0, 0], [1, 0]]]]))
    assert loss[0] == 2000
    np.testing.assert_allclose(dx[0, 0], [[0, 0], [-0.5, 0.5]])


def softmax_ops(device, step, dtype):
    return on_host(CudaOps(kernels.load(device, dtype, "fp32").device, softmax_step=step))


@pytest.mark.parametrize("step", [path.stem for path in launch.ladder("softmax")])
@pytest.mark.parametrize("device", CUDA_DEVICES)
def test_each_step_of_softmax(device, step):
    """The results and the gradient, with many slabs of rows and with one; large numbers, NaN."""
    for (rows, classes), dtype in itertools.product([(1, 1), (700, 22), (9, 130), (40000, 3)],
                                                    (np.float64, np.float32)):
        ops, rng = softmax_ops(device, step, dtype), np.random.default_rng(0)
        x, dp = rng.standard_normal((2, rows, classes)) * 90
        bias = rng.standard_normal(classes)
        p = numpy_ops.softmax(x, bias)
        expected = p, *numpy_ops.softmax_grad(dp, p)
        found = ops.softmax(x.astype(dtype), bias.astype(dtype)), *ops.softmax_grad(dp, p)
        for a, right in zip(found, expected):
            tolerance = 1e-12 if dtype == np.float64 else 2e-5
            np.testing.assert_allclose(a, right, rtol=0, atol=tolerance * max(1, abs(right).max()))
        x[0, -1] = np.nan
        assert np.isnan(ops.softmax(x)[0]).all()
    check_operation("softmax", softmax_ops(device, step, np.float64))


def test_feature_matching(device):
    ops, rng = load(device, np.float64), np.random.default_rng(0)
    real, fake = rng.standard_normal((2, 4, 3, 5, 2))
    mean, unbiased, paired = (ops.feature_matching(real, fake, r)[0][0] for r in contract.READINGS)
    assert mean == pytest.approx(((real.mean(0) - fake.mean(0)) ** 2).mean())
    assert unbiased == pytest.approx(mean - fake.var(0, ddof=1).mean() / 4)
    assert paired == pytest.approx(abs(real - fake).mean())
    with pytest.raises(ValueError, match="'mean', 'unbiased' or 'paired'"):
        ops.feature_matching(real, fake, "median")
    one = [ops.feature_matching(real[:1], fake[:1], r)[0][0] for r in ("mean", "unbiased")]
    assert one[0] == one[1]  # one map has no variance


def test_unbiased_feature_matching_leaves_out_the_noise_of_generated_maps():
    """Equal distributions: "mean" measures the noise of two means, "unbiased" only that of real."""
    ops, rng = load("plain", np.float64), np.random.default_rng(0)
    features = rng.standard_normal((400, 2, 8, 1, 1, 6))  # batches of 8 maps, real and generated
    for reading, expected in ("mean", 2 / 8), ("unbiased", 1 / 8):
        losses = [ops.feature_matching(real, fake, reading)[0][0] for real, fake in features]
        error = np.std(losses) / np.sqrt(len(losses))
        assert abs(np.mean(losses) - expected) < 4 * error
        assert error < 0.01


def test_moment_matching(device):
    """By the formula; it sees the pooled features only, and at batch 1 only their mean."""
    ops, rng = load(device, np.float64), np.random.default_rng(0)
    real, fake = rng.standard_normal((2, 4, 3, 5, 2))
    p_real, p_fake = real.mean((1, 2)), 2 * fake.mean((1, 2)) + 1
    fake = fake - fake.mean((1, 2), keepdims=True) + p_fake[:, None, None]
    gaps = (p_fake.mean(0) - p_real.mean(0)) ** 2 + (p_fake.std(0, ddof=1)
                                                     - p_real.std(0, ddof=1)) ** 2
    expected = 0.3 * (gaps / (p_real.var(0, ddof=1) + 1e-6)).mean()
    loss, dfake = ops.moment_matching(real, fake, 0.3)
    assert loss[0] == pytest.approx(expected, rel=1e-7)
    np.testing.assert_allclose(dfake, np.broadcast_to(dfake[:, :1, :1], dfake.shape))
    shuffled = rng.permuted(fake.reshape(4, 15, 2), axis=1).reshape(fake.shape)
    assert ops.moment_matching(real, shuffled, 0.3)[0][0] == pytest.approx(loss[0])
    loss, _ = ops.moment_matching(real[:1], fake[:1], 0.3)
    assert loss[0] == pytest.approx(0.3 * ((p_fake[0] - p_real[0]) ** 2).mean(), rel=1e-5)
    loss, dfake = ops.moment_matching(real, real, 0.3)
    assert loss[0] == 0 and not dfake.any()


def test_gather(device):
    ops, rng = load(device), np.random.default_rng(0)
    labels, index = rng.integers(0, 5, (6, 3, 4)).astype(np.uint8), np.array([5, 0, 5])
    for table in np.eye(5), rng.standard_normal((5, 3)):
        y = ops.gather(labels, index, table.astype(np.float32))
        for b, h, w in np.ndindex(3, 3, 4):
            np.testing.assert_allclose(y[b, h, w], table[labels[index[b], h, w]], rtol=1e-7)


def test_adam(device):
    """Three updates against the algorithm of Kingma and Ba."""
    ops, rng = load(device, np.float64), np.random.default_rng(0)
    p, m, v, step = rng.standard_normal(300), np.zeros(300), np.zeros(300), np.zeros(1)
    q, qm, qv = p.copy(), 0, 0
    for t in range(1, 4):
        g = rng.standard_normal(300)
        before = p.copy()
        new = ops.adam(p, g, m, v, step, np.array([0.01]), 0.9, 0.999, 1e-8)
        np.testing.assert_array_equal(p, before)
        p, m, v, step = new
        qm, qv = 0.9 * qm + 0.1 * g, 0.999 * qv + 0.001 * g ** 2
        q -= 0.01 * (qm / (1 - 0.9 ** t)) / (np.sqrt(qv / (1 - 0.999 ** t)) + 1e-8)
    assert step[0] == 3
    np.testing.assert_allclose(p, q, rtol=1e-12)


def test_adam_in_float32_keeps_its_digits(device):
    """The second moment moves by 1 - 0.999, which float32 would get wrong by 1e-5."""
    ops, one, zero = load(device), np.ones(1, np.float32), np.zeros(1, np.float32)
    params, m, v, _ = ops.adam(zero, one, zero, zero, zero, one, 0.5, 0.999, 0.0)
    np.testing.assert_allclose([m[0], v[0], params[0]], [0.5, 1 - 0.999, -1], rtol=1e-6)


@pytest.mark.parametrize("size, stride, pad",
                         [(3, 2, 0), (3, 1, 1), (2, 2, 1), (5, 3, 2), (1, 1, 0)])
def test_pooling(device, size, stride, pad):
    """Against PyTorch's definition, written out: windows of what is inside the map."""
    ops, x = load(device, np.float64), np.random.default_rng(0).standard_normal((2, 7, 9, 3))
    largest, mean = ops.max_pool(x, size, stride, pad), ops.average_pool(x, size, stride, pad)
    sides = [(n + 2 * pad - size) // stride + 1 for n in (7, 9)]
    assert largest.shape == mean.shape == (2, *sides, 3)
    for oy, ox in np.ndindex(*sides):
        top, left = oy * stride - pad, ox * stride - pad
        window = x[:, max(top, 0):top + size, max(left, 0):left + size]
        np.testing.assert_allclose(largest[:, oy, ox], window.max((1, 2)))
        np.testing.assert_allclose(mean[:, oy, ox], window.mean((1, 2)))
    with pytest.raises(ValueError, match="a window of 8 does not fit"):
        ops.max_pool(x, 8)


def test_resize(device):
    """A ramp stays a ramp; both conventions, written out; one pixel is spread out; the identity."""
    ops = load(device, np.float64)
    ramp = np.arange(5.0)[None, :, None, None] * np.ones((1, 1, 4, 2))
    halves = np.arange(10) / 2
    np.testing.assert_allclose(ops.resize(ramp, 10, 4)[0, :, 0, 0], np.clip(halves - 0.25, 0, 4))
    np.testing.assert_allclose(ops.resize(ramp, 10, 8, False)[0, :, 0, 0], np.minimum(halves, 4))
    np.testing.assert_allclose(ops.resize(ramp, 5, 4), ramp)
    one = ops.resize(np.full((1, 1, 1, 1), 3.0), 4, 7)
    np.testing.assert_allclose(one, np.full((1, 4, 7, 1), 3))


def test_nan_is_not_lost(device):
    """NaN in a parameter must reach the losses, and the emulator's NaN the tests."""
    ops, nan = load(device), np.full((1, 2, 2, 3), np.nan, np.float32)
    w, ones = np.ones((1, 1, 3, 2), np.float32), np.ones(3, np.float32)
    for activation in contract.ACTIVATIONS:
        for y in (ops.conv(nan, w, activation=activation),
                  ops.bias_activation(nan, None, activation),
                  ops.batch_norm(nan, ones, ones, ones, ones, activation=activation)[0]):
            assert np.isnan(y).all(), activation
    assert np.isnan(ops.softmax(nan)).all()


# -------------------------------------------------------------------- all operations are the same
SHAPES = [(1, 1, 1, 1), (3, 5, 7, 4), (2, 13, 11, 22), (2, 1, 3, 37), (1, 16, 16, 70),
          (4, 31, 29, 5), (2, 3, 2, 300),
          (2, 37, 31, 8), (3, 3, 5, 256)]  # rows of whole 16 bytes, several blocks a row


def as_dtype(argument, dtype):
    if isinstance(argument, list):
        return [as_dtype(a, dtype) for a in argument]
    floats = isinstance(argument, np.ndarray) and argument.dtype.kind == "f"
    return argument.astype(dtype) if floats else argument


def as_tuple(result):
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-12), (np.float32, 1e-5)])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_same_as_the_pure_functions(device, shape, dtype, tolerance):
    """Results with and without `out`, on the device's own arrays; arguments stay as they are."""
    ops, ran = kernels.load(device, dtype, "fp32"), set()
    upload, host = on_host(ops).upload, ops.asnumpy
    for name, arguments in value_cases(np.random.default_rng(0), shape):
        expected = as_tuple(getattr(numpy_ops, name)(*arguments))
        ours = [as_dtype(a, dtype) for a in arguments]
        there = [upload(a) for a in ours]
        found = getattr(ops, name)(*there)
        assert isinstance(found, tuple) == (len(expected) > 1), name
        out = tuple(ops.asarray(np.full(e.shape, 7)) for e in expected)
        into = getattr(ops, name)(*there, out=out if len(out) > 1 else out[0])
        for right, one, same, place in zip(expected, as_tuple(found), as_tuple(into), out):
            one = host(one)
            assert one.dtype == dtype and one.shape == right.shape, name
            atol = tolerance * max(1, abs(right).max())
            np.testing.assert_allclose(one, right, rtol=0, atol=atol, err_msg=name)
            np.testing.assert_array_equal(host(place), one, name)
            ops.write(place, 7)
            assert (host(same) == 7).all(), f"{name} returns another array than `out`"
        for before, after in zip(ours, there):
            if isinstance(before, np.ndarray):
                np.testing.assert_array_equal(host(after), before, f"{name} changed it")
        ran.add(name)
    if min(shape[1:3]) >= 3:
        assert ran == contract.OPERATIONS.keys(), "an operation is not compared"


def test_results_may_replace_arguments(device):
    """As in training: Adam's state, running statistics, and a gradient that a loss adds to."""
    ops, rng = kernels.load(device, np.float64), np.random.default_rng(0)
    host = on_host(ops)
    x, fake, dabove = rng.standard_normal((3, 4, 3, 5, 8))
    numbers, ones, grads = rng.standard_normal(64), np.ones(8), rng.standard_normal(64)
    cases = [("adam", (numbers, grads, numbers + 1, np.abs(numbers), np.ones(1), np.full(1, 0.1),
                       0.5, 0.999, 1e-8), (0, 2, 3, 4)),
             ("batch_norm", (x, ones, ones, ones - 1, ones), (None, None, None, 3, 4)),
             ("feature_matching", (x, fake, "mean", dabove), (None, 3)),
             ("moment_matching", (x, fake, 0.5, dabove), (None, 3))]
    for name, arguments, replaced in cases:
        expected = getattr(host, name)(*arguments)
        there = [ops.asarray(a) if isinstance(a, np.ndarray) else a for a in arguments]
        out = tuple(None if i is None else there[i] for i in replaced)
        found = getattr(ops, name)(*there, out=out)
        for right, a, place in zip(expected, found, out):
            assert place is None or a is place
            np.testing.assert_array_equal(ops.asnumpy(a), right, name)


def test_the_contract_is_the_same():
    """All backends have the same operations and other methods, with the same arguments."""
    def methods(backend):
        return {name: str(inspect.signature(f)) for name, f in inspect.getmembers(backend)
                if not name.startswith("_") and callable(f)}
    plain, numpy, cuda = map(methods, (PlainOps, NumpyEngine, CudaOps))
    assert plain == numpy == cuda and contract.OPERATIONS.keys() < plain.keys()
    for name in contract.OPERATIONS:
        pure = str(inspect.signature(getattr(numpy_ops, name)))
        assert plain[name].replace("(self, ", "(").replace(", *, out=None)", ")") == pure


def test_a_function_takes_the_place_of_one():
    calls = []

    def softmax(x, bias=None):
        calls.append(x.shape)
        return numpy_ops.softmax(x, bias)
    ops = PlainOps(np.float64, {"softmax": softmax})
    ops.softmax(np.zeros((1, 2, 2, 3)))
    assert calls == [(1, 2, 2, 3)]
    with pytest.raises(ValueError, match="no operation sofmax; expected some of conv, "):
        PlainOps(replace={"sofmax": softmax})


# ----------------------------------------------------------------------------------------- memory
@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_take_row(device, dtype):
    ops = kernels.load(device)
    table = np.arange(35).reshape(7, 5)
    there, out = ops.asarray(table, dtype), ops.asarray(np.zeros(5), dtype)
    for number in 0, 6, 7, 1 << 24:
        ops.take_row(there, ops.asarray([number]), out=out)
        np.testing.assert_array_equal(ops.asnumpy(out), table[number % 7])


def test_arrays_are_copied(device):
    """To the device and back: a change of one does not show in the other."""
    ops, host = kernels.load(device), np.zeros(3, np.float32)
    there = ops.asarray(host)
    host[:] = 1
    back = ops.asnumpy(there)
    assert (back == 0).all()
    back[:] = 2
    assert (ops.asnumpy(there) == 0).all()


def test_recording(device):
    """Nothing runs while operations are recorded; a replay reads what then is in the arrays."""
    ops, x = kernels.load(device), np.arange(6.0)
    there, bias, y = ops.asarray(x), ops.asarray(np.zeros(6)), []

    def run():
        with ops.arena:
            y[:] = [ops.bias_activation(there.reshape(1, 6), bias)]
    run()
    replay = ops.record(run)
    for value in 1, 2:
        ops.write(bias, value)
        replay()
        np.testing.assert_array_equal(ops.asnumpy(y[0])[0], x + value)
    if device in ("plain", "numpy"):
        return
    ops.write(bias, 3)
    ops.record(run)
    np.testing.assert_array_equal(ops.asnumpy(y[0])[0], x + 2)
    for what, refused in {"an allocation": lambda: ops.empty(7),
                          "an upload": lambda: ops.write(bias, 0),
                          "a download": lambda: ops.asnumpy(bias),
                          "a recording": lambda: ops.record(run)}.items():
        with pytest.raises(launch.LaunchError, match=f"^{what} while operations are recorded"):
            ops.record(refused)
    ops.write(bias, 4)  # and all is well again
    replay()
    np.testing.assert_array_equal(ops.asnumpy(y[0])[0], x + 4)


def test_arena_gives_the_same_addresses_again():
    ops, seen = kernels.load("numpy"), []
    for _ in range(3):
        with ops.arena:
            a, b = ops.empty(3, 4), ops.empty(5)
            seen.append((a.ctypes.data, b.ctypes.data))
            assert a.dtype == np.float32 and a.ctypes.data != b.ctypes.data
    assert len(set(seen)) == 1
    outside = ops.empty(3, 4)
    assert outside.ctypes.data not in seen[0]
    with ops.arena:  # another sequence: larger
        assert ops.empty(100, 100).shape == (100, 100)


def test_a_buffer_serves_again_when_its_array_has_gone():
    """As soon as nothing refers to it, not even a part; later times repeat the first."""
    ops, seen = CudaOps(Emulator()), []
    for _ in range(3):
        with ops.arena:
            a, b = ops.empty(3, 40), ops.empty(5)
            part = a[1:].reshape(-1)[:7]
            places = [a.ctypes.data, b.ctypes.data]
            del a
            places.append(ops.empty(100).ctypes.data)  # `part` still refers to the first
            del part
            places += [ops.empty(100).ctypes.data, ops.empty(7).ctypes.data]
            seen.append(places)
    first, second, third, fourth, fifth = seen[0]
    assert seen[0] == seen[1] == seen[2]
    assert fourth in (first, third) and fifth in (first, third)
    assert len({first, second, third}) == 3 and len(ops.arena.buffers) == 3
    with ops.arena:  # another sequence
        a, b = ops.empty(3, 40), ops.empty(6)
        assert b.ctypes.data not in seen[0] and ops.empty(1000).shape == (1000,)
        c = ops.empty(2)
    assert len({a.ctypes.data, b.ctypes.data, c.ctypes.data}) == 3


def test_sequences_in_turns_do_not_pile_up_buffers():
    ops = CudaOps(Emulator())
    for n in 5, 6, 5, 6, 5, 6:
        with ops.arena:
            a, b = ops.empty(n), ops.empty(7 * n)
            assert a.ctypes.data != b.ctypes.data
    assert len(ops.arena.buffers) == 2


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_a_step_in_used_memory_has_the_same_bits(precision):
    """The emulator fills each array with NaN, so one that is taken too early would show."""
    import data
    import semgan
    s = semgan.settings(preset="small", **TINY | dict(side=16))
    found, sizes = [], []
    for arena in contract.Arena, ReusingArena:
        ops = CudaOps(Emulator(precision=precision))
        ops.arena = arena(ops.device if arena is ReusingArena else ops.device.allocate)
        t = semgan.Trainer(ops, s, data.colored_shapes(16))
        for _ in range(4):
            t.train_step()
        found.append(b"".join(ops.asnumpy(a).tobytes() for net in t.networks.values()
                              for a in net.state().values()))
        sizes.append(sum(buffer.nbytes for buffer in ops.arena.buffers))
    assert found[0] == found[1] and sizes[1] < 0.75 * sizes[0]


def test_parameters_start_at_multiples_of_256_bytes():
    import semgan
    shapes = {"a.w": (3, 3, 2, 5), "a.b": (5,), "b.w": (1, 1, 7, 3)}
    net = semgan.Network(kernels.load("numpy"), semgan.settings(preset="small"), shapes,
                         np.random.default_rng(0))
    start = net.flat["params"].ctypes.data
    assert [(p.ctypes.data - start) % 256 for p in net.params.values()] == [0, 0, 0]
    net.params["a.b"][:] = 7
    assert (net.flat["params"] == 7).sum() == 5


@pytest.mark.parametrize("args, message", [
    (("tpu",), "device 'tpu': expected auto, numpy, cuda, emulator"),
    (("emulator", np.float32, "fp8"), "precision 'fp8': expected fp32, tf32, bf16"),
    (("numpy", np.float32, "bf16"), "precision bf16: for device cuda or emulator only"),
    (("emulator", np.float64, "tf32"), "precision tf32: for dtype float32 only"),
    (("numpy", np.float16), "dtype float16")])
def test_load_refuses_what_cannot_be_had(args, message):
    with pytest.raises(kernels.DeviceError, match=message):
        kernels.load(*args)
