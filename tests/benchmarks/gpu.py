"""Speed on a GPU, beside PyTorch at the same precision and beside the card's own ceilings.

    python tests/benchmarks/gpu.py first         # all of it, in parts; goes on where it stopped
    python tests/benchmarks/gpu.py ceilings      # of memory and of each precision
    python tests/benchmarks/gpu.py kernels --preset full --precision tf32   # a step's operations
    python tests/benchmarks/gpu.py ladder        # every step of kernels/conv/ on one layer
    python tests/benchmarks/gpu.py step --preset street --precision bf16    # whole steps, memory
    python tests/benchmarks/readme_tables.py     # afterwards: the tables and the picture

Presets: full (Colored Shapes: 64x64, ks 11, K 4), street (128x128, ks 7, K 22),
facades (128x128, ks 7, K 12, latent 300).

Each row is first compared with PyTorch in float64 on fresh random inputs, a training step with
PyTorch's losses; what fails is recorded and not timed. Times are medians; all take turns, on
several sets of inputs. Each row goes at once into results/<card>.json, which later runs complete
(one at a time). Without PyTorch nothing is compared.
On a CPU, `--device emulator --preset tiny --precision fp32` walks through all of it.
"""
import argparse
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER), str(FOLDER.parents[1])]
import readme_tables as tables  # noqa: E402
from convolutions import LAYERS  # noqa: E402
from first_hour import FirstHour  # noqa: E402
from measure import Array, Call, Clock, Recorder, Results  # noqa: E402

import kernels  # noqa: E402
import semgan  # noqa: E402
from formats.label_maps import LabelMaps  # noqa: E402
from kernels import launch  # noqa: E402
from kernels.contract import conv_shape  # noqa: E402
from kernels.cuda_ops import CudaOps  # noqa: E402

try:
    import torch
    import torch_ops
    from torch_step import TorchTrainer
except ImportError:
    torch = None

TINY = dict(side=8, batch_size=4, latent=5, kernel_size=3, generator_filters=[6, 5, 4],
            discriminator_filters=[5, 6])
TINY_LAYER = (2, 8, 8, 6), (3, 3, 6, 5)  # shapes of x and w
IN_PLACE = {  # results that a training step writes over arguments
    "adam": ("params", "m", "v", "step"),
    "batch_norm": (None, None, None, "running_mean", "running_var"),
    "feature_matching": (None, "dabove"),
    "moment_matching": (None, "dabove"),
}
PRESETS = {  # data set, K, changed settings
    "full": ("shapes", 4, {}),
    "street": ("cityscapes", 22, {}),
    "facades": ("facades", 12, {}),
    "tiny": ("shapes", 4, TINY),
}
PRECISIONS = {  # allowed relative error of a convolution, of losses
    "fp32": (1e-5, 0.05),
    "tf32": (2e-3, 0.1),
    "bf16": (2e-2, 0.2),
}
SETS = 3            # of inputs, in rotation
CHECKED = 5         # training steps whose losses are compared; more of them amplify the rounding
TURNS = 7           # of training steps
TURN = 0.4          # seconds that a turn takes
MMA_STEPS = 20_000  # of the loops in mma_loop.cu
MATRIX = 8192       # rows and columns of the matrix products


class Benchmark:
    def __init__(self, args):
        self.args = args
        self.deadline = time.monotonic() + args.seconds
        self.failed = self.measured = 0
        precision = args.precision if args.what in ("kernels", "step") else "fp32"
        self.ops = kernels.load(args.device, precision=precision)
        self.gpu = self.ops.name == "gpu"
        self.clock = Clock(self.ops)
        self.rng = np.random.default_rng()
        self.results = Results(args.results, self.ops, torch, args.commit)
        self.torch_device = "cuda" if self.gpu else "cpu"
        self.noise = self.rng.standard_normal(1 << 26 if self.gpu else 1 << 16, np.float32)

    def measure(self, key, row, *args):
        """Record row(*args), or the fault that it meets, unless there is no time left."""
        if self.args.only not in key:
            return
        if time.monotonic() > self.deadline:
            print(f"{key}: left out after {self.args.seconds} s; --seconds gives more, "
                  "--only chooses rows", flush=True)
            return
        try:
            row = row(*args)
        except Exception as error:
            row = dict(failed=f"{type(error).__name__}: {launch.first_line(error)}")
            self.clock.wait()  # raises if the device is lost: later rows could not be measured
        self.failed += "failed" in row
        self.measured += 1
        self.results.add(key, row)

    def settings(self):
        """Settings, and a stand-in for the data set: 4x4 squares of random classes."""
        dataset, classes, changes = PRESETS[self.args.preset]
        s = semgan.settings(dataset=dataset, **changes)
        shape = 256, s.side // 4, s.side // 4
        maps = np.random.default_rng(0).integers(classes, size=shape, dtype=np.uint8)
        palette = np.zeros((classes, 3), np.uint8)
        return s, LabelMaps(maps.repeat(4, 1).repeat(4, 2), palette, [""] * classes)

    def recorded(self):
        """A trainer after its first step, and the calls of operations in it."""
        ops = Recorder(self.ops)
        trainer = semgan.Trainer(ops, *self.settings())
        trainer.train_step()
        ops.counting = False
        return trainer, ops.calls

    # ------------------------------------------------------------------------------ ceilings
    def ceilings(self):
        host = np.frombuffer(self.rng.bytes(1 << 30 if self.gpu else 1 << 20), np.uint8)
        a = self.ops.asarray(host, np.uint8)
        b = self.ops.asarray(host, np.uint8)
        if self.gpu:
            copy = partial(b.data.copy_from_device_async, a.data, host.nbytes)
        else:
            copy = partial(self.ops.write, b, host)
        self.ceiling("copy", "bytes_per_s", 2 * host.nbytes, copy)
        if self.gpu:
            self.loops()
        n = MATRIX if self.gpu else 64
        for precision in PRECISIONS if torch else ():
            dtype = set_precision(precision)
            pairs = [torch.randn(2, n, n, device=self.torch_device).to(dtype) for _ in range(SETS)]
            products = [partial(torch.matmul, *pair) for pair in pairs]
            self.ceiling(f"matmul_{precision}", "flop_per_s", 2 * n ** 3, *products)
        print(tables.ceilings(self.results.rows()))

    def ceiling(self, name, unit, amount, *runs):
        """Record `amount` per second of the median run."""
        def row():
            seconds, _ = self.clock.medians({name: runs})
            return {unit: amount / seconds[name]}
        self.measure(f"ceilings/{name}", row)

    def loops(self):
        """The loops of mma_loop.cu, with 16 warps on each multiprocessor."""
        path = FOLDER / "mma_loop.cu"
        device = self.ops.device
        sizes = launch.read(path).constants
        blocks = 2 * device.multiprocessors
        threads = sizes["THREADS"]
        out = self.ops.empty(blocks * threads)
        tiles = sizes["TILES"] / 32  # a thread's share
        macs = {  # of a thread in one step
            "fma_loop": sizes["SUMS"],
            "mma_tf32": tiles * 16 * 8 * 8,
            "mma_bf16": tiles * 16 * 8 * 16,
        }
        for name, count in macs.items():
            run = partial(device.launch, path, name, blocks, threads, out, MMA_STEPS)
            self.ceiling(name, "flop_per_s", 2 * count * MMA_STEPS * blocks * threads, run)

    # ---------------------------------------------------------------------------- operations
    def kernels(self):
        preset, precision = self.args.preset, self.args.precision
        _, calls = self.recorded()
        for call, count in calls.items():
            key = f"kernels/{preset}/{precision}/{call}"
            self.measure(key, self.operation, self.ops, precision, call, count)
        print(tables.kernels(self.results.rows(), preset, precision))

    def ladder(self):
        x, w = LAYERS["cuda"] if self.gpu else TINY_LAYER
        pad = w[0] // 2
        dy = conv_shape(x, w, 2, pad)
        places = ("stride", 2), ("pad", pad)
        calls = [
            Call("conv", (("x", Array(x)), ("w", Array(w)), *places)),
            Call("conv_input_grad", (("dy", Array(dy)), ("w", Array(w)), ("x_shape", x), *places)),
            Call("conv_weight_grad", (("x", Array(x)), ("dy", Array(dy)), ("w_shape", w), *places)),
        ]
        for path in launch.ladder("conv"):
            step = path.stem
            for precision in ("tf32", "bf16") if launch.takes_operands(path) else ("fp32",):
                for call in calls:
                    key = f"ladder/{step}/{precision}/{call.name}"
                    self.measure(key, self.rung, step, precision, call)
        print(tables.ladder(self.results.rows()))

    def rung(self, conv_step, precision, call):
        device = kernels.load(self.args.device, precision=precision).device
        return self.operation(CudaOps(device, conv_step), precision, call)

    def operation(self, ops, precision, call, count=1):
        """A row: ours checked, then timed beside PyTorch at the same precision.

        Convolutions in TF32 are timed beside PyTorch's in bf16 too.
        """
        precision = precision if call.name.startswith("conv") else "fp32"
        hosts = [call.inputs(self.rng, self.noise) for _ in range(SETS)]
        sets = [{name: ops.asarray(a, a.dtype) if isinstance(a, np.ndarray) else a
                 for name, a in host.items()} for host in hosts]
        runs = {"ours": [partial(run_once, ops, call.name, arguments) for arguments in sets]}
        runs["ours"][0]()  # allocates; then NaN everywhere, so that what a kernel leaves out shows
        for buffer in ops.arena.buffers if self.gpu else ():
            buffer.data.memset_async(255, buffer.nbytes)
        results = runs["ours"][1]()
        row = dict(count=count, flop=call.flop(), bytes=call.bytes(results))
        if torch:
            row["error"] = self.error(call, hosts[1], map(ops.asnumpy, results))
            allowed = PRECISIONS[precision][0]
            if not row["error"] <= allowed:
                fault = f"relative error {row['error']:.2g}, allowed {allowed:.0e}"
                return row | dict(failed=fault)
            theirs = getattr(torch_ops, call.name)
            for name in [precision] + ["bf16"] * (precision == "tf32"):
                dtype = set_precision(precision) if name == precision else torch.bfloat16
                runs[name] = [partial(theirs, **self.to_torch(host, dtype)) for host in hosts]
        seconds, spread = self.clock.medians(runs)
        return row | dict(seconds=seconds.pop("ours"), spread=spread["ours"], torch=seconds)

    def to_torch(self, host, dtype):
        return {name: torch_ops.to_torch(name, a, dtype, self.torch_device)
                for name, a in host.items()}

    def error(self, call, host, ours):
        """The largest relative error of all results against PyTorch in float64 (Frobenius norm)."""
        torch.backends.cudnn.benchmark = False  # choosing would take longer than computing
        theirs = getattr(torch_ops, call.name)(**self.to_torch(host, torch.float64))
        errors = []
        for a, t in zip(ours, theirs, strict=True):
            if t is not None:
                expected = torch_ops.from_torch(call.name, t)
                difference = np.linalg.norm(a.reshape(expected.shape) - expected)
                errors.append(difference / np.linalg.norm(expected))
        return float(np.max(errors))  # NaN if there is one

    # ------------------------------------------------------------------------ training steps
    def step(self):
        prefix = f"step/{self.args.preset}/{self.args.precision}"
        variant = self.args.variant
        trainer, calls = self.recorded()
        losses = [self.ops.asnumpy(trainer.losses)]
        for _ in range(1, CHECKED):
            trainer.train_step()
            losses.append(self.ops.asnumpy(trainer.losses))
        ours = dict(flop=sum(call.flop() * count for call, count in calls.items()))
        if self.gpu:
            ours["memory"] = self.ops.device.cupy.get_default_memory_pool().total_bytes()
        if not variant:
            def row():
                return ours | dict(seconds=self.turns(trainer.train_step)[0])
            self.measure(f"{prefix}/ours", row)
        if torch:
            variants = ["eager", "graph"] if self.gpu else ["eager"]
            for name in [variant] if variant else variants:
                self.measure(f"{prefix}/{name}", self.yardstick, name, trainer, losses)
            if not variant:
                self.compiled(f"{prefix}/compiled")
        print(tables.steps(self.results.rows()))

    def turns(self, *runs):
        """Seconds a step of each, in turns of many steps: medians."""
        calls = [1 for _ in runs]
        if self.gpu:
            calls = [int(np.clip(TURN / self.clock.per_call(run, 2), 1, 1000)) for run in runs]
        times = [list(map(self.clock.per_call, runs, calls))
                 for _ in range(TURNS if self.gpu else 2)]
        return np.median(times, axis=0).tolist()

    def yardstick(self, name, trainer, losses):
        """A row: PyTorch's step, its losses compared with ours, then timed beside ours."""
        set_precision(self.args.precision)
        if self.gpu:
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        # The same weights and the same inputs.
        same = semgan.Trainer(kernels.load("numpy"), *self.settings())
        theirs = TorchTrainer(same, device=self.torch_device, bf16=self.args.precision == "bf16")
        inputs = [[torch.tensor(np.array(a), device=self.torch_device) for a in same.inputs(i)]
                  for i in range(semgan.INPUT_STEPS)]
        if name == "compiled":
            theirs.g.compile(mode="max-autotune")
            theirs.d.compile(mode="max-autotune")

        def run():
            if name == "compiled":
                torch.compiler.cudagraph_mark_step_begin()
            return theirs.device_step(*inputs[theirs.step % semgan.INPUT_STEPS])
        found = []
        if name == "graph":
            run, found = graph(theirs, inputs, run)
        found += [run().cpu() for _ in range(CHECKED - len(found))]
        allowed = PRECISIONS[self.args.precision][1]
        np.testing.assert_allclose(torch.stack(found).numpy(), losses, rtol=allowed)
        row = dict(memory=torch.cuda.max_memory_allocated() - before) if self.gpu else {}
        ours, seconds = self.turns(trainer.train_step, run)
        return row | dict(seconds=seconds, ours_beside=ours)

    def compiled(self, key):
        """The row of torch.compile, measured by another process in the time that is left.

        Choosing kernels takes minutes.
        """
        seconds = max(1, int(self.deadline - time.monotonic()))
        words = [*self.args.words, "--variant", "compiled", "--seconds", str(seconds)]
        process = subprocess.Popen([sys.executable, __file__, *words], start_new_session=True)
        try:
            self.failed += process.wait(seconds) != 0
        except subprocess.TimeoutExpired:
            print(f"{key}: not ready after {seconds} s; --variant compiled gives it all the time",
                  flush=True)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # with the compilers that it has started
                process.wait()


def run_once(ops, name, arguments):
    """What an operation returns, as a tuple. It writes in place where a training step does so."""
    out = tuple(arguments.get(place) for place in IN_PLACE.get(name, ())) or None
    with ops.arena:
        results = getattr(ops, name)(**arguments, out=out)
    return results if isinstance(results, tuple) else (results,)


def graph(theirs, inputs, warm_up):
    """A function that launches PyTorch's step as a CUDA graph, and the losses of three warm-ups.

    As PyTorch's notes on CUDA graphs ask: warmed up on a side stream, inputs in fixed places.
    """
    side, recording = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    fixed = [a.clone() for a in inputs[0]]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        found = [warm_up().cpu() for _ in range(3)]
    torch.cuda.current_stream().wait_stream(side)
    with torch.cuda.graph(recording):
        result = theirs.device_step(*fixed)
    theirs.step -= 1  # that one was recorded, not run

    def run():
        for a, b in zip(fixed, inputs[theirs.step % semgan.INPUT_STEPS]):
            a.copy_(b)
        recording.replay()
        theirs.step += 1
        return result
    return run, found


def set_precision(precision):
    """PyTorch's dtype for a precision; TF32 is a switch beside it.

    cuDNN tries all its ways and takes the fastest.
    """
    tf32 = precision != "fp32"
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True
    return torch.bfloat16 if precision == "bf16" else torch.float32


def parser():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("what", choices=["first", "ceilings", "kernels", "ladder", "step"])
    add("--preset", choices=PRESETS, default="full")
    add("--precision", choices=PRECISIONS, default="tf32")
    add("--device", choices=["cuda", "emulator"], default="cuda")
    add("--only", default="", help="only rows with this in their key")
    add("--variant", choices=["eager", "graph", "compiled"],
        help="step: measure this one alone, beside ours")
    add("--seconds", type=int, default=420, help="no new row begins after this time")
    add("--results", default=FOLDER / "results", help="folder of the JSON files")
    add("--commit", help="named in the results, where git cannot tell it")
    return parser


def main(words):
    args = parser().parse_args(words)
    args.words = words
    if args.what == "first":
        failed = FirstHour(args).run()
        return f"{failed} parts failed" if failed else 0
    try:
        benchmark = Benchmark(args)
    except kernels.DeviceError as error:
        return f"gpu.py: {error}"
    except (OSError, ValueError) as error:
        return f"gpu.py: {args.results}: no place for results ({error})"
    getattr(benchmark, args.what)()
    if not benchmark.measured:
        return "no row was measured: see --only and --seconds"
    return f"{benchmark.failed} rows failed" if benchmark.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
