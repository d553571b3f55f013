"""How long a training step and a run should take on cards that have not been measured.

    python tests/benchmarks/predicted_times.py

Nothing is run. step_bytes.py counts a step's multiply-adds, bytes and launches. They are divided by
fixed rates: each card's peaks by its data sheet, times the share of the H200's peak that was
measured on the H200 (docs/speed.md). `before` is the ladder of five steps in its first version, and
`after` that of today, or what was measured of the same kernels.
"""
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[i]) for i in (0, 2)]
import step_bytes  # noqa: E402

import semgan  # noqa: E402

# Peaks: multiplications and additions, 1e12 a second; bytes copied, 1e12 a second. The H200's are
# measured: a loop of mma.sync, and a copy. The others: 95 % and 88 % of the data sheet, the shares
# that the H200 reaches in float32 and in copying.
CARDS = {  # name: (precision, multiplications and additions, bytes)
    "H200": ("tf32", 323.5, 4.22),
    "RTX 3060": ("tf32", 0.95 * 12.7, 0.88 * 0.36),
    "T4": ("fp32", 0.95 * 8.1, 0.88 * 0.32),
}
# The share of the first peak that convolutions reach on the H200: the harmonic mean of the three in
# the ladder's layer, in TF32 123, 78, 161 and 165, 158, 165 of 323.5; in float32 10.6, 15.2, 15.3
# and 28.6, 27.0, 28.2 of 63.5.
SHARES = {"tf32": {"before": 0.341, "after": 0.503}, "fp32": {"before": 0.210, "after": 0.440}}
LAUNCH = 3e-6  # seconds between two kernels of a graph [assumed]
PRESETS = [("full", "full", {}, 4), ("street", "full", semgan.STREET_SCENES, 22),
           ("small", "small", {}, 4)]


def seconds(card, s, classes):
    """{"before": of one step, "after": of one step}"""
    precision, flops, copied = CARDS[card]
    device, work, _ = step_bytes.count(s, classes, precision)
    adds = sum(int(adds) for adds, _ in work.values())
    others = sum(device.bytes.values()) / (copied * 1e12)
    others += (device.launches.total() + device.convolutions) * LAUNCH
    return {version: 2 * adds / (flops * share * 1e12) + others
            for version, share in SHARES[precision].items()}


def duration(s):
    """Seconds as text, in a unit that fits."""
    return f"{s:.0f} s" if s < 100 else f"{s / 60:.0f} min" if s < 5400 else f"{s / 3600:.1f} h"


def rows():
    for title, preset, changes, classes in PRESETS:
        name = "maps" if changes else "shapes"
        s = semgan.settings(preset=preset, dataset=name, **changes)
        for card in CARDS:
            step = seconds(card, s, classes)
            times = [f"{1e3 * step[version]:,.2f} ms" for version in ("before", "after")]
            runs = [duration(s.steps * step[version]) for version in ("before", "after")]
            yield f"| {title} | {card} | {CARDS[card][0]} | {' | '.join(times + runs)} |"


def main():
    print("| preset | card | precision | a step, before | after | a run, before | after |\n"
          + "|---" * 7 + "|")
    for row in rows():
        print(row, flush=True)


if __name__ == "__main__":
    main()
