"""Exercises of notebook 1: what is right, and which mistakes get a hint of their own."""
import numpy as np

from tutorial.checks import Exercise

rng = np.random.default_rng(1)


# ----------------------------------------------------------------------------------------- 1.1
def possible_maps(side, square, radius, height, width):
    return ((side - square) * (side - 2 * radius)) ** 2 * rectangles(side, height, width)


def rectangles(side, height, width):
    return (side - height + 1) * (side - width + 1)


def anywhere(side, square, radius, height, width):
    return ((side - square) * side) ** 2 * rectangles(side, height, width)


def radius_once(side, square, radius, height, width):
    return ((side - square) * (side - radius)) ** 2 * rectangles(side, height, width)


def centre_forgotten(side, square, radius, height, width):
    return ((side - square) * (side - 2 * radius + 1)) ** 2 * rectangles(side, height, width)


def centre_at_the_end_forgotten(side, square, radius, height, width):
    return ((side - square) * (side - 2 * radius - 1)) ** 2 * rectangles(side, height, width)


def as_the_square(side, square, radius, height, width):
    return centre_at_the_end_forgotten(side, square, radius, height + 1, width + 1)


def rows_alone(side, square, radius, height, width):
    return (side - square) ** 2 * (side - 2 * radius) * rectangles(side, height, width)


def one_place_too_few(side, square, radius, height, width):
    return possible_maps(side, square, radius, height + 1, width + 1)


def added_up(side, square, radius, height, width):
    return (side - square) ** 2 + (side - 2 * radius) ** 2 + rectangles(side, height, width)


# ----------------------------------------------------------------------------------------- 1.2
def sides(base, strides):
    result = [base]
    for stride in strides:
        result.append(result[-1] * stride)
    return result


def divided(base, strides):
    result = [base]
    for stride in strides:
        result.append(result[-1] // stride)
    return result


def strides_added(base, strides):
    return [base + sum(strides[:i]) for i in range(len(strides) + 1)]


OVERLAPS = rng.choice([0.3, 0.7, 0.75, 0.9], (40, 3), p=[0.1, 0.1, 0.2, 0.6])
GOOD_CIRCLES = np.where([True, False, False], 0.9, OVERLAPS)

EXERCISES = {
    "1.1": Exercise(
        possible_maps,
        ("In how many rows can the circle's centre lie, and in how many the rectangle's top row?",
         "The centre needs radius pixels on both sides: side - 2 radius rows. The rectangle's top "
         "can be in side - height + 1 rows. Columns likewise. Then multiply all these numbers."),
        inputs=[(16, 2, 2, 5, 3), (64, 10, 10, 20, 12)],
        traps={
            "the three shapes are placed independently of each other. So multiply, do not add.":
                added_up,
            "the circle's centre can be moved in two directions: count its rows and its columns.":
                rows_alone,
            "only the square leaves out the last place. The circle and the rectangle may touch the "
            "border on every side.": as_the_square,
            "the circle's last place counts too: side - (2 radius + 1) + 1 rows.":
                centre_at_the_end_forgotten,
            "the rectangle's last place counts too: height 5 and side 16 give 16 - 5 + 1 = 12.":
                one_place_too_few,
            "the circle must lie inside, so its centre cannot be near the border.": anywhere,
            "the circle needs radius pixels on both sides of its centre.": radius_once,
            "the circle is 2 radius + 1 pixels wide: its centre is a pixel too.":
                centre_forgotten}),
    "1.2": Exercise(
        sides,
        ("Each layer multiplies the side by its stride.",
         "Start with the list [base] and append the last side times the stride, for each stride."),
        inputs=[(4, [2, 2]), (3, [2, 1, 2])],
        traps={
            "you forgot the strides: each layer multiplies the side by its stride.":
                lambda base, strides: [base] * (len(strides) + 1),
            "the first side is missing: base itself.":
                lambda base, strides: sides(base, strides)[1:],
            "a stride multiplies the side. You add it.": strides_added,
            "each stride multiplies the side before it, not the first one.":
                lambda base, strides: [base] + [base * stride for stride in strides],
            "each stride multiplies the side before it, not the first one; and base itself is "
            "missing.": lambda base, strides: [base * stride for stride in strides],
            "the strides are given. Not all of them need be 2.":
                lambda base, strides: sides(base, [2] * len(strides)),
            "the sides become smaller in the discriminator. In the generator they grow: multiply.":
                divided}),
    "1.3": Exercise(
        lambda k, cin, cout: k * k * cin * cout + 2 * cout,
        ("deconv1 above has the arrays w, gamma and beta. Multiply the sizes in each shape.",
         "w has k k cin cout numbers, and gamma and beta have cout each."),
        inputs=[(7, 64, 32), (3, 5, 11)],
        traps={
            "you count a bias too. Before batch norm there is none: it would be subtracted again.":
                lambda k, cin, cout: k * k * cin * cout + 3 * cout,
            "batch norm has two numbers for each output channel, gamma and beta; and there is no "
            "bias.":
                lambda k, cin, cout: k * k * cin * cout + cout,
            "gamma and beta are missing.": lambda k, cin, cout: k * k * cin * cout,
            "gamma and beta have one number for each output channel, so cout numbers each.":
                lambda k, cin, cout: k * k * cin * cout + 2,
            "each pair of an input and an output channel has its own k k weights: multiply cin and "
            "cout.": lambda k, cin, cout: k * k * (cin + cout) + 2 * cout,
            "the kernel has two sides: k times k weights.":
                lambda k, cin, cout: k * cin * cout + 2 * cout,
            "gamma and beta belong to the output channels, not to those of the input.":
                lambda k, cin, cout: k * k * cin * cout + 2 * cin,
            "batch norm's running mean and variance are not learnt: they are no parameters.":
                lambda k, cin, cout: k * k * cin * cout + 4 * cout}),
    "1.4": Exercise(
        np.log(2),
        ("D gives every right answer the probability p = 1/2. Insert that into -log p.",
         "The loss is -log(1/2) for each map, and so is the mean."),
        traps={
            "a loss of 0 means that D is always right and sure. This D can only guess.": 0,
            "this is rounded. Write the number with np.log.": 0.693,
            "this is rounded. Write it with np.log, and all digits are right.": 0.69,
            "this is half of it. Each map has the loss -log p, and so the mean is -log p.":
                np.log(2) / 2,
            "1/2 is the probability p. The loss is -log p.": 0.5,
            "the sign is wrong: the logarithm of a probability below 1 is negative. The loss is "
            "minus the logarithm.": -np.log(2),
            "the loss is a mean over the maps, real and generated, not a sum of both.": np.log(4),
            "this uses the logarithm to base 10. np.log is the natural one.": np.log10(2),
            "this uses the logarithm to base 2. np.log is the natural one.": 1}),
    "1.5": Exercise(
        lambda overlaps, least: (overlaps >= least).all(1).mean(),
        ("overlaps >= least is a boolean array (N, 3), a row for each map. When is a map good?",
         "all(1) says for each row whether all of it is True. The mean of booleans is the share of "
         "True."),
        inputs=[(OVERLAPS, 0.75), (OVERLAPS, 0.8), (GOOD_CIRCLES, 0.75)],
        traps={
            "this is the share of good shapes. A map is good if all three of its shapes are.":
                lambda overlaps, least: (overlaps >= least).mean(),
            "one good shape is not enough: all three, not any.":
                lambda overlaps, least: (overlaps >= least).any(1).mean(),
            "exactly `least` is good enough: >= instead of >.":
                lambda overlaps, least: (overlaps > least).all(1).mean(),
            "a good circle must not make up for a bad square: compare each overlap, not the mean.":
                lambda overlaps, least: (overlaps.mean(1) >= least).mean(),
            "this is the number of good maps. Divide by the number of maps.":
                lambda overlaps, least: (overlaps >= least).all(1).sum(),
            "this is the share of maps that are not good.":
                lambda overlaps, least: (overlaps < least).any(1).mean(),
            "least is an argument of the function. You use 0.75.":
                lambda overlaps, least: (overlaps >= 0.75).all(1).mean(),
            "all() looks at all shapes of all maps together. A map is a row: all(1).":
                lambda overlaps, least: (overlaps >= least).all().mean(),
            "all(0) asks about each shape over all maps. A map is a row: all(1).":
                lambda overlaps, least: (overlaps >= least).all(0).mean()}),
}
