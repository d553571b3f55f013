"""A .cu file of your own: its kernels stand in for the project's kernels of the same name."""
import difflib
from pathlib import Path

from kernels.launch import FOLDER, LaunchError, read

# Constants of the files in conv/ that set grids, blocks and shared memory; see cuda_conv.py.
LAUNCH_CONSTANTS = {"THREADS", "TILE_M", "TILE_N", "BY_PHASE", "BLOCKS", "SHARED_BYTES",
                    "NARROW_TILE_M", "NARROW_TILE_N"}


def replacements(path, conv_file, softmax_file):
    """{name of a kernel: absolute path of the file that has it}, for all kernels of a .cu file.

    conv_file, softmax_file: the files of the ladders whose kernels are launched otherwise. Each
    kernel must have the name of one of the project's, and its parameters: the same types in the
    same order, ending in _or_null where None is allowed. Raises LaunchError, in one line.
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise LaunchError(f"{path}: no such file; expected a .cu file with kernels of your own")
    theirs = {}
    ladders = [FOLDER / conv_file, FOLDER / softmax_file]
    for file in [*sorted(FOLDER.glob("*.cu")), *ladders]:
        theirs |= {name: (file, kernel) for name, kernel in read(file).kernels.items()}
    own = read(path).kernels
    if not own:
        raise LaunchError(f"{path}: there is no kernel in it")
    for name, kernel in own.items():
        if name not in theirs:
            near = difflib.get_close_matches(name, theirs, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise LaunchError(f"{path}: the project has no kernel {name}{hint}")
        file, their_kernel = theirs[name]
        require_same_parameters(path, kernel, file, their_kernel)
        if file == FOLDER / conv_file:
            require_constants(path, file)
    return dict.fromkeys(own, path)


def require_same_parameters(path, own, file, theirs):
    """Raises LaunchError unless two Kernels can be launched with the same arguments."""
    def kinds(kernel):
        return [(p.type, p.pointer, p.name.endswith("_or_null")) for p in kernel.parameters]
    if kinds(own) != kinds(theirs):
        expected = ", ".join(map(declaration, theirs.parameters))
        found = ", ".join(map(declaration, own.parameters))
        raise LaunchError(f"{path}: {own.name} has the parameters ({found}); expected, as in "
                          f"{file.relative_to(FOLDER.parent).as_posix()}, ({expected})")


def require_constants(path, file):
    """Raises LaunchError unless the file says how its convolutions are launched."""
    missing = read(file).constants.keys() & LAUNCH_CONSTANTS
    missing -= read(path).constants.keys()
    if missing:
        raise LaunchError(f"{path}: expected `constexpr int {min(missing)} = NUMBER;`, by which "
                          f"convolutions are launched, as in {file.name}")


def declaration(p):
    """A Parameter as it is written, such as "const real* x"."""
    return f"{'const ' * p.const}{p.type}{'*' * p.pointer} {p.name}"
