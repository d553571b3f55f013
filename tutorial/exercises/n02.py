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
         "Comparing an array with a number gives a boolean array: return (y - cy) ** 2 + ... <= "
         "radius ** 2."),
        inputs=[(9, 12, 4, 6, 3), (7, 7, 2, 4, 2)],
        traps={
            "a pixel whose distance is exactly the radius belongs to the circle: <= instead of <.":
                circle_like(lambda dy, dx, r: dy ** 2 + dx ** 2 < r ** 2),
            "the left side is a squared distance, so square the radius too.":
                circle_like(lambda dy, dx, r: dy ** 2 + dx ** 2 <= r),
            "2 radius is the diameter. Compare the squared distance with radius ** 2.":
                circle_like(lambda dy, dx, r: dy ** 2 + dx ** 2 <= 2 * r),
            "in Python ^ does not raise to a power. Write ** 2.":
                circle_like(lambda dy, dx, r: dy ^ 2 + dx ^ 2 <= r ^ 2),
            "this is True outside of the circle: <= instead of >=.":
                circle_like(lambda dy, dx, r: dy ** 2 + dx ** 2 >= r ** 2),
            "this is True outside of the circle: <= instead of >.":
                circle_like(lambda dy, dx, r: dy ** 2 + dx ** 2 > r ** 2),
            "True and False are asked for: compare the squared distance with the squared radius.":
                circle_like(lambda dy, dx, r: dy ** 2 + dx ** 2),
            "this circle has its centre at row 0 and column 0. Subtract cy from y and cx from x.":
                lambda height, width, cy, cx, radius: circle(height, width, 0, 0, radius),
            "this is a square. Add both squared differences first, and then compare.":
                circle_like(lambda dy, dx, r: (abs(dy) <= r) & (abs(dx) <= r)),
            "this is a diamond: you add the differences themselves, not their squares.":
                circle_like(lambda dy, dx, r: abs(dy) + abs(dx) <= r),
            "cy is the row of the centre and belongs to y; cx belongs to x.": centre_exchanged,
            "the array is (height, width): rows come first.": sides_exchanged}),
    "2.2": Exercise(
        lambda p, a, b: p * a + (1 - p) * b,
        ("At the best c the derivative of the average with respect to c is 0.",
         "The derivative is 2 p (c - a) + 2 (1 - p) (c - b). Solve for c."),
        inputs=[(0.25, 1.0, 3.0), (0.9, -2.0, 5.0)],
        traps={
            "this is the middle, whatever p is. The more probable number must have more weight.":
                lambda p, a, b: (a + b) / 2,
            "p is the probability of a, and 1 - p that of b. You have exchanged them.":
                lambda p, a, b: p * b + (1 - p) * a,
            "this is the more probable of the two: it is right most often. But the squared error "
            "is smallest in between.": lambda p, a, b: a if p > 0.5 else b,
            "the term with b has the wrong sign.": lambda p, a, b: p * a - (1 - p) * b,
            "this is the smallest error itself. Return the c at which it is reached.":
                lambda p, a, b: p * (1 - p) * (a - b) ** 2,
            "this is the mean of the squares. Set the derivative of the error to 0.":
                lambda p, a, b: p * a ** 2 + (1 - p) * b ** 2,
            "b needs its weight too: 1 - p.": lambda p, a, b: p * a + b}),
    "2.3": Exercise(
        one_hot,
        ("Row k of np.eye(classes) is the right vector for class k. Index with all labels at once.",
         "With table = np.eye(classes), table[labels] has a row of the table for each pixel."),
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
            "ids start at 0, so the last class is classes - 1.":
                lambda labels, classes: one_hot(labels, classes + 1)[..., 1:],
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
            "axis 2 is the width. The classes are the last axis.":
                lambda p: p.argmax(2).astype(np.uint8),
            "axis 0 is the batch. The classes are the last axis.":
                lambda p: p.argmax(0).astype(np.uint8),
            "max gives the largest probability itself. Its class is asked for.":
                lambda p: p.max(-1),
            "this is one-hot. The id of the class is asked for.":
                lambda p: (p == p.max(-1, keepdims=True)).astype(np.uint8),
            "the largest probability need not be more than 1/2. You give class 0 where it is less.":
                lambda p: (p > 0.5).argmax(-1).astype(np.uint8)}),
    "2.5": Exercise(
        areas,
        ("maps == k is True at the pixels of class k. Sum it over height and width.",
         "(maps == k).sum((1, 2)) has the shape (N,). Make a list of these, one for each class. "
         "np.stack(list, axis=1) puts them side by side as columns."),
        inputs=[(LABELS, 4), (LABELS[:2], 3)],
        traps={
            "you count over all maps together. The result has a row for each map: (N, classes).":
                lambda maps, classes: np.bincount(maps.ravel(), minlength=classes),
            "maps are the first axis of the result, and classes the second.":
                lambda maps, classes: areas(maps, classes).T,
            "these are shares of each map. Counts are asked for: do not divide by H W.":
                lambda maps, classes: areas(maps, classes) / maps[0].size,
            "a class that does not occur must count 0, but it has no column here.":
                lambda maps, classes: areas(maps, int(maps.max()) + 1),
            "ids start at 0, and the last one is classes - 1.":
                lambda maps, classes: np.roll(areas(maps, classes + 1), -1, 1)[:, :classes],
            "the axes 1 and 2 are height and width; you have added up over other axes.":
                lambda maps, classes: np.stack([(maps == k).sum((0, 1)) for k in range(classes)],
                                               axis=1)}),
}
