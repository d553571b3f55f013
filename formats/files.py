"""Files of the project: the folder of its cache, and the one atomic write."""
import os
from contextlib import contextmanager
from pathlib import Path


def cache_folder():
    """$SEMGAN_CACHE, else the user's cache folder."""
    user = os.environ.get("LOCALAPPDATA") or os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(os.environ.get("SEMGAN_CACHE") or Path(user) / "semgan")


@contextmanager
def written(path):
    """A binary file that becomes `path` when it is complete and on the disk; until then, and on any error, `path` is as it was."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(aside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
