"""The metrics of label maps, on maps small enough to count by hand."""
import numpy as np
import pytest

import data
import metrics


def test_areas_and_whole_share():
    real = np.array([[[0, 1], [1, 1]], [[0, 0], [0, 1]], [[0, 0], [1, 1]]])  # areas of class 0: 1, 3, 2; of class 1: 3, 1, 2
    np.testing.assert_array_equal(metrics.class_areas(real, 2), [[1, 3], [3, 1], [2, 2]])
    assert metrics.whole_share(real, real, 2) == 1  # medians 2 and 2: half of it is 1
    assert metrics.whole_share(np.zeros((4, 2, 2), int), real, 2) == 0
    assert metrics.whole_share(np.concatenate([real, np.ones((1, 2, 2), int)]), real, 2) == 0.75


def test_components_are_counted_map_by_map():
    a = np.array([[0, 1, 0], [1, 1, 0], [0, 0, 0]])  # the zeros: the corner alone, and the rest: 2 + 1 of ones
    b = np.array([[0, 1], [1, 0]])                   # diagonal neighbours do not touch
    assert metrics.mean_components(a[None], 2) == 3
    assert metrics.mean_components(b[None], 2) == 4
    assert metrics.mean_components(np.stack([b, b, b]), 2) == 4, "equal classes in neighbouring maps do not touch"


def test_speckle_raises_the_components():
    maps = data.colored_shapes(32).maps[:50]
    noisy, rng = maps.copy(), np.random.default_rng(0)
    for m in noisy:
        m.flat[rng.choice(m.size, 5, replace=False)] = 3
    clean, speckled = metrics.mean_components(maps, 4), metrics.mean_components(noisy, 4)
    assert clean == pytest.approx(4, abs=0.5) and clean + 3 < speckled < clean + 6
