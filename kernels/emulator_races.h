// Looks for races: two threads use the same memory, one of them writes, and nothing orders them.
//
// emulator.py compiles with -fsanitize=thread, so that the compiler calls a function before every
// read and write: those at the end of this file, in place of the sanitizer's own library. Two
// accesses are ordered if one thread makes both, if a barrier lies between them, or in one warp a
// warp operation. Nothing orders two blocks. Atomic updates do not race with each other.
//
// For every four bytes of shared memory and of the arguments a Cell holds the last write and the
// last two reads. So a race is seen in whatever order the threads run, and if all numbers are
// right. Missed are accesses that a later one of the same cell has replaced. One worker runs all
// blocks, since cells have no locks. Plain pointers that lead out of all arrays are seen here too.
#define UNCHECKED __attribute__((no_sanitize("thread"), noinline))

namespace emulator {

struct Access {
    uint32_t block, round;  // block 0: none yet; round: barriers passed
    uint16_t thread, warp_round;
    uint8_t mask, atomic;   // mask: which of the four bytes
};
struct Cell { Access write, read, other_read; };

// A vector of global memory that a thread asks for. The compiler may read or write it in parts.
struct Vector { const char* at; size_t bytes; bool recorded[2]; };  // as read, as written
constexpr int NOTED = 4;  // of a thread: the compiler may move its reads past the next vector

struct Races {
    uint32_t block, round;
    uint32_t first;  // of this launch's blocks: numbers of earlier launches do not come again
    uint16_t warp_rounds[MAX_THREADS / 32];
    Vector vectors[MAX_THREADS][NOTED];  // the last one first
    Cell shared[sizeof Block::shared / 4];
};
static Races races;  // one worker: one of it

UNCHECKED static void races_begin(int64_t number) {
    const uint3& grid = block->launch->grid;
    if (*block->launch->next_block == 1) {  // the first block of a launch
        static uint32_t next = 1;
        races.first = next;
        next += grid.x * grid.y * grid.z;
    }
    races.block = races.first + (uint32_t)number;
    races.round = 0;
    memset(races.warp_rounds, 0, sizeof races.warp_rounds);
    memset(races.vectors, 0, sizeof races.vectors);
}
UNCHECKED static void races_barrier() {
    ++races.round;
    if (block->launch->log) ++block->launch->log->barriers;
}
UNCHECKED static void races_warp(int warp) { ++races.warp_rounds[warp]; }

UNCHECKED static bool concurrent(const Access& a, const Access& b) {
    if (!a.block || !(a.mask & b.mask) || (a.atomic && b.atomic)) return false;
    if (a.block != b.block) return true;
    if (a.thread == b.thread || a.round != b.round) return false;
    return a.thread / 32 != b.thread / 32 || a.warp_round == b.warp_round;
}

[[noreturn]] UNCHECKED static void
report_race(const Access& old, bool writes, bool wrote, int argument, int64_t byte) {
    Error& e = *block->launch->error;
    e.other_block = (int64_t)old.block - races.first;
    e.other_thread = block->threads[old.thread].index;
    e.accesses = writes + 2 * wrote;
    int declaration = -1;  // of shared memory; -1: the dynamic one
    size_t first = 0;
    for (int i = 0; argument < 0 && i < 64; ++i) {
        size_t offset = block->shared_offset[i];  // plus 1
        if (!offset || offset - 1 > (size_t)byte || offset <= first) continue;
        declaration = i;
        first = offset;
    }
    fail(RACE, argument, declaration < 0 ? byte : byte - (int64_t)first + 1, declaration);
}

// bytes: of this access, from `address` on
UNCHECKED static void access_cell(Cell& cell, Access now, bool writes, bool shared, int argument,
                                  int64_t byte) {
    if (shared) {  // of an earlier block
        if (cell.write.block != now.block) cell.write.block = 0;
        if (cell.read.block != now.block) cell.read.block = 0;
        if (cell.other_read.block != now.block) cell.other_read.block = 0;
    }
    if (concurrent(cell.write, now)) report_race(cell.write, writes, true, argument, byte);
    if (writes) {
        if (concurrent(cell.read, now)) report_race(cell.read, true, false, argument, byte);
        if (concurrent(cell.other_read, now))
            report_race(cell.other_read, true, false, argument, byte);
        cell.write = now;
        return;
    }
    bool same = cell.read.block == now.block && cell.read.thread == now.thread;
    if (!same) cell.other_read = cell.read;
    cell.read = now;
}

UNCHECKED static bool within(const char* p, const void* start, size_t bytes) {
    return p >= (const char*)start && p < (const char*)start + bytes;
}

UNCHECKED static void note_vector(const void* p, size_t bytes) {
    if (!block->launch->log) return;
    Vector* noted = races.vectors[thread - block->threads];
    int i = 0;
    while (i < NOTED - 1 && noted[i].at != p) ++i;
    for (; i > 0; --i) noted[i] = noted[i - 1];
    noted[0] = {(const char*)p, bytes, {}};
}

// Of a vector the first part is recorded as the whole, and the others not at all.
UNCHECKED static void count(Log& log, int argument, const char* start, int64_t offset,
                            size_t bytes, int kind, void* site) {
    ++log.counts[argument < 0][kind];
    log.bytes[argument < 0][kind] += bytes;
    for (Vector& vector : races.vectors[thread - block->threads]) {
        if (kind == 2 || !within(start + offset, vector.at, vector.bytes)) continue;
        if (vector.recorded[kind]) return;
        vector.recorded[kind] = true;
        offset = vector.at - start;
        bytes = vector.bytes;
        break;
    }
    if (log.used < log.capacity)
        log.records[log.used] = {offset, (int64_t)site, (int32_t)(races.block - races.first),
                                 (int32_t)(thread - block->threads), argument, (uint8_t)bytes,
                                 (uint8_t)kind, {}};
    ++log.used;
}

#ifdef __ELF__
extern "C" __attribute__((visibility("hidden"))) char __ehdr_start[], _end[];  // by the linker
#endif

// Whether an address outside of all arrays is one that the emulator itself or a constant may have.
UNCHECKED static bool known(const char* p) {
    const Launch& l = *block->launch;
    for (int i = 0; i < l.count; ++i)
        if (within(p, l.arguments[i].data, l.arguments[i].bytes)) return true;
    if (within(p, l.arguments, l.count * sizeof(Argument)) || within(p, &l, sizeof l)) return true;
    if (within(p, l.error, sizeof *l.error) || within(p, l.log, sizeof *l.log)) return true;
    if (p == (char*)l.stop || p == (char*)l.next_block) return true;
    if (p == (char*)&block || p == (char*)&thread) return true;
#ifdef __ELF__
    return within(p, __ehdr_start, _end - __ehdr_start);
#else
    return true;  // elsewhere constants cannot be told from the rest
#endif
}

// site: where in the program
UNCHECKED static void access(const void* address, size_t bytes, bool writes, bool atomic,
                             void* site) {
    if (!block || !block->inside || !bytes) return;
    const char* from = (const char*)address;
    Cell* cells = nullptr;
    const char* start = block->shared;
    int argument = -1;
    if (within(from, start, sizeof block->shared)) {
        cells = races.shared;
        if (from + bytes > start + block->shared_used) fail(WILD, 0, (int64_t)address);
    } else if (within(from, block, emulator_bytes())) {
        if (within(from, block->unused, sizeof block->unused)) fail(WILD, 0, (int64_t)address);
        return;  // local variables
    } else {
        for (int i = 0; i < block->launch->count && !cells; ++i) {
            const Argument& a = block->launch->arguments[i];
            if (!a.cells || !within(from, a.data, a.bytes)) continue;
            if (from + bytes > a.data + a.bytes) fail(OUT_OF_BOUNDS, i, from - a.data);
            cells = (Cell*)a.cells;
            start = a.data;
            argument = i;
        }
        if (!cells && !known(from)) fail(WILD, 0, (int64_t)address);
        if (!cells) return;
    }
    int64_t first = from - start, end = first + (int64_t)bytes;
    int kind = atomic ? 2 : writes;
    if (block->launch->log) count(*block->launch->log, argument, start, first, bytes, kind, site);
    if (!block->launch->check) return;
    int me = (int)(thread - block->threads);
    for (int64_t i = first / 4; i * 4 < end; ++i) {
        unsigned mask = 15;
        if (i * 4 < first) mask &= 15u << (first - i * 4);
        if (i * 4 + 4 > end) mask &= 15u >> (i * 4 + 4 - end);
        Access now = {races.block, races.round, (uint16_t)me, races.warp_rounds[me / 32],
                      (uint8_t)mask, atomic};
        access_cell(cells[i], now, writes, argument < 0, argument, first);
    }
}

}  // namespace emulator

// ------------------------------------------------------ what the compiler calls before an access
#define CALLED(name, bytes, writes) \
    EXPORT UNCHECKED void name##bytes(void* a) { \
        emulator::access(a, bytes, writes, false, __builtin_return_address(0)); \
    }
#define ACCESSES(bytes) \
    CALLED(__tsan_read, bytes, false) CALLED(__tsan_write, bytes, true) \
    CALLED(__tsan_unaligned_read, bytes, false) CALLED(__tsan_unaligned_write, bytes, true) \
    CALLED(__tsan_volatile_read, bytes, false) CALLED(__tsan_volatile_write, bytes, true) \
    CALLED(__tsan_read_write, bytes, true) CALLED(__tsan_unaligned_read_write, bytes, true)
ACCESSES(1) ACCESSES(2) ACCESSES(4) ACCESSES(8) ACCESSES(16)
#undef ACCESSES
#undef CALLED
EXPORT UNCHECKED void __tsan_read_range(void* a, size_t n) { emulator::access(a, n, false, false); }
EXPORT UNCHECKED void __tsan_write_range(void* a, size_t n) { emulator::access(a, n, true, false); }
EXPORT UNCHECKED void __tsan_init() {}
EXPORT UNCHECKED void __tsan_func_entry(void*) {}
EXPORT UNCHECKED void __tsan_func_exit() {}
EXPORT UNCHECKED void __tsan_vptr_update(void**, void*) {}
EXPORT UNCHECKED void __tsan_vptr_read(void**) {}
EXPORT UNCHECKED void* __tsan_memcpy(void* to, const void* from, size_t n) {
    emulator::access(from, n, false, false);
    emulator::access(to, n, true, false);
    return memcpy(to, from, n);
}
EXPORT UNCHECKED void* __tsan_memset(void* to, int value, size_t n) {
    emulator::access(to, n, true, false);
    return memset(to, value, n);
}
EXPORT UNCHECKED void* __tsan_memmove(void* to, const void* from, size_t n) {
    return memmove(to, from, n);
}
EXPORT UNCHECKED void __tsan_atomic_thread_fence(int) {}
EXPORT UNCHECKED void __tsan_atomic_signal_fence(int) {}

// The compiler does not announce what these two access.
inline void* checked_memset(void* to, int value, size_t bytes) {
    emulator::access(to, bytes, true, false);
    return memset(to, value, bytes);
}
inline void* checked_memcpy(void* to, const void* from, size_t bytes) {
    emulator::access(from, bytes, false, false);
    emulator::access(to, bytes, true, false);
    return memcpy(to, from, bytes);
}
#define memset checked_memset
#define memcpy checked_memcpy
