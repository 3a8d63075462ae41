/* The compiled table. For each operator the rules that may apply stand in one list, highest layer first, so a lookup is
 * a walk over a few ranges. Where that list is long, decisions are remembered by operator, dtype and sizes. */
#include "tune/rule.h"
#include "kernels/family.h"
#include "preload/base/hash.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
    MEMO_SLOTS = 2048,    /* a power of two; 96 bytes each */
    MEMO_FROM_RULES = 12, /* below this, walking is as fast as remembering */
    KEY_WORDS = 1 + GEMS_SIZE_COUNT
};

/* One remembered decision, guarded by a sequence number: odd while it is written. Readers never wait. */
typedef struct memo {
    _Atomic uint64_t sequence;
    _Atomic uint64_t key[KEY_WORDS];
    _Atomic uintptr_t rule;
} memo;

typedef struct rule_list {
    const gems_rule **rules;
    unsigned count;
    int64_t min_numel;
} rule_list;

struct gems_table {
    gems_layer layer;
    rule_list *ops;          /* one an operator */
    const gems_rule **rules; /* what those lists point into */
    memo *memos;             /* NULL if no list is long */
    int64_t chain_least;     /* KiB */
};

/* ---- how small a call may be ---- */

static int64_t saturating_product(int64_t a, int64_t b)
{
    int64_t product;
    return __builtin_mul_overflow(a, b, &product) ? INT64_MAX : product;
}

/* Product of the rule's lower bounds on these sizes, 1 for those without. */
static int64_t low_product(const gems_rule *rule, uint32_t sizes)
{
    int64_t product = 1;
    for (int i = 0; i < rule->nranges; i++)
        if (sizes >> rule->range[i].size & 1)
            product = saturating_product(product, rule->range[i].low);
    return product;
}

/* The gate sees the elements of a call's largest operand. Where named sizes are bounded by that (no list of tensors, at
 * least one tensor for certain, a family that does not grow), a rule's lower bounds give one on it: numel and inner are
 * the count of an operand, and so are rows * cols, and for products batch * m * k and k * n; the bytes are those of at
 * most 8 for each element of every operand and result. A result that is larger than all operands, by broadcasting, is
 * not thought of: such calls stay with the host while their operands are small. */
static bool operand_bounds_sizes(const gems_op *op)
{
    bool tensor = false;
    for (int i = 0; i < op->nparams; i++) {
        if (op->params[i].type == GEMS_T_TENSORS || op->params[i].type == GEMS_T_ITENSORS ||
            op->params[i].type == GEMS_T_OPT_TENSORS)
            return false;
        tensor |= op->params[i].type == GEMS_T_TENSOR && !op->params[i].written;
        tensor |= op->params[i].type == GEMS_T_TENSOR && op->form == GEMS_INPLACE;
    }
    return tensor && !op->kernel->grows;
}

static int64_t place_least = INT64_MAX;

void gems_table_set_place(int64_t least)
{
    place_least = least;
}

static int64_t least_place(const gems_rule *rule)
{
    int64_t least = GEMS_OPERANDS_TRAVEL;
    for (int i = 0; i < rule->nranges; i++)
        if (rule->range[i].size == GEMS_SIZE_PLACE)
            least = rule->range[i].low;
    return least;
}

static int64_t rule_min_numel(const gems_op *op, const gems_rule *rule)
{
    int64_t place = least_place(rule);
    if (place == GEMS_OPERANDS_ON_DEVICE || (place == GEMS_OPERANDS_TO_STAY && place_least == INT64_MAX))
        return place_least;
    if (!operand_bounds_sizes(op))
        return INT64_MIN + 1;
    const uint32_t single[] = {
        1u << GEMS_SIZE_NUMEL, 1u << GEMS_SIZE_INNER, 1u << GEMS_SIZE_ROWS | 1u << GEMS_SIZE_COLS,
        1u << GEMS_SIZE_BATCH | 1u << GEMS_SIZE_M | 1u << GEMS_SIZE_K, 1u << GEMS_SIZE_K | 1u << GEMS_SIZE_N};
    int64_t least = low_product(rule, 1u << GEMS_SIZE_BYTES) / (8 * (op->nparams + op->nresults));
    for (size_t i = 0; i < sizeof single / sizeof *single; i++) {
        /* A bound of 0 takes in empty tensors, which have none; without any bound they are taken in as well. */
        int64_t low = low_product(rule, single[i]);
        if (low > 1 && low > least)
            least = low;
    }
    return least;
}

static int64_t list_min_numel(const gems_op *op, const rule_list *list)
{
    int64_t least = INT64_MAX;
    if (!op->kernel)
        return least;
    for (unsigned i = 0; i < list->count; i++) {
        const gems_rule *rule = list->rules[i];
        if (rule->chain)
            continue;
        if (rule->host && rule->dtypes == UINT16_MAX && rule->nranges == 0)
            break; /* nothing below it is ever asked */
        int64_t numel = rule->host ? INT64_MAX : rule_min_numel(op, rule);
        if (numel < least)
            least = numel;
    }
    return least;
}

/* ---- compiling ---- */

/* Counts each rule in the lists of its operators; `place`: puts it there as well. */
static void list_rules(gems_table *table, bool place)
{
    for (size_t i = 0; i < table->layer.count; i++) {
        const gems_rule *rule = &table->layer.rules[i];
        for (unsigned word = 0; word <= gems_op_count / 64; word++)
            for (uint64_t bits = rule->ops->bits[word]; bits; bits &= bits - 1) {
                rule_list *list = &table->ops[word * 64 + (unsigned)__builtin_ctzll(bits)];
                if (place)
                    list->rules[list->count] = rule;
                list->count++;
            }
    }
}

static void find_chain_least(gems_table *table, const gems_table *below)
{
    table->chain_least = below ? below->chain_least : INT64_MAX;
    for (size_t i = 0; i < table->layer.count; i++) {
        int64_t kb =
            gems_rule_param(&table->layer.rules[i], gems_chain_parameters[GEMS_CHAIN_LEAST_KB].name, INT64_MAX);
        table->chain_least = kb < table->chain_least ? kb : table->chain_least;
    }
}

static bool build_lists(gems_table *table, const gems_table *below)
{
    table->ops = calloc(gems_op_count + 1, sizeof *table->ops);
    if (!table->ops)
        return false;
    list_rules(table, false);
    size_t total = 0;
    for (unsigned op = 0; op < gems_op_count; op++)
        total += table->ops[op].count + (below ? below->ops[op].count : 0);
    const gems_rule **next = table->rules = calloc(total + 1, sizeof *table->rules);
    if (!next)
        return false;
    for (unsigned op = 0; op < gems_op_count; op++) {
        rule_list *list = &table->ops[op];
        list->rules = next;
        next += list->count + (below ? below->ops[op].count : 0);
        list->count = 0;
    }
    list_rules(table, true);
    bool long_list = false;
    for (unsigned op = 0; op < gems_op_count; op++) {
        rule_list *list = &table->ops[op];
        for (unsigned i = 0; below && i < below->ops[op].count; i++)
            list->rules[list->count++] = below->ops[op].rules[i];
        list->min_numel = list_min_numel(&gems_ops[op], list);
        long_list |= list->count >= MEMO_FROM_RULES;
    }
    table->memos = long_list ? calloc(MEMO_SLOTS, sizeof *table->memos) : NULL;
    return !long_list || table->memos;
}

gems_table *gems_table_compile_for(const char *name, const char *json, const char *vendor, const char *device,
                                   const gems_table *below, gems_table_error *error)
{
    gems_table *table = calloc(1, sizeof *table);
    gems_table_error ignored = {""};
    error = error ? error : &ignored;
    if (table && !gems_layer_load(&table->layer, name, json, vendor, device, error)) {
        free(table);
        return NULL;
    }
    if (table)
        find_chain_least(table, below);
    if (!table || !build_lists(table, below)) {
        strcpy(error->text, "out of memory");
        gems_table_free(table);
        return NULL;
    }
    return table;
}

gems_table *gems_table_compile(const char *name, const char *json, const gems_table *below, gems_table_error *error)
{
    return gems_table_compile_for(name, json, NULL, NULL, below, error);
}

void gems_table_free(gems_table *table)
{
    if (!table)
        return;
    gems_layer_free(&table->layer);
    free(table->ops);
    free(table->rules);
    free(table->memos);
    free(table);
}

/* ---- lookup ---- */

static bool matches(const gems_rule *rule, gems_dtype dtype, const gems_sizes *sizes)
{
    if (!(rule->dtypes >> dtype & 1))
        return false;
    for (int i = 0; i < rule->nranges; i++) {
        int64_t size = sizes->v[rule->range[i].size];
        if (size < rule->range[i].low || size > rule->range[i].high) /* low >= 0: an unfilled size never matches */
            return false;
    }
    return true;
}

static const gems_rule *walk(const rule_list *list, bool chain, gems_dtype dtype, const gems_sizes *sizes)
{
    for (unsigned i = 0; i < list->count; i++)
        if (list->rules[i]->chain == chain && matches(list->rules[i], dtype, sizes))
            return list->rules[i];
    return NULL;
}

static void make_key(uint64_t key[KEY_WORDS], const gems_op *op, bool chain, gems_dtype dtype, const gems_sizes *sizes)
{
    /* Never 0, the empty slot's. */
    key[0] = (uint64_t)op->index << 8 | (uint64_t)dtype | UINT64_C(1) << (chain ? 62 : 63);
    memcpy(key + 1, sizes->v, sizeof sizes->v);
}

static memo *find_slot(const gems_table *table, const uint64_t key[KEY_WORDS])
{
    return &table->memos[gems_hash_words(key, KEY_WORDS) >> 40 & (MEMO_SLOTS - 1)];
}

static bool recall(memo *m, const uint64_t key[KEY_WORDS], const gems_rule **rule)
{
    uint64_t before = atomic_load_explicit(&m->sequence, memory_order_acquire);
    if (before & 1)
        return false;
    for (int i = 0; i < KEY_WORDS; i++)
        if (atomic_load_explicit(&m->key[i], memory_order_acquire) != key[i])
            return false;
    *rule = (const gems_rule *)atomic_load_explicit(&m->rule, memory_order_acquire);
    return atomic_load_explicit(&m->sequence, memory_order_relaxed) == before;
}

static void remember(memo *m, const uint64_t key[KEY_WORDS], const gems_rule *rule)
{
    uint64_t before = atomic_load_explicit(&m->sequence, memory_order_relaxed);
    if (before & 1 || !atomic_compare_exchange_strong(&m->sequence, &before, before + 1))
        return; /* another thread is writing this slot: it is only a memory */
    /* Released one by one: who sees any of it also sees the odd number. (No fence: ThreadSanitizer knows none.) */
    for (int i = 0; i < KEY_WORDS; i++)
        atomic_store_explicit(&m->key[i], key[i], memory_order_release);
    atomic_store_explicit(&m->rule, (uintptr_t)rule, memory_order_release);
    atomic_store_explicit(&m->sequence, before + 2, memory_order_release);
}

static const gems_rule *look_up(const gems_table *table, const gems_op *op, bool chain, gems_dtype dtype,
                                const gems_sizes *sizes)
{
    if (!table || dtype >= GEMS_DTYPE_COUNT)
        return NULL;
    const rule_list *list = &table->ops[op->index];
    if (list->count < MEMO_FROM_RULES)
        return walk(list, chain, dtype, sizes);
    uint64_t key[KEY_WORDS];
    make_key(key, op, chain, dtype, sizes);
    memo *m = find_slot(table, key);
    const gems_rule *rule;
    if (!recall(m, key, &rule)) {
        rule = walk(list, chain, dtype, sizes);
        remember(m, key, rule);
    }
    return rule;
}

const gems_rule *gems_table_lookup(const gems_table *table, const gems_op *op, gems_dtype dtype,
                                   const gems_sizes *sizes)
{
    return look_up(table, op, false, dtype, sizes);
}

const gems_rule *gems_table_chain(const gems_table *table, const gems_op *op, gems_dtype dtype, const gems_sizes *sizes)
{
    return look_up(table, op, true, dtype, sizes);
}

int64_t gems_table_chain_least(const gems_table *table)
{
    return table ? table->chain_least : INT64_MAX;
}

int64_t gems_table_min_numel(const gems_table *table, const gems_op *op)
{
    return table ? table->ops[op->index].min_numel : INT64_MAX;
}

unsigned gems_table_rules(const gems_table *table, const gems_op *op, const gems_rule *const **rules)
{
    if (!table)
        return 0;
    *rules = (const gems_rule *const *)table->ops[op->index].rules;
    return table->ops[op->index].count;
}

/* ---- rules ---- */

bool gems_rule_is_host(const gems_rule *rule)
{
    return rule && rule->host;
}

const char *gems_rule_variant(const gems_rule *rule)
{
    return rule ? rule->variant : "";
}

int64_t gems_rule_param(const gems_rule *rule, const char *name, int64_t fallback)
{
    for (int i = 0; rule && i < rule->nparams; i++)
        if (strcmp(rule->param[i].name, name) == 0)
            return rule->param[i].value;
    return fallback;
}

const char *gems_rule_origin(const gems_rule *rule)
{
    return rule ? rule->origin : "";
}
