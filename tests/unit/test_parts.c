/* kernels/blas/split.cl and gemm_gpu.cl's REST: what products of f32 by parts (compute capability 9.0) do around the
 * tensor cores. They run on any device. */
#include "kernels/blas/blas.h"
#include "kernels/embedded.h"
#include "tests/unit/device_jobs.h"

#include <criterion/criterion.h>
#include <math.h>

static void staged(void)
{
    setenv("GEMS_MEMORY", "staged", 1);
}
TestSuite(parts, .timeout = 300);
TestSuite(parts_staged, .init = staged, .timeout = 300);

enum {
    GROUP = 256,
    WIDE = 64,
    PIECE = 512,
    SLAB = 16
};

/* A matrix of f32 as lines, and their parts as the kernels leave them. */
typedef struct lines {
    int count, k, pitch, batches;
    int64_t across, along, apart;
    float *x;
    uint16_t *y;   /* [batch][high, low][line][pitch] */
    int32_t *note; /* [batch][line][4], behind them */
    size_t bytes;
} lines;

static lines lines_new(int count, int k, int batches, bool turned)
{
    lines l = {
        count, k, (k + WIDE - 1) / WIDE * WIDE, batches, turned ? 1 : k + 3, turned ? count + 5 : 1, 0, NULL, NULL,
        NULL,  0};
    l.apart = turned ? (int64_t)k * l.along : (int64_t)count * l.across;
    l.x = malloc((size_t)(l.apart * batches) * sizeof *l.x);
    size_t parts = (size_t)batches * 2 * (size_t)count * (size_t)l.pitch * 2;
    l.bytes = parts + (size_t)batches * (size_t)count * 16;
    l.y = malloc(l.bytes);
    memset(l.y, 0x7f, l.bytes);
    l.note = (int32_t *)((char *)l.y + parts);
    for (int64_t i = 0; i < l.apart * batches; i++)
        l.x[i] = (float)rand() / (float)RAND_MAX - 0.5F;
    return l;
}

static float *element(const lines *l, int z, int line, int i)
{
    return &l->x[z * l->apart + line * l->across + i * l->along];
}

static float half_value(uint16_t h)
{
    int exponent = h >> 10 & 31, fraction = h & 1023;
    float v = exponent ? ldexpf((float)(fraction + 1024), exponent - 25) : ldexpf((float)fraction, -24);
    return exponent == 31 ? NAN : h & 0x8000 ? -v : v;
}

static gems_kernel *kernel_of(gems_work *work, const char *file, const char *entry, const char *options)
{
    struct {
        const char *file, *entry;
    } id = {file, entry};
    gems_kernel *kernel = gems_work_find(work, &id, sizeof id);
    return kernel ? kernel
                  : gems_work_build(work, &id, sizeof id,
                                    &(gems_kernel_text){file, NULL, gems_embedded_find(file)->text, options, entry});
}

static int put(gems_arg *arg, int n, const lines *l, const gems_tensor *x, const gems_tensor *y)
{
    arg[n++] = GEMS_IN(x);
    arg[n++] = GEMS_INOUT(y);
    arg[n++] = GEMS_VALUE(l->count);
    arg[n++] = GEMS_VALUE(l->across);
    arg[n++] = GEMS_VALUE(l->along);
    arg[n++] = GEMS_VALUE(l->apart);
    return n;
}

/* many: by the two kernels for many lines beside each other. */
static void split(const lines *a, const lines *b, bool many)
{
    gems_work work;
    gems_call call = {.op = some_op()};
    const char *file = "kernels/blas/split.cl";
    vector v[4];
    gems_tensor *x[2], *y[2];
    for (int i = 0; i < 2; i++) {
        const lines *l = i ? b : a;
        x[i] = vector_of(&v[2 * i], l->x, l->apart * l->batches);
        y[i] = vector_of(&v[2 * i + 1], (float *)(void *)l->y, (int64_t)l->bytes / 4);
    }
    begin_work(&work, GEMS_LANE_MAIN);
    gems_arg arg[32];
    const size_t group[3] = {GROUP, 1, 1}, batches = (size_t)a->batches;
    if (!many) {
        int groups[2];
        for (int i = 0; i < 2; i++) {
            const lines *l = i ? b : a;
            groups[i] = l->across == 1 ? (l->count + SLAB - 1) / SLAB : l->count;
        }
        int n = put(arg, put(arg, 0, a, x[0], y[0]), b, x[1], y[1]);
        arg[n++] = GEMS_VALUE(a->k);
        arg[n++] = GEMS_VALUE(a->pitch);
        arg[n++] = GEMS_VALUE(groups[0]);
        const size_t global[3] = {(size_t)(groups[0] + groups[1]) * GROUP, 1, batches};
        gems_launch(&work, kernel_of(&work, file, "split", ""), 3, global, group, arg, n);
    }
    for (int i = 0; i < 2 && many; i++) {
        const lines *l = i ? b : a;
        const size_t pieces = (size_t)(l->k + PIECE - 1) / PIECE, slabs = (size_t)(l->count + 63) / 64 * GROUP;
        int n = put(arg, 0, l, x[i], y[i]);
        arg[n++] = GEMS_VALUE(l->k);
        arg[n++] = GEMS_VALUE(l->pitch);
        arg[n++] = GEMS_SCRATCH(gems_work_scratch(&work, batches * pieces * (size_t)l->count * 4));
        const size_t looks[3] = {slabs, pieces, batches}, turns[3] = {slabs, (size_t)l->pitch / WIDE, batches};
        gems_launch(&work, kernel_of(&work, file, "largest", ""), 3, looks, group, arg, n);
        gems_launch(&work, kernel_of(&work, file, "split_blocks", ""), 3, turns, group, arg, n);
    }
    cr_assert_eq(run_and_end(&work, &call), GEMS_OK, "%s", call.why);
}

static void check(const lines *l)
{
    for (int z = 0; z < l->batches; z++)
        for (int line = 0; line < l->count; line++) {
            const int32_t *note = &l->note[4 * (z * l->count + line)];
            const uint16_t *high = &l->y[(size_t)((2 * z) * l->count + line) * (size_t)l->pitch],
                           *low = high + (size_t)l->count * (size_t)l->pitch;
            float largest = 0;
            bool finite = true;
            for (int i = 0; i < l->k; i++) {
                finite &= isfinite(*element(l, z, line, i)) != 0;
                largest = fmaxf(largest, fabsf(*element(l, z, line, i)));
            }
            cr_assert_eq(note[3], !finite, "line %d", line);
            if (!finite)
                continue;
            int exponent = largest > 0 ? ilogbf(largest) : -127, small = 0, some = 0;
            exponent = exponent < -100 ? -100 : exponent;
            cr_assert_eq(note[0], exponent, "line %d: %d, not %d", line, note[0], exponent);
            for (int i = 0; i < l->pitch; i++) {
                float want = i < l->k ? ldexpf(*element(l, z, line, i), 14 - exponent) : 0;
                float got = half_value(high[i]) + half_value(low[i]);
                small += want != 0 && fabsf(want) < 0.125F;
                some += want != 0;
                cr_assert_leq(fabsf(got - want), fmaxf(ldexpf(fabsf(want), -23), ldexpf(1, -25)),
                              "line %d, %d: %a, not %a", line, i, (double)got, (double)want);
            }
            cr_assert(note[1] == small && note[2] == some, "line %d: %d %d, not %d %d", line, note[1], note[2], small,
                      some);
        }
}

static void end(lines *l)
{
    free(l->x);
    free(l->y);
}

static void with_special(lines *l)
{
    *element(l, 0, 1, 3) = INFINITY;
    *element(l, 0, 2, l->k - 1) = NAN;
    for (int i = 0; i < l->k; i++) {
        *element(l, 0, 3, i) = 0;
        *element(l, 0, 4, i) *= ldexpf(1, -(i % 40));
        *element(l, 0, 5, i) *= 1e-38F;
        *element(l, 0, 6, i) *= 3e38F;
    }
}

static void all_splits(void)
{
    for (int many = 0; many < 2; many++)
        for (int turned = 0; turned < 4; turned++) {
            if (many && turned != 3)
                continue;
            lines a = lines_new(70, 600, 2, turned & 1), b = lines_new(21, 600, 2, turned & 2);
            with_special(&a);
            with_special(&b);
            split(&a, &b, many);
            check(&a);
            check(&b);
            end(&a);
            end(&b);
        }
}

Test(parts, splits)
{
    all_splits();
}
Test(parts_staged, splits)
{
    all_splits();
}

/* Blocks that hold a refused pair are computed, the others left as they are. */
static void rest(int kind)
{
    enum {
        M = 150,
        N = 140,
        K = 512
    };
    lines a = lines_new(M, K, 1, false), b = lines_new(N, K, 1, false);
    int row = 3, column = 130; /* of the first block of rows, the last of columns */
    if (kind == 1)
        *element(&a, 0, row, 7) = INFINITY;
    for (int i = 0; i < K && kind == 2; i++) { /* graded against each other */
        *element(&a, 0, row, i) *= ldexpf(1, -(i % 60));
        *element(&b, 0, column, i) *= ldexpf(1, i % 60 - 60);
    }
    for (int i = 0; i < K && kind == 3; i++) /* a column that picks one element */
        *element(&b, 0, column, i) = i == 9;
    split(&a, &b, false);
    float *c = malloc(M * N * sizeof *c);
    for (int i = 0; i < M * N; i++)
        c[i] = -77;
    vector v[5];
    gems_work work;
    gems_call call = {.op = some_op()};
    gems_tensor *ta = vector_of(&v[0], a.x, a.apart), *tb = vector_of(&v[1], b.x, b.apart),
                *tc = vector_of(&v[2], c, M * N), *pa = vector_of(&v[3], (float *)(void *)a.y, (int64_t)a.bytes / 4),
                *pb = vector_of(&v[4], (float *)(void *)b.y, (int64_t)b.bytes / 4);
    const int m = M, n = N, k = K, add = 0;
    const int64_t zero = 0, one = 1, across_c = N;
    const float alpha = 1, beta = 0;
    begin_work(&work, GEMS_LANE_MAIN);
    gems_kernel *kernel = kernel_of(&work, "kernels/blas/gemm_gpu.cl", "gemm",
                                    "-DD=f32 -DS=float -DFLOAT -DTM=64 -DTN=64 -DTK=16 -DGX=16 -DGY=16 -DREST");
    const gems_arg arg[] = {
        GEMS_IN(ta),          GEMS_IN(tb),         GEMS_INOUT(tc),    GEMS_IN(ta),          GEMS_IN(pa),
        GEMS_IN(pb),          GEMS_VALUE(a.pitch), GEMS_VALUE(m),     GEMS_VALUE(n),        GEMS_VALUE(k),
        GEMS_VALUE(a.across), GEMS_VALUE(one),     GEMS_VALUE(one),   GEMS_VALUE(b.across), GEMS_VALUE(across_c),
        GEMS_VALUE(one),      GEMS_VALUE(zero),    GEMS_VALUE(zero),  GEMS_VALUE(zero),     GEMS_VALUE(zero),
        GEMS_VALUE(zero),     GEMS_VALUE(zero),    GEMS_VALUE(alpha), GEMS_VALUE(beta),     GEMS_VALUE(add)};
    const size_t global[3] = {16 * ((N + 63) / 64), 16 * ((M + 63) / 64), 1}, local[3] = {16, 16, 1};
    gems_launch(&work, kernel, 3, global, local, arg, sizeof arg / sizeof *arg);
    cr_assert_eq(run_and_end(&work, &call), GEMS_OK, "%s", call.why);
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            bool wanted = kind == 1   ? i / 64 == row / 64
                          : kind == 2 ? i / 64 == row / 64 && j / 64 == column / 64
                          : kind == 3 ? j / 64 == column / 64
                                      : false;
            double exact = 0, size = 0;
            for (int q = 0; q < K; q++) {
                double t = (double)*element(&a, 0, i, q) * (double)*element(&b, 0, j, q);
                exact += t;
                size += fabs(t);
            }
            float got = c[i * N + j];
            if (!wanted)
                cr_assert_eq(got, -77, "kind %d: row %d, column %d is not to be written", kind, i, j);
            else if (isfinite(exact))
                cr_assert_leq(fabs(got - exact), 1e-6 * size, "kind %d: row %d, column %d: %g, not %g", kind, i, j,
                              (double)got, exact);
            else
                cr_assert(isinf(got) && (got > 0) == (exact > 0));
        }
    end(&a);
    end(&b);
    free(c);
}

Test(parts, what_is_refused_is_computed_otherwise)
{
    for (int kind = 0; kind < 4; kind++)
        rest(kind);
}
