"""How good are the samples? Metrics of label maps: uint8 (N, H, W), class ids."""
import numpy as np
from scipy import ndimage


def class_areas(maps, classes):
    """Pixels of each class in each map, (N, K)."""
    return np.stack([(maps == k).sum((1, 2)) for k in range(classes)], 1)


def whole_share(maps, real, classes):
    """Share of maps in which every class covers at least half its median area in the real maps.

    A class that is absent from half of the real maps or more has a median of 0 and is not asked for.
    """
    median = np.median(class_areas(real, classes), 0)
    return float((class_areas(maps, classes) >= median / 2).all(1).mean())


def mean_components(maps, classes):
    """Mean number of 4-connected regions of one class per map; stray pixels drive it up."""
    cross = np.zeros((3, 3, 3), bool)  # neighbours within a map, none across maps
    cross[1] = ndimage.generate_binary_structure(2, 1)
    return sum(ndimage.label(maps == k, cross)[1] for k in range(classes)) / len(maps)
