"""How the programs start, before they import packages: these take long, and can be missing."""
import signal
import sys


def start():
    """Ctrl-C ends the program at once until main() has started. A missing package is one line."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.excepthook = report


def report(kind, error, trace):
    """Called for an exception that nothing has caught."""
    if not issubclass(kind, ModuleNotFoundError):
        return sys.__excepthook__(kind, error, trace)
    package = "pillow" if error.name == "PIL" else error.name
    print(f"the package {package} is missing: pip install -r requirements-cpu.txt",
          file=sys.stderr)
