"""A warm interpreter: it imports the program once, then runs each command line in a fork.

A fork is a process of its own, with its own memory, files, signals and exit code. It runs
`python SOURCE/semgan.py ...` without the two seconds of imports. faults.py starts this file as
`python server.py SOURCE REQUESTS ANSWERS`, with the numbers of two open files.
"""
import contextlib
import io
import json
import os
import resource
import runpy
import select
import signal
import sys
import threading
import time
import traceback

CHANGES = {"open", "os.rename", "os.remove", "os.mkdir", "os.fsync"}  # what Fault counts


class Fault:
    """Acts at the n-th change of a file, or at the n-th call of a function with some name."""
    def __init__(self, action, report, n=1, function=None):
        self.action, self.report, self.left, self.function = action, report, n, function
        if function:
            threading.setprofile(self.called)
            sys.setprofile(self.called)
        else:
            fsync = os.fsync
            os.fsync = lambda file: (sys.audit("os.fsync", file), fsync(file))[1]
            sys.addaudithook(self.changed)

    def called(self, frame, event, _):
        if event == "call" and frame.f_code.co_name == self.function:
            self.count()

    def changed(self, event, arguments):
        if event in CHANGES and (event != "open" or arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            self.count()

    def count(self):
        self.left -= 1
        if self.left == 0:
            os.write(self.report, b"!")
            if self.action == "exit":
                os._exit(77)
            if self.action == "full":
                raise OSError(28, "No space left on device")
            os.kill(os.getpid(), signal.Signals[self.action])


def serve(requests, answers):
    """Answer requests, a line of JSON each. Returns the request in the fork that shall run it."""
    for line in requests:
        request = json.loads(line)
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(ours)
            return request, theirs
        os.close(theirs)
        answer = watch(pid, request)
        answer["reached"] = bool(os.read(ours, 1))
        os.close(ours)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    os._exit(0)


def watch(pid, request):
    """Send the signals of a request at their times, wait for the end of a fork, or end it."""
    began = time.monotonic()
    events = [*request.get("signals", []), [request["limit"], "SIGKILL"]]
    gone = os.pidfd_open(pid)
    hung = False
    for seconds, name in events:
        wait = began + seconds - time.monotonic()
        if select.select([gone], [], [], max(0, wait))[0]:
            break
        hung = seconds == request["limit"]
        os.kill(pid, signal.Signals[name])
    _, status, used = os.wait4(pid, 0)
    os.close(gone)
    try:
        os.killpg(pid, signal.SIGKILL)  # its own processes, such as a compiler
    except ProcessLookupError:
        pass
    return dict(code=os.waitstatus_to_exitcode(status), hung=hung,
                seconds=time.monotonic() - began, megabytes=used.ru_maxrss >> 10)


def prepare(request, report):
    """Make the fork what a new process would be: folder, files 0 to 2, environment, limits."""
    os.setsid()
    os.chdir(request["folder"])
    for number, path in enumerate(request["files"]):
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC if number else os.O_RDONLY
        file = os.pipe()[1] if path == "|" else os.open(path, flags)  # |: nobody reads it
        os.dup2(file, number)
        os.close(file)
    os.environ.update(request["environment"])
    sys.argv = request["words"]
    for name, value in request.get("limits", {}).items():
        resource.setrlimit(getattr(resource, name), (value, value))
    if fault := request.get("fault"):
        Fault(report=report, **fault)


def exit_code(words):
    """Run a script, or the code after -c, and end as an interpreter does, which takes 0.3 s."""
    code = 0
    try:
        if words[0] == "-c":
            exec(words[1], {"__name__": "__main__"})
        else:
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as stop:
        code = stop.code or 0
        if not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    with contextlib.suppress(KeyboardInterrupt):  # there Python itself ignores it
        threading._shutdown()  # waits for threads
    try:
        sys.stdout.flush()
    except OSError:
        traceback.print_exc()
        code = 120
    return code


if __name__ == "__main__":
    source, requests, answers = sys.argv[1:]
    sys.path[0] = source
    from matplotlib.backends import backend_agg  # noqa: F401
    from matplotlib.figure import Figure
    from PIL import Image

    import app.command_line
    import app.data_command
    import app.inception_command  # noqa: F401
    Image.init()
    Figure(layout="constrained").savefig(io.BytesIO())  # reads the fonts
    request, report = serve(open(int(requests)), open(int(answers), "w"))
    prepare(request, report)
    os._exit(exit_code(request["words"]))
