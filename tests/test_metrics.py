"""Every metric: golden values of the authors' programs, closed forms, maps to count by hand."""
import functools
import re
import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage
from threadpoolctl import threadpool_info, threadpool_limits

import data
import image_metrics
import metrics

GOLDEN = np.load(Path(__file__).parent / "golden" / "metrics.npz")


def shapes(side=32, seed=0):
    return data.colored_shapes(side, seed).maps


def colored(maps):
    return data.colored_shapes(32).palette[maps]


def rng():
    return np.random.default_rng(0)


# ---------------------------------------------------------------------- sliced Wasserstein distance
@pytest.mark.parametrize("side", [64, 128])
def test_swd_is_the_authors(side):
    ours = image_metrics.sliced_wasserstein(GOLDEN[f"real_{side}"], GOLDEN[f"fake_{side}"], seed=7)
    assert list(ours) == [side >> level for level in range(len(ours) - 1)] + ["average"]
    assert 16 in ours
    assert_allclose(list(ours.values()), GOLDEN[f"swd_{side}_seed7_batch32"], rtol=1e-6)


@pytest.mark.parametrize("size, levels", [
    ((32, 64), [32, 16]), ((24, 12), [24]), ((64, 32), [64, 32, 16]), ((64, 16), [64, 32]),
    ((96, 24), [96, 48])])
def test_swd_of_images_that_are_not_square(size, levels):
    """It halves them while 16 rows and 7 columns are left, and sees all of them."""
    a, b = rng().integers(0, 256, (2, 64, *size, 3), np.uint8)
    b[:, -8:, -7:] = 40  # a corner
    found = image_metrics.sliced_wasserstein(a, b)
    assert list(found) == [*levels, "average"]
    assert found[levels[-1]] > 2 * image_metrics.sliced_wasserstein(a, a[::-1])[levels[-1]]


@pytest.mark.parametrize("side, count", [(64, 3), (128, 4)])
def test_the_pyramid_is_bitwise_what_scipy_gives(side, count):
    taps = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]).astype(np.float32)[None, :, :, None] / 256
    images = GOLDEN[f"real_{side}"][:5, :, :side // 2]  # half as wide
    x = images.astype(np.float32)
    for level in range(count):
        small = ndimage.convolve(x, taps, mode="mirror")[:, ::2, ::2]
        doubled = np.zeros_like(x)
        doubled[:, ::2, ::2] = small
        lost = x - ndimage.convolve(doubled, 4 * taps, mode="mirror")
        expected = x if level == count - 1 else lost
        ours = image_metrics.laplacian_level(images, level, level == count - 1)
        assert ours.dtype == np.float32 and abs(ours).max() > 10
        assert_array_equal(ours, expected)
        x = small


def test_swd_between_equal_distributions_falls_as_one_over_root_n():
    a, b = colored(shapes(32, seed=0)), colored(shapes(32, seed=1))
    order = rng().permutation(len(a))
    a, b = a[order], b[order[::-1]]
    few = np.mean([image_metrics.sliced_wasserstein(a[i:i + 16], b[i:i + 16], seed=i)["average"]
                   for i in range(0, 256, 16)])
    many = image_metrics.sliced_wasserstein(a[:256], b[:256])["average"]
    assert few / many == pytest.approx(np.sqrt(256 / 16), rel=0.25)


def test_swd_depends_on_nothing_but_seed_and_batch():
    a, b = colored(shapes()[:40]), colored(shapes(seed=1)[:40])
    value = image_metrics.sliced_wasserstein(a, b)
    assert value == image_metrics.sliced_wasserstein(a, b)
    assert value != image_metrics.sliced_wasserstein(a, b, seed=1)
    assert value != image_metrics.sliced_wasserstein(a, b, batch=8)
    assert value["average"] < image_metrics.sliced_wasserstein(a, 255 - b)["average"] / 3


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [0, 77, 255])
def test_swd_of_a_constant_channel_is_an_error(value):
    real, fake = colored(shapes()[:300]), colored(shapes(seed=1)[:300])
    fake[..., 1] = value
    with pytest.raises(ValueError, match="channel G is constant at level 32"):
        image_metrics.sliced_wasserstein(real, fake)
    # In float32, the standard deviation of 253s is a rounding error, and not 0.
    one_color = np.broadcast_to(np.uint8([253, value, 30]), real.shape)
    with pytest.raises(ValueError, match="channel R is constant"):
        image_metrics.sliced_wasserstein(one_color, real)
    with pytest.raises(ValueError, match="channel R is constant at level 16"):
        image_metrics._descriptors(one_color, np.zeros((2, 300 * 128), int), 1, True)


@pytest.mark.parametrize("shape, error", [
    ((4, 8, 8, 3), "8x8"), ((4, 66, 67, 3), "66x67"), ((4, 16, 6, 3), "16x6"),
    ((4, 32, 33, 3), "32x33"), ((4, 16, 16, 4), "N, H, W, 3"), ((4, 32, 36, 3), None),
    ((4, 36, 34, 3), None), ((4, 17, 7, 3), None), ((4, 32, 7, 3), None)])
def test_sizes_that_do_not_fit_are_named(shape, error):
    a, b = rng().integers(0, 256, (2, *shape), np.uint8)
    if error is None:
        assert np.isfinite(list(image_metrics.sliced_wasserstein(a, b).values())).all()
        return
    with pytest.raises(ValueError, match=error) as raised:
        image_metrics.sliced_wasserstein(a, b)
    assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="3 fake images"):
        image_metrics.sliced_wasserstein(*(np.zeros((n, 32, 32, 3), np.uint8) for n in (4, 3)))


# ------------------------------------------------------------------------------------------ MS-SSIM
@pytest.mark.parametrize("side", [64, 128])
def test_ms_ssim_is_the_authors(side):
    ours = image_metrics.diversity(GOLDEN[f"real_{side}"])
    assert ours["mean"] == pytest.approx(float(GOLDEN[f"msssim_{side}_pairs_even_odd"]), abs=1e-5)
    assert 0 < ours["zero pairs"] < 1


def test_ms_ssim_of_equal_and_of_opposite_images():
    images = rng().integers(0, 256, (70, 16, 48, 3), np.uint8)  # two chunks and a rest
    assert_allclose(image_metrics.ms_ssim(images, images), 1, rtol=1e-12)
    assert (image_metrics.ms_ssim(images, 255 - images) == 0).all()
    near = image_metrics.ms_ssim(images, images ^ 16)
    assert (near > 0.7).all() and (near < 0.999).all()
    assert_allclose(near[[69]], image_metrics.ms_ssim(images[69:], images[69:] ^ 16), rtol=1e-12)
    # The last has no partner.
    pairs = np.stack([images[0], images[0], images[1], 255 - images[1], images[2]])
    assert image_metrics.diversity(pairs) == pytest.approx({"mean": 0.5, "zero pairs": 0.5})


def test_ms_ssim_of_all_sides_that_are_multiples_of_16():
    for shape in (2, 16, 16, 3), (2, 32, 48, 3), (2, 48, 16, 3), (2, 48, 80, 3):
        images = rng().integers(0, 256, shape, np.uint8)
        assert_allclose(image_metrics.ms_ssim(images, images), 1, rtol=1e-12)
        near, turned = images ^ 16, images.transpose(0, 2, 1, 3)
        assert_allclose(image_metrics.ms_ssim(images, near),
                        image_metrics.ms_ssim(turned, near.transpose(0, 2, 1, 3)), rtol=1e-12)


def test_images_in_another_range_are_refused():
    images = colored(shapes()[:4])
    for wrong in (images / np.float32(127.5) - 1, images / 255, images.astype(int)):
        with pytest.raises(ValueError, match=r"0 to 255: from \[-1, 1\]"):
            image_metrics.ms_ssim(wrong, wrong)
    with pytest.raises(ValueError, match="multiples of 16"):
        image_metrics.ms_ssim(images[:, :24], images[:, :24])
    with pytest.raises(ValueError, match="two images"):
        image_metrics.diversity(images[:1])


# --------------------------------------------------------------------------------- Frechet distance
@pytest.mark.parametrize("n", [60, 500])
def test_frechet_distance_is_that_of_a_matrix_square_root(n):
    ours = image_metrics.frechet_distance(GOLDEN[f"fid_a_{n}"], GOLDEN[f"fid_b_{n}"])
    assert ours == pytest.approx(float(GOLDEN[f"fid_{n}"]), abs=1e-6)


def test_frechet_distance_of_a_set_to_itself_is_zero():
    for n, d in ((20, 300), (300, 300), (301, 300), (1000, 64)):
        a = 10 * rng().standard_normal((n, d)) + 100
        assert image_metrics.frechet_distance(a, a[::-1]) < 1e-8
        assert image_metrics.frechet_distance(a, a + 1) > 1


@pytest.mark.parametrize("n, m", [(90, 70), (90, 12), (12, 11)])
def test_frechet_distance_of_diagonal_gaussians(n, m):
    def features(n, mean, variance):  # with exactly these statistics
        x = np.c_[np.ones(n), rng().standard_normal((n, len(mean)))]
        x = np.linalg.qr(x)[0][:, 1:]  # orthonormal, and orthogonal to ones
        return x * np.sqrt((n - 1) * variance) + mean
    (mean_a, mean_b), (a, b) = rng().standard_normal((2, 10)), rng().uniform(0, 3, (2, 10))
    a[:3] = b[2:5] = 0
    expected = ((mean_a - mean_b) ** 2).sum() + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    found = image_metrics.frechet_distance(features(n, mean_a, a), features(m, mean_b, b))
    assert found == pytest.approx(expected, rel=1e-10)


def test_frechet_distance_of_collapsed_sets():
    a, b = np.full((5, 40), 0.1), np.full((90, 40), 0.1)
    assert image_metrics.frechet_distance(a, b) == pytest.approx(0, abs=1e-20)
    assert image_metrics.frechet_distance(a, b + 2) == pytest.approx(160)
    of_float32 = image_metrics.frechet_distance(a.astype(np.float32), b.astype(np.float32))
    assert isinstance(of_float32, float)
    for wrong in (a[:1], a[:, :3], a[0]):
        with pytest.raises(ValueError, match="two rows or more"):
            image_metrics.frechet_distance(wrong, b)
    for value in np.nan, np.inf:
        broken = b.copy()
        broken[3, 7] = broken[8, 1] = value
        with pytest.raises(ValueError, match="in 2 of 90 rows of the first set, first in row 3"):
            image_metrics.frechet_distance(broken, b)
        with pytest.raises(ValueError, match="of the second set"):
            image_metrics.frechet_distance(a, broken)


# ------------------------------------------------------------------------------- threads and BLAS
def with_threads():
    """The values of the metrics that use threads."""
    real, fake = colored(shapes()[:70]), colored(shapes(seed=1)[:70])
    features = rng().standard_normal((2, 90, 60))
    return [*image_metrics.sliced_wasserstein(real, fake).values(),
            *image_metrics.ms_ssim(real, fake), image_metrics.frechet_distance(*features)]


def test_metrics_without_threads(monkeypatch):
    expected = with_threads()

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert_allclose(with_threads(), expected, rtol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_blas_has_as_many_threads_as_before(count):
    threads = lambda: [library["num_threads"] for library in threadpool_info()
                       if library["user_api"] == "blas"]
    with threadpool_limits(count, "blas"):
        before = threads()
        with_threads()
        with pytest.raises(ValueError):
            image_metrics.sliced_wasserstein(*np.zeros((2, 4, 32, 32, 3), np.uint8))
        assert threads() == before
        assert set(before) == {count}


# ---------------------------------------------------------------------------- metrics of label maps
def flat(value):
    return list(value.values()) if isinstance(value, dict) else [value]


@pytest.mark.parametrize("name", metrics.LABEL_METRICS)
def test_renaming_classes_in_both_sets_changes_nothing(name):
    metric, real, fake = metrics.LABEL_METRICS[name], shapes()[:200], shapes(seed=1)[300:420].copy()
    fake[:, :9] = 0  # more than noise apart
    names = np.array([7, 2, 0, 9], np.uint8)
    value = flat(metric(real, fake))
    assert_allclose(flat(metric(names[real], names[fake])), value, rtol=1e-9)
    change = np.abs(np.subtract(flat(metric(real, names[fake])), value)).max()
    assert change > 1e-3 or name in ("boundary density", "components")


@pytest.mark.parametrize("name", ["class frequencies", "FSD", "adjacency", "spatial prior"])
def test_distances_are_zero_for_equal_sets_and_fall_with_the_number_of_maps(name):
    metric = metrics.LABEL_METRICS[name]
    a, b = rng().permutation(shapes()), rng().permutation(shapes(seed=1))[::-1]
    assert metric(a, a[::-1]) == pytest.approx(0, abs=1e-12)
    few = np.mean([metric(a[i:i + 20], b[i:i + 20]) for i in range(0, 400, 20)])
    assert 0 < 1.5 * metric(a[:500], b[:500]) < few
    with pytest.raises(ValueError, match="same sides"):
        metric(a, b[:, 1:])
    with pytest.raises(ValueError, match="uint8"):
        metric(a, b.astype(float))


def test_distances_counted_by_hand():
    a = np.uint8([[[0, 0], [1, 1]], [[0, 0], [0, 0]]])  # class shares 1/2 1/2, and 1 0
    b = np.uint8([[[0, 3], [1, 1]], [[0, 3], [1, 1]]])
    assert metrics.class_frequency_distance(a, b) == pytest.approx((0.5 + 0.25 + 0.25) / 2)
    # Means (3/4, 1/4, 0) and (1/4, 1/2, 1/4), covariances 1/8 (1, -1, 0)(1, -1, 0)^T and 0.
    assert metrics.segmentation_distance(a, b) == pytest.approx(0.25 + 1 / 16 + 1 / 16 + 0.25)
    # Boundary of a: {0, 1} twice; of b, in each map: {0, 3} once, {0, 1} once, {3, 1} once.
    assert metrics.adjacency_distance(a, b) == pytest.approx(2 / 3)
    assert metrics.boundary_density(a) == 2 / 8 and metrics.boundary_density(b) == 3 / 4
    # Class 0: |1 - 1|, |1 - 0|, |1/2 - 0| twice; class 1: |1/2 - 1| twice; class 3: 1 at one pixel.
    assert metrics.spatial_distance(a, b) == pytest.approx((2 + 1 + 1) / 2 / 4)
    blank = np.zeros_like(a)
    assert metrics.adjacency_distance(a, blank) == 1
    assert metrics.adjacency_distance(blank, blank) == 0


def test_areas_and_frequencies_counted_by_hand():
    maps = np.uint8([[[0, 1], [1, 1]], [[0, 0], [0, 1]], [[0, 0], [2, 2]]])
    assert_array_equal(metrics.class_areas(maps, 4), [[1, 3, 0, 0], [3, 1, 0, 0], [2, 0, 2, 0]])
    assert_allclose(metrics.class_frequencies(maps, 4), np.array([6, 4, 2, 0]) / 12)


def test_a_class_nobody_has_never_lowers_a_distance():
    real, fake = shapes()[:60], shapes(seed=1)[100:160].copy()
    names = ["class frequencies", "spatial prior", "adjacency"]
    distances = lambda: np.array([metrics.LABEL_METRICS[name](real, fake) for name in names])
    for k in range(9, 30):  # more and more classes, one pixel each
        before = distances()
        fake[k, k, 5] = k
        assert (distances() >= before - 1e-12).all()
    assert metrics.spatial_distance(real, np.full_like(real, 9)) == pytest.approx(1)


def regions(maps):
    return metrics.components(maps)["per map"]


def test_components_are_counted_map_by_map():
    # Zeros: the corner alone, and the rest. Ones: one region.
    a = np.uint8([[0, 1, 0], [1, 1, 0], [0, 0, 0]])
    b = np.uint8([[0, 1], [1, 0]])                   # diagonal neighbours do not touch
    assert regions(a[None]) == 3
    assert regions(b[None]) == 4
    assert regions(np.stack([b, b, b])) == 4, "maps that follow each other do not touch"
    assert metrics.components(a[None]) == {"per map": 3, "speckle": 2 / 3}  # areas 1, 5 and 3


def test_speckle_is_a_region_of_fewer_than_four_pixels():
    maps = np.zeros((1, 8, 8), np.uint8)
    maps[0, 0, :3], maps[0, 2:4, 2:4], maps[0, 6, 1:6] = 1, 1, 2  # of 3, 4 and 5 pixels
    assert metrics.components(maps) == {"per map": 4, "speckle": 0.25}


def test_speckle_rises_in_proportion():
    maps = shapes()[:300]
    maps[:, :16] = 0
    # Every other pixel of every other row.
    places = np.array([64 * (i // 16) + 2 * (i % 16) for i in range(128)])
    count = lambda m: np.prod(flat(metrics.components(m)))  # regions under 4 pixels per map
    clean = count(maps)
    for planted in (1, 2, 4, 40):
        noisy = maps.copy()
        for m in noisy:
            m.flat[rng().choice(places, planted, replace=False)] = 3
        assert count(noisy) - clean == pytest.approx(planted, rel=0.02)
        assert regions(noisy) - regions(maps) == pytest.approx(planted, rel=0.1)


def test_memorized_maps_are_flagged():
    train, heldout, fake = (rng().permutation(shapes(seed=seed))[:300] for seed in (0, 1, 2))
    train, heldout, fake = train[:250], heldout[100:], fake[50:]
    honest = metrics.memorization(train, fake, heldout)
    assert honest["memorized"] < 0.06
    assert honest["agreement"] == pytest.approx(honest["held out"], abs=0.01)
    copies = fake.copy()
    copies[:100] = train[:100]
    copies[:100, 5, 5] ^= 1  # all but exact
    flagged = metrics.memorization(train, copies, heldout)
    expected = honest["memorized"] + 100 / 250 * (1 - honest["memorized"])
    assert flagged["memorized"] == pytest.approx(expected, abs=0.02)
    assert metrics.memorization(train, train, heldout)["agreement"] == 1
    # Without held-out maps the training maps judge each other, and no map itself.
    alone = metrics.memorization(train, copies)
    assert alone["held out"] == pytest.approx(honest["held out"], abs=0.01)
    assert alone["memorized"] >= 0.4


def test_nearest_agreement_is_that_of_comparing_byte_by_byte():
    maps, train = rng().integers(0, 5, (2, 300, 6, 7), np.uint8)
    maps[:, :2] = train[:, :2]
    maps[:, :, 4:] = train[::-1, :, 2::-1]  # half a mirror image
    both = lambda some: np.maximum(*((m[:, None] == train).mean((2, 3))
                                     for m in (some, some[:, :, ::-1])))
    assert_allclose(metrics.nearest_agreement(maps, train), both(maps).max(1))
    assert (both(maps) > (maps[:, None] == train).mean((2, 3))).any()
    train[5] = np.maximum(train[5], train[5, :, ::-1])  # equals its mirror image
    others = both(train) - 2 * np.eye(300)
    assert_allclose(metrics.nearest_agreement(train, train, same=True), others.max(1))


def test_simpler_maps_are_near_to_training_maps_but_few_are_copies():
    train, others = shapes(), shapes(seed=1)[::3]
    found = metrics.memorization(train, np.where(others == 1, others, 0).astype(np.uint8))
    assert found["memorized"] > 0.15, "circles alone"
    assert found["copies"] < 0.05
    near = train[::3].copy()
    near[:, 3, :10] ^= 1  # 1 % of the pixels
    assert metrics.memorization(train, near)["copies"] == 1


def test_copies_are_counted_even_if_the_data_has_copies_of_its_own():
    train = np.concatenate([shapes()[:50], shapes()[:50]])
    copies = train[:40, :, ::-1].copy()
    copies[:10, 3, 3] ^= 1
    found = metrics.memorization(train, copies)
    assert found["copies"] == 0.75
    assert found["memorized"] == 0, "all training maps have a copy: nothing is nearer than that"


# ------------------------------------------------------------- softmax, palette, and Colored Shapes
def test_discreteness():
    p = np.float32([[[1, 0, 0, 0], [0.25, 0.25, 0.25, 0.25]], [[0.5, 0.5, 0, 0], [0, 0, 0, 1]]])
    entropy = (np.log(4) + np.log(2)) / 4
    expected = {"largest probability": 2.75 / 4, "entropy": entropy}
    assert metrics.discreteness(p) == pytest.approx(expected)


def test_invalid_colors_rise_in_proportion():
    images, palette = colored(shapes()[:70]), data.colored_shapes(32).palette
    assert image_metrics.invalid_color_rate(images, palette) == 0
    step = np.where(images > 127, -1, 1)
    for distance, rate in ((8, 0), (9, 1), (100, 1)):  # palette colours are 0 or 255
        off = (images + distance * step).astype(np.uint8)
        assert image_metrics.invalid_color_rate(off, palette) == rate
        one_channel = images.copy()
        one_channel[..., 2] = off[..., 2]
        assert image_metrics.invalid_color_rate(one_channel, palette) == rate
    for share in (0.01, 0.02, 0.2):
        noisy, off = images.copy(), rng().random(images.shape[:3]) < share
        noisy[off] = 128
        rate = image_metrics.invalid_color_rate(noisy, palette)
        assert rate == off.mean() == pytest.approx(share, rel=0.05)


def test_a_tolerance_that_reaches_two_colors_is_refused():
    # 20 grey levels apart; one colour is there twice.
    palette = np.uint8([[0, 60, 100], [0, 80, 100], [200, 200, 200], [0, 60, 100]])
    images = np.broadcast_to(np.uint8([0, 69, 109]), (1, 2, 2, 3))
    assert image_metrics.invalid_color_rate(images, palette, 9) == 0
    assert image_metrics.invalid_color_rate(images, palette, 8) == 1
    message = "tolerance 10: two colours of the palette are 20 grey levels apart"
    with pytest.raises(ValueError, match=message):
        image_metrics.invalid_color_rate(images, palette, 10)


@pytest.mark.parametrize("side, width", [(24, 24), (32, 32), (64, 64), (24, 48), (64, 56)])
def test_shapes_of_the_data_overlap_their_ideals_if_half_of_each_is_visible(side, width):
    maps = rng().permutation(data.colored_shapes(side, width=width).maps)[:400]
    areas = metrics.class_areas(maps, 4)
    square, bar, height = (round(size * side / 64) for size in (10, 12, 20))
    visible = np.minimum(areas[:, 3] / square ** 2, areas[:, 2] / (bar * height))
    overlaps = metrics.shape_overlaps(maps)
    assert overlaps.shape == (400, 3)
    assert (overlaps[visible >= 0.5] == 1).all() and (visible >= 0.5).mean() > 0.75
    assert (overlaps[visible < 0.35].min(1) < 0.75).all() and (visible < 0.35).sum() > 20


def test_overlaps_counted_by_hand():
    m = np.zeros((1, 32, 32), np.uint8)
    m[0, 20:30, 2:8] = 2     # the rectangle, 10x6
    m[0, 15:20, 20:25] = 3   # the square, 5x5
    assert_allclose(metrics.shape_overlaps(m), [[0, 1, 1]])
    m[0, 20:22, 2:8] = 0     # the rectangle without 12 of its 60 pixels
    m[0, 15, 25:27] = 3      # two more pixels beside the square
    assert_allclose(metrics.shape_overlaps(m), [[0, 48 / 60, 25 / 27]])
    m[0, 15, 25:27] = 0
    m[0, 18:20, 20:25] = 1   # circle pixels hide two of its five rows: the rest is whole
    assert metrics.shape_overlaps(m)[0, 2] == 1
    m[0, 17, 20:25] = 1      # and one more: one row higher, 15 pixels are visible and 10 are there
    assert metrics.shape_overlaps(m)[0, 2] == 10 / 15
    m[0, 10:20, 10:15] = 3   # squares elsewhere count in the union
    assert metrics.shape_overlaps(m)[0, 2] == 25 / (25 + 10 + 25)


def test_shares_of_good_shapes():
    overlaps = np.array([[1, 1, 0.75], [0.9, 1, 0.95], [1, 0.74, 1], [1, 1, 0]])
    nothing = np.zeros_like(overlaps)  # overlaps with the counterparts
    assert metrics.shape_share(overlaps, nothing) == 0.5
    assert metrics.shape_share(overlaps, nothing, 0.9) == 0.25
    assert metrics.shape_share(overlaps, nothing + 0.8) == 0.25, "0.75 is less than 0.8"
    assert metrics.shape_share(overlaps[1:2], overlaps[1:2]) == 0, "0.9 and 0.9 cannot be told"
    assert metrics.shape_share(nothing + 1, nothing + 1) == 1, "too little is visible to tell"
    real = metrics.shape_metrics(shapes())
    assert real["share"] == pytest.approx(0.85, abs=0.015)
    assert 0.8 < real["strict share"] < real["share"]
    assert [real[f"{shape} overlap"] for shape in ("circle", "rectangle", "square")] == [1, 1, 1]


def test_the_overlap_alone_cannot_tell_a_circle_from_a_square():
    """Why shape_share compares with counterparts: without them, wrong corners pass as often."""
    maps = FED["wrong corners"]
    overlaps = metrics.shape_overlaps(maps)
    assert metrics.shape_share(overlaps, np.zeros_like(overlaps)) > 0.8
    assert metrics.shape_share(overlaps, metrics.shape_overlaps(maps, counterparts=True)) == 0


def test_damaged_shapes_lower_the_strict_share():
    whole = np.zeros((64, 64), np.uint8)
    y, x = np.mgrid[:64, :64]
    whole[(y - 15) ** 2 + (x - 15) ** 2 <= 100] = 1
    whole[40:60, 4:16] = 2
    whole[30:40, 40:50] = 3
    share = lambda change: metrics.shape_metrics(np.stack([whole, change(whole.copy())]))[
        "strict share"]

    def paint(*box, k):
        return lambda m: (m.__setitem__(box, k), m)[1]
    def rows(top, bottom, k, left=0, right=64):
        return paint(slice(top, bottom), slice(left, right), k=k)
    assert share(lambda m: m) == 1
    assert share(rows(30, 31, 0)) == 1, "a square without one of its ten rows"
    assert share(rows(30, 32, 0)) == 0.5, "without two"
    assert share(rows(28, 30, 3, 40, 50)) == 0.5, "two rows too high"
    assert share(rows(50, 53, 3, 50, 54)) == 0.5, "stray pixels far from the square, 12 of them"
    assert share(rows(45, 48, 0)) == 0.5, "a rectangle cut in two"
    assert share(rows(0, 11, 0)) == 0.5, "a circle without its top"
    assert share(rows(30, 40, 1, 45, 50)) == 0.5, "circle pixels inside the square"
    assert share(lambda m: np.where(m == 3, 0, m).astype(np.uint8)) == 0.5, "no square"
    relabelled = lambda m: np.where(m == 3, 2, m).astype(np.uint8)
    assert share(relabelled) == 0.5, "a square of the rectangle's class"
    assert share(lambda m: m[:, ::-1]) == share(lambda m: m[::-1]) == 1
    assert share(lambda m: m.T) == 0.5, "the rectangle lies on its side"


# ---------------------------------------------------------------------- what each metric sees
# Every metric is fed these sets instead of samples. All are made from 240 Colored Shapes of seed 0,
# the training maps, or of seed 1, other real maps.
TRAINING, OTHERS = (rng().permutation(shapes(seed=seed))[:240] for seed in (0, 1))


def noise():
    """Independent pixels with the right class frequencies."""
    frequencies = metrics.class_frequencies(TRAINING, 4)
    return rng().choice(4, TRAINING.shape, p=frequencies).astype(np.uint8)


def salt():
    """Real maps in which 3 % of the pixels have a random class."""
    hit = rng().random(OTHERS.shape) < 0.03
    return np.where(hit, rng().integers(0, 4, OTHERS.shape), OTHERS).astype(np.uint8)


def bars():
    """Three vertical bars of exactly the areas of the shapes, with random gaps between them."""
    maps, random = [], rng()
    for areas in metrics.class_areas(OTHERS, 4):
        classes = np.zeros(7, np.uint8)
        classes[1::2] = random.permutation([1, 2, 3])
        lengths = areas[classes]
        lengths[::2] = random.multinomial(areas[0], [0.25] * 4)
        maps.append(np.repeat(classes, lengths).reshape(32, 32).T)  # column by column
    return np.stack(maps)


def half_size():
    """Circle, rectangle and square in half their size, anywhere."""
    maps, random = np.zeros_like(TRAINING), rng()
    y, x = np.mgrid[:32, :32]
    for m in maps:
        (top, left), (ry, rx), (cy, cx) = random.integers([[0, 0], [0, 0], [2, 2]],
                                                          [[30, 30], [28, 30], [30, 30]])
        m[ry:ry + 5, rx:rx + 3] = 2
        m[top:top + 2, left:left + 2] = 3
        m[(y - cy) ** 2 + (x - cx) ** 2 <= 6] = 1
    return maps


def wrong_corners():
    """A square in place of the circle, an ellipse of the rectangle, a disc of the square."""
    maps, random = np.zeros_like(TRAINING), rng()
    (_, square), (_, ellipse), (_, disc) = metrics.ideal_shapes(32)
    for m in maps:
        for k, shape in (2, ellipse), (3, disc), (1, square):
            height, width = shape.shape
            y, x = random.integers(0, (33 - height, 33 - width))
            m[y:y + height, x:x + width][shape] = k
    return maps


FED = {
    "other real maps": OTHERS,
    "noise": noise(),
    "salt": salt(),
    "a constant": np.zeros_like(TRAINING),
    "stripes": noise()[:, :, :1].repeat(32, 2),  # rows of one class each
    "bars": bars(),
    "shuffled pixels": rng().permuted(OTHERS.reshape(240, -1), axis=1).reshape(OTHERS.shape),
    "shuffled classes": np.uint8([0, 2, 3, 1])[OTHERS],  # the circle becomes a rectangle, and so on
    "half-size shapes": half_size(),
    "wrong corners": wrong_corners(),
    "copies": TRAINING[::-1],
    "mirrored copies": TRAINING[::-1, :, ::-1]}

# A metric sees (+) a set if its value is more than 1.5 times the limit away from that of real maps.
# It is blind (.) to a set if its value is within the limit. ~: between the two. e: it cannot be
# computed.
# The columns are FED: Real, Noise, Salt, Constant, sTripes, Bars, shuffled Pixels, shuffled
# cLasses, Half-size, wrong corners (O), copies (=) and Mirrored copies.
ANSWERS = """
metric                    real    limit     R  N  S  C  T  B  P  L  H  O  =  M
class frequencies            0    0.005     .  .  +  +  .  .  .  +  +  .  .  .
FSD                          0    0.00006   .  +  +  +  +  .  .  +  +  .  .  .
adjacency                    0    0.025     .  +  +  +  +  +  +  +  +  +  .  .
boundary density         0.044    0.005     .  +  +  +  +  +  +  .  +  .  .  .
spatial prior                0    0.047     .  +  .  +  +  +  +  +  +  .  .  .
components, per map       4.04    0.2       .  +  +  +  +  +  +  .  .  .  .  .
components, speckle      0.023    0.03      .  +  +  .  .  .  +  .  .  .  .  .
memorization, agreement   0.89    0.02      .  +  .  .  +  +  +  +  .  .  +  +
memorization, memorized   0.01    0.05      .  .  .  .  .  .  .  .  .  .  +  +
memorization, copies         0    0.01      .  .  .  .  .  .  .  .  .  .  +  +
shapes, share             0.85    0.05      .  +  +  +  +  +  +  +  +  +  .  .
shapes, strict share      0.83    0.05      .  +  +  +  +  +  +  +  +  +  .  .
shapes, circle overlap       1    0.05      .  +  +  +  +  +  +  +  +  +  .  .
shapes, rectangle overlap    1    0.05      .  +  +  +  +  +  +  +  +  +  .  .
shapes, square overlap       1    0.05      .  +  +  +  +  +  +  +  +  +  .  .
SWD x1e3, average            0    40        .  +  +  e  +  +  +  +  +  ~  .  .
MS-SSIM, mean            0.086    0.08      .  .  .  +  .  .  .  .  .  .  .  .
MS-SSIM, zero pairs       0.66    0.1       .  .  .  +  .  .  .  .  +  .  .  .
softmax, entropy             0    0.001     .  .  .  .  .  .  .  .  .  .  .  .
invalid colours              0    0.001     .  .  .  .  .  .  .  .  .  .  .  .
"""
ANSWERS = [re.split(r"\s{2,}", line) for line in ANSWERS.strip().splitlines()[1:]]


@functools.cache
def answer(metric, fed):
    """The value, or values, of a metric if it is fed a set."""
    maps, palette = FED[fed], data.colored_shapes(32).palette
    if metric == "shapes":
        return metrics.shape_metrics(maps)
    if metric == "softmax":
        return metrics.discreteness(np.eye(4)[maps[:20]])
    if metric == "invalid colours":
        return image_metrics.invalid_color_rate(palette[maps], palette)
    if metric in metrics.LABEL_METRICS:
        return metrics.LABEL_METRICS[metric](TRAINING, maps)
    count = 100 if metric.startswith("SWD") else 240  # SWD takes long
    return metrics.IMAGE_METRICS[metric](palette[TRAINING[:count]], palette[maps[:count]])


@pytest.mark.parametrize("name, real, limit, marks", [
    (name, float(real), float(limit), marks) for name, real, limit, *marks in ANSWERS],
    ids=[row[0] for row in ANSWERS])
def test_what_a_metric_sees(name, real, limit, marks):
    metric, _, key = name.partition(", ")
    for fed, mark in zip(FED, marks, strict=True):
        if mark == "e":
            with pytest.raises(ValueError):
                answer(metric, fed)
            continue
        value = answer(metric, fed)
        distance = abs((value[key] if key else value) - real)
        if mark == "+":
            assert distance > 1.5 * limit, f"{fed}: {value} is like real maps"
        elif mark == "~":
            assert limit < distance <= 1.5 * limit, f"{fed}: {value}"
        else:
            assert distance <= limit, f"{fed}: {value} is unlike real maps"


def test_every_metric_is_fed_the_sets():
    rows = {row[0] for row in ANSWERS}
    named = {row.partition(", ")[0] for row in rows}
    assert {*metrics.LABEL_METRICS, *metrics.IMAGE_METRICS} <= named
    assert {f"shapes, {key}" for key in metrics.shape_metrics(OTHERS)} <= rows
    for fed in list(FED)[1:-2]:  # all but real maps and their copies: the headline sees them
        assert answer("shapes", fed)["share"] < 0.6
