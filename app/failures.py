"""How the programs begin and end: one line on stderr for every failure, and an exit code."""
import os
import signal
import sys
from contextlib import contextmanager

from formats.files import InputError
from formats.memory import TooLarge
from kernels import DeviceError, KernelError


@contextmanager
def reported(program):
    """A context for a whole program. Inside, bad input ends it with one line and exit code 2.

    Failures of the machine have exit code 1, Ctrl-C has 130. Where the reader of a pipe has gone
    (`| head`), the program ends without a word, with 141.
    """
    open_streams()
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # while importing: see semgan.py's top
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        try:
            yield
        finally:
            flush()
    except (InputError, DeviceError) as error:
        fail(program, error, 2)
    except (KernelError, TooLarge) as error:
        fail(program, error, 1)
    except BrokenPipeError:
        sys.exit(128 + 13)
    except OSError as error:
        fail(program, f"{error.filename or 'a file'}: {error.strerror or error}", 1)
    except MemoryError as error:
        fail(program, f"not enough memory ({error}); try a smaller side, batch size or count", 1)
    except KeyboardInterrupt:
        fail(program, "interrupted", 130)


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


def flush():
    """Write out what was printed. If that fails, the rest leads nowhere. Raises OSError."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else Python tries once more at its end
        error.filename = "standard output"
        raise
