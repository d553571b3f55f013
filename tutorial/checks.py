"""Answers to exercises: right, or which mistake it is. And pictures of label maps.

    check("3.1", f)   one line; returns whether f is right
    show(maps)        draws label maps or images

The exercises of notebook 3 stand in exercises/n03.py. (Solutions are one folder away, so nothing
there is secret.) Those whose answer is a CUDA kernel are in kernel_checks.py.
"""
import copy
import importlib
import inspect
import itertools
import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tutorial.pictures import show  # noqa: F401  (notebooks import both from here)

FOLDER = Path(__file__).resolve().parent
FAILURES = {}  # exercise number -> the mistakes since the last right answer


@dataclass
class Exercise:
    """What is right, on which inputs, and which mistakes get a hint of their own.

    reference   a right function; or the right answer itself: a number, text, an array, or a tuple
    hints       two: the first also answers a gap that is still empty
    inputs      the arguments of one call as a tuple, or a list of such tuples for several calls
    traps       {hint: a wrong function or answer}: what many write at first
    results     names of the results, where there are several: ("dx", "dw")
    tolerance   relative to the largest number of a result
    sizes       {name: number} that a wrong factor can be made of, {"B": 3, "kh kw": 9}; without,
                the lengths of the arguments' axes. Choose sizes that all differ, and none 2.
    """
    reference: object
    hints: tuple
    inputs: object = ()
    traps: dict = field(default_factory=dict)
    results: tuple = ()
    tolerance: float = 1e-9
    sizes: dict = None
    cache: dict = field(default_factory=dict, init=False)
    of_nan = "Often this comes"  # how a message about NaN goes on

    def known(self, answer):
        """The outcomes of the reference or of a trap, which need be computed only once."""
        if id(answer) not in self.cache:
            self.cache[id(answer)] = self.outcomes(answer)
        return self.cache[id(answer)]

    def outcomes(self, answer):
        """For each call the answer's result and its arguments afterwards, or an error."""
        if not callable(answer):
            return [(answer, ())]
        return [outcome(answer, copy.deepcopy(arguments)) for arguments in calls_of(self)]


class Fault(Exception):
    """What stopped a kernel, as a sentence without its full stop: see kernel_checks.py.

    key: what such sentences have in common if the mistake is the same.
    """
    def __init__(self, sentence, key):
        super().__init__(sentence)
        self.key = key


# ----------------------------------------------------------------------------------------- answers
def check(number, answer):
    """Prints one line about the answer to an exercise. Returns whether it is right.

    Under nbgrader a wrong answer raises AssertionError, so that it gets no points.
    """
    exercise = find(number)
    mistake = mistake_in(exercise, answer)
    if mistake is None:
        FAILURES.pop(number, None)
        print(f"{number} is right.")
        return True
    FAILURES.setdefault(number, []).append(mistake)
    line = f"{number} {mistake}{help_for(number, exercise, FAILURES[number])}"
    if "NBGRADER_EXECUTION" in os.environ:
        raise AssertionError(line)
    print(line)
    return False


def find(number):
    """The Exercise with this number. Raises KeyError."""
    module = importlib.import_module(f"tutorial.exercises.n{int(number.split('.')[0]):02}")
    return module.EXERCISES[number]


NOT_DONE = "not done yet."
# Sentences that say where something is wrong, but not why: those of largest_difference, and the
# emulator's without a hint behind it.
UNNAMED = re.compile(r"most of all at \[|: \S+ is too (large|small)\.$|\"\.$")


def help_for(number, exercise, mistakes):
    """What follows the last mistake: the first hint, then the second, then where a solution is.

    But nothing after the first wrong answer, if its mistake has been named: that may do.
    """
    wrong = [mistake for mistake in mistakes if mistake != NOT_DONE]
    named = bool(wrong) and not UNNAMED.search(wrong[0])
    if named and mistakes.index(wrong[0]) == len(mistakes) - 1:
        return ""
    given = len(mistakes) - 1 - named
    if given < 2:
        return f" Hint: {exercise.hints[given]}"
    return f" {place_of_solution(number)}"


def place_of_solution(number):
    found = list(FOLDER.glob(f"solutions/{int(number.split('.')[0]):02}_*.ipynb"))
    if not found:  # the teacher has kept the solutions back
        return "There is no further hint, and no solution here. Ask someone to look at it with you."
    return f"A solution is in tutorial/solutions/{found[0].name}."


def mistake_in(exercise, answer):
    """One sentence about the mistake, or None if the answer is right."""
    if answer is ...:
        return NOT_DONE
    if callable(answer) and not callable(exercise.reference):
        return "asks for the answer itself, not for a function."
    if callable(exercise.reference) and not callable(answer):
        return f"asks for a function, but this is {type(answer).__name__}."
    expected, found = exercise.known(exercise.reference), exercise.outcomes(answer)
    if any(isinstance(o, NotImplementedError) for o in found):
        return NOT_DONE
    if same(found, expected, exercise.tolerance):
        return None
    for hint, wrong in exercise.traps.items():
        if same(found, exercise.known(wrong), exercise.tolerance):
            said = next((f"{o}. " for o in found if isinstance(o, Fault)), "")
            return f"is not right yet: {said}{hint}"
    for arguments, f, e in zip(calls_of(exercise), found, expected):
        if not same(f, e, exercise.tolerance):
            return f"is not right yet: {explain(exercise, arguments, f, e)}"


def calls_of(exercise):
    """The arguments of each call; of an answer that is no function, one without any."""
    return exercise.inputs if isinstance(exercise.inputs, list) else [exercise.inputs]


def outcome(function, arguments):
    try:
        with np.errstate(all="ignore"):
            return function(*arguments), arrays_in(arguments)
    except Exception as error:  # the student's: it becomes a sentence
        return error


def arrays_in(value):
    """The same structure with None for all that is no array."""
    if isinstance(value, (list, tuple)):
        return [arrays_in(v) for v in value]
    if isinstance(value, dict):
        return {key: arrays_in(v) for key, v in value.items()}
    return value if isinstance(value, np.ndarray) else None


def same(a, b, tolerance):
    """Equal structures, texts and dtypes; numbers within the tolerance, also NaN and infinity.

    Where b is a number, a may be an array of shape (1,), as the project's losses are.
    """
    if isinstance(a, Exception) or isinstance(b, Exception):
        return type(a) is type(b) and getattr(a, "key", str(a)) == getattr(b, "key", str(b))
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(same(x, y, tolerance) for x, y in zip(a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key], tolerance) for key in a)
    if not is_numeric(a) or not is_numeric(b):
        return a is b or type(a) is type(b) and np.array_equal(a, b)
    a, b = as_arrays(a, b)
    return a.shape == b.shape and kinds_agree(a, b) and close(a, b, tolerance)


def as_arrays(a, b):
    if isinstance(a, np.ndarray) and a.shape == (1,) and not np.ndim(b):
        a = a[0]
    return np.asarray(a), np.asarray(b)


def is_numeric(value):
    """Whether it is an array of numbers, or can be one."""
    try:
        return np.asarray(value).dtype.kind in "biuf"
    except ValueError:  # a ragged list
        return False


def kinds_agree(a, b):
    """Arrays of equal dtype; a whole number may stand for a float, and any integers for others."""
    if a.ndim and "f" in (a.dtype.kind, b.dtype.kind):
        return a.dtype == b.dtype
    return (a.dtype.kind == "b") == (b.dtype.kind == "b")


def close(a, b, tolerance):
    a, b = np.asarray(a, float), np.asarray(b, float)
    size = np.abs(b[np.isfinite(b)]).max(initial=0)
    return bool(np.allclose(a, b, rtol=0, atol=tolerance * size, equal_nan=True))


# --------------------------------------------------------------------------------------- mistakes
def explain(exercise, arguments, found, expected):
    """A sentence about the first difference between two outcomes of a call."""
    if isinstance(found, Fault):
        return f"{found}."
    if isinstance(found, Exception):
        return f"it stops with {type(found).__name__}: {found}{line_of(found)}"
    if isinstance(expected, Exception):
        return f"it should raise {type(expected).__name__}: {expected}"
    (found, after), (expected, right_after) = found, expected
    if found is None and not callable(exercise.reference):
        return "it is None."
    if callable(exercise.reference):
        names = list(inspect.signature(exercise.reference).parameters)
    else:
        names = []
    sizes = exercise.sizes or sizes_of(dict(zip(names, arguments)))
    if exercise.results and isinstance(found, tuple) and len(found) == len(expected):
        for name, f, e in zip(exercise.results, found, expected):
            if not same(f, e, exercise.tolerance):
                return f"{name}: {diagnose(f, e, sizes, exercise.tolerance, exercise.of_nan)}"
    if not same(found, expected, exercise.tolerance):
        return diagnose(found, expected, sizes, exercise.tolerance, exercise.of_nan)
    changed = [name for name, a, b in zip(names, after, right_after)
               if not same(a, b, exercise.tolerance)]
    return "the result is right, but the function changes its " \
           f"argument{'s'[:len(changed) > 1]} {' and '.join(changed)}."


def line_of(error):
    """Where in the student's function, if that can be seen."""
    frames = list(inspect.getinnerframes(error.__traceback__))[1:]
    return f" (in the line `{frames[0].code_context[0].strip()}`)" \
        if frames and frames[0].code_context else "."


def sizes_of(arguments):
    """{"B": 3, "H": 5, ...}: lengths of the axes of maps (4 axes) and of weights (w)."""
    sizes = {}
    for name, a in arguments.items():
        if isinstance(a, np.ndarray) and a.ndim == 4:
            axes = ("kh", "kw", "Cin", "Cout") if name.startswith("w") else "BHWC"
            for axis, size in zip(axes, a.shape):
                sizes.setdefault(axis, size)
        elif isinstance(a, np.ndarray) and a.ndim == 1:
            sizes.setdefault(f"the length of {name}", len(a))
    return sizes


NOT_FINITE = {
    np.isnan: ("NaN", "0 / 0, 0 times infinity, or infinity / infinity (exp of a large number and "
               "log of 0 are infinite)"),
    np.isinf: ("infinite", "exp of a large number, log of 0, or a division by 0")}


def how_many(those, name):
    """"3 of 7 numbers are NaN", for an array of 7 truth values."""
    if those.size == 1:
        return f"it is {name}"
    return f"{those.sum()} of {those.size} numbers {'is' if those.sum() == 1 else 'are'} {name}"


def diagnose(found, expected, sizes=None, tolerance=1e-9, of_nan=Exercise.of_nan):
    """A sentence about how found differs from expected. sizes: {name: number} of the inputs."""
    if found is None:
        return "it returns None. Is there a `return`?"
    if isinstance(expected, (tuple, dict)) or not is_numeric(expected):
        return other_structure(found, expected)
    if not is_numeric(found):
        return f"it is {type(found).__name__}; expected {description(expected)}."
    f, e = as_arrays(found, expected)
    if f.shape != e.shape:
        return other_shape(f, e, tolerance)
    for look, (name, source) in NOT_FINITE.items():
        if look(np.asarray(f, float)).any() and not look(np.asarray(e, float)).any():
            causes = of_nan if look is np.isnan else Exercise.of_nan
            return f"{how_many(look(np.asarray(f, float)), name)}. {causes} from {source}."
    if f.dtype != e.dtype and close(f, e, tolerance if f.dtype != np.float32 else 1e-5):
        return f"the numbers are right, but of dtype {f.dtype}; expected {e.dtype}."
    looks = (wrong_sign, wrong_factor, wrong_offset, wrong_axes, wrong_parts)
    for look in looks:
        sentence = look(f, e, sizes or {}, tolerance)
        if sentence:
            return sentence
    return largest_difference(f, e, tolerance)


def description(value):
    a = np.asarray(value)
    return f"an array of shape {a.shape}" if a.ndim else "a number"


def other_structure(found, expected):
    if isinstance(expected, tuple):
        count = len(found) if isinstance(found, tuple) else "one"
        if count != len(expected):
            return f"it returns {count} result{'s'[:count != 'one']}; expected {len(expected)}."
        for i, (f, e) in enumerate(zip(found, expected), 1):
            if not same(f, e, 1e-9):
                return f"result {i}: {diagnose(f, e)}"
    if isinstance(expected, dict):
        if not isinstance(found, dict) or found.keys() != expected.keys():
            return f"expected a dict with the keys {', '.join(map(str, expected))}."
        for key in expected:
            if not same(found[key], expected[key], 1e-9):
                return f"{key}: {diagnose(found[key], expected[key])}"
    if isinstance(expected, str) and isinstance(found, str):
        return f"it is not {found!r}."
    return f"it is {type(found).__name__}; expected {type(expected).__name__}."


def other_shape(f, e, tolerance):
    expected = f"expected {e.shape if e.ndim else 'a number'}."
    for axes in itertools.permutations(range(f.ndim)):
        moved = f.transpose(axes)
        if moved.shape == e.shape and close(moved, e, tolerance):
            return f"the axes stand in the wrong order: shape {f.shape}; {expected}"
    if f.size == e.size and close(f.reshape(e.shape), e, tolerance):
        numbers = "numbers are" if f.size > 1 else "number is"
        return f"the {numbers} right, but the shape is {f.shape}; {expected}"
    return f"the shape is {f.shape}; {expected}"


def wrong_sign(f, e, sizes, tolerance):
    if close(-np.asarray(f, float), e, tolerance):
        return "the sign is wrong."


def wrong_factor(f, e, sizes, tolerance):
    f, e = np.asarray(f, float), np.asarray(e, float)
    square = (e * e).sum()
    if not square:
        return
    factor = (f * e).sum() / square
    if abs(factor) < 1e-12 or abs(factor - 1) < 1e-6 or not close(f, factor * e, 10 * tolerance):
        return
    large = abs(factor) > 1
    ratio = abs(factor) if large else 1 / abs(factor)
    made = made_of(ratio, sizes)
    if not (e.ndim or made or ratio == 2):
        return  # a single number is always some multiple of another
    times = f"{ratio:.6g} times too {'large' if large else 'small'}"
    sign = ", and the sign is wrong" if factor < 0 else ""
    return f"it is {times}{f': that is {made}' if made else ''}{sign}."


def made_of(ratio, sizes):
    """The shortest product of some of the sizes, and perhaps 2 or 1/2, that gives the ratio."""
    if abs(ratio - 2) < 1e-6:
        return None  # which speaks for itself
    for count in range(1, len(sizes) + 1):
        for names in itertools.combinations(sizes, count):
            product = math.prod(sizes[name] for name in names)
            for two, text in ((1, ""), (2, "2 "), (0.5, "1/2 ")):
                if abs(two * product / ratio - 1) < 1e-6:
                    return text + " ".join(names)


def wrong_offset(f, e, sizes, tolerance):
    gap = np.asarray(f, float) - np.asarray(e, float)
    mean = gap.mean() if gap.size > 1 else 0
    if mean and close(gap, np.full(gap.shape, mean), tolerance):
        return f"every number is {abs(mean):.6g} too {'large' if mean > 0 else 'small'}."


def wrong_axes(f, e, sizes, tolerance):
    for axes in itertools.permutations(range(f.ndim)):
        moved = f.transpose(axes)
        if moved.shape == e.shape and close(moved, e, tolerance):
            first, second = [i for i, axis in enumerate(axes) if i != axis][:2]
            return f"two axes are exchanged, {first} and {second}."
    for axes in ((0,), (1,), (0, 1), (2,), (1, 2)):
        if max(axes) < f.ndim and close(np.flip(f, axes), e, tolerance):
            return f"it is flipped along {'axis' if len(axes) == 1 else 'the axes'} " \
                   f"{' and '.join(map(str, axes))}."


def wrong_parts(f, e, sizes, tolerance):
    """Right inside but wrong at the border; or right for the first map only."""
    size = np.abs(np.asarray(e, float)).max(initial=0)
    wrong = np.abs(np.asarray(f, float) - np.asarray(e, float)) > tolerance * size
    if f.ndim >= 3 and len(f) > 1 and not wrong[0].any():
        return "it is right for the first map of the batch only."
    rows = {2: (0, 1), 3: (1, 2), 4: (1, 2)}.get(f.ndim)
    if rows is None:
        return
    for width in range(1, (min(f.shape[i] for i in rows) - 1) // 2 + 1):
        inside = [slice(None)] * f.ndim
        for axis in rows:
            inside[axis] = slice(width, -width)
        if not wrong[tuple(inside)].any():
            return f"it is right inside, but wrong at the border ({width} wide)."


def largest_difference(f, e, tolerance):
    if not e.ndim:
        return f"{f.item():.6g} is too {'large' if f > e else 'small'}."
    gap = np.abs(np.asarray(f, float) - np.asarray(e, float))
    size = np.abs(np.asarray(e, float)).max(initial=0)
    place = np.unravel_index(gap.argmax(), gap.shape)
    return (f"{(gap > tolerance * size).sum()} of {gap.size} numbers are wrong, most of all at "
            f"[{', '.join(map(str, place))}]: {f[place]:.6g}, expected {e[place]:.6g}.")
