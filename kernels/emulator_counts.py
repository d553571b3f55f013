"""What an emulated kernel reads and writes: counts, coalescing, bank conflicts, addresses.

    device = Emulator(count=True)
    ...                            launches
    device.counts["kernel"]        a Counts
    device.accesses["kernel"]      the accesses of its last launch, for pictures

A warp's 32 lanes make one access together: here the n-th time that each of them passes one place of
the program. Global memory moves in sectors of 32 bytes: a warp that reads 32 neighbouring floats
moves 4, one whose addresses are far apart moves 32. Shared memory has 32 banks of 4 bytes, which
answer at once if no two lanes ask one bank for different words; else the access is repeated.
"""
import ctypes
from dataclasses import dataclass, fields

import numpy as np

MOST = 1 << 21   # accesses of a launch that are kept, 32 bytes each; all are counted
SECTOR = 32      # bytes
BANKS = 32       # of 4 bytes
KINDS = "read", "write", "atomic"

# The same as Record in emulator.h.
RECORD = np.dtype([("offset", np.int64), ("site", np.int64), ("block", np.int32),
                   ("thread", np.int32), ("argument", np.int32), ("bytes", np.uint8),
                   ("kind", np.uint8), ("unused", np.uint8, 2)])


class Log(ctypes.Structure):
    """The same as Log in emulator.h."""
    _fields_ = [("capacity", ctypes.c_int64), ("used", ctypes.c_int64),
                ("records", ctypes.c_void_p), ("counts", ctypes.c_int64 * 3 * 2),
                ("bytes", ctypes.c_int64 * 3 * 2), ("barriers", ctypes.c_int64)]


@dataclass
class Counts:
    """Sums over all threads and launches of a kernel.

    Those after `barriers` are None if a launch made more than MOST accesses.
    """
    launches: int = 0
    global_reads: int = 0
    global_writes: int = 0
    global_read_bytes: int = 0
    global_write_bytes: int = 0
    shared_reads: int = 0
    shared_writes: int = 0
    atomics: int = 0
    barriers: int = 0            # passed by blocks
    global_accesses: int = 0     # of warps
    sectors: int = 0             # that these move; at best 4 for 32 floats
    shared_accesses: int = 0     # of warps; wide ones count as the hardware splits them
    bank_conflicts: int = 0      # repetitions of these

    def add(self, other):
        for field in fields(self):
            one, two = getattr(self, field.name), getattr(other, field.name)
            setattr(self, field.name, None if None in (one, two) else one + two)


def new_log():
    """(Log, its records)"""
    records = np.empty(MOST, RECORD)
    return Log(MOST, 0, records.ctypes.data), records


def counts_of(log, records):
    """The Counts of one launch."""
    (reads, writes, updates), (shared_reads, shared_writes, shared_updates) = log.counts
    (read_bytes, write_bytes, _), _ = log.bytes
    found = Counts(1, reads, writes, read_bytes, write_bytes, shared_reads, shared_writes,
                   updates + shared_updates, log.barriers)
    if log.used > MOST:
        warps = None, None, None, None
    else:
        in_global = records["argument"] >= 0
        warps = (*sectors(records[in_global]), *conflicts(records[~in_global]))
    found.global_accesses, found.sectors, found.shared_accesses, found.bank_conflicts = warps
    return found


def turns(records):
    """For each record, which access of its warp it belongs to: equal numbers, one access."""
    lane_first = np.lexsort((np.arange(len(records)), records["site"], records["thread"],
                             records["block"]))
    ordered = records[lane_first]
    new = np.ones(len(records), bool)
    new[1:] = ((ordered["site"][1:] != ordered["site"][:-1])
               | (ordered["thread"][1:] != ordered["thread"][:-1])
               | (ordered["block"][1:] != ordered["block"][:-1]))
    starts = np.flatnonzero(new)
    times = np.empty(len(records), np.int64)  # how often the lane has passed the place before
    lengths = np.diff([*starts, len(records)])
    times[lane_first] = np.arange(len(records)) - np.repeat(starts, lengths)
    keys = np.stack([records["block"], records["thread"] // 32, records["site"], times], 1)
    return np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)


def sectors(records):
    """(accesses of warps, the sectors that they move) in global memory."""
    if not len(records):
        return 0, 0
    turn = turns(records)
    first = records["offset"] // SECTOR
    last = (records["offset"] + records["bytes"] - 1) // SECTOR
    pairs = [np.stack([turn, records["argument"], sector], 1) for sector in (first, last)]
    return int(turn.max()) + 1, len(np.unique(np.concatenate(pairs), axis=0))


def conflicts(records):
    """(accesses of warps, their repetitions) in shared memory.

    The hardware answers 128 bytes at a time: 8 bytes for half a warp, 16 bytes for a quarter.
    """
    if not len(records):
        return 0, 0
    lanes_at_once = np.maximum(1, 128 // np.maximum(4, records["bytes"].astype(int)))
    part = records["thread"] % 32 // lanes_at_once
    turn = np.unique(np.stack([turns(records), part], 1), axis=0, return_inverse=True)[1]
    turn = turn.reshape(-1)
    words = [np.stack([turn, (records["offset"] + skipped) // 4], 1)[records["bytes"] > skipped]
             for skipped in range(0, 16, 4)]
    words = np.unique(np.concatenate(words), axis=0)  # lanes that ask for one word share it
    asked = np.zeros((turn.max() + 1, BANKS), np.int64)
    np.add.at(asked, (words[:, 0], words[:, 1] % BANKS), 1)
    return len(asked), int((asked.max(1) - 1).sum())


def warp_accesses(records, block=0, warp=0):
    """The accesses of one warp in order: [(kind, argument, offsets)].

    argument: its number, -1 for shared memory. offsets: (32,) in bytes, -1 for lanes that do not
    take part. block: its number, x fastest.
    """
    chosen = records[(records["block"] == block) & (records["thread"] // 32 == warp)]
    turn = turns(chosen)
    found = []
    for number in dict.fromkeys(turn.tolist()):  # in the order of the first lane that came
        lanes = chosen[turn == number]
        offsets = np.full(32, -1, np.int64)
        offsets[lanes["thread"] % 32] = lanes["offset"]
        found.append((KINDS[lanes["kind"][0]], int(lanes["argument"][0]), offsets))
    return found
