/* Rows of shim/ops.json, turned into bits and indices. They were checked when the library was built
 * (shim/gen/fields.c): nothing is checked here. */
#include "kernels/pointwise/row.h"
#include "preload/base/text.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Rows made so far, by the operator's index. */
static struct {
    pthread_once_t once;
    _Atomic(pw_row *) *rows;
} parsed = {.once = PTHREAD_ONCE_INIT};

enum {
    WORD = 64
};

static bool next_word(const char **list, char word[WORD])
{
    return gems_word_copy(list, " ", word, WORD);
}

/* The parameters that a list names, as bits. */
static uint32_t params(const gems_op *op, const char *list)
{
    uint32_t bits = 0;
    char word[WORD];
    while (next_word(&list, word))
        bits |= 1u << gems_op_param(op, word);
    return bits;
}

static uint32_t named(const gems_op *op, const char *key)
{
    return params(op, gems_op_attr(op, key));
}

static uint16_t dtypes(const char *list)
{
    static const char *const categories[] = {"bool", "int", "float"};
    uint16_t bits = list ? 0 : (uint16_t)-1;
    char word[WORD];
    while (next_word(&list, word))
        for (int d = 0; d < GEMS_DTYPE_COUNT; d++)
            if (strcmp(categories[gems_dtypes[d].category], word) == 0 || strcmp(gems_dtypes[d].name, word) == 0)
                bits |= (uint16_t)(1u << d);
    return bits;
}

static void read_promotion(const gems_op *op, pw_row *row)
{
    const char *list = gems_op_attr(op, "promote");
    char word[WORD];
    row->kind = GEMS_PROMOTE_DEFAULT;
    row->without = -1;
    if (next_word(&list, word)) {
        row->kind = (uint8_t)gems_promotion_find(word, strlen(word));
        row->promotes = params(op, list);
    }
    if (!row->promotes)
        row->promotes = row->tensors & ~row->masks;
    list = gems_op_attr(op, "promote_without");
    if (next_word(&list, word)) {
        row->without = (int8_t)gems_op_param(op, word);
        next_word(&list, word);
        row->kind_without = (uint8_t)gems_promotion_find(word, strlen(word));
    }
}

static void read_out(const gems_op *op, pw_row *row)
{
    const char *list = gems_op_attr(op, "out");
    row->out_dtype = list ? gems_dtype_find(list) : GEMS_DTYPE_NONE;
    if (row->out_dtype == GEMS_DTYPE_NONE)
        row->out_params = params(op, list);
}

static void read_layout(const gems_op *op, pw_row *row)
{
    static const struct {
        const char *word;
        pw_layout layout;
    } layouts[] = {
        {"contiguous", PW_CONTIGUOUS}, {"like", PW_LIKE}, {"integers_like", PW_INTEGERS_LIKE}, {"twice", PW_TWICE}};
    const char *list = gems_op_attr(op, "layout"), *first = gems_op_attr(op, "order");
    char word[WORD] = "iterator";
    row->first = first ? (int8_t)gems_op_param(op, first) : -1;
    row->memory_format = -1;
    for (int i = 0; i < op->nparams; i++)
        if (op->params[i].type == GEMS_T_MEMFMT || op->params[i].type == GEMS_T_OPT_MEMFMT)
            row->memory_format = (int8_t)i;
    next_word(&list, word);
    row->layout = PW_ITERATOR;
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++)
        if (strcmp(word, layouts[i].word) == 0)
            row->layout = (uint8_t)layouts[i].layout;
    if (row->layout >= PW_LIKE && next_word(&list, word))
        row->like = (int8_t)gems_op_param(op, word);
}

static void read_texts(const gems_op *op, pw_row *row)
{
    char word[WORD];
    row->texts = gems_op_attr(op, "one_of");
    row->one_of = next_word(&row->texts, word) ? (int8_t)gems_op_param(op, word) : -1;
}

/* False only if memory ran out. */
static bool read_expressions(const gems_op *op, pw_row *row)
{
    static const char *const keys[3] = {"expr_bool", "expr_int", "expr"};
    const char *names[GEMS_MAX_ARGS];
    for (int i = 0; i < op->nparams; i++)
        names[i] = op->params[i].name;
    for (int c = GEMS_CAT_FLOAT; c >= GEMS_CAT_BOOL; c--) {
        const char *text = gems_op_attr(op, keys[c]);
        gems_expr_error error;
        row->expr[c] = text ? gems_expr_parse(text, names, op->nparams, NULL, &error) : row->expr[GEMS_CAT_FLOAT];
        if (!row->expr[c])
            return false;
    }
    return true;
}

static void free_row(pw_row *row)
{
    for (int c = GEMS_CAT_FLOAT; row && c >= GEMS_CAT_BOOL; c--)
        if (c == GEMS_CAT_FLOAT || row->expr[c] != row->expr[GEMS_CAT_FLOAT])
            gems_expr_free(row->expr[c]);
    free(row);
}

static pw_row *parse(const gems_op *op)
{
    pw_row *row = calloc(1, sizeof *row);
    if (!row)
        return NULL;
    for (int i = 0; i < op->nparams; i++) {
        const gems_param *p = &op->params[i];
        bool is_result = p->written && (op->form == GEMS_OUT || i == 0);
        if (is_result)
            row->results |= 1u << i;
        if ((p->type == GEMS_T_TENSOR || p->type == GEMS_T_OPT_TENSOR) && !(is_result && op->form == GEMS_OUT))
            row->tensors |= 1u << i;
    }
    row->copies = gems_op_attr(op, "copies") != NULL;
    row->exact = gems_op_attr(op, "exact") != NULL;
    row->same_strides = gems_op_attr(op, "same_strides") != NULL;
    row->dtypes = dtypes(gems_op_attr(op, "dtypes"));
    row->masks = named(op, "mask");
    row->same = named(op, "same");
    row->zero_dim = named(op, "zero_dim");
    row->divisor = named(op, "divisor");
    row->floating = named(op, "floating");
    row->exponent = named(op, "exponent");
    row->nonzero = named(op, "nonzero");
    row->nonnegative = named(op, "nonnegative");
    row->no_bool = named(op, "no_bool");
    row->strict = named(op, "strict");
    row->unrounded = named(op, "unrounded");
    row->negated = named(op, "negated");
    read_promotion(op, row);
    read_out(op, row);
    read_layout(op, row);
    read_texts(op, row);
    if (read_expressions(op, row))
        return row;
    free_row(row);
    return NULL;
}

static void make_rows(void)
{
    parsed.rows = calloc(gems_op_count, sizeof *parsed.rows);
}

const pw_row *pw_row_get(const gems_op *op)
{
    pthread_once(&parsed.once, make_rows);
    if (!parsed.rows)
        return NULL;
    pw_row *row = atomic_load_explicit(&parsed.rows[op->index], memory_order_acquire), *first = NULL;
    if (!row && (row = parse(op)) && !atomic_compare_exchange_strong(&parsed.rows[op->index], &first, row)) {
        free_row(row);
        row = first; /* another thread's */
    }
    return row;
}
