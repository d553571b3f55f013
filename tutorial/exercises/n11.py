"""Exercises of notebook 11: what is right, and which mistakes get a hint of their own."""
import numpy as np

from tutorial.checks import Exercise

rng = np.random.default_rng(11)


# ----------------------------------------------------------------------------------------- 11.2
def sorted_pixels(maps):
    return np.sort(maps.reshape(len(maps), -1), axis=1).reshape(maps.shape)


# ----------------------------------------------------------------------------------------- 11.3
def pairs(maps):
    """Pairs of arrays of neighbours: below each other, and beside each other."""
    return (maps[:, 1:], maps[:, :-1]), (maps[:, :, 1:], maps[:, :, :-1])


def counted(lists, classes):
    counts = np.zeros((classes, classes), int)
    for a, b in lists:
        np.add.at(counts, (a, b), 1)
    return counts


def touching(maps, classes, of=pairs):
    counts = counted(of(maps), classes)
    return np.triu(counts + counts.T, 1)


def with_equal_classes(maps, classes):
    counts = counted(pairs(maps), classes)
    return np.triu(counts + counts.T - np.diag(counts.diagonal()))


def both_orders(maps, classes):
    counts = counted(pairs(maps), classes)
    return (counts + counts.T) * (1 - np.eye(classes, dtype=int))


def as_counted(maps, classes, change=lambda counts: counts):
    """Each pair at [class of one, class of the other], and then something is done with that."""
    return change(counted(pairs(maps), classes))


def of_unequal(counts):
    return counts - np.diag(np.diag(counts))


def at_most_once(maps, classes):
    """counts[i, j] += 1 with arrays adds 1 once, however often a place is named."""
    counts = np.zeros((classes, classes), int)
    for a, b in pairs(maps):
        counts[np.minimum(a, b), np.maximum(a, b)] += 1
    return np.triu(counts, 1)


def rolled(maps):
    return ((maps, np.roll(maps, 1, 1)), (maps, np.roll(maps, 1, 2)))


def diagonals(maps):
    return (*pairs(maps), (maps[:, 1:, 1:], maps[:, :-1, :-1]), (maps[:, 1:, :-1],
                                                                 maps[:, :-1, 1:]))


# ----------------------------------------------------------------------------------------- 11.4
SIDES = (-1, 0), (1, 0), (0, -1), (0, 1)
CORNERS = (-1, -1), (-1, 1), (1, -1), (1, 1)


def region_size(m, row, column, steps=SIDES, wraps=False, start=1, same=lambda a, b: a == b):
    """The answer, or a wrong one: with other neighbours, or across the edges of the map."""
    todo, seen = [(row, column)], {(row, column)}
    while todo:
        y, x = todo.pop()
        for dy, dx in steps:
            near = (y + dy, x + dx)
            if wraps:
                near = near[0] % m.shape[0], near[1] % m.shape[1]
            inside = 0 <= near[0] < m.shape[0] and 0 <= near[1] < m.shape[1]
            if inside and near not in seen and same(m[near], m[row, column]):
                seen.add(near)
                todo.append(near)
    return len(seen) - 1 + start


def negative_index(m, row, column):
    """m[-1] is the last row: from the upper and left edges the fill goes on at the other side."""
    todo, seen = [(row, column)], {(row, column)}
    while todo:
        y, x = todo.pop()
        for near in (y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1):
            inside = near[0] < m.shape[0] and near[1] < m.shape[1]  # but 0 <= is missing
            if inside and m[near] == m[row, column] and near not in seen:
                seen.add(near)
                todo.append(near)
    return len(seen)


def in_range(m, row, column, first=0, sides=slice(None)):
    """Rows and columns are accepted from `first` on, and below the sides of the map."""
    todo, seen = [(row, column)], {(row, column)}
    h, w = m.shape[sides] if isinstance(sides, slice) else (m.shape[side] for side in sides)
    while todo:
        y, x = todo.pop()
        for near in (y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1):
            inside = first <= near[0] < h and first <= near[1] < w
            if inside and m[near] == m[row, column] and near not in seen:
                seen.add(near)
                todo.append(near)
    return len(seen)


def not_in_range(m, row, column):
    """No check at all."""
    todo, seen = [(row, column)], {(row, column)}
    while todo:
        y, x = todo.pop()
        for near in (y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1):
            if m[near] == m[row, column] and near not in seen:
                seen.add(near)
                todo.append(near)
    return len(seen)


def one_step(m, row, column):
    return 1 + sum(bool(m[row + dy, column + dx] == m[row, column]) for dy, dx in SIDES
                   if 0 <= row + dy < m.shape[0] and 0 <= column + dx < m.shape[1])


def marks_all(m, row, column):
    """Every neighbour is marked as seen, also those of other classes."""
    todo, seen = [(row, column)], {(row, column)}
    while todo:
        y, x = todo.pop()
        for near in ((y + dy, x + dx) for dy, dx in SIDES):
            if 0 <= near[0] < m.shape[0] and 0 <= near[1] < m.shape[1] and near not in seen:
                seen.add(near)
                todo += [near] * bool(m[near] == m[row, column])
    return len(seen)


def counted_late(m, row, column):
    """Pixels are marked and counted when they are taken, so some are on the list twice."""
    todo, seen, count = [(row, column)], set(), 0
    while todo:
        y, x = todo.pop()
        seen.add((y, x))
        count += 1
        for near in ((y + dy, x + dx) for dy, dx in SIDES):
            inside = 0 <= near[0] < m.shape[0] and 0 <= near[1] < m.shape[1]
            if inside and near not in seen and m[near] == m[row, column]:
                todo.append(near)
    return count


MAP = np.array([[1, 1, 0, 0, 0, 1],
                [0, 1, 0, 2, 0, 1],
                [0, 0, 1, 2, 2, 0],
                [2, 0, 1, 1, 0, 0],
                [1, 0, 2, 1, 0, 1]], np.uint8)


# ----------------------------------------------------------------------------------------- 11.5
def nearest_other(maps, best=np.max, flips=(np.s_[:, :, ::-1],), skip=(0, 1)):
    """The answer, or a wrong one. skip: in which of the two orientations the map itself counts 0"""
    nearest = np.zeros(len(maps))
    for i, oriented in enumerate((maps, *(maps[flip] for flip in flips))):
        agreement = (maps[:, None] == oriented[None]).mean((2, 3))
        if i in skip:
            np.fill_diagonal(agreement, 0)
        nearest = np.maximum(nearest, best(agreement, 1))
    return nearest


def without_itself(maps, others):
    agreement = (maps[:, None] == others[None]).mean((2, 3))
    np.fill_diagonal(agreement, 0)
    return agreement


def without_ones(maps):
    """Agreements of 1 are left out, wherever they are."""
    found = []
    for others in (maps, maps[:, :, ::-1]):
        agreement = (maps[:, None] == others[None]).mean((2, 3))
        agreement[agreement == 1] = 0
        np.fill_diagonal(agreement, 0)
        found.append(agreement.max(1))
    return np.maximum(*found)


def only_mirrored(maps):
    return without_itself(maps, maps[:, :, ::-1]).max(1)


MAPS = rng.integers(0, 3, (3, 4, 5)).astype(np.uint8)
SYMMETRIC = rng.integers(0, 3, (5, 4, 3)).astype(np.uint8)
SIMILAR = np.concatenate([MAPS, MAPS[:, :, ::-1], rng.integers(0, 3, (2, 4, 5)).astype(np.uint8)])
SIMILAR[3:6, 1, 1:3] = 3  # mirror images of the first three, but for two pixels
TWICE = np.concatenate([SIMILAR[:5], SIMILAR[1:2]])  # map 1 is there twice
P, Q = rng.dirichlet(np.ones(5), 2)

EXERCISES = {
    "11.1": Exercise(
        lambda p, q: np.abs(p - q).sum() / 2,
        ("Subtract the lists, take np.abs, and add up.",
         "Half of the sum: np.abs(p - q).sum() / 2."),
        inputs=[(P, Q), (np.array([1.0, 0, 0]), np.array([0, 0.25, 0.75]))],
        traps={
            "the factor 1/2 is missing. Two lists without a common class must have the distance 1.":
                lambda p, q: np.abs(p - q).sum(),
            "this is the mean over the classes. Half of the sum is asked for.":
                lambda p, q: np.abs(p - q).mean(),
            "without np.abs the differences cancel: both lists add up to 1.":
                lambda p, q: (p - q).sum() / 2,
            "this is the largest difference. The others count too.":
                lambda p, q: np.abs(p - q).max(),
            "differences are not squared here.": lambda p, q: ((p - q) ** 2).sum() / 2,
            "this is the length of the vector p - q. Add up absolute values instead.":
                lambda p, q: np.sqrt(((p - q) ** 2).sum())}),
    "11.2": Exercise(
        sorted_pixels,
        ("Reshape each map to one row of pixels. np.sort sorts along an axis.",
         "np.sort(maps.reshape(len(maps), -1), axis=1), and then reshape(maps.shape)."),
        inputs=[(MAPS,), (SIMILAR[:4],)],
        traps={
            "each row is sorted by itself. The whole map is one list of H W pixels.":
                lambda maps: np.sort(maps, axis=2),
            "each column is sorted by itself. The whole map is one list of H W pixels.":
                lambda maps: np.sort(maps, axis=1),
            "the pixels are sorted over the maps, so areas in single maps change.":
                lambda maps: np.sort(maps, axis=0),
            "rows and columns are sorted, but that does not sort the whole list of H W pixels.":
                lambda maps: np.sort(np.sort(maps, axis=1), axis=2),
            "all maps are sorted together, so the first are empty. Each map keeps its own areas.":
                lambda maps: np.sort(maps, axis=None).reshape(maps.shape),
            "reshape the result to (N, H, W) again.":
                lambda maps: np.sort(maps.reshape(len(maps), -1), axis=1),
            "np.argsort gives the places of the sorted pixels. np.sort gives their classes.":
                lambda maps: np.argsort(maps.reshape(len(maps), -1)).reshape(maps.shape),
            "background comes first: from the smallest id to the largest.":
                lambda maps: sorted_pixels(maps)[:, ::-1, ::-1]}),
    "11.3": Exercise(
        touching,
        ("maps[:, 1:] and maps[:, :-1] are neighbours below each other. Beside each other it is "
         "the last axis. The smaller class of each pair is the row of counts.",
         "For a and b, each of these two pairs: np.add.at(counts, (np.minimum(a, b), "
         "np.maximum(a, b)), 1). At last np.triu(counts, 1) takes out the pairs of equal class."),
        inputs=[(MAPS, 3), (SYMMETRIC, 4)],
        traps={
            "each pair is counted twice, at [c, d] and at [d, c]. Put the smaller class first.":
                both_orders,
            "each pair is counted twice: once from each of its two pixels.":
                lambda maps, classes: 2 * touching(maps, classes),
            "half of the pairs are lost: those whose classes come in the other order.":
                lambda maps, classes: np.triu(counted(pairs(maps), classes), 1),
            "half of the pairs are lost: those whose classes come in the order c, d. Use "
            "np.minimum and np.maximum.":
                lambda maps, classes: np.triu(counted(pairs(maps), classes).T, 1),
            "pairs of equal class do not count: the diagonal must be 0.": with_equal_classes,
            "pairs of equal class do not count: the diagonal must be 0, as np.triu(counts, 1) "
            "makes it. np.triu(counts) keeps it.":
                lambda maps, classes: as_counted(maps, classes, lambda c: np.triu(c + c.T)),
            "pairs of equal class do not count, and the smaller class is the row. The order of the "
            "classes still matters here.": as_counted,
            "pairs of equal class do not count, and each other pair is counted twice. Keep what "
            "lies above the diagonal: np.triu(counts, 1).":
                lambda maps, classes: as_counted(maps, classes, lambda c: c + c.T),
            "half of the pairs are at the wrong place: the smaller class is the row, np.minimum, "
            "and the larger the column.":
                lambda maps, classes: as_counted(maps, classes, of_unequal),
            "half of the pairs are at the wrong place: the row is the smaller class, np.minimum, "
            "and the column the larger.":
                lambda maps, classes: as_counted(maps, classes, lambda c: of_unequal(c).T),
            "the smaller class is the row, and the larger the column.":
                lambda maps, classes: touching(maps, classes).T,
            "diagonal neighbours do not count: they share a corner, not a side.":
                lambda maps, classes: touching(maps, classes, diagonals),
            "np.roll makes neighbours of opposite edges. Use slices: [1:] and [:-1].":
                lambda maps, classes: touching(maps, classes, rolled),
            "neighbours beside each other are missing: the last axis.":
                lambda maps, classes: touching(maps, classes, lambda x: pairs(x)[:1]),
            "neighbours below each other are missing: axis 1.":
                lambda maps, classes: touching(maps, classes, lambda x: pairs(x)[1:]),
            "axis 0 is the number of the map: pixels of different maps are no neighbours.":
                lambda maps, classes: touching(maps, classes, lambda x: (
                    (x[1:], x[:-1]), (x[:, 1:], x[:, :-1]))),
            "counts[i, j] += 1 adds only once where a place comes up often. Use np.add.at.":
                at_most_once}),
    "11.4": Exercise(
        region_size,
        ("while todo: take one with todo.pop(), and look at its four neighbours.",
         "A neighbour counts if it lies inside the map, has the class m[row, column], and is not "
         "in seen. Then add it to seen and to todo. At last return len(seen)."),
        inputs=[(MAP, 0, 0), (MAP, 2, 2), (MAP, 0, 2), (MAP, 4, 3), (MAP, 1, 0), (MAP, 3, 0),
                (MAP, 0, 5), (MAP, 4, 5), (MAP.T.copy(), 5, 0),
                (np.ones((2, 2), np.uint8), 0, 0)],
        traps={
            "you also step to diagonal neighbours. They share a corner, not a side.":
                lambda m, row, column: region_size(m, row, column, SIDES + CORNERS),
            "an index of -1 is the last row or column: the fill goes on at the other edge. Check "
            "that neighbours lie inside.": negative_index,
            "the fill goes on at the opposite edge. Neighbours outside the map do not count.":
                lambda m, row, column: region_size(m, row, column, wraps=True),
            "neighbours may lie outside the map: an index of -1 is its last row or column, and one "
            "of H or W stops with an IndexError. Check 0 <= y < H and 0 <= x < W.": not_in_range,
            "row 0 and column 0 are inside too: 0 <= y, not 0 < y.":
                lambda m, row, column: in_range(m, row, column, first=1),
            "height and width are exchanged: m.shape is (H, W), and a row must be smaller than H.":
                lambda m, row, column: in_range(m, row, column, sides=slice(None, None, -1)),
            "one side of the map is taken for both: rows are below m.shape[0], columns below "
            "m.shape[1].": lambda m, row, column: in_range(m, row, column, sides=[0, 0]),
            "neighbours of other classes are counted too. Put a neighbour into seen only if it "
            "has the class.": marks_all,
            "you count all pixels of the class, also those in other regions.":
                lambda m, row, column: int((m == m[row, column]).sum()),
            "a pixel can be on the list twice, for two of its neighbours. Add it to seen when you "
            "put it there.": counted_late,
            "the first pixel belongs to the region too.":
                lambda m, row, column: region_size(m, row, column, start=0),
            "these are the pixel and its neighbours. Those have neighbours in turn: put them on "
            "the list.": one_step,
            "you stop at background only, so different classes become one region.":
                lambda m, row, column: region_size(m, row, column, same=lambda a, b: a != 0),
            "you look down and to the right only. There are four neighbours.":
                lambda m, row, column: region_size(m, row, column, SIDES[1::2])}),
    "11.5": Exercise(
        nearest_other,
        ("agreement = (maps[:, None] == maps[None]).mean((2, 3)) is (N, N). Set its diagonal to 0.",
         "np.fill_diagonal(agreement, 0), then agreement.max(1). Do the same with the mirrored "
         "maps[:, :, ::-1], and take np.maximum of both results."),
        inputs=[(MAPS,), (SIMILAR,), (TWICE,)],
        traps={
            "a map that is there twice agrees with the other one by 1. Leave out the diagonal, not "
            "all agreements of 1.": without_ones,
            "this is the sum over all other maps. Only the nearest counts: the largest.":
                lambda maps: nearest_other(maps, best=np.sum),
            "everything agrees with itself. Set the diagonal of (N, N) to 0 first.":
                lambda maps: nearest_other(maps, skip=()),
            "a map's own mirror image is no other map. Set that diagonal to 0 too.":
                lambda maps: nearest_other(maps, skip=(0,)),
            "mirror images are missing.": lambda maps: nearest_other(maps, flips=()),
            "these are mirror images only. The maps as they are count too: take np.maximum of "
            "both.": only_mirrored,
            "this is the number of the nearest map. Return the agreement with it: .max(1), not "
            ".argmax(1).": lambda maps: without_itself(maps, maps).argmax(1),
            "you add both agreements, with maps and mirror images. Take the larger: np.maximum.":
                lambda maps: without_itself(maps, maps).max(1) + only_mirrored(maps),
            "this is the mean of both agreements, with maps and mirror images. Take the larger: "
            "np.maximum.":
                lambda maps: (without_itself(maps, maps).max(1) + only_mirrored(maps)) / 2,
            "axis 1 is the height: this turns maps upside down. Left for right is the last axis.":
                lambda maps: nearest_other(maps, flips=(np.s_[:, ::-1],)),
            "this turns maps by half a turn. Mirror only the last axis.":
                lambda maps: nearest_other(maps, flips=(np.s_[:, ::-1, ::-1],)),
            "this is the mean over all other maps. Only the nearest counts.":
                lambda maps: nearest_other(maps, best=np.mean),
            "this is the number of pixels. Divide by H W.":
                lambda maps: nearest_other(maps) * maps[0].size,
            "this is the share of pixels that differ. The agreement is 1 minus that.":
                lambda maps: 1 - nearest_other(maps)}),
}
