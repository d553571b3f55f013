// CUDA's execution model on a CPU: an ordinary C++ compiler compiles the .cu files of this folder.
//
// emulator.py puts this header in front of a .cu file, wraps its pointer parameters in Global<T>,
// and calls emulate(). The caller's threads (one per core) share the blocks. Inside a block every
// CUDA thread is a fiber: it runs until it reaches a barrier or a shuffle, then another fiber
// continues. The emulator is stricter than a GPU:
//   - Threads run in an order shuffled by a seed, anew after each barrier, and some warps run only
//     when all others wait. So a missing __syncthreads changes results.
//   - Shared memory is filled with NaN before each block (and cuda_ops.py fills new arrays). So a
//     read of unwritten memory changes results too.
//   - x[i] and *(const float4*)(x + i) are checked for every pointer parameter x of a kernel: they
//     must be inside the argument's array and aligned. So are p[i] after p = x + n, and
//     ((const float4*)x)[i]. (Plain pointers are not checked: p = &x[0]; p[i].)
//   - Indices of shared and local arrays are checked too, by the compiler's sanitizer and the
//     handlers at the end of this file.
//   - If some threads do not reach a barrier, or reach it at different lines, this is an error
//     message instead of a hang.
//   - A kernel that would crash the process ends the launch instead, and so does one without an end
//     (not on Windows).
//
// Only C headers are included: they compile ten times as fast, and with every compiler.
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifndef _WIN32
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>
#endif

#ifdef _WIN32
#define EXPORT extern "C" __declspec(dllexport)
#else
#define EXPORT extern "C" __attribute__((visibility("default")))
#endif

#define EMULATOR
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

struct uint3 { unsigned x, y, z; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) double2 { double x, y; };
struct alignas(16) int4 { int x, y, z, w; };

namespace emulator {

enum Kind {
    NONE, OUT_OF_BOUNDS, MISALIGNED, DIVERGENT, WARP, SHARED_FULL, ARRAY_INDEX, ARRAY_MISALIGNED,
    DIVISION, COPIES, WILD, STACK, TRAP, ASSERTION, STOPPED, RACE
};

// What emulator.py passes in and reads back; it declares the same fields. An Argument is an array,
// or a scalar by its address.
struct Argument {
    char* data;
    uint64_t bytes;
    int64_t number;
    void* cells;  // where emulator_races.h keeps the accesses to each four bytes
};
struct Error {
    int32_t kind, argument, line, other_line;  // other_line 0: the other thread has returned
    int64_t index;
    uint3 block, thread, other_thread;
    int64_t other_block;  // its number; of a race
    int32_t accesses;     // of a race: 1 if the thread writes, 2 if the other one wrote
};
// An access to an argument, or with argument -1 to shared memory, for emulator_counts.py.
struct Record {
    int64_t offset, site;  // in bytes; the place in the program
    int32_t block, thread;
    int32_t argument;
    uint8_t bytes, kind, unused[2];  // kind: 0 read, 1 write, 2 atomic update
};
struct Log {
    int64_t capacity, used;
    Record* records;
    int64_t counts[2][3];  // global memory, shared memory; reads, writes, atomic updates
    int64_t bytes[2][3];   // the same
    int64_t barriers;      // of all blocks
};
struct Launch {
    uint3 grid, block;
    uint64_t dynamic_shared, shared_limit, seed;
    int64_t* next_block;  // shared by all workers: each takes the next number from it
    volatile int32_t* stop;  // shared by all workers: if it is not 0, they end
    Argument* arguments;
    int64_t count;        // of arguments
    char* scratch;        // this worker's: a Block and its stacks
    Error* error;         // this worker's
    Log* log;             // or null: nothing is counted
    int64_t check;        // whether to look for races
};

// ------------------------------------------------------------------------------------ fibers
// switch_to(&from, to) saves the running fiber in `from` and continues with `to`. It saves about
// six registers and the stack pointer, which takes a few nanoseconds; the operating system's
// swapcontext makes a system call. The compiler refuses a function whose local variables do not fit
// the stack. The size is not a power of two, so that equal depths of different stacks do not share
// a set of the cache.
constexpr size_t STACK_BYTES = 33 * 1024 + 64;
constexpr int MAX_THREADS = 1024;
// Between two stacks lies a page that nobody may touch.
#if defined(__APPLE__) && defined(__aarch64__)
constexpr size_t PAGE = 16 * 1024;
#else
constexpr size_t PAGE = 4096;
#endif
constexpr size_t STACK_PITCH = (STACK_BYTES + 2 * PAGE + PAGE - 1) / PAGE * PAGE;
static void fiber_main();

#if defined(_WIN32)
extern "C" __declspec(dllimport) void* __stdcall
CreateFiber(size_t, void (__stdcall *)(void*), void*);
extern "C" __declspec(dllimport) void __stdcall SwitchToFiber(void*);
extern "C" __declspec(dllimport) void __stdcall DeleteFiber(void*);
extern "C" __declspec(dllimport) void* __stdcall ConvertThreadToFiber(void*);
extern "C" __declspec(dllimport) int __stdcall ConvertFiberToThread();
typedef void* Context;
static void __stdcall windows_main(void*) { fiber_main(); }
static void switch_to(Context*, Context to) { SwitchToFiber(to); }
static void prepare(Context& context, char*) {
    if (context) DeleteFiber(context);
    context = CreateFiber(STACK_BYTES, windows_main, 0);
}
static void begin(Context& host) { host = ConvertThreadToFiber(0); }
static void end(Context* contexts, int count) {
    for (int i = 1; i <= count; ++i) if (contexts[i]) DeleteFiber(contexts[i]);
    ConvertFiberToThread();
}
#elif defined(__x86_64__) || defined(__aarch64__)
typedef void* Context;  // the stack pointer; the registers are on the stack
#ifdef __APPLE__
#define SYMBOL "_emulator_switch"
#else
#define SYMBOL "emulator_switch"
#endif
extern "C" __attribute__((visibility("hidden"))) void emulator_switch(Context* from, Context to);
#ifdef __x86_64__
__asm__(".text\n" SYMBOL ":\n"
        "push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
        "mov %rsp, (%rdi)\n mov %rsi, %rsp\n"
        "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret\n");
constexpr int SAVED = 6, RETURN = 6;  // words that a switch pops; index of the return address
#else
__asm__(".text\n.balign 4\n" SYMBOL ":\n"
        "sub sp, sp, #160\n"
        "stp x19, x20, [sp]\n stp x21, x22, [sp, #16]\n stp x23, x24, [sp, #32]\n"
        "stp x25, x26, [sp, #48]\n stp x27, x28, [sp, #64]\n stp x29, x30, [sp, #80]\n"
        "stp d8, d9, [sp, #96]\n stp d10, d11, [sp, #112]\n"
        "stp d12, d13, [sp, #128]\n stp d14, d15, [sp, #144]\n"
        "mov x9, sp\n str x9, [x0]\n mov sp, x1\n"
        "ldp x19, x20, [sp]\n ldp x21, x22, [sp, #16]\n ldp x23, x24, [sp, #32]\n"
        "ldp x25, x26, [sp, #48]\n ldp x27, x28, [sp, #64]\n ldp x29, x30, [sp, #80]\n"
        "ldp d8, d9, [sp, #96]\n ldp d10, d11, [sp, #112]\n"
        "ldp d12, d13, [sp, #128]\n ldp d14, d15, [sp, #144]\n"
        "add sp, sp, #160\n ret\n");
constexpr int SAVED = 20, RETURN = 11;
#endif
static void switch_to(Context* from, Context to) { emulator_switch(from, to); }
static void prepare(Context& context, char* stack) {  // the first switch "returns" into fiber_main
    uintptr_t* top = (uintptr_t*)((uintptr_t)(stack + STACK_BYTES) & ~(uintptr_t)15) - 2 - SAVED;
    memset(top, 0, (SAVED + 2) * sizeof *top);
    top[RETURN] = (uintptr_t)fiber_main;
    context = top;
}
static void begin(Context&) {}
static void end(Context*, int) {}
#else
#include <ucontext.h>
typedef ucontext_t Context;
static void switch_to(Context* from, Context& to) { swapcontext(from, &to); }
static void prepare(Context& context, char* stack) {
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = STACK_BYTES;
    makecontext(&context, fiber_main, 0);
}
static void begin(Context&) {}
static void end(Context*, int) {}
#endif

// ------------------------------------------------------------------------- a block and its threads
enum State : uint8_t { UNSTARTED, READY, RUNNING, AT_BARRIER, AT_WARP, DONE };

constexpr int MAX_COPIES = 64;
// An unfinished asynchronous copy: `taken` bytes of `from`, then zeros.
struct Copy { void* to; const void* from; int bytes, taken; };

struct Thread {
    uint3 index;
    int fiber, line, source;    // source: the lane whose value a shuffle reads
    unsigned mask, ballot;
    uint64_t value, result;     // what it passes to a shuffle and receives from it
    State state;
    int turn;                   // which of the two values in `brought` belongs to this meet()
    uint64_t brought[2][4];
    int copies, groups;         // unfinished copies, and the groups of them
    int group_end[MAX_COPIES];  // where each group ends in `copy`
    Copy copy[MAX_COPIES];
};

struct Block {
    uint3 index, size, grid;
    void (*kernel)(Argument*);
    Launch* launch;
    int count, ready, at_barrier, done;   // threads; those that can run, wait, have returned
    int position, stride, turns, picked;  // this round's shuffled order; how many could run
    unsigned slow;                        // warps that run only if no other can; others get ahead
    uint64_t random;
    int fibers, free_count, free_fibers[MAX_THREADS];
    unsigned arrived[MAX_THREADS / 32];   // per warp, the lanes that wait at a warp operation
    Thread threads[MAX_THREADS + 1];      // the last one represents the host
    Context contexts[MAX_THREADS + 1];    // 0 is the host's
    int guarded;                          // pages between stacks that are protected already
    bool catches;                         // whether this thread has set the handler of SIGINT
    volatile bool inside;                 // whether a kernel runs, and not the code around it
    alignas(16) char signal_stack[64 * 1024];
    size_t shared_used;
    size_t shared_offset[64];             // of each __shared__ declaration, plus 1; 0: none yet
    char unused[16 * 1024];               // where negative indices of shared memory lead
    alignas(64) char shared[228 * 1024];
};

extern __attribute__((visibility("hidden"))) thread_local Block* block;
extern __attribute__((visibility("hidden"))) thread_local Thread* thread;
thread_local Block* block;
thread_local Thread* thread;

constexpr size_t BLOCK_BYTES = (sizeof(Block) + PAGE - 1) / PAGE * PAGE;
static char* guard_page(int fiber) {
    return (char*)block + BLOCK_BYTES + (size_t)(fiber - 1) * STACK_PITCH;
}
static char* stack(int fiber) {  // equal depths of different stacks differ in their cache set
    return guard_page(fiber) + PAGE + fiber % (PAGE / 64) * 64;
}

[[noreturn]] static void leave() {  // back to emulate()
    switch_to(&block->contexts[thread->fiber], block->contexts[0]);
    __builtin_unreachable();
}

[[noreturn]] static __attribute__((noinline, cold)) void
fail(Kind kind, int argument, int64_t index, int line = 0, const Thread* other = nullptr) {
    Error& e = *block->launch->error;
    e.kind = kind;
    e.argument = argument;
    e.index = index;
    e.line = line;
    e.block = block->index;
    e.thread = thread->index;
    if (other) {
        e.other_thread = other->index;
        e.other_line = other->state == DONE ? 0 : other->line;
    }
    leave();
}

// What emulator_races.h is told, if it is included.
static size_t emulator_bytes() { return BLOCK_BYTES + MAX_THREADS * STACK_PITCH; }
#ifdef CHECK_RACES
static void races_begin(int64_t block_number);
static void races_barrier();
static void races_warp(int warp);
static void access(const void* address, size_t bytes, bool writes, bool atomic, void* site = 0);
#else
static void races_begin(int64_t) {}
static void races_barrier() {}
static void races_warp(int) {}
static void access(const void*, size_t, bool, bool) {}
#endif

// ---------------------------------------------------------------------------- kernels that crash
#ifdef _WIN32
static void guard_stack(int) {}
static void guard_thread() {}
static void unguard_thread() {}
#else
constexpr int SIGNALS[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGURG};
static struct sigaction before[64];  // what was done with these signals
static int installed, catching;  // catching: one thread handles SIGINT for all
static thread_local stack_t stack_before;

// Reached on a stack of its own, since the thread's may be full. It leaves as fail() does and does
// not return. SIGURG comes from emulator.py, to stop a kernel that does not end, SIGINT is Ctrl-C.
static void on_signal(int number, siginfo_t* info, void* context) {
    if (number == SIGINT) {
        if (block) *block->launch->stop = 1;
        struct sigaction& python = before[SIGINT];
        if (python.sa_flags & SA_SIGINFO) python.sa_sigaction(number, info, context);
        else if (python.sa_handler != SIG_IGN && python.sa_handler != SIG_DFL)
            python.sa_handler(number);
        if (block && block->inside) fail(STOPPED, 0, 0);
        return;
    }
    if (block && block->inside) {
        char* address = (char*)info->si_addr;
        if (number == SIGURG) {
            if (!*block->launch->stop) return;
            fail(STOPPED, 0, 0);
        }
        if (number == SIGFPE) fail(DIVISION, 0, 0);
        if (number != SIGSEGV && number != SIGBUS) fail(TRAP, 0, 0);
        for (int fiber = 1; fiber <= block->fibers; ++fiber)
            if (address >= guard_page(fiber) && address < guard_page(fiber) + PAGE)
                fail(STACK, 0, 0);
        fail(WILD, 0, (int64_t)address);
    }
    struct sigaction& old = before[number];  // not ours: another library's, or Python's
    if (old.sa_flags & SA_SIGINFO) return old.sa_sigaction(number, info, context);
    if (old.sa_handler == SIG_IGN || number == SIGURG) return;
    if (old.sa_handler != SIG_DFL) return old.sa_handler(number);
    sigaction(number, &old, nullptr);  // it comes again when this returns
}

static __attribute__((no_sanitize("thread"))) void guard_thread() {
    if (!__atomic_exchange_n(&installed, 1, __ATOMIC_SEQ_CST))
        for (int number : SIGNALS) {
            struct sigaction ours = {};
            ours.sa_sigaction = on_signal;
            ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
            sigaction(number, &ours, &before[number]);
        }
    struct sigaction now, ours = {};
    sigaction(SIGINT, nullptr, &now);
    block->catches = now.sa_handler != SIG_DFL && now.sa_handler != SIG_IGN
        && !__atomic_exchange_n(&catching, 1, __ATOMIC_SEQ_CST);
    if (block->catches) {
        before[SIGINT] = now;
        ours.sa_sigaction = on_signal;
        ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
        sigaction(SIGINT, &ours, nullptr);
    }
    stack_t own = {};
    own.ss_sp = block->signal_stack;
    own.ss_size = sizeof block->signal_stack;
    sigaltstack(&own, &stack_before);
}
static __attribute__((no_sanitize("thread"))) void unguard_thread() {
    if (block->catches) {
        sigaction(SIGINT, &before[SIGINT], nullptr);
        __atomic_store_n(&catching, 0, __ATOMIC_SEQ_CST);
    }
    sigaltstack(&stack_before, nullptr);
}

static void guard_stack(int fiber) {
    if (fiber <= block->guarded || sysconf(_SC_PAGESIZE) != (long)PAGE) return;
    mprotect(guard_page(fiber), PAGE, PROT_NONE);
    block->guarded = fiber;
}
#endif

static unsigned random_below(unsigned n) {  // splitmix64
    uint64_t z = block->random += 0x9E3779B97F4A7C15;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    return (unsigned)((z >> 32) * n >> 32);
}

static int64_t coprime_below(int64_t n) {  // a stride that visits all n positions in turn
    for (;;) {
        int64_t a = 1 + random_below((unsigned)n), x = a, y = n;
        while (y) {
            int64_t rest = x % y;
            x = y;
            y = rest;
        }
        if (x == 1) return a;
    }
}

static void new_round() {
    block->turns = block->picked = 0;
    block->position = random_below(block->count);
    block->stride = coprime_below(block->count);
}

// Called when no thread can run, and not all wait at the same barrier.
[[noreturn]] static void report_divergence() {
    Thread* waiting = nullptr;
    Thread* other = nullptr;
    for (int i = 0; i < block->count; ++i) {
        Thread* t = &block->threads[i];
        if (t->state == AT_WARP || (t->state == AT_BARRIER && !waiting)) waiting = t;
    }
    for (int i = 0; i < block->count && !other; ++i) {
        Thread* t = &block->threads[i];
        if (t->state != waiting->state || t->line != waiting->line) other = t;
    }
    Kind kind = waiting->state == AT_WARP ? WARP : DIVERGENT;
    int line = waiting->line;
    thread = waiting;  // fail() reports it
    fail(kind, 0, 0, line, other ? other : waiting);
}

static Thread* pick() {  // the thread that runs next; leaves if all have returned
    for (;;) {
        if (block->ready == 0) {
            if (block->done == block->count) leave();
            if (block->at_barrier < block->count) report_divergence();
            int line = block->threads[0].line;
            for (int i = 0; i < block->count; ++i) {
                if (block->threads[i].line != line) report_divergence();
                block->threads[i].state = READY;
            }
            block->ready = block->count;
            block->at_barrier = 0;
            races_barrier();
            block->slow = random_below(~0u);
            new_round();
        }
        if (block->turns == block->count) {
            if (!block->picked) block->slow = 0;
            new_round();
        }
        while (block->turns < block->count) {
            ++block->turns;
            if ((block->position += block->stride) >= block->count) block->position -= block->count;
            Thread* next = &block->threads[block->position];
            bool slow = block->slow >> (block->position / 32) & 1;
            if (next->state > READY || slow) continue;
            ++block->picked;
            return next;
        }
    }
}

static void continue_with(Thread* next) {  // returns when the running fiber is picked again
    int from = thread->fiber;
    if (next->state == UNSTARTED) {
        next->fiber = block->free_count ? block->free_fibers[--block->free_count] : ++block->fibers;
        guard_stack(next->fiber);
        prepare(block->contexts[next->fiber], stack(next->fiber));
    }
    next->state = RUNNING;
    --block->ready;
    thread = next;
    switch_to(&block->contexts[from], block->contexts[next->fiber]);
}

static void suspend(State state, int line) {
    thread->state = state;
    thread->line = line;
    Thread* next = pick();
    if (next != thread) return continue_with(next);
    thread->state = RUNNING;
    --block->ready;
}

// A fiber runs one thread after another. A new thread needs a new fiber only while others wait.
static void fiber_main() {
    for (;;) {
        block->inside = true;
        block->kernel(block->launch->arguments);
        int fiber = thread->fiber;
        thread->state = DONE;
        ++block->done;
        Thread* next = pick();
        if (next->state == UNSTARTED) {
            next->state = RUNNING;
            next->fiber = fiber;
            --block->ready;
            thread = next;
        } else {
            block->free_fibers[block->free_count++] = fiber;
            continue_with(next);
        }
    }
}

static int coordinate(int64_t& rest, unsigned size) {
    int c = (int)(rest % size);
    rest /= size;
    return c;
}

// Runs blocks until none is left. Every worker calls it with its own scratch and error. Returns the
// error's kind.
static __attribute__((no_sanitize("thread"))) int
emulate(Launch* launch, void (*kernel)(Argument*)) {
    block = (Block*)launch->scratch;
    block->launch = launch;
    block->kernel = kernel;
    block->size = launch->block;
    block->grid = launch->grid;
    block->count = launch->block.x * launch->block.y * launch->block.z;
    guard_thread();
    memset(block->contexts, 0, sizeof block->contexts);
    begin(block->contexts[0]);
    for (int i = 0; i < block->count; ++i) {
        int64_t rest = i;
        unsigned x = coordinate(rest, launch->block.x), y = coordinate(rest, launch->block.y);
        block->threads[i].index = {x, y, (unsigned)rest};
    }
    thread = &block->threads[MAX_THREADS];
    thread->fiber = 0;
    block->inside = false;
    block->random = launch->seed;
    block->fibers = block->free_count = 0;
    int64_t blocks = (int64_t)launch->grid.x * launch->grid.y * launch->grid.z;
    int64_t order = coprime_below(blocks);
    int highest = 0;
    while (!launch->error->kind && !*launch->stop) {
        int64_t number = __atomic_fetch_add(launch->next_block, 1, __ATOMIC_RELAXED);
        if (number >= blocks) break;
        int64_t rest = (number * order + (int64_t)(launch->seed % 1000003)) % blocks;  // shuffled
        races_begin(rest);
        block->random = launch->seed ^ (uint64_t)rest * 0xD1B54A32D192ED03;
        unsigned x = coordinate(rest, launch->grid.x), y = coordinate(rest, launch->grid.y);
        block->index = {x, y, (unsigned)rest};
        for (int i = 0; i < block->count; ++i) {
            Thread& t = block->threads[i];
            t.state = UNSTARTED;
            t.line = t.turn = t.copies = t.groups = 0;
        }
        block->ready = block->count;
        block->at_barrier = block->done = 0;
        block->fibers = block->free_count = 0;
        memset(block->arrived, 0, sizeof block->arrived);
        memset(block->shared_offset, 0, sizeof block->shared_offset);
        memset(block->shared, 0xFF, launch->dynamic_shared);
        block->shared_used = (launch->dynamic_shared + 15) & ~(size_t)15;
        block->slow = random_below(~0u);
        new_round();
        thread = &block->threads[MAX_THREADS];
        continue_with(pick());  // leave() returns to here
        block->inside = false;
        if (block->fibers > highest) highest = block->fibers;
        thread = &block->threads[MAX_THREADS];
    }
    unguard_thread();
    end(block->contexts, highest);
    block = nullptr;
    return launch->error->kind;
}

// --------------------------------------------------------------------------- warps, shared memory
static int linear() { return (int)(thread - block->threads); }

static void warp_operation(unsigned mask, uint64_t value, int source, int line) {
    int lane = linear() % 32, first = linear() - lane;
    unsigned& arrived = block->arrived[first / 32];
    thread->mask = mask;
    thread->value = value;
    thread->source = source;
    thread->line = line;
    if (!(mask >> lane & 1)) fail(WARP, 0, 0, line, thread);
    arrived |= 1u << lane;
    if ((arrived & mask) != mask) return suspend(AT_WARP, line);
    unsigned ballot = 0;
    for (int i = 0; i < 32; ++i) {  // the last lane has arrived
        const Thread& t = block->threads[first + i];
        if (!(mask >> i & 1)) continue;
        if (t.mask != mask || t.line != line || !(mask >> t.source & 1)) fail(WARP, 0, 0, line, &t);
        ballot |= (unsigned)(t.value != 0) << i;
    }
    for (int i = 0; i < 32; ++i) {
        if (!(mask >> i & 1)) continue;
        Thread& t = block->threads[first + i];
        t.result = block->threads[first + t.source].value;
        t.ballot = ballot;
        if (&t == thread) continue;
        t.state = READY;
        ++block->ready;
    }
    arrived &= ~mask;
    races_warp(first / 32);
}

template <class T> static T shuffle(unsigned mask, T value, int source, int line) {
    uint64_t word = 0;
    memcpy(&word, &value, sizeof value);
    warp_operation(mask, word, source, line);
    memcpy(&value, &thread->result, sizeof value);
    return value;
}

static void* shared(size_t bytes, int declaration) {  // the same address for all threads of a block
    size_t& offset = block->shared_offset[declaration];
    if (!offset) {
        size_t end = block->shared_used + bytes;
        if (end > block->launch->shared_limit) fail(SHARED_FULL, 0, end);
        memset(block->shared + block->shared_used, 0xFF, bytes);  // NaN
        offset = block->shared_used + 1;
        block->shared_used = (end + 15) & ~(size_t)15;
    }
    return block->shared + offset - 1;
}

// The 32 lanes of a warp exchange values: each calls compute(get), where get(lane) is that lane's
// `mine`. Calls use two buffers in turn. No lane can be two calls ahead of another, so nothing is
// overwritten while another lane still reads it.
template <class T, class F> static void meet(const T& mine, int line, F compute) {
    static_assert(sizeof(T) <= sizeof thread->brought[0], "the value fits");
    int turn = thread->turn ^= 1;
    memcpy(thread->brought[turn], &mine, sizeof mine);
    warp_operation(~0u, 0, linear() % 32, line);
    const Thread* lanes = thread - linear() % 32;
    compute([=](int lane) -> const T& { return *(const T*)lanes[lane].brought[turn]; });
}

// Starts a copy that is finished only when its thread waits for it. Until then the target holds
// NaN, which reveals a missing wait, or a copy over data that others still read.
static void start_copy(void* to, const void* from, int bytes, int taken, int line) {
    Thread& t = *thread;
    if (t.copies == MAX_COPIES) fail(COPIES, 0, MAX_COPIES, line);
    if ((uintptr_t)to % bytes) fail(ARRAY_MISALIGNED, 0, 0, line);
    access(to, bytes, true, false);
    access(from, taken, false, false);
    memset(to, 0xFF, bytes);
    t.copy[t.copies++] = {to, from, bytes, taken};
}
static void commit_group(int line) {
    if (thread->groups == MAX_COPIES) fail(COPIES, 0, MAX_COPIES, line);
    thread->group_end[thread->groups++] = thread->copies;
}
static void wait_groups(int pending) {  // for all but the last `pending` groups
    Thread& t = *thread;
    int groups = t.groups - pending;
    if (groups <= 0) return;
    int finished = t.group_end[groups - 1];
    for (int i = 0; i < finished; ++i) {
        access(t.copy[i].to, t.copy[i].bytes, true, false);
        memset(t.copy[i].to, 0, t.copy[i].bytes);
        memcpy(t.copy[i].to, t.copy[i].from, t.copy[i].taken);
    }
    t.copies -= finished;
    memmove(t.copy, t.copy + finished, t.copies * sizeof(Copy));
    t.groups = pending;
    for (int i = 0; i < pending; ++i) t.group_end[i] = t.group_end[groups + i] - finished;
}

// ------------------------------------------------------------------------------- checked pointers
#ifdef CHECK_RACES
static void note_vector(const void* p, size_t bytes);
#endif
template <class T> struct Global {  // T* as a kernel's parameter
    T* p;
    char* data;
    uint64_t bytes;
    int number;
    explicit Global(const Argument& a)
        : p((T*)a.data), data(a.data), bytes(a.bytes), number((int)a.number) {}
    Global(T* p, char* data, uint64_t bytes, int number)
        : p(p), data(data), bytes(bytes), number(number) {}
    // ((const float4*)x), which emulator.py turns into (Global<const float4>)x
    template <class U> explicit Global(Global<U> x)
        : p((T*)x.p), data(x.data), bytes(x.bytes), number(x.number) {
        if ((uintptr_t)p % alignof(T)) fail(MISALIGNED, number, x.index(x.p));
    }
    // Of shared or local memory: its end is not known.
    template <class U> explicit Global(U* q, int line = __builtin_LINE())
        : p((T*)q), data((char*)q), bytes(~0ull), number(0) {
        if ((uintptr_t)p % alignof(T)) fail(ARRAY_MISALIGNED, 0, 0, line);
    }
    operator Global<const T>() const { return {p, data, bytes, number}; }
    // Where q points to: in bytes for an argument, whose elements emulator.py knows
    int64_t index(const T* q) const {
        return ((const char*)q - data) / (number < 0 ? (ptrdiff_t)sizeof(T) : 1);
    }
    void check(const T* q, size_t size) const {
        uint64_t offset = (uint64_t)((const char*)q - data);
        if (__builtin_expect(offset >= bytes || size > bytes - offset, 0))
            fail(OUT_OF_BOUNDS, number, index(q));
    }
    T& operator[](ptrdiff_t i) const {
        check(p + i, sizeof(T));
#ifdef CHECK_RACES
        if (sizeof(T) > 8 && number >= 0 && bytes != ~0ull) note_vector(p + i, sizeof(T));
#endif
        return p[i];
    }
    T& operator*() const { return (*this)[0]; }
    Global operator+(ptrdiff_t i) const { return {p + i, data, bytes, number}; }
    Global operator-(ptrdiff_t i) const { return {p - i, data, bytes, number}; }
    Global& operator+=(ptrdiff_t i) { p += i; return *this; }
    explicit operator bool() const { return p; }
    template <class V> explicit operator V*() const {  // (const float4*)(x + i): a vector load
        check(p, sizeof(V));
        if ((uintptr_t)p % alignof(V)) fail(MISALIGNED, number, index(p));
        return (V*)p;
    }
};

template <class T> static Global<T> dynamic_shared() {
    return {(T*)block->shared, block->shared, block->launch->dynamic_shared, -1};
}

}  // namespace emulator

EXPORT uint64_t emulator_scratch_bytes() {
    return emulator::emulator_bytes();
}

#define threadIdx emulator::thread->index
#define blockIdx emulator::block->index
#define blockDim emulator::block->size
#define gridDim emulator::block->grid
constexpr int warpSize = 32;

// ------------------------------------------------------ CUDA's functions that the kernels use
inline void __syncthreads(int line = __builtin_LINE()) {
    ++emulator::block->at_barrier;
    emulator::suspend(emulator::AT_BARRIER, line);
}
inline void __syncwarp(unsigned mask = ~0u, int line = __builtin_LINE()) {
    emulator::warp_operation(mask, 0, emulator::linear() % 32, line);
}
template <class T> static T __shfl_sync(
    unsigned mask, T v, int source, int width = 32, int line = __builtin_LINE()
) {
    int lane = emulator::linear() % 32;
    return emulator::shuffle(mask, v, lane - lane % width + (source & (width - 1)), line);
}
template <class T> static T __shfl_down_sync(
    unsigned mask, T v, int delta, int width = 32, int line = __builtin_LINE()
) {
    int lane = emulator::linear() % 32;
    return emulator::shuffle(mask, v, lane % width + delta < width ? lane + delta : lane, line);
}
template <class T> static T __shfl_up_sync(
    unsigned mask, T v, int delta, int width = 32, int line = __builtin_LINE()
) {
    int lane = emulator::linear() % 32;
    return emulator::shuffle(mask, v, lane % width >= delta ? lane - delta : lane, line);
}
template <class T> static T __shfl_xor_sync(
    unsigned mask, T v, int bits, int width = 32, int line = __builtin_LINE()
) {
    int lane = emulator::linear() % 32, source = lane ^ bits;
    return emulator::shuffle(mask, v, source / width <= lane / width ? source : lane, line);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    emulator::warp_operation(mask, predicate != 0, emulator::linear() % 32, line);
    return emulator::thread->ballot;
}
inline int __any_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    return __ballot_sync(mask, predicate, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    return __ballot_sync(mask, predicate, line) == mask;
}
[[noreturn]] inline void __trap() { emulator::fail(emulator::TRAP, 0, 0); }
#define assert(condition) \
    ((condition) ? (void)0 : emulator::fail(emulator::ASSERTION, 0, 0, __LINE__))
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

// Returns the value from before the update.
template <class T, class F>
static __attribute__((no_sanitize("thread"))) T atomic_update(T* address, F update) {
    emulator::access(address, sizeof(T), true, true);
    constexpr int ORDER = __ATOMIC_SEQ_CST;
    T before, after;
    __atomic_load(address, &before, ORDER);
    do after = update(before);
    while (!__atomic_compare_exchange(address, &before, &after, false, ORDER, ORDER));
    return before;
}
template <class T, class V> static T atomicAdd(T* a, V v) {
    return atomic_update(a, [=](T x) { return (T)(x + v); });
}
template <class T, class V> static T atomicMax(T* a, V v) {
    return atomic_update(a, [=](T x) { return x > (T)v ? x : (T)v; });
}
template <class T, class V> static T atomicMin(T* a, V v) {
    return atomic_update(a, [=](T x) { return x < (T)v ? x : (T)v; });
}
template <class T, class V> static T atomicExch(T* a, V v) {
    return atomic_update(a, [=](T) { return (T)v; });
}
template <class T, class V> static T atomicCAS(T* a, V compare, V v) {
    return atomic_update(a, [=](T x) { return x == (T)compare ? (T)v : x; });
}
template <class T, class V> static T atomicAdd(emulator::Global<T> a, V v) {
    return atomicAdd(&a[0], v);
}
template <class T, class V> static T atomicMax(emulator::Global<T> a, V v) {
    return atomicMax(&a[0], v);
}
template <class T, class V> static T atomicMin(emulator::Global<T> a, V v) {
    return atomicMin(&a[0], v);
}

#define UNARY(name) \
    inline float name(float x) { return __builtin_##name##f(x); } \
    inline float name##f(float x) { return __builtin_##name##f(x); } \
    inline double name(double x) { return __builtin_##name(x); }
#define BINARY(name) \
    inline float name(float a, float b) { return __builtin_##name##f(a, b); } \
    inline float name##f(float a, float b) { return __builtin_##name##f(a, b); } \
    inline double name(double a, double b) { return __builtin_##name(a, b); }
UNARY(exp) UNARY(log) UNARY(log1p) UNARY(sqrt) UNARY(tanh) UNARY(sin) UNARY(cos)
UNARY(fabs) UNARY(floor) UNARY(ceil) UNARY(round)
BINARY(fmax) BINARY(fmin) BINARY(pow) BINARY(fmod)
#define MIN_MAX(type_a, type_b, type) \
    inline type max(type_a a, type_b b) { return (type)a > (type)b ? (type)a : (type)b; } \
    inline type min(type_a a, type_b b) { return (type)a < (type)b ? (type)a : (type)b; }
MIN_MAX(int, int, int) MIN_MAX(unsigned, unsigned, unsigned)
MIN_MAX(int, unsigned, unsigned) MIN_MAX(unsigned, int, unsigned)
MIN_MAX(long long, long long, long long)
MIN_MAX(float, float, float) MIN_MAX(double, double, double)
MIN_MAX(float, double, double) MIN_MAX(double, float, double)
#undef UNARY
#undef BINARY
#undef MIN_MAX
inline float rsqrt(float x) { return 1 / sqrt(x); }
inline float rsqrtf(float x) { return 1 / sqrt(x); }
inline double rsqrt(double x) { return 1 / sqrt(x); }
inline float __expf(float x) { return exp(x); }
inline int abs(int x) { return x < 0 ? -x : x; }
template <class T> bool isnan(T x) { return x != x; }
template <class T> bool isfinite(T x) { return x - x == 0; }
template <class T> T fma(T a, T b, T c) { return a * b + c; }
extern "C" int printf(const char*, ...);

// ---------------------------------------------------- handlers that the compiler's sanitizer calls
struct SourceLocation { const char* file; unsigned line, column; };
EXPORT void __ubsan_handle_out_of_bounds_abort(SourceLocation* at, uintptr_t index) {
    emulator::fail(emulator::ARRAY_INDEX, 0, (int64_t)index, at->line);
}
EXPORT void __ubsan_handle_divrem_overflow_abort(SourceLocation* at, uintptr_t, uintptr_t) {
    emulator::fail(emulator::DIVISION, 0, 0, at->line);
}
EXPORT void __ubsan_handle_type_mismatch_v1_abort(SourceLocation* at, uintptr_t) {
    emulator::fail(emulator::ARRAY_MISALIGNED, 0, 0, at->line);
}
