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


def joined(*columns):
    """An int64 for each row of columns of integers. Equal rows, and only they, have equal ones.

    Their order is that of the rows. To sort numbers is many times faster than to sort rows.
    """
    result = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        column = column.astype(np.int64) - int(column.min(initial=0))
        size = int(column.max(initial=0)) + 1
        if (int(result.max(initial=0)) + 1) * size >= 1 << 63:
            result = np.unique(result, return_inverse=True)[1].reshape(-1)
        if (int(result.max(initial=0)) + 1) * size >= 1 << 63:
            column = np.unique(column, return_inverse=True)[1].reshape(-1)
            size = len(column)
        result = result * size + column
    return result


def turns(records):
    """For each record, which access of its warp it belongs to: equal numbers, one access."""
    lanes = joined(records["block"], records["thread"], records["site"])
    lane_first = np.argsort(lanes, kind="stable")
    ordered = lanes[lane_first]
    new = np.ones(len(records), bool)
    new[1:] = ordered[1:] != ordered[:-1]
    starts = np.flatnonzero(new)
    times = np.empty(len(records), np.int64)  # how often the lane has passed the place before
    lengths = np.diff([*starts, len(records)])
    times[lane_first] = np.arange(len(records)) - np.repeat(starts, lengths)
    keys = joined(records["block"], records["thread"] // 32, records["site"], times)
    return np.unique(keys, return_inverse=True)[1].reshape(-1)


def sectors(records):
    """(accesses of warps, the sectors that they move) in global memory."""
    if not len(records):
        return 0, 0
    turn = turns(records)
    first = records["offset"] // SECTOR
    last = (records["offset"] + records["bytes"] - 1) // SECTOR
    pairs = joined(np.tile(turn, 2), np.tile(records["argument"], 2), np.concatenate([first, last]))
    return int(turn.max()) + 1, len(np.unique(pairs))


def conflicts(records):
    """(accesses of warps, their repetitions) in shared memory.

    The hardware answers 128 bytes at a time: 8 bytes for half a warp, 16 bytes for a quarter.
    """
    if not len(records):
        return 0, 0
    lanes_at_once = np.maximum(1, 128 // np.maximum(4, records["bytes"].astype(int)))
    part = records["thread"] % 32 // lanes_at_once
    turn = np.unique(joined(turns(records), part), return_inverse=True)[1].reshape(-1)
    asking = [records["bytes"] > skipped for skipped in range(0, 16, 4)]
    turns_of_words = np.concatenate([turn[those] for those in asking])
    words = np.concatenate([records["offset"][those] // 4 + i for i, those in enumerate(asking)])
    # Lanes that ask for one word share it.
    _, first = np.unique(joined(turns_of_words, words), return_index=True)
    places = turns_of_words[first] * BANKS + words[first] % BANKS
    asked = np.bincount(places, minlength=(turn.max() + 1) * BANKS).reshape(-1, BANKS)
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
