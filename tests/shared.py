"""What several test files need: tolerances, an object never to be unpickled, and a web server."""
import http.server
import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass


def sum_tolerance(terms, precision):
    """The error allowed in a float32 sum of so many products, relative to the largest result.

    Tensor cores truncate where they add. So the errors have one sign, and grow with the number of
    terms: 5.4e-6 after 1440 terms and 6e-5 after 15,488 [predicted by an interpreter of PTX], which
    is 4e-9 a term. Twice that is allowed, and never less than for other sums.
    """
    return 1e-5 if precision == "fp32" else max(1e-5, 8e-9 * terms)


class Evil:
    """Whoever unpickles it runs a command, which leaves a file in the current folder."""

    def __reduce__(self):
        return os.system, ("touch evil_was_here",)


@dataclass
class Answer:
    """What the server sends for one name. It can announce another length, or none (0)."""
    content: bytes
    status: int = 200
    announced: int = None


@contextmanager
def serving(answers):
    """A context with the address of a web server on this machine. answers: {name: Answer}."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            answer = answers[self.path.rsplit("/", 1)[1]]
            length = len(answer.content) if answer.announced is None else answer.announced
            self.send_response(answer.status)
            if length:
                self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
