/* Parsing of pointwise rows. */
#include "kernels/pointwise/row.h"
#include "kernels/embedded.h"
#include "preload/base/log.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Rows parsed so far, by the operator's index; `wrong` stands for one that could not be. */
static struct {
    pthread_once_t once;
    _Atomic(pw_row *) *rows;
} parsed = {.once = PTHREAD_ONCE_INIT};
static pw_row wrong;

/* Takes the next word off a list; 0 at its end. */
static size_t next_word(const char **list, const char **word)
{
    *list += strspn(*list, " ");
    *word = *list;
    size_t n = strcspn(*list, " ");
    *list += n;
    return n;
}

static int param(const gems_op *op, const char *name, size_t n)
{
    for (int i = 0; i < op->nparams; i++)
        if (strlen(op->params[i].name) == n && memcmp(op->params[i].name, name, n) == 0)
            return i;
    return -1;
}

static bool wrong_name(const gems_op *op, const char *key, const char *word, size_t n)
{
    gems_log("%s: row's \"%s\" names '%.*s', which is not there", op->name, key, (int)n, word);
    return false;
}

/* A list of parameters as bits. */
static bool read_params(const gems_op *op, const char *key, uint32_t *bits)
{
    const char *list = gems_op_attr(op, key), *word;
    *bits = 0;
    for (size_t n; list && (n = next_word(&list, &word));) {
        int i = param(op, word, n);
        if (i < 0)
            return wrong_name(op, key, word, n);
        *bits |= 1u << i;
    }
    return true;
}

static uint16_t dtype_bits(const char *word, size_t n)
{
    static const char *const categories[] = {"bool", "int", "float"};
    uint16_t bits = 0;
    for (int d = 0; d < GEMS_DTYPE_COUNT; d++) {
        const char *category = categories[gems_dtypes[d].category], *name = gems_dtypes[d].name;
        if ((strlen(category) == n && memcmp(category, word, n) == 0) ||
            (strlen(name) == n && memcmp(name, word, n) == 0))
            bits |= (uint16_t)(1u << d);
    }
    return bits;
}

static bool read_dtypes(const gems_op *op, pw_row *row)
{
    const char *list = gems_op_attr(op, "dtypes"), *word;
    row->dtypes = list ? 0 : (uint16_t)-1;
    for (size_t n; list && (n = next_word(&list, &word));) {
        uint16_t bits = dtype_bits(word, n);
        if (!bits)
            return wrong_name(op, "dtypes", word, n);
        row->dtypes |= bits;
    }
    return true;
}

static bool read_promotion(const gems_op *op, pw_row *row)
{
    const char *list = gems_op_attr(op, "promote"), *word;
    row->kind = GEMS_PROMOTE_DEFAULT;
    row->without = -1;
    if (list) {
        size_t n = next_word(&list, &word);
        row->kind = (uint8_t)gems_promotion_find(word, n);
        if (row->kind == GEMS_PROMOTE_COUNT)
            return wrong_name(op, "promote", word, n);
        for (; (n = next_word(&list, &word));) {
            int i = param(op, word, n);
            if (i < 0)
                return wrong_name(op, "promote", word, n);
            row->promotes |= 1u << i;
        }
    }
    if (!row->promotes)
        row->promotes = row->tensors & ~row->masks;
    if ((list = gems_op_attr(op, "promote_without"))) {
        size_t n = next_word(&list, &word);
        row->without = (int8_t)param(op, word, n);
        if (row->without < 0)
            return wrong_name(op, "promote_without", word, n);
        n = next_word(&list, &word);
        row->kind_without = (uint8_t)gems_promotion_find(word, n);
        if (row->kind_without == GEMS_PROMOTE_COUNT)
            return wrong_name(op, "promote_without", word, n);
    }
    return true;
}

static bool read_out(const gems_op *op, pw_row *row)
{
    const char *list = gems_op_attr(op, "out");
    row->out_dtype = list ? gems_dtype_find(list) : GEMS_DTYPE_NONE;
    return row->out_dtype != GEMS_DTYPE_NONE || read_params(op, "out", &row->out_params);
}

static bool read_layout(const gems_op *op, pw_row *row)
{
    const char *list = gems_op_attr(op, "layout"), *word = "";
    size_t n = list ? next_word(&list, &word) : 0;
    const char *first = gems_op_attr(op, "order");
    row->first = first ? (int8_t)gems_op_param(op, first) : -1;
    row->layout = PW_ITERATOR;
    row->memory_format = -1;
    for (int i = 0; i < op->nparams; i++)
        if (op->params[i].type == GEMS_T_MEMFMT || op->params[i].type == GEMS_T_OPT_MEMFMT)
            row->memory_format = (int8_t)i;
    if (n == strlen("contiguous") && memcmp(word, "contiguous", n) == 0)
        row->layout = PW_CONTIGUOUS;
    else if (n == strlen("like") && memcmp(word, "like", n) == 0) {
        row->layout = PW_LIKE;
        n = next_word(&list, &word);
        row->like = (int8_t)param(op, word, n);
        if (row->like < 0)
            return wrong_name(op, "layout", word, n);
    } else if (n && !(n == strlen("iterator") && memcmp(word, "iterator", n) == 0))
        return wrong_name(op, "layout", word, n);
    return true;
}

static bool read_texts(const gems_op *op, pw_row *row)
{
    const char *list = gems_op_attr(op, "one_of"), *word;
    row->one_of = -1;
    if (list) {
        size_t n = next_word(&list, &word);
        row->one_of = (int8_t)param(op, word, n);
        row->texts = list;
        if (row->one_of < 0)
            return wrong_name(op, "one_of", word, n);
    }
    return true;
}

static bool read_expressions(const gems_op *op, pw_row *row)
{
    static const char *const keys[3] = {"expr_bool", "expr_int", "expr"};
    const gems_embedded_file *functions = gems_embedded_find("kernels/math.cl");
    const char *names[GEMS_MAX_ARGS];
    for (int i = 0; i < op->nparams; i++)
        names[i] = op->params[i].name;
    for (int c = GEMS_CAT_FLOAT; c >= GEMS_CAT_BOOL; c--) {
        const char *text = gems_op_attr(op, keys[c]);
        gems_expr_error error;
        if (!text && c < GEMS_CAT_FLOAT) {
            row->expr[c] = row->expr[GEMS_CAT_FLOAT];
            continue;
        }
        row->expr[c] =
            gems_expr_parse(text ? text : "", names, op->nparams, functions ? functions->text : NULL, &error);
        if (!row->expr[c]) {
            gems_log("%s: row's \"%s\": %s", op->name, keys[c], error.text);
            return false;
        }
        unsigned results = op->nresults ? op->nresults : 1;
        if (gems_expr_result_count(row->expr[c]) != results) {
            gems_log("%s: row's \"%s\" has %u results, the operator %u", op->name, keys[c],
                     gems_expr_result_count(row->expr[c]), results);
            return false;
        }
    }
    return true;
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
    if (read_params(op, "mask", &row->masks) && read_params(op, "same", &row->same) &&
        read_params(op, "zero_dim", &row->zero_dim) && read_params(op, "divisor", &row->divisor) &&
        read_params(op, "floating", &row->floating) && read_params(op, "exponent", &row->exponent) &&
        read_params(op, "nonzero", &row->nonzero) && read_params(op, "nonnegative", &row->nonnegative) &&
        read_params(op, "no_bool", &row->no_bool) && read_params(op, "strict", &row->strict) &&
        read_params(op, "unrounded", &row->unrounded) && read_dtypes(op, row) && read_promotion(op, row) &&
        read_out(op, row) && read_layout(op, row) && read_texts(op, row) && read_expressions(op, row))
        return row;
    free(row); /* its expressions stay: once a process, for a row that tests would have found */
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
    pw_row *row = atomic_load_explicit(&parsed.rows[op->index], memory_order_acquire);
    if (!row) {
        pw_row *expected = NULL;
        row = parse(op);
        row = row ? row : &wrong;
        if (!atomic_compare_exchange_strong(&parsed.rows[op->index], &expected, row))
            row = expected; /* another thread was first; its copy serves */
    }
    return row == &wrong ? NULL : row;
}
