"""How the programs begin and end: one line on stderr for every failure, and an exit code."""
import argparse
import os
import signal
import sys
from contextlib import contextmanager, redirect_stdout

from formats.files import InputError, printable
from formats.memory import TooLarge, require_to_start
from kernels import DeviceError, KernelError, LaunchError


@contextmanager
def reported(program):
    """A context for a whole program. Inside, bad input ends it with one line and exit code 2.

    Failures of the machine have exit code 1, Ctrl-C has 130. Where the reader of a pipe has gone
    (`| head`), the program ends without a word, with 141.
    """
    open_streams()
    interrupts = []

    def interrupt(number, _):
        interrupts.append(number)
        raise KeyboardInterrupt
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # see start.py
        signal.signal(signal.SIGINT, interrupt)
    try:
        with redirect_stdout(Output(sys.stdout)) as out, untraced_interrupts():
            try:
                require_to_start()
                yield
            finally:
                out.flush()
    except (InputError, DeviceError) as error:
        fail(program, printable(str(error)), 2)
    except (KernelError, LaunchError, TooLarge) as error:
        fail(program, error, 1)
    except BrokenPipeError:
        sys.exit(128 + 13)
    except OSError as error:
        named = error.filename or "a file"
        fail(program, printable(f"{named}: {error.strerror or error}"), 1)
    except MemoryError as error:
        fail(program, f"not enough memory ({error}); try a smaller side, batch size or count", 1)
    except KeyboardInterrupt:
        fail(program, "interrupted", 130)
    except Exception:
        if not interrupts:
            raise
        fail(program, "interrupted", 130)  # matplotlib turns Ctrl-C into a ValueError


@contextmanager
def untraced_interrupts():
    """A context without tracebacks of a Ctrl-C that comes just when Python deletes an object.

    There Python cannot raise an exception: it would print a traceback, and go on.
    """
    hook = sys.unraisablehook

    def print_others(unraisable):
        if unraisable.exc_type is not KeyboardInterrupt:
            hook(unraisable)
    sys.unraisablehook = print_others
    try:
        yield
    finally:
        sys.unraisablehook = hook


def fail(program, message, code):
    print(f"{program}: {message}", file=sys.stderr)
    sys.exit(code)


def open_streams():
    """Let streams that the caller has closed lead nowhere, so that no other file gets their place.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(number)
    sys.stdout = sys.stdout or open(os.devnull, "w")
    sys.stderr = sys.stderr or open(os.devnull, "w")


class Output:
    """Standard output without terminal codes. If it fails, the OSError names it."""

    def __init__(self, stream):
        self.stream = stream

    def write(self, text):
        encoding = self.stream.encoding or "utf-8"
        lines = "\n".join(map(printable, text.split("\n")))
        with naming():
            return self.stream.write(lines.encode(encoding, "replace").decode(encoding))

    def flush(self):
        with naming():
            self.stream.flush()


@contextmanager
def naming():
    """A context in which errors name standard output, and after which the rest leads nowhere."""
    try:
        yield
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else Python tries once more at its end
        error.filename = "standard output"
        raise


class Parser(argparse.ArgumentParser):
    """A parser whose messages have no terminal codes, which flags may contain."""

    def parse_known_args(self, args=None, namespace=None):
        args = sys.argv[1:] if args is None else args
        for word in args:
            if word.endswith("=--"):  # argparse would make it an empty list
                self.error(f"{word[:-3]}: expected a value, found --")
        return super().parse_known_args(args, namespace)

    def error(self, message):
        super().error(printable(message))
