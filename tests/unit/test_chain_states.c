/* Every state that the blocks and groups of a few tensors can be in, and every event in each: a model that is the code
 * itself. From each state that is new, each event is tried on a replay of the shortest way there; afterwards all memory
 * must hold what the same calls give one by one. Passes can be held in the middle, while other events come.
 *
 * Two states are the same if groups, steps, leaves, blocks, places, pins and what the program holds are. */
#include "codegen/host_math.h"
#include "tests/unit/chain_jobs.h"
#include "kernels/device/cl.h"
#include "preload/base/hash.h"

#include <criterion/criterion.h>

TestSuite(chain_states, .timeout = 300);

enum {
    DEPTH = 8,
    KNOWN = 1 << 18,
    PATIENCE = 400 /* microseconds: an event that takes longer waits for the pass that is held */
};
#define SECONDS 8.0 /* that each test goes on; what is left then is left out */

/* ---- a pass that is held ---- */

static gems_host_math math;
static gems_host_loop *times[2][3]; /* of i32, u32 */
static __thread bool is_passer;
static atomic_bool held, opened;
static _Atomic double event_began; /* 0: none is going on */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void hold_pass(void)
{
    if (!is_passer || opened)
        return;
    held = true;
    while (!opened) {
        double began = event_began;
        if (began > 0 && now() - began > PATIENCE * 1e-6)
            opened = true;
        usleep(20);
    }
    held = false;
}

#define HOLDING(type, i)                                                                                               \
    static void times_##type##_##i(void *to, const void *a, const void *b, const void *c, size_t n)                    \
    {                                                                                                                  \
        hold_pass();                                                                                                   \
        times[type][i](to, a, b, c, n);                                                                                \
    }
HOLDING(0, 0)
HOLDING(0, 1)
HOLDING(0, 2)
HOLDING(1, 0)
HOLDING(1, 1)
HOLDING(1, 2)

static void wrap_math(void)
{
    static gems_host_loop *const wrapped[2][3] = {{times_0_0, times_0_1, times_0_2}, {times_1_0, times_1_1, times_1_2}};
    static const gems_host_type types[] = {GEMS_HOST_I32, GEMS_HOST_U32};
    math = gems_host_math_any;
    for (int t = 0; t < 2; t++)
        for (int k = 0; k < 3; k++) {
            times[t][k] = math.binary[GEMS_HOST_MUL][types[t]][k];
            if (times[t][k])
                math.binary[GEMS_HOST_MUL][types[t]][k] = wrapped[t][k];
        }
    gems_pw_evaluate_with(&math);
}

/* ---- the world ---- */

enum {
    ROWS = 4,
    COLS = 6
};

static struct {
    node *x, *turned;     /* and x, seen transposed */
    node *r[2], *half[2]; /* results, and the first rows of them; NULL: nobody holds one */
    int pins_read, pins_write, pins_result;
    pthread_t passer;
    int passes; /* 0: none, 1: of r[0], 2: of r[1] */
    atomic_bool passed;
} w;

static void new_x(void)
{
    w.x = node_new(GEMS_I32, SHAPE(ROWS, COLS));
    for (int i = 0; i < ROWS * COLS; i++)
        ((int32_t *)w.x->store->memory)[i] = ((int32_t *)w.x->store->twin)[i] = 2 * (i * 77 % 100) + 3;
    w.turned = node_view(w.x, 0, SHAPE(COLS, ROWS), (int64_t[]){1, COLS});
}

static void drop_x(void)
{
    node_free(w.turned);
    node_free(w.x);
    w.x = w.turned = NULL;
}

static void drop_result(int i)
{
    if (!w.r[i])
        return;
    node_free(w.half[i]);
    node_free(w.r[i]);
    w.r[i] = w.half[i] = NULL;
}

static void set_result(int i, node *made)
{
    drop_result(i);
    w.r[i] = made;
    w.half[i] = made ? node_view(made, 0, SHAPE(2, made->sizes[1]), NULL) : NULL;
}

static void *pass(void *which)
{
    is_passer = true;
    gems_chain_settle(((node *)which)->store->memory, 1, false, GEMS_CAUSE_OPERATOR);
    w.passed = true;
    return NULL;
}

static void join_passer(void)
{
    if (!w.passes)
        return;
    opened = true;
    pthread_join(w.passer, NULL);
    w.passes = 0;
}

static void start_pass(int i)
{
    opened = held = w.passed = false;
    event_began = 0;
    w.passes = i + 1;
    pthread_create(&w.passer, NULL, pass, w.r[i]);
    while (!held && !w.passed)
        usleep(10);
    if (w.passed)
        join_passer();
}

static void touch(const node *x, bool write)
{
    volatile int32_t *p = (int32_t *)x->store->memory;
    if (p[1] != ((int32_t *)x->store->twin)[1])
        failed("element 1 is %d, not %d", p[1], ((int32_t *)x->store->twin)[1]);
    if (write)
        p[2] = ((int32_t *)x->store->twin)[2] += 2;
}

static void pin(const node *x, bool write, int *pins)
{
    if (*pins)
        gems_chain_unpin(x->store->memory, x->store->bytes);
    *pins = !*pins && gems_chain_pin(x->store->memory, x->store->bytes, write);
}

enum event {
    SQUARE,       /* r0 = x * x */
    PRODUCT,      /* r1 = r0 * x */
    OTHER_SHAPE,  /* r1 of x transposed: another group */
    WRITE_X,      /* x *= r0 */
    WRITE_TURNED, /* in another view */
    WRITE_HALF,   /* of r0 */
    READ_HALF,    /* r1 of it */
    TOUCH_X,
    STORE_X,
    TOUCH_R,
    STORE_R,
    FREE_X,
    FREE_R0,
    FREE_R1,
    PIN_READ, /* or unpin */
    PIN_WRITE,
    PIN_R,
    PASS_R0,
    PASS_R1,
    PASS_ENDS,
    EVENTS
};
static const char *const names[EVENTS] = {
    "r0 = x*x", "r1 = r0*x",      "r1 = ~xT", "x *= r0",    "~xT in place", "~r0[:2] in place", "r1 = ~r0[:2]",
    "read x",   "store x",        "read r0",  "store r0",   "free x",       "free r0",          "free r1",
    "pin x",    "pin x to write", "pin r0",   "pass of r0", "pass of r1",   "pass ends"};

/* False: the program may not do that now. */
static bool is_possible(enum event e)
{
    bool r0 = w.r[0], pinned = w.pins_read || w.pins_write, r1_fits = w.passes != 2;
    switch (e) {
    case SQUARE:
        return w.passes != 1 && !w.pins_result;
    case PRODUCT:
    case READ_HALF:
        return r0 && r1_fits;
    case OTHER_SHAPE:
        return r1_fits;
    case WRITE_X:
    case TOUCH_R:
    case PIN_R:
    case WRITE_HALF:
    case STORE_R:
        return r0;
    case FREE_X:
        return !pinned;
    case FREE_R0:
        return r0 && w.passes != 1 && !w.pins_result;
    case FREE_R1:
        return w.r[1] && r1_fits;
    case PASS_R0:
        return r0 && !w.passes && is_owed(w.r[0]);
    case PASS_R1:
        return w.r[1] && !w.passes && is_owed(w.r[1]);
    case PASS_ENDS:
        return w.passes;
    default:
        return true;
    }
}

static void happen(enum event e)
{
    switch (e) {
    case SQUARE:
        set_result(0, apply("mul.Tensor", T(w.x), T(w.x)));
        break;
    case PRODUCT:
        set_result(1, apply("mul.Tensor", T(w.r[0]), T(w.x)));
        break;
    case OTHER_SHAPE:
        set_result(1, apply("bitwise_not", T(w.turned)));
        break;
    case WRITE_X:
        apply("mul_.Tensor", T(w.x), T(w.r[0]));
        break;
    case WRITE_TURNED:
        apply("bitwise_not_", T(w.turned));
        break;
    case WRITE_HALF:
        apply("bitwise_not_", T(w.half[0]));
        break;
    case READ_HALF:
        set_result(1, apply("bitwise_not", T(w.half[0])));
        break;
    case TOUCH_X:
    case STORE_X:
        touch(w.x, e == STORE_X);
        break;
    case TOUCH_R:
    case STORE_R:
        touch(w.r[0], e == STORE_R);
        break;
    case FREE_X:
        drop_x();
        new_x();
        break;
    case FREE_R0:
    case FREE_R1:
        drop_result(e - FREE_R0);
        break;
    case PIN_READ:
        pin(w.x, false, &w.pins_read);
        break;
    case PIN_WRITE:
        pin(w.x, true, &w.pins_write);
        break;
    case PIN_R:
        pin(w.r[0], true, &w.pins_result);
        break;
    case PASS_R0:
    case PASS_R1:
        start_pass(e - PASS_R0);
        break;
    default:
        join_passer();
    }
}

static void do_event(enum event e)
{
    if (w.passes && e != PASS_ENDS) {
        event_began = now();
        happen(e);
        event_began = 0;
        if (opened)
            join_passer();
    } else {
        happen(e);
    }
}

/* ---- fingerprints ---- */

static uint64_t mix(uint64_t h, uint64_t v)
{
    return gems_hash_long(h, &v, sizeof v);
}

/* Blocks are told apart by when they were met. */
static struct {
    const gems_block *block[64];
    unsigned n;
} met;

static unsigned number_of(const gems_block *block)
{
    for (unsigned i = 0; i < met.n; i++)
        if (met.block[i] == block)
            return i;
    met.block[met.n] = block;
    return met.n++;
}

static uint64_t mix_view(uint64_t h, const chain_view *v, const chain_block *b)
{
    h = mix(h, v->address - (uintptr_t)(b ? b->block->address : NULL));
    return gems_hash_long(h, v->stride, sizeof v->stride);
}

static uint64_t mix_group(uint64_t h, const chain_group *g)
{
    h = mix(h, (uint64_t)g->nsteps << 32 | g->nleaves << 8 | g->running);
    h = gems_hash_long(h, g->shape.size, (size_t)g->shape.ndim * sizeof *g->shape.size);
    for (unsigned i = 0; i < g->nleaves; i++)
        h = mix_view(mix(h, number_of(g->leaf[i].block->block)), &g->leaf[i].view, g->leaf[i].block);
    for (unsigned s = 0; s < g->nsteps; s++) {
        const chain_step *step = &g->step[s];
        uint32_t needed = gems_expr_needs(step->pw.expr, step->pw.facts);
        h = mix(h, (uintptr_t)step->pw.expr);
        for (unsigned k = 0; k < GEMS_EXPR_NAMES; k++)
            if (needed >> k & 1)
                h = mix(h, (uint64_t)step->pw.bind[k].step << 8 | step->pw.bind[k].index);
        h = mix(h, step->block[0] ? number_of(step->block[0]->block) : 99);
        if (step->block[0])
            h = mix_view(h, &step->view[0], step->block[0]);
    }
    return h;
}

static unsigned group_number(const chain_group *g)
{
    unsigned n = 1;
    for (const chain_group *k = gems_chains.groups; k && k != g; k = k->next)
        n++;
    return g ? n : 0;
}

static uint64_t mix_block(uint64_t h, const gems_block *block)
{
    const chain_block *b = gems_chain_block_of(block);
    h = mix(h, (uint64_t)block->place << 8 | block->taken);
    if (!b)
        return h;
    h = mix(h, (uint64_t)group_number(b->writer) << 32 | b->pins << 16 | b->nreaders << 8 | b->given);
    for (unsigned i = 0; i < b->nreaders; i++)
        h = mix(h, group_number(b->reader[i]));
    return b->writer ? mix_view(h, &b->view, b) : h;
}

static uint64_t fingerprint(void)
{
    pthread_mutex_lock(&gems_chains.lock);
    met.n = 0;
    uint64_t h = mix((uint64_t)w.passes, (uint64_t)(w.pins_read | w.pins_write << 1 | w.pins_result << 2));
    number_of(block_of(w.x));
    for (int i = 0; i < 2; i++) {
        h = mix(h, w.r[i] ? (uint64_t)w.r[i]->sizes[0] : 0);
        if (w.r[i])
            number_of(block_of(w.r[i]));
    }
    for (const chain_group *g = gems_chains.groups; g; g = g->next)
        h = mix_group(h, g);
    for (const chain_block *b = gems_chains.blocks; b; b = b->next)
        number_of(b->block);
    for (unsigned i = 0; i < met.n; i++)
        h = mix_block(h, met.block[i]);
    pthread_mutex_unlock(&gems_chains.lock);
    return h;
}

/* ---- exploring ---- */

typedef struct way {
    uint8_t n, event[DEPTH];
} way;

static struct {
    way way[KNOWN]; /* to states, nearest first */
    uint64_t seen[2 * KNOWN];
    unsigned n;
} states;

static bool is_new(uint64_t h)
{
    h |= !h;
    for (size_t i = h % (2 * KNOWN);; i = (i + 1) % (2 * KNOWN)) {
        if (states.seen[i] == h)
            return false;
        if (!states.seen[i]) {
            states.seen[i] = h;
            return true;
        }
    }
}

static void end_world(void)
{
    join_passer();
    for (; w.pins_read; w.pins_read = 0)
        gems_chain_unpin(w.x->store->memory, w.x->store->bytes);
    for (; w.pins_write; w.pins_write = 0)
        gems_chain_unpin(w.x->store->memory, w.x->store->bytes);
    for (; w.pins_result; w.pins_result = 0)
        gems_chain_unpin(w.r[0]->store->memory, w.r[0]->store->bytes);
    chain_same(w.x);
    for (int i = 0; i < 2; i++)
        if (w.r[i])
            chain_same(w.r[i]);
    drop_result(1);
    drop_x();
    drop_result(0);
    if (!chain_is_empty())
        failed("something is left");
}

/* Goes a way from the start. False: its last event is not possible there. The state's fingerprint, after all. */
static bool replay(const way *to, uint64_t *state)
{
    bool possible = true;
    new_x();
    for (unsigned i = 0; i < to->n && possible; i++) {
        possible = is_possible(to->event[i]);
        if (possible)
            do_event(to->event[i]);
    }
    if (possible)
        *state = fingerprint();
    end_world();
    return possible;
}

static void set_up(void)
{
    cr_assert(gems_device_open(), "%s", gems_device_error());
    cr_assert(gems_chain_start(GEMS_FUSE_ALL, GEMS_STAY_OFF));
    cr_assert(freopen("/dev/null", "w", stderr)); /* what is said of the device's failures */
    gems_cl_fault_set(-1);
    wrap_math();
}

/* Says what went wrong since; false if it is too much. */
static bool is_right(long wrong_before, const uint8_t *event, unsigned n)
{
    if (trial_failures == wrong_before)
        return true;
    char text[1000] = "";
    for (unsigned i = 0; i < n; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), " %s;", names[event[i]]);
    cr_expect_fail("after%s", text);
    return trial_failures < 10;
}

#define BIT(event) (1u << (event))

/* least: so far from the start at least. */
static void explore(uint32_t events, unsigned least)
{
    set_up();
    double began = now();
    way start = {0};
    uint64_t state = 0;
    replay(&start, &state);
    cr_assert(is_new(state));
    states.way[states.n++] = start;
    unsigned replays = 0, whole = 0, done = 0;
    for (; done < states.n && states.way[done].n < DEPTH && now() - began < SECONDS; done++) {
        whole = states.way[done].n;
        for (unsigned e = 0; e < EVENTS; e++) {
            way to = states.way[done];
            to.event[to.n++] = (uint8_t)e;
            long wrong = trial_failures;
            if (!(events >> e & 1) || !replay(&to, &state))
                continue;
            replays++;
            if (!is_right(wrong, to.event, to.n))
                return;
            if (is_new(state) && states.n < KNOWN)
                states.way[states.n++] = to;
        }
    }
    if (done == states.n || states.way[done].n == DEPTH)
        whole = DEPTH;
    printf("%u states; all ways of %u events; %u replays, %.1f s\n", states.n, whole, replays, now() - began);
    cr_expect_geq(whole, least);
}

Test(chain_states, calls_and_touches)
{
    explore(BIT(SQUARE) | BIT(PRODUCT) | BIT(OTHER_SHAPE) | BIT(WRITE_X) | BIT(WRITE_TURNED) | BIT(TOUCH_X) |
                BIT(STORE_X) | BIT(TOUCH_R) | BIT(FREE_X) | BIT(FREE_R0),
            4);
}

Test(chain_states, views_of_results)
{
    explore(BIT(SQUARE) | BIT(PRODUCT) | BIT(WRITE_HALF) | BIT(READ_HALF) | BIT(TOUCH_R) | BIT(STORE_R) | BIT(FREE_R0) |
                BIT(FREE_R1) | BIT(WRITE_X),
            4);
}

Test(chain_states, pins)
{
    explore(BIT(SQUARE) | BIT(OTHER_SHAPE) | BIT(WRITE_X) | BIT(STORE_X) | BIT(TOUCH_R) | BIT(FREE_R0) | BIT(PIN_READ) |
                BIT(PIN_WRITE) | BIT(PIN_R),
            4);
}

Test(chain_states, passes)
{
    explore(BIT(SQUARE) | BIT(PRODUCT) | BIT(OTHER_SHAPE) | BIT(WRITE_X) | BIT(STORE_X) | BIT(FREE_X) | BIT(FREE_R0) |
                BIT(FREE_R1) | BIT(PASS_R0) | BIT(PASS_R1) | BIT(PASS_ENDS),
            4);
}

/* All events, longer ways, at random. */
Test(chain_states, walks)
{
    enum {
        STEPS = 40
    };
    set_up();
    double began = now();
    unsigned seed = 1, events = 0;
    while (now() - began < SECONDS) {
        uint8_t event[STEPS];
        long wrong = trial_failures;
        new_x();
        for (unsigned i = 0; i < STEPS; i++) {
            do
                event[i] = (uint8_t)((unsigned)rand_r(&seed) % EVENTS);
            while (!is_possible(event[i]));
            do_event(event[i]);
        }
        events += STEPS;
        end_world();
        if (!is_right(wrong, event, STEPS))
            return;
    }
    cr_expect_gt(events, 1000);
    printf("%u events\n", events);
}
