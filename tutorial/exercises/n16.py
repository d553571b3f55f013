"""Exercises of notebook 16: what is right, and which mistakes get a hint of their own."""
import numpy as np
from PIL import Image

from tutorial.checks import Exercise

rng = np.random.default_rng(16)


# ---------------------------------------------------------------------------------------- 16.1
def length_on_the_line(t, n):
    return np.sqrt(n * ((1 - t) ** 2 + t ** 2))


# ---------------------------------------------------------------------------------------- 16.2
def cosine_of(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def straight(a, b, t):
    return (1 - t) * a + t * b


def walk(cosine=cosine_of, clip=True, small=lambda angle: np.sin(angle) < 1e-6,
         without_angle=straight, divide=np.sin, weights=lambda t: (1 - t, t),
         times=lambda frames: np.arange(frames)[:, None] / frames):
    """slerp with some parts exchanged."""
    def my_slerp(a, b, frames):
        t = times(frames)
        c = cosine(a, b)
        angle = np.arccos(np.clip(c, -1, 1) if clip else c)
        if small(angle):
            return without_angle(a, b, t)
        of_a, of_b = (np.sin(w * angle) for w in weights(t))
        return (of_a * a + of_b * b) / divide(angle)
    return my_slerp


my_slerp = walk()


def never(angle):
    return False


def stays(a, b, t):
    return 0 * t + a


def always_straight(a, b, frames):
    return straight(a, b, np.arange(frames)[:, None] / frames)


def unit_vectors(a, b, frames):
    return my_slerp(a / np.linalg.norm(a), b / np.linalg.norm(b), frames)


def straight_and_scaled(a, b, frames):
    """Straight, and then brought to the length of a."""
    p = always_straight(a, b, frames)
    return p / np.linalg.norm(p, axis=1, keepdims=True) * np.linalg.norm(a)


def above_one():
    """A vector whose cosine with itself is rounded to more than 1."""
    vectors = (rng.standard_normal(7) for _ in range(10_000))
    return next((v for v in vectors if cosine_of(v, v) > 1), np.ones(7))


# ---------------------------------------------------------------------------------------- 16.3
def palette_line(line):
    fields = line.split("#")[0].split(maxsplit=3)
    if not fields:
        return None
    name = fields[3].strip() if len(fields) > 3 else ""
    return tuple(int(field) for field in fields[:3]), name


def with_comment(line):
    """Only a whole line can be a comment."""
    fields = line.split(maxsplit=3)
    if not fields or fields[0].startswith("#"):
        return None
    return tuple(int(field) for field in fields[:3]), fields[3] if len(fields) > 3 else ""


def first_word_only(line):
    found = palette_line(line)
    return found and (found[0], found[1].split(" ")[0])


def words(line):
    """The name as a list of words."""
    found = palette_line(line)
    return found and (found[0], found[1].split())


def strings(line):
    found = palette_line(line)
    return found and (tuple(str(number) for number in found[0]), found[1])


def never_none(line):
    return palette_line(line) or ((), "")


def a_missing_name_is_none(line):
    found = palette_line(line)
    return found and (found[0], found[1] or None)


def a_name_is_needed(line):
    found = palette_line(line)
    return found if found and found[1] else None


def joined(line):
    """The words of the name with one space between them."""
    fields = line.split("#")[0].split()
    if not fields:
        return None
    return tuple(int(field) for field in fields[:3]), " ".join(fields[3:])


def in_a_list(line):
    fields = line.split("#")[0].split(maxsplit=3)
    if not fields:
        return None
    return tuple(int(field) for field in fields[:3]), fields[3:]


def at_single_spaces(line):
    line = line.split("#")[0].strip()
    if not line:
        return None
    fields = line.split(" ", 3)
    return tuple(int(field) for field in fields[:3]), fields[3] if len(fields) > 3 else ""


def none_for_empty_only(line):
    return palette_line(line) or (None if line == "" else ((), ""))


def not_stripped(line):
    fields = line.split("#")[0].split(maxsplit=3)
    if not fields:
        return None
    return tuple(int(field) for field in fields[:3]), fields[3] if len(fields) > 3 else ""


# ---------------------------------------------------------------------------------------- 16.4
def looked_up(place, exchanged=False):
    """place(new, old): which old pixel each new one takes."""
    def resized(ids, height, width):
        h, w = ids.shape[::-1] if exchanged else ids.shape
        return ids[place(height, h)[:, None], place(width, w)]
    return resized


def centre(new, old):
    return (2 * np.arange(new) + 1) * old // (2 * new)


resized = looked_up(centre)


def pairwise(ids, height, width):
    """One old pixel for each pair of a row and a column: NumPy stops."""
    return ids[centre(height, len(ids)), centre(width, ids.shape[1])]


def bilinear(ids, height, width):
    return np.asarray(Image.fromarray(ids).resize((width, height), Image.BILINEAR))


def every_nth(ids, height, width):
    return ids[::max(1, len(ids) // height), ::max(1, ids.shape[1] // width)]


a, b = rng.standard_normal((2, 7)) / [[4], [3]]  # so short that even a b is a cosine of something
three_four = np.array([3.0, 4, 0, 0, 0, 0, 0])
above = above_one()
maps = [rng.integers(0, 9, shape).astype(np.uint8) for shape in ((12, 20), (7, 5), (3, 4))]

EXERCISES = {
    "16.1": Exercise(
        length_on_the_line,
        ("Put n for both squared lengths, and 0 for a b. What remains of the squared length?",
         "The squared length is n ((1 - t)^2 + t^2). Take the root."),
        inputs=[(np.linspace(0, 1, 7), 50), (0.3, 8)],
        traps={
            "this is the squared length. Take the root.":
                lambda t, n: n * ((1 - t) ** 2 + t ** 2),
            "this would be so if a and b had the same direction. But they are almost at right "
            "angles, so a b is about 0.": lambda t, n: np.sqrt(n) + 0 * t,
            "this would be so if a and b had opposite directions. But they are almost at right "
            "angles, so a b is about 0.": lambda t, n: np.sqrt(n) * np.abs(1 - 2 * t),
            "only n is under the root. The root is that of n ((1 - t)^2 + t^2).":
                lambda t, n: np.sqrt(n) * ((1 - t) ** 2 + t ** 2),
            "n belongs under the root too.": lambda t, n: n * np.sqrt((1 - t) ** 2 + t ** 2),
            "this is the length in the middle only, at t = 1/2. Keep t: n ((1 - t)^2 + t^2) is the "
            "squared length.": lambda t, n: np.sqrt(n / 2) + 0 * t,
            "n is missing: each squared length is about n.":
                lambda t, n: np.sqrt((1 - t) ** 2 + t ** 2),
            "each length is about the root of n, not n.":
                lambda t, n: n + 0 * t}),
    "16.2": Exercise(
        my_slerp,
        ("The cosine is a @ b / np.linalg.norm(a) / np.linalg.norm(b). Rounding can make it a "
         "little larger than 1, where np.arccos gives NaN: use np.clip(cosine, -1, 1).",
         "If np.sin(angle) < 1e-6, return (1 - t) * a + t * b. Otherwise the weights of a and b "
         "are sin((1 - t) angle) and sin(t angle), each divided by sin(angle)."),
        inputs=[(a, b, 5), (three_four, three_four, 3), (above, above, 3),
                (three_four, -three_four, 4)],
        traps={
            "if a and b have the same direction, this is 0 / 0, NaN. Go straight if sin(angle) < "
            "1e-6. (And clip the cosine to -1 and 1 first.)": walk(small=never),
            "for equal vectors the cosine can be 1.0000000000000002 by rounding, and np.arccos of "
            "it is NaN. Clip it to -1 and 1.": walk(clip=False),
            "for opposite vectors sin(angle) is almost 0 too. Test sin(angle), not the angle.":
                walk(small=lambda angle: angle < 1e-6),
            "for opposite vectors you stay at a. There, go straight to b.":
                walk(without_angle=stays),
            "np.linspace(0, 1, frames) ends at t = 1, at b itself, with steps of 1 / (frames - 1). "
            "Leave t as it is given: np.arange(frames)[:, None] / frames.":
                walk(times=lambda frames: np.linspace(0, 1, frames)[:, None]),
            "t has the shape (frames,), which does not fit the n numbers of a. It must be a "
            "column, (frames, 1): leave t as it is given.":
                walk(times=lambda frames: np.linspace(0, 1, frames)),
            "you walk from behind a up to b. Begin at a, with t = 0, and end before b: leave t as "
            "it is given.":
                walk(times=lambda frames: np.arange(1, frames + 1)[:, None] / frames),
            "this is the straight walk. Go along the sphere.": always_straight,
            "these points lie on the straight line, brought to the length of a. Steps of equal t "
            "should turn by equal angles.": straight_and_scaled,
            "you walk from b to a. At t = 0 the point is a.":
                walk(weights=lambda t: (t, 1 - t), without_angle=lambda a, b, t: t * a
                     + (1 - t) * b),
            "for t = 0 this gives b: the weight of a is sin((1 - t) angle), and that of b is "
            "sin(t angle).": walk(weights=lambda t: (t, 1 - t)),
            "the division by sin(angle) is missing.": walk(divide=lambda angle: 1),
            "divide by the sine of the angle, not by the angle.": walk(divide=lambda angle: angle),
            "the cosine of the angle is a b divided by both lengths.":
                walk(cosine=lambda a, b: a @ b),
            "the cosine of the angle is a b divided by both lengths. You divide by that of a "
            "only.": walk(cosine=lambda a, b: a @ b / np.linalg.norm(a)),
            "the cosine of the angle is a b divided by both lengths. You divide by that of a "
            "twice.": walk(cosine=lambda a, b: a @ b / np.linalg.norm(a) ** 2),
            "you walk between vectors of length 1. Divide by the lengths only for the angle.":
                unit_vectors}),
    "16.3": Exercise(
        palette_line,
        ('line.split("#")[0] leaves out a comment. Then .split(maxsplit=3) gives three numbers '
         "and the rest as one string.",
         'If no fields are left, return None. The name is fields[3].strip() if there are more '
         'than three fields, and else "".'),
        inputs=[(line,) for line in ("70 130 180 sky", "  90  60 40 house with garden \n",
                                     "255 230 0 pole  # also lamps", "1 2 3", "4 5 6 # no name",
                                     "", "  \n", "# a comment", "7 8 9 a  b")],
        traps={
            "a comment can also follow a name: cut the line at the first #.": with_comment,
            "the name can have spaces. You take its first word: .split(maxsplit=3) leaves the "
            "rest in one piece.": first_word_only,
            'two spaces inside a name become one. split() cuts the name into words, and " ".join '
            "does not know how many spaces there were. .split(maxsplit=3) leaves the name in one "
            "piece.": joined,
            "the name is a list of words. .split(maxsplit=3) leaves it in one piece.": words,
            "the name is a list, fields[3:]. Take its element: fields[3], if there is one.":
                in_a_list,
            '.split(" ") cuts at every single space, so two of them leave an empty field. .split() '
            "without a separator takes any number of spaces as one.": at_single_spaces,
            "a line of spaces only, or of a comment only, gives None too. Test whether any field "
            "is left, not whether the line is empty.": none_for_empty_only,
            "the three colours are still strings. Make them numbers with int.": strings,
            "an empty line, or a comment alone, gives None.": never_none,
            'a missing name is "", not None.': a_missing_name_is_none,
            "a line without a name is a class too. Only lines without any field give None.":
                a_name_is_needed,
            "the name ends with a space, or with the end of the line. Use .strip().":
                not_stripped}),
    "16.4": Exercise(
        resized,
        ("First find the old row of each new row, an array of `height` numbers, by the formula "
         "with i = np.arange(height). Then the same for columns.",
         "rows = (2 * np.arange(height) + 1) * ids.shape[0] // (2 * height). "
         "ids[rows[:, None], columns] then takes all pairs of a row and a column."),
        inputs=[(maps[0], 4, 5), (maps[1], 3, 4), (maps[2], 7, 9), (maps[0], 12, 20),
                (maps[0], 6, 10)], sizes={},
        traps={
            "you take the corner of each new pixel, so the map moves up and to the left. Take its "
            "centre: i + 1/2.": looked_up(lambda new, old: np.arange(new) * old // new),
            "you take the last old pixel under each new one, so the map moves down and to the "
            "right. Take its centre: i + 1/2.":
                looked_up(lambda new, old: ((np.arange(new) + 1) * old - 1) // new),
            "you round the centre to a whole number. A position of 1.8 lies in pixel 1: round "
            "down.": looked_up(lambda new, old: np.minimum(
                np.round((np.arange(new) + 0.5) * old / new).astype(int), old - 1)),
            "np.linspace from 0 to H - 1 puts the outer pixels on the border, and spreads the "
            "others too far. Take the centre of each new pixel: i + 1/2.":
                looked_up(lambda new, old: np.linspace(0, old - 1, new).round().astype(int)),
            "np.linspace from 0 to H - 1, rounded down, takes other places than the centres, "
            "i + 1/2.": looked_up(lambda new, old: np.linspace(0, old - 1, new).astype(int)),
            "ids[rows, columns] takes pairs: the first row with the first column, and so on. For "
            "all combinations write ids[rows[:, None], columns].": pairwise,
            "old and new are exchanged: multiply by H, and divide by 2 * height.":
                looked_up(lambda new, old: (2 * np.arange(new) + 1) * new // (2 * old)),
            "you divide H by 2 * height first, and that is rounded down. Multiply first, and then "
            "divide.": looked_up(lambda new, old: (2 * np.arange(new) + 1) * (old // (2 * new))),
            "bilinear resizing computes means of class ids: it invents classes. Look up one old "
            "pixel for each new one.": bilinear,
            "a step of H // height fits only if it divides H. And it takes corners, not centres.":
                every_nth,
            "rows and columns are exchanged: ids.shape is (H, W).":
                looked_up(centre, exchanged=True)}),
}
