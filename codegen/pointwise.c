/* Writer of pointwise kernels. */
#include "codegen/pointwise.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- pieces ----------------------------------------------------------------------------------------------------- */

/* Type of an element as the kernel's pointers have it: f16 is handled as bits. */
static const char *memory_type(unsigned dtype)
{
    return dtype == GEMS_F16 ? "ushort" : gems_dtypes[dtype].cl;
}

static const char *compute_type(unsigned dtype)
{
    return gems_dtypes[dtype].compute;
}

static bool in_memory(const gems_pw_operand *o)
{
    return o->place != GEMS_PW_VALUE;
}

/* Whether the kernel is given its memory, and, of a nest of loops, its strides. */
static bool is_parameter(const gems_pw_spec *spec, unsigned i)
{
    return in_memory(&spec->operand[i]) && (spec->loop != GEMS_PW_PRODUCE || i > 0);
}

static bool has_table(const gems_pw_operand *o)
{
    return in_memory(o) && o->stride == GEMS_PW_TABLE;
}

static bool is_read(const gems_pw_operand *o)
{
    return o->place == GEMS_PW_READ || o->place == GEMS_PW_UPDATE;
}

bool gems_pw_holds(unsigned to, unsigned from)
{
    const gems_dtype_info *t = &gems_dtypes[to], *f = &gems_dtypes[from];
    if (to == from)
        return true;
    if (to == GEMS_BOOL || t->category < f->category)
        return false;
    if (t->category == GEMS_CAT_FLOAT) /* f16 and bf16 are the narrow ones: they hold 8 bits, and not each other */
        return t->size > 2 || f->category == GEMS_CAT_BOOL || (f->category == GEMS_CAT_INT && f->size == 1);
    return t->category > f->category || t->size >= f->size;
}

/* `value`, which came as dtype `from`, as dtype `to`. */
static void write_converted(gems_code *out, const char *value, unsigned from, unsigned to)
{
    if (from == to)
        gems_code_add(out, "%s", value);
    else if (gems_pw_holds(to, from))
        gems_code_add(out, "(%s)%s", compute_type(to), value);
    else
        gems_code_add(out, "gems_get_%s(gems_put_%s(%s))", gems_dtypes[to].name, gems_dtypes[to].name, value);
}

/* Where the body finds elements: p0[...] in memory, or arrays a0[k] of a vector's elements. See write_loop: quick, with
 * what it overwrites kept in k0[...]; again, with that taken from there. */
typedef struct place {
    const char *indent;
    bool vector, quick, again;
} place;

/* Rows of a tile are one word, or one element, longer than its edge: so a column lies in as many banks of
 * local memory. */
static unsigned tile_pitch(const gems_pw_spec *spec, const gems_pw_operand *o)
{
    const unsigned size = gems_dtypes[o->dtype].size;
    return spec->vec + (size < 4 ? 4 / size : 1);
}

static void write_index(const gems_pw_spec *spec, unsigned i, gems_code *out)
{
    const gems_pw_operand *o = &spec->operand[i];
    if (spec->loop == GEMS_PW_RUN || spec->loop == GEMS_PW_VEC)
        gems_code_add(out, "p%u[%s]", i, o->stride == GEMS_PW_BROADCAST ? "0" : "i");
    else if (spec->loop == GEMS_PW_GRID)
        gems_code_add(out, spec->vec && o->stride == GEMS_PW_UNIT ? "p%u[o%u + i]" : "p%u[o%u]", i, i);
    else if (spec->loop == GEMS_PW_TILE && o->stride == GEMS_PW_TURNED)
        gems_code_add(out, "l%u[x * %u + r + y]", i, tile_pitch(spec, o));
    else if (spec->loop == GEMS_PW_TILE)
        gems_code_add(out, "p%u[o%u + e0 * t%u.s0 + e1 * t%u.s1]", i, i, i, i);
    else
        gems_code_add(out,
                      o->stride == GEMS_PW_BROADCAST ? "p%u[o%u]"
                      : o->stride == GEMS_PW_UNIT    ? "p%u[o%u + i]"
                      : o->stride == GEMS_PW_TABLE   ? "p%u[o%u + f%u.at[i]]"
                                                     : "p%u[o%u + i * t%u.s0]",
                      i, i, i);
}

/* One element: loads, the steps, stores. */
static bool write_body(const gems_pw_spec *spec, place at, gems_code *out)
{
    char names[GEMS_EXPR_NAMES][24], value[64];
    const char *variables[GEMS_EXPR_NAMES];
    for (unsigned i = 0; i < spec->noperands; i++) {
        const gems_pw_operand *o = &spec->operand[i];
        if (!is_read(o))
            continue;
        if (at.quick && o->place == GEMS_PW_UPDATE) {
            gems_code_add(out, "%sk%u[i - from] = ", at.indent, i);
            write_index(spec, i, out);
            gems_code_add(out, ";\n");
        }
        gems_code_add(out, "%sconst %s x%u = gems_get_%s(", at.indent, compute_type(o->dtype), i,
                      gems_dtypes[o->dtype].name);
        if (at.vector && o->stride == GEMS_PW_UNIT)
            gems_code_add(out, "a%u[k]", i);
        else if ((at.quick || at.again) && o->place == GEMS_PW_UPDATE)
            gems_code_add(out, "k%u[i - from]", i);
        else
            write_index(spec, i, out);
        gems_code_add(out, ");\n");
    }
    for (unsigned s = 0; s < spec->nsteps; s++) {
        const gems_pw_step *step = &spec->step[s];
        const gems_expr *expr = step->expr;
        uint32_t needed = gems_expr_needs(expr, step->facts), whole = 0; /* names whose values are of the dtype */
        for (unsigned k = 0; k < GEMS_EXPR_NAMES && k < gems_expr_name_count(expr); k++) {
            const gems_pw_bind *b = &step->bind[k];
            variables[k] = names[k];
            if (!(needed >> k & 1))
                continue;
            if (b->step > s || (b->step == 0 && b->index >= spec->noperands))
                return false;
            unsigned from = b->step ? spec->step[b->step - 1].result[b->index] : spec->operand[b->index].dtype;
            if (b->step == 0 && !in_memory(&spec->operand[b->index])) {
                snprintf(names[k], sizeof names[k], "c%u", b->index);
                whole |= (uint32_t)(b->held && b->dtype == step->compute) << k;
                continue;
            }
            whole |= (uint32_t)(b->dtype == step->compute) << k;
            if (b->step)
                snprintf(value, sizeof value, "y%u_%u", b->step - 1, b->index);
            else
                snprintf(value, sizeof value, "x%u", b->index);
            if (from == b->dtype) {
                snprintf(names[k], sizeof names[k], "%.20s", value);
                continue;
            }
            snprintf(names[k], sizeof names[k], "s%u_v%u", s, k);
            gems_code_add(out, "%sconst %s %s = ", at.indent, compute_type(b->dtype), names[k]);
            write_converted(out, value, from, b->dtype);
            gems_code_add(out, ";\n");
        }
        char prefix[12];
        snprintf(prefix, sizeof prefix, "s%u_", s);
        gems_expr_style style = {.variables = variables,
                                 .prefix = prefix,
                                 .type = compute_type(step->compute),
                                 .float_suffix = strcmp(compute_type(step->compute), "double") ? "f" : "",
                                 .dtype = gems_dtypes[step->compute].name,
                                 .indent = at.indent,
                                 .quotient = gems_dtypes[step->compute].size == 2 &&
                                                     gems_dtypes[step->compute].category == GEMS_CAT_FLOAT
                                                 ? "GEMS_HALF_QUOTIENT"
                                                 : NULL,
                                 .facts = step->facts,
                                 .odd = at.quick ? "&odd" : NULL};
        gems_expr_write(expr, &style, out);
        for (unsigned r = 0; r < step->nresults; r++) {
            const char *d = gems_dtypes[step->result[r]].name;
            /* What is of the dtype anyway is not rounded to it. */
            bool exact = step->result[r] == step->compute && gems_dtypes[step->compute].size == 2 &&
                         gems_dtypes[step->compute].category == GEMS_CAT_FLOAT &&
                         gems_expr_only_picks(expr, step->facts, r, whole);
            if (step->store[r] != GEMS_PW_UNSTORED) {
                gems_code_add(out, "%s", at.indent);
                unsigned o = step->store[r];
                if (at.vector)
                    gems_code_add(out, "b%u[k]", o);
                else
                    write_index(spec, o, out);
                const char *stored = gems_dtypes[spec->operand[o].dtype].name;
                /* A given result of another dtype holds what one of the operator's own dtype would have held. */
                bool direct = step->result[r] == step->compute && gems_dtypes[step->compute].size != 2;
                if (exact && strcmp(stored, "bf16") == 0)
                    gems_code_add(out, " = gems_exact_bf16(s%u_r%u);\n", s, r);
                else if (strcmp(d, stored) == 0 || direct || exact)
                    gems_code_add(out, " = gems_put_%s(s%u_r%u);\n", stored, s, r);
                else
                    gems_code_add(out, " = gems_put_%s(gems_get_%s(gems_put_%s(s%u_r%u)));\n", stored, d, d, s, r);
            }
            if (s + 1 < spec->nsteps && exact)
                gems_code_add(out, "%sconst %s y%u_%u = s%u_r%u;\n", at.indent, compute_type(step->result[r]), s, r, s,
                              r);
            else if (s + 1 < spec->nsteps) /* later steps see it as the host's tensor would hold it */
                gems_code_add(out, "%sconst %s y%u_%u = gems_get_%s(gems_put_%s(s%u_r%u));\n", at.indent,
                              compute_type(step->result[r]), s, r, d, d, s, r);
        }
    }
    return true;
}

/* ---- loop nests -------------------------------------------------------------------------------------------------- */

/* How the operands and the nest of loops are passed. */
typedef enum passing {
    TO_KERNEL,  /* parameters of a kernel */
    TO_PRODUCE, /* of the function that it calls */
    AS_NAMES    /* the arguments for that */
} passing;

static const char *constness(const gems_pw_operand *o)
{
    return o->place == GEMS_PW_READ ? "const " : "";
}

static void write_passed(passing how, const char *type, char letter, unsigned i, gems_code *out)
{
    if (how != AS_NAMES)
        gems_code_add(out, "const %s ", type);
    gems_code_add(out, "%c%u, ", letter, i);
}

/* A comma stands after each. */
static void write_list(const gems_pw_spec *spec, passing how, gems_code *out)
{
    const char *nest = spec->wide ? "long8" : "int8";
    for (unsigned i = 0; i < spec->noperands; i++) {
        const char *fixed = constness(&spec->operand[i]), *type = memory_type(spec->operand[i].dtype);
        if (!is_parameter(spec, i))
            continue;
        if (how == TO_KERNEL)
            gems_code_add(out, "GEMS_BUFFER(%s%s, p%u), ", fixed, type, i);
        else if (how == TO_PRODUCE)
            gems_code_add(out, "%s__global %s *p%u, ", fixed, type, i);
        else
            gems_code_add(out, "p%u, ", i);
    }
    for (unsigned i = 0; i < spec->noperands; i++)
        if (!in_memory(&spec->operand[i]))
            write_passed(how, compute_type(spec->operand[i].dtype), 'c', i, out);
    if (spec->loop == GEMS_PW_RUN || spec->loop == GEMS_PW_VEC)
        return;
    if (how != AS_NAMES)
        gems_code_add(out, "const %s ", nest);
    gems_code_add(out, "sizes, ");
    for (unsigned i = 0; i < spec->noperands; i++)
        if (is_parameter(spec, i))
            write_passed(how, nest, 't', i, out);
    for (unsigned i = 0; i < spec->noperands; i++)
        if (has_table(&spec->operand[i]))
            write_passed(how, "gems_table", 'f', i, out);
}

static void write_pointers(const gems_pw_spec *spec, const char *indent, const char *end, gems_code *out)
{
    for (unsigned i = 0; i < spec->noperands; i++)
        if (is_parameter(spec, i))
            gems_code_add(out, "%sGEMS_AT(%s%s, p%u);%s", indent, constness(&spec->operand[i]),
                          memory_type(spec->operand[i].dtype), i, end);
}

static void write_parameters(const gems_pw_spec *spec, const char *name, gems_code *out)
{
    const char *size = spec->wide ? "long" : "int";
    gems_code_add(out, "__kernel %svoid %s(\n    ",
                  spec->loop == GEMS_PW_RUN || spec->loop == GEMS_PW_ROWS
                      ? "__attribute__((reqd_work_group_size(1, 1, 1))) "
                  : spec->loop == GEMS_PW_TILE ? "__attribute__((reqd_work_group_size(256, 1, 1))) "
                                               : "",
                  name);
    write_list(spec, TO_KERNEL, out);
    if (spec->loop == GEMS_PW_RUN)
        gems_code_add(out, "const long n, const long run)\n{\n");
    else if (spec->loop == GEMS_PW_VEC)
        gems_code_add(out, "const long n)\n{\n");
    else if (spec->loop == GEMS_PW_ROWS)
        gems_code_add(out, "const %s rows, const %s run, const %s chunks, const %s deep)\n{\n", size, size, size, size);
    else
        gems_code_add(out, "const %s %s)\n{\n", size, spec->loop == GEMS_PW_TILE ? "tiles" : "n");
    write_pointers(spec, "    ", "\n", out);
}

/* Splits `left` into the indices of dimensions `first` to rank - 1 and adds up each operand's offset o<i>. */
static void write_offsets(const gems_pw_spec *spec, unsigned first, const char *indent, gems_code *out)
{
    const char *size = spec->wide ? "long" : "int";
    for (unsigned i = 0; i < spec->noperands; i++)
        if (is_parameter(spec, i))
            gems_code_add(out, "%s%s o%u = 0;\n", indent, size, i);
    for (unsigned d = first; d < spec->rank; d++) {
        if (d + 1 < spec->rank) {
            gems_code_add(out, "%sconst %s q%u = left / sizes.s%u, k%u = left - q%u * sizes.s%u;\n", indent, size, d, d,
                          d, d, d);
            gems_code_add(out, "%sleft = q%u;\n", indent, d);
        } else
            gems_code_add(out, "%sconst %s k%u = left;\n", indent, size, d);
        for (unsigned i = 0; i < spec->noperands; i++)
            if (is_parameter(spec, i))
                gems_code_add(out, "%so%u += k%u * t%u.s%u;\n", indent, i, d, i, d);
    }
}

/* Bytes of an element of this dtype while it is worked on: f16 and bf16 are floats then. */
static unsigned working_size(unsigned dtype)
{
    unsigned size = gems_dtypes[dtype].size;
    return size < 4 && gems_dtypes[dtype].category == GEMS_CAT_FLOAT ? 4 : size;
}

static bool has_quick(const gems_pw_spec *spec)
{
    bool has = false;
    for (unsigned s = 0; s < spec->nsteps; s++)
        has |= gems_expr_has_quick(spec->step[s].expr, spec->step[s].facts, compute_type(spec->step[s].compute));
    return has;
}

#define PIECE 512 /* elements; see write_loop */

/* What makes every CPU driver turn the loop that follows into vector code, PoCL 5 does not try on its own: as many
 * elements at a time as fill 64 bytes, a register of AVX-512 or several smaller ones. Of long runs several such
 * vectors, fewer in long kernels: that keeps constants in registers (a masked load of one that nothing else touches, a
 * 1 for what is true, takes 250 cycles where no element is) and the processor from waiting for results. Rows may be
 * short. */
static void write_vectorize(const gems_pw_spec *spec, const char *indent, gems_code *out)
{
    unsigned widest = 1;
    for (unsigned s = 0; s < spec->nsteps; s++)
        if (widest < working_size(spec->step[s].compute))
            widest = working_size(spec->step[s].compute);
    for (unsigned i = 0; i < spec->noperands; i++)
        if (widest < working_size(spec->operand[i].dtype))
            widest = working_size(spec->operand[i].dtype);
    gems_code_add(out, "#pragma clang loop vectorize_width(%u) interleave_count(%d)\n%s", 64 / widest,
                  spec->loop != GEMS_PW_RUN               ? 1
                  : spec->nsteps <= 2 && !has_quick(spec) ? 4
                                                          : 2,
                  indent);
}

/* A CPU's loop from `begin` to `end`. Functions that have a long way for unusual arguments are no vector code: there
 * the loop goes over pieces, each with the quick functions, and again with the long ones if an argument in it was
 * unusual. Both give the same bits where both apply: else an element's value would depend on its neighbours. */
static bool write_loop(const gems_pw_spec *spec, const char *size, const char *indent, gems_code *out)
{
    char inner[24], body[28];
    if (!has_quick(spec)) {
        snprintf(body, sizeof body, "%s    ", indent);
        write_vectorize(spec, indent, out);
        gems_code_add(out, "for (%s i = begin; i < end; i++) {\n", size);
        bool ok = write_body(spec, (place){.indent = body}, out);
        gems_code_add(out, "%s}\n", indent);
        return ok;
    }
    snprintf(inner, sizeof inner, "%s    ", indent);
    snprintf(body, sizeof body, "%s        ", indent);
    for (unsigned i = 0; i < spec->noperands; i++)
        if (spec->operand[i].place == GEMS_PW_UPDATE)
            gems_code_add(out, "%s%s k%u[%d];\n", indent, memory_type(spec->operand[i].dtype), i, PIECE);
    gems_code_add(out, "%sfor (%s from = begin, to; from < end; from = to) {\n", indent, size);
    gems_code_add(out, "%sto = end - from < %d ? end : from + %d;\n%sint odd = 0;\n", inner, PIECE, PIECE, inner);
    write_vectorize(spec, inner, out);
    gems_code_add(out, "for (%s i = from; i < to; i++) {\n", size);
    bool ok = write_body(spec, (place){.indent = body, .quick = true}, out);
    gems_code_add(out, "%s}\n%sfor (%s i = odd ? from : to; i < to; i++) {\n", inner, inner, size);
    ok = write_body(spec, (place){.indent = body, .again = true}, out) && ok;
    gems_code_add(out, "%s}\n%s}\n", inner, indent);
    return ok;
}

static bool write_run(const gems_pw_spec *spec, gems_code *out)
{
    gems_code_add(out, "    GEMS_ALL_REGISTERS\n");
    gems_code_add(out, "    const long begin = (long)get_global_id(0) * run, end = min(n, begin + run);\n");
    return write_loop(spec, "long", "    ", out);
}

static bool write_rows(const gems_pw_spec *spec, gems_code *out)
{
    const char *size = spec->wide ? "long" : "int";
    gems_code_add(out, "    GEMS_ALL_REGISTERS\n");
    gems_code_add(out, "    const %s item = (%s)get_global_id(0), block = item / chunks;\n", size, size);
    gems_code_add(out, "    const %s begin = (item - block * chunks) * run, end = min(sizes.s0, begin + run);\n", size);
    gems_code_add(out, "    const %s first = block * deep, last = min(rows, first + deep);\n", size);
    gems_code_add(out, "    for (%s row = first; row < last; row++) {\n", size);
    gems_code_add(out, "        %s left = row;\n", size);
    write_offsets(spec, 1, "        ", out);
    bool ok = write_loop(spec, size, "        ", out);
    gems_code_add(out, "    }\n");
    return ok;
}

static bool write_grid(const gems_pw_spec *spec, gems_code *out)
{
    const char *size = spec->wide ? "long" : "int";
    gems_code_add(out, "    for (long item = get_global_id(0); item < n; item += get_global_size(0)) {\n");
    gems_code_add(out, "        %s left = (%s)item;\n", size, size);
    write_offsets(spec, 0, "        ", out);
    bool ok = write_body(spec, (place){.indent = "        "}, out);
    gems_code_add(out, "    }\n");
    return ok;
}

/* Neighbouring items take neighbours along dimension 1 while operands that are turned are read, along dimension 0
 * afterwards. */
static bool write_tile(const gems_pw_spec *spec, gems_code *out)
{
    const char *size = spec->wide ? "long" : "int";
    const unsigned edge = spec->vec, step = 256 / edge;
    for (unsigned i = 0; i < spec->noperands; i++)
        if (spec->operand[i].stride == GEMS_PW_TURNED)
            gems_code_add(out, "    __local %s l%u[%u];\n", memory_type(spec->operand[i].dtype), i,
                          edge * tile_pitch(spec, &spec->operand[i]));
    gems_code_add(out, "    const int x = (int)get_local_id(0) %% %u, y = (int)get_local_id(0) / %u;\n", edge, edge);
    gems_code_add(out, "    %s left = (%s)get_group_id(0);\n    if (left >= tiles)\n        return;\n", size, size);
    gems_code_add(out, "    const %s across = (sizes.s0 + %u) / %u, down = (sizes.s1 + %u) / %u;\n", size, edge - 1,
                  edge, edge - 1, edge);
    gems_code_add(out, "    const %s b0 = left %% across * %u, b1 = left / across %% down * %u;\n", size, edge, edge);
    gems_code_add(out, "    left = left / across / down;\n");
    write_offsets(spec, 2, "    ", out);
    gems_code_add(out, "    #pragma unroll\n    for (int r = 0; r < %u; r += %u) {\n", edge, step);
    gems_code_add(out, "        const %s e0 = b0 + r + y, e1 = b1 + x;\n", size);
    gems_code_add(out, "        if (e0 < sizes.s0 && e1 < sizes.s1) {\n");
    for (unsigned i = 0; i < spec->noperands; i++)
        if (spec->operand[i].stride == GEMS_PW_TURNED)
            gems_code_add(out, "            l%u[(r + y) * %u + x] = p%u[o%u + e0 * t%u.s0 + e1];\n", i,
                          tile_pitch(spec, &spec->operand[i]), i, i, i);
    gems_code_add(out, "        }\n    }\n    barrier(CLK_LOCAL_MEM_FENCE);\n");
    gems_code_add(out, "    #pragma unroll\n    for (int r = 0; r < %u; r += %u) {\n", edge, step);
    gems_code_add(out, "        const %s e0 = b0 + x, e1 = b1 + r + y;\n", size);
    gems_code_add(out, "        if (e0 < sizes.s0 && e1 < sizes.s1) {\n");
    bool ok = write_body(spec, (place){.indent = "            "}, out);
    gems_code_add(out, "        }\n    }\n");
    return ok;
}

static void write_aligned(const gems_pw_spec *spec, gems_code *out)
{
    gems_code_add(out, "    const bool aligned = true");
    for (unsigned i = 0; i < spec->noperands; i++)
        if (in_memory(&spec->operand[i]) && spec->operand[i].stride == GEMS_PW_UNIT)
            gems_code_add(out, " && ((ulong)p%u & %uu) == 0", i,
                          spec->vec * gems_dtypes[spec->operand[i].dtype].size - 1);
    gems_code_add(out, ";\n");
}

/* Of an operand whose stride is UNIT: where a vector begins. */
static void write_start(const gems_pw_spec *spec, unsigned i, gems_code *out)
{
    if (spec->rank)
        gems_code_add(out, "p%u + o%u", i, i);
    else
        gems_code_add(out, "p%u + i", i);
}

/* The type that is loaded and stored for a vector of this type: of 32-bit words, since compilers take vectors of
 * shorter ones apart. */
static const char *words_of(const gems_pw_spec *spec, const gems_pw_operand *o, char type[16])
{
    const unsigned bytes = spec->vec * gems_dtypes[o->dtype].size;
    snprintf(type, 16, "%s%u", memory_type(o->dtype), spec->vec);
    return bytes == 16 ? "uint4" : bytes == 8 ? "uint2" : type;
}

/* The elements of a vector: loads, the body for each, stores. Arrays whose indices are all constants become registers.
 */
static bool write_vector(const gems_pw_spec *spec, gems_code *out)
{
    const unsigned v = spec->vec;
    char vector[16];
    for (unsigned i = 0; i < spec->noperands; i++) {
        const gems_pw_operand *o = &spec->operand[i];
        const char *type = memory_type(o->dtype), *words = words_of(spec, o, vector);
        if (is_read(o) && o->stride == GEMS_PW_UNIT) {
            gems_code_add(out, "            const %s v%u = as_%s(%s(*(const __global %s *)(", vector, i, vector,
                          words == vector ? "" : "gems_words", words);
            write_start(spec, i, out);
            gems_code_add(out, ")));\n            const %s a%u[%u] = {", type, i, v);
            for (unsigned k = 0; k < v; k++)
                gems_code_add(out, "%sv%u.s%x", k ? ", " : "", i, k);
            gems_code_add(out, "};\n");
        }
        if (in_memory(o) && o->place != GEMS_PW_READ)
            gems_code_add(out, "            %s b%u[%u];\n", type, i, v);
    }
    gems_code_add(out, "            #pragma unroll\n            for (int k = 0; k < %u; k++) {\n", v);
    bool ok = write_body(spec, (place){.indent = "                ", .vector = true}, out);
    gems_code_add(out, "            }\n");
    for (unsigned i = 0; i < spec->noperands; i++) {
        const gems_pw_operand *o = &spec->operand[i];
        if (!in_memory(o) || o->place == GEMS_PW_READ)
            continue;
        const char *words = words_of(spec, o, vector);
        gems_code_add(out, "            *(__global %s *)(", words);
        write_start(spec, i, out);
        gems_code_add(out, ") = %s(as_%s((%s)(", words == vector ? "" : "gems_words", words, vector);
        for (unsigned k = 0; k < v; k++)
            gems_code_add(out, "%sb%u[%u]", k ? ", " : "", i, k);
        gems_code_add(out, ")));\n");
    }
    return ok;
}

/* Vectors where all pointers are aligned to them, which is the same for all work-items. */
static bool write_vec(const gems_pw_spec *spec, gems_code *out)
{
    unsigned v = spec->vec;
    write_aligned(spec, out);
    gems_code_add(out, "    for (long g = get_global_id(0); g * %u < n; g += get_global_size(0)) {\n", v);
    gems_code_add(out, "        if (aligned && g * %u + %u <= n) {\n            const long i = g * %u;\n", v, v, v);
    bool ok = write_vector(spec, out);
    gems_code_add(out, "        } else {\n");
    gems_code_add(out, "            for (long i = g * %u; i < min(n, g * %u + %u); i++) {\n", v, v, v);
    ok = write_body(spec, (place){.indent = "                "}, out) && ok;
    gems_code_add(out, "            }\n        }\n    }\n");
    return ok;
}

/* The same in a nest of loops, where rows and all that leads to them are whole vectors. */
static bool write_grid_of_vectors(const gems_pw_spec *spec, gems_code *out)
{
    const char *size = spec->wide ? "long" : "int";
    write_aligned(spec, out);
    gems_code_add(out, "    for (long item = get_global_id(0); item < n; item += get_global_size(0)) {\n");
    gems_code_add(out, "        const %s across = sizes.s0 / %u, row = (%s)item / across;\n", size, spec->vec, size);
    gems_code_add(out, "        const %s e0 = ((%s)item - row * across) * %u;\n        %s left = row;\n", size, size,
                  spec->vec, size);
    write_offsets(spec, 1, "        ", out);
    for (unsigned i = 0; i < spec->noperands; i++)
        if (in_memory(&spec->operand[i]) && spec->operand[i].stride == GEMS_PW_UNIT)
            gems_code_add(out, "        o%u += e0;\n", i);
    gems_code_add(out, "        if (aligned) {\n");
    bool ok = write_vector(spec, out);
    gems_code_add(out, "        } else {\n            for (int i = 0; i < %u; i++) {\n", spec->vec);
    ok = write_body(spec, (place){.indent = "                "}, out) && ok;
    gems_code_add(out, "            }\n        }\n    }\n");
    return ok;
}

static bool write_producer(const gems_pw_spec *spec, gems_code *out)
{
    const char *size = spec->wide ? "long" : "int", *to = memory_type(spec->operand[0].dtype);
    gems_code_add(out, "#define PRODUCER_PARAMETERS ");
    write_list(spec, TO_KERNEL, out);
    gems_code_add(out, "const int nothing\n#define PRODUCER_OPEN GEMS_ALL_REGISTERS if (nothing) return;");
    write_pointers(spec, " ", "", out);
    gems_code_add(out, "\n#define PRODUCE(start, count, to) produce(");
    write_list(spec, AS_NAMES, out);
    gems_code_add(out, "start, count, (__global %s *)(to))\nstatic void produce(", to);
    write_list(spec, TO_PRODUCE, out);
    gems_code_add(out, "const long start, const long count, __global %s *restrict p0)\n{\n", to);
    gems_code_add(out, "    %s row = (%s)(start / sizes.s0), from = (%s)(start - (long)row * sizes.s0);\n", size, size,
                  size);
    gems_code_add(out, "    for (long done = 0; done < count;) {\n        %s left = row;\n", size);
    write_offsets(spec, 1, "        ", out);
    gems_code_add(out, "        const %s begin = from, end = (%s)min((long)sizes.s0, from + (count - done));\n", size,
                  size);
    gems_code_add(out, "        const long o0 = done - from;\n");
    bool ok = write_loop(spec, size, "        ", out);
    gems_code_add(out, "        done += end - begin;\n        from = 0;\n        row++;\n    }\n");
    return ok;
}

char *gems_pw_source(const gems_pw_spec *spec, const char *name)
{
    gems_code out = {NULL, 0, 0, false};
    bool ok, tables = false;
    for (unsigned i = 0; i < spec->noperands; i++)
        tables = tables || has_table(&spec->operand[i]);
    if (tables)
        gems_code_add(&out, "typedef struct { int at[%d]; } gems_table;\n", GEMS_PW_ROW);
    if (spec->loop != GEMS_PW_PRODUCE)
        write_parameters(spec, name, &out);
    switch (spec->loop) {
    case GEMS_PW_PRODUCE:
        ok = write_producer(spec, &out);
        break;
    case GEMS_PW_RUN:
        ok = write_run(spec, &out);
        break;
    case GEMS_PW_VEC:
        ok = write_vec(spec, &out);
        break;
    case GEMS_PW_ROWS:
        ok = write_rows(spec, &out);
        break;
    case GEMS_PW_TILE:
        ok = write_tile(spec, &out);
        break;
    default:
        ok = spec->vec ? write_grid_of_vectors(spec, &out) : write_grid(spec, &out);
        break;
    }
    gems_code_add(&out, "}\n");
    if (ok && !out.failed)
        return out.s;
    free(out.s);
    return NULL;
}
