/* Start-up: learns by real calls what a plain call looks like in this PyTorch. Runs once in a fresh thread, whose
 * dispatch state is the default one whatever the program has set in its own.
 *
 *   numel, key set   searched in the TensorImpl of tensors with known properties
 *   plain, below     key set and thread state seen by the redispatch of add on plain tensors
 *   adinplace        the extra bit seen by the first redispatch of an in-place add
 *   wrapped          the one flag bit that differs between a number wrapped by the host and a 0-dim tensor
 *
 * Whatever cannot be learnt beyond doubt leaves the operators with the host. */
#include "shim/torch.h"
#include "preload/base/log.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define IMPL_BYTES 184 /* of a TensorImpl that are searched: all that PyTorch 2.11 has */

struct sight { /* what the observed calls showed */
    uint64_t ks[8];
    struct torch_keys keys[8];
    int n;
    uint8_t wrapped[IMPL_BYTES]; /* TensorImpl of `other` */
    bool have_wrapped;
};

static __thread struct sight *watching;
static int add_op = -1, add_inplace_op = -1;
static void *(*add_scalar)(void *, const void *, const void *, const void *);

bool gems_torch_calibrating(void)
{
    return watching != NULL;
}

void gems_torch_observe(unsigned op, enum gems_entry entry, uint64_t ks, void **raw)
{
    struct sight *s = watching;
    if ((int)op == add_op && !s->have_wrapped) {
        memcpy(s->wrapped, host_impl(raw[1]), IMPL_BYTES);
        s->have_wrapped = true;
    }
    if (entry == GEMS_ENTRY_REDISPATCH && s->n < 8 && ((int)op == add_op || (int)op == add_inplace_op)) {
        s->ks[s->n] = ks;
        gems_torch_thread_keys(&s->keys[s->n]);
        s->n++;
    }
}

static host_tensor *make(int ndim, const int64_t *sizes, gems_dtype dtype, int32_t device)
{
    int64_t strides[5];
    int64_t step = 1;
    for (int d = ndim - 1; d >= 0; d--) {
        strides[d] = step;
        step *= sizes[d];
    }
    host_tensor *t = NULL;
    if (gems_torch.api.empty_strided(ndim, sizes, strides, gems_torch.dtype_code[dtype], device, -1, &t) != 0)
        return NULL;
    return t;
}

static void drop_tensor(host_tensor **t)
{
    if (*t)
        gems_torch.api.delete_tensor(*t);
    *t = NULL;
}

/* Drops the reference that a C++ function left in our result slot: move it into a handle of an undefined tensor, which
 * owns nothing itself, and delete that. */
static void drop_result(void **slot)
{
    host_tensor *h = NULL;
    void *undefined = gems_torch.api.undefined;
    if (*slot && gems_torch.api.new_handle((host_tensor *)&undefined, &h) == 0) {
        *(void **)h = *slot;
        gems_torch.api.delete_tensor(h);
    }
    *slot = NULL;
}

static const char *find_numel(void)
{
    static const int64_t sizes[3] = {7, 11, 13};
    host_tensor *t = make(3, sizes, GEMS_F32, gems_torch.cpu);
    if (!t)
        return "the host could not make a tensor";
    int hits = 0;
    for (int o = 8; o < IMPL_BYTES; o += 8)
        if (*(const int64_t *)((const char *)host_impl(t) + o) == 7 * 11 * 13) {
            gems_numel_offset = o;
            hits++;
        }
    drop_tensor(&t);
    return hits == 1 ? NULL
           : hits    ? "the place of numel in TensorImpl is not clear"
                     : "numel was not found in TensorImpl";
}

/* Where sizes stand that are few, and their number before them. */
static void find_sizes(void)
{
    static const int64_t sizes[5] = {7, 11, 13, 2, 3};
    host_tensor *t = make(5, sizes, GEMS_F32, gems_torch.cpu);
    int hits = 0;
    for (int o = 16; t && o + (int)sizeof sizes <= IMPL_BYTES; o += 8) {
        const char *at = (const char *)host_impl(t) + o;
        if (memcmp(at, sizes, sizeof sizes) == 0 && *(const int64_t *)(const void *)(at - 8) == 5) {
            gems_torch.sizes_offset = o;
            hits++;
        }
    }
    if (hits != 1)
        gems_torch.sizes_offset = 0;
    drop_tensor(&t);
}

int64_t gems_broadcast(const void *a, const void *b)
{
    const char *impl[2] = {host_impl(a), host_impl(b)};
    const int64_t *size[2];
    int64_t ndim[2], n = 1;
    if (!gems_torch.sizes_offset)
        return 0;
    for (int i = 0; i < 2; i++) {
        size[i] = (const int64_t *)(const void *)(impl[i] + gems_torch.sizes_offset);
        ndim[i] = size[i][-1];
        if (ndim[i] < 0 || ndim[i] > 5)
            return 0;
    }
    for (int64_t d = 1; d <= ndim[0] || d <= ndim[1]; d++) {
        int64_t x = d <= ndim[0] ? size[0][ndim[0] - d] : 1, y = d <= ndim[1] ? size[1][ndim[1] - d] : 1;
        if (__builtin_mul_overflow(n, x == 1 ? y : x, &n))
            return 0;
    }
    return n;
}

/* The word that has all bits of `plain` in CPU tensors of several dtypes and shapes, and not in a meta tensor. */
static bool find_keyset(void)
{
    static const int64_t a_sizes[2] = {3, 5}, b_sizes[1] = {17};
    host_tensor *a = make(2, a_sizes, GEMS_F32, gems_torch.cpu), *b = make(1, b_sizes, GEMS_I64, gems_torch.cpu);
    host_tensor *m = make(2, a_sizes, GEMS_F32, gems_torch.api.device_meta());
    int found = -1, hits = 0;
    for (int o = 8; a && b && m && o < IMPL_BYTES; o += 8) {
        uint64_t wa = *(uint64_t *)((char *)host_impl(a) + o), wb = *(uint64_t *)((char *)host_impl(b) + o);
        uint64_t wm = *(uint64_t *)((char *)host_impl(m) + o);
        if (wa == wb && (wa & gems_torch.plain) == gems_torch.plain && (wm & gems_torch.plain) != gems_torch.plain &&
            (wa & gems_torch.adinplace) && (wa & gems_torch.autograd)) {
            found = o;
            hits++;
            gems_torch.plain_tensor = wa;
        }
    }
    drop_tensor(&a);
    drop_tensor(&b);
    drop_tensor(&m);
    gems_torch.keyset_offset = found;
    return hits == 1;
}

/* Fills the small blocks that the allocator will hand out next, so that padding in a new TensorImpl holds known bits.
 */
static void poison(int byte)
{
    for (size_t size = 160; size <= 288; size += 16) {
        void *block[8];
        for (int i = 0; i < 8; i++)
            if ((block[i] = malloc(size)))
                memset(block[i], byte, size);
        for (int i = 0; i < 8; i++) {
            __asm__ volatile("" : : "r"(block[i]) : "memory"); /* the fill is not dead */
            free(block[i]);
        }
    }
}

/* The one bit that is set in every number that the host wraps and clear in every 0-dim tensor, whatever the memory held
 * before. Between numel and the key set stand only small plain fields (dtype, device, flags) and padding. */
static void find_wrapped(struct sight *s, const host_tensor *a)
{
    int first = (int)gems_numel_offset + 8, n = gems_torch.keyset_offset - first;
    uint8_t only_wrapped[24];
    if (n <= 0 || n > (int)sizeof only_wrapped)
        return;
    memset(only_wrapped, 0xff, sizeof only_wrapped);
    for (int round = 0; round < 8; round++) {
        struct gems_abi_scalar two = {.tag = round & 2 ? 1 : 0}, unit = {.tag = 1, .i = 1};
        if (two.tag)
            two.i = 2;
        else
            two.f = 2.25;
        void *result = NULL;
        s->have_wrapped = false;
        poison(round & 1 ? 0xff : 0);
        add_scalar(&result, a, &two, &unit);
        drop_result(&result);
        poison(round & 1 ? 0xff : 0);
        host_tensor *plain = make(0, NULL, two.tag ? GEMS_I64 : GEMS_F64, gems_torch.cpu);
        for (int i = 0; i < n && plain && s->have_wrapped; i++)
            only_wrapped[i] &= (uint8_t)(s->wrapped[first + i] & ~((const uint8_t *)host_impl(plain))[first + i]);
        if (!plain || !s->have_wrapped)
            return;
        drop_tensor(&plain);
    }
    int hits = 0;
    for (int i = 0; i < n; i++) {
        hits += __builtin_popcount(only_wrapped[i]);
        if (only_wrapped[i]) {
            gems_torch.wrapped_offset = first + i;
            gems_torch.wrapped_mask = only_wrapped[i];
        }
    }
    if (hits != 1)
        gems_torch.wrapped_mask = 0;
}

/* The bit that the host excludes while it ignores names of dimensions, as composites do around their parts. It says
 * nothing about plain tensors, which have no names. */
static uint64_t find_names(void)
{
    void (*enable_names)(bool);
    struct torch_keys before, without;
    *(void **)&enable_names = dlsym(gems_torch.handle, "_ZN2at9NamesMode11set_enabledEb");
    if (!enable_names || !gems_torch_thread_keys(&before))
        return 0;
    enable_names(false);
    gems_torch_thread_keys(&without);
    enable_names(true);
    return before.excluded ^ without.excluded;
}

static const char *calibrate(struct sight *s)
{
    struct torch *h = &gems_torch;
    const char *why = find_numel();
    if (why)
        return why;

    static const int64_t one[1] = {2};
    host_tensor *a = make(1, one, GEMS_F32, h->cpu), *b = make(1, one, GEMS_F32, h->cpu);
    float *pa = NULL, *pb = NULL;
    void *result = NULL;
    struct gems_abi_scalar alpha = {.tag = 1, .i = 3};
    why = "the host could not make tensors";
    if (!a || !b || h->api.get_data_ptr(a, (void **)&pa) || h->api.get_data_ptr(b, (void **)&pb))
        goto out;
    pa[0] = 1.5f, pa[1] = 2.5f, pb[0] = 10.0f, pb[1] = 20.0f;

    typedef void *(*add_fn)(void *, const void *, const void *, const void *);
    typedef void *(*add_inplace_fn)(void *, const void *, const void *);

    /* A functional add: its redispatch shows the plain key set; its value shows that scalars are laid out as we think.
     */
    s->have_wrapped = true;
    ((add_fn)gems_slots[add_op].original[GEMS_ENTRY_CALL])(&result, a, b, &alpha);
    float *pr = NULL;
    why = "a real add could not be understood";
    if (!result || h->api.get_data_ptr((host_tensor *)&result, (void **)&pr) || pr[0] != 31.5f || pr[1] != 62.5f)
        goto out;
    why = "a real add did not come back through our redispatch (linked with -Bsymbolic?)";
    if (s->n != 1)
        goto out;
    h->plain = s->ks[0];
    h->below = s->keys[0];
    drop_result(&result);

    /* An in-place add: once above ADInplaceOrView, once below. */
    ((add_inplace_fn)gems_slots[add_inplace_op].original[GEMS_ENTRY_CALL])(a, b, &alpha);
    why = "a real add_ was not dispatched as expected";
    if (pa[0] != 31.5f || s->n != 3 || s->ks[2] != h->plain || memcmp(&s->keys[2], &h->below, sizeof h->below) != 0 ||
        (s->ks[1] & h->plain) != h->plain)
        goto out;
    h->adinplace = s->ks[1] & ~h->plain;
    h->autograd = h->below.excluded & ~h->adinplace;
    why = "the bits of autograd were not found";
    if (!h->adinplace || !h->autograd || (h->below.excluded & h->adinplace) != h->adinplace)
        goto out;
    h->names = find_names();
    why = "the key set was not found in TensorImpl";
    find_sizes();
    if (!find_keyset())
        goto out;
    why = "the flag of wrapped numbers was not found";
    if (add_scalar)
        find_wrapped(s, a);
    if (h->wrapped_mask)
        why = NULL;
out:
    drop_result(&result);
    drop_tensor(&a);
    drop_tensor(&b);
    return why;
}

static void *calibration_thread(void *unused)
{
    (void)unused;
    static struct sight sight; /* static: the wait below may give up */
    watching = &sight;
    const char *why = calibrate(&sight);
    watching = NULL;
    return (void *)why;
}

void gems_torch_calibrate(void)
{
    const gems_op *add = gems_op_find("add.Tensor"), *add_ = gems_op_find("add_.Tensor");
    if (!add || !add_ || !gems_slots[add->index].original[GEMS_ENTRY_CALL] ||
        !gems_slots[add_->index].original[GEMS_ENTRY_CALL]) {
        gems_torch.why = "this PyTorch has no add.Tensor that we know";
        return;
    }
    add_op = add->index;
    add_inplace_op = add_->index;
    /* The host wraps this one's number itself and then calls add.Tensor. */
    *(void **)&add_scalar = dlsym(gems_torch.handle, "_ZN2at4_ops10add_Scalar4callERKNS_6TensorERKN3c106ScalarES8_");
    pthread_t thread;
    if (pthread_create(&thread, NULL, calibration_thread, NULL) != 0) {
        gems_torch.why = "no thread for calibration";
        return;
    }
    /* A bound: a host that makes its first call while it holds the dynamic linker's lock must not hang on us. */
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 10;
    void *why = NULL;
    if (pthread_timedjoin_np(thread, &why, &until) != 0) {
        pthread_detach(thread);
        why = "calibration did not end";
    }
    gems_torch.why = why;
    gems_torch.ready = !why;
}
