"""Exercises of notebook 2: what is right, and which mistakes get a hint of their own."""
import numpy as np

from tutorial.checks import Exercise

rng = np.random.default_rng(2)


# ----------------------------------------------------------------------------------------- 2.1
def circle_like(inside):
    """A solution with another condition: inside(dy, dx, radius)."""
    def circle(height, width, cy, cx, radius):
        y, x = np.mgrid[:height, :width]
        return inside(y - cy, x - cx, radius)
    return circle


circle = circle_like(lambda dy, dx, radius: dy ** 2 + dx ** 2 <= radius ** 2)


def centre_exchanged(height, width, cy, cx, radius):
    return circle(height, width, cx, cy, radius)


def sides_exchanged(height, width, cy, cx, radius):
    return circle(width, height, cy, cx, radius)


# ----------------------------------------------------------------------------------------- 2.3
def one_hot(labels, classes):
    return np.eye(classes)[labels]


def probable(probabilities):
    return probabilities.argmax(-1).astype(np.uint8)


# ----------------------------------------------------------------------------------------- 2.5
def areas(maps, classes):
    return np.stack([(maps == k).sum((1, 2)) for k in range(classes)], axis=1)


LABELS = rng.integers(0, 3, (3, 4, 5)).astype(np.uint8)  # class 3 does not occur
P = rng.dirichlet(np.full(5, 0.5), (2, 3, 4))  # in some pixels no class has more than 1/2

EXERCISES = {
    "2.1": Exercise(
        circle,
        ("Compare the squared distance (y - cy)^2 + (x - cx)^2 with the squared radius.",
         "The result of a comparison of arrays is a boolean array: return y_part + x_part <= "
         "radius ** 2."),
        inputs=[(9, 12, 4, 6, 3), (7, 7, 2, 4, 2)],
        traps={
            "a pixel at the distance of exactly the radius belongs to the circle: <= instead of <.":
                circle_like(lambda dy, dx, r: dy ** 2 + dx ** 2 < r ** 2),
            "the left side is a squared distance, so square the radius too.":
                circle_like(lambda dy, dx, r: dy ** 2 + dx ** 2 <= r),
            "this is a square. The distance adds both squared differences before it compares.":
                circle_like(lambda dy, dx, r: (abs(dy) <= r) & (abs(dx) <= r)),
            "this is a diamond: you add the differences themselves, not their squares.":
                circle_like(lambda dy, dx, r: abs(dy) + abs(dx) <= r),
            "cy is the row of the centre and belongs to y; cx belongs to x.": centre_exchanged,
            "the array is (height, width): rows come first.": sides_exchanged}),
    "2.2": Exercise(
        lambda p, a, b: p * a + (1 - p) * b,
        ("At the best c the derivative with respect to c is 0.",
         "The derivative is 2 p (c - a) + 2 (1 - p) (c - b). Solve for c."),
        inputs=[(0.25, 1.0, 3.0), (0.9, -2.0, 5.0)],
        traps={
            "this is the middle, whatever p is. The more probable number pulls harder.":
                lambda p, a, b: (a + b) / 2,
            "p is the probability of a, and 1 - p that of b. You have exchanged them.":
                lambda p, a, b: p * b + (1 - p) * a,
            "the more probable of the two makes the probability of an error smallest. The squared "
            "error has its minimum in between.": lambda p, a, b: a if p > 0.5 else b,
            "b needs its weight too: 1 - p.": lambda p, a, b: p * a + b}),
    "2.3": Exercise(
        one_hot,
        ("np.eye(classes) has the right vector in row k. Index it with all labels at once.",
         "table[labels] has the shape of labels plus that of a row of the table."),
        inputs=[(LABELS, 4), (LABELS, 3)],
        traps={
            "this is one map only. Index with the whole batch.":
                lambda labels, classes: np.eye(classes)[labels[0]],
            "the batch is lost: all maps have become one list of pixels. The shape must be "
            "(B, H, W, classes).":
                lambda labels, classes: np.eye(classes)[labels.reshape(-1)],
            "the classes must be the last axis, not the second.":
                lambda labels, classes: np.moveaxis(np.eye(classes)[labels], -1, 1),
            "the classes must be the last axis, not the first.":
                lambda labels, classes: np.moveaxis(np.eye(classes)[labels], -1, 0),
            "the number of classes is given. A class that does not occur in this batch keeps its "
            "place.": lambda labels, classes: np.eye(int(labels.max()) + 1)[labels],
            "ids start at 0, so class 0 belongs to the first place.":
                lambda labels, classes: np.eye(classes)[labels - 1],
            "this is boolean. Convert it to float64.":
                lambda labels, classes: labels[..., None] == np.arange(classes)}),
    "2.4": Exercise(
        probable,
        ("argmax gives the index of the largest number. Along which axis?",
         "The classes are the last axis: argmax(-1). Then astype(np.uint8)."),
        inputs=(P,),
        traps={
            "without an axis, argmax looks at all numbers of the batch together.":
                lambda p: p.argmax(),
            "axis 1 is the height. The classes are the last axis.":
                lambda p: p.argmax(1).astype(np.uint8),
            "axis 0 is the batch. The classes are the last axis.":
                lambda p: p.argmax(0).astype(np.uint8),
            "max gives the largest probability. You want its class.": lambda p: p.max(-1),
            "the largest probability need not be more than 1/2. You give class 0 where it is less.":
                lambda p: (p > 0.5).argmax(-1).astype(np.uint8)}),
    "2.5": Exercise(
        areas,
        ("maps == k is True at the pixels of class k. Sum it over height and width.",
         "(maps == k).sum((1, 2)) has the shape (N,). np.stack(list, axis=1) puts one of these for "
         "each class side by side."),
        inputs=[(LABELS, 4), (LABELS[:2], 3)],
        traps={
            "you count over all maps together. The result has a row for each map: (N, classes).":
                lambda maps, classes: np.bincount(maps.ravel(), minlength=classes),
            "maps are the first axis of the result, and classes the second.":
                lambda maps, classes: areas(maps, classes).T,
            "these are shares of the map. Counts are asked for: do not divide by H W.":
                lambda maps, classes: areas(maps, classes) / maps[0].size,
            "a class that does not occur must count 0, but it has no column here.":
                lambda maps, classes: areas(maps, int(maps.max()) + 1),
            "the axes 1 and 2 are height and width; you have added up over other axes.":
                lambda maps, classes: np.stack([(maps == k).sum((0, 1)) for k in range(classes)],
                                               axis=1)}),
}
