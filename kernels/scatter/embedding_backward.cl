/* The gradient of an embedding's weight: each row is the sum of the gradient's rows that have its index, added in their
 * order, so that bits depend on nothing else.
 *
 * `places` is made by the host: rows + 1 numbers that say where the list of each row's places begins and ends, then the
 * lists. The launcher defines D (dtype) and T (type computed in).
 *
 * run      one work-item does several rows, 16 columns at a time (CPU)
 * item     one work-item an element: neighbours are columns (GPU) */
#ifndef D
#define D f32
#define T float
#endif

#define T16 GEMS_CAT(T, 16)
#define MEM_D GEMS_CAT(mem_, D)
#define ARGS                                                                                                           \
    GEMS_BUFFER(const MEM_D, grad), GEMS_BUFFER(const int, places), GEMS_BUFFER(MEM_D, out),                           \
        const gems_nest grad_rows, long rows, long n, long stride
#define OPEN                                                                                                           \
    GEMS_AT(const MEM_D, grad);                                                                                        \
    GEMS_AT(const int, places);                                                                                        \
    GEMS_AT(MEM_D, out);

#ifdef KERNEL_run
ROW_GET(D, get, T)
ROW_PUT(D, put)
#define COLUMNS(HOW)                                                                                                   \
    {                                                                                                                  \
        T16 sum = (T16)((T)0);                                                                                         \
        for (int j = begin; j < end; j++)                                                                              \
            sum += GEMS_CAT(get, HOW)(grad + gems_nest_offset(&grad_rows, places[rows + 1 + j]), i, n, stride, 0);     \
        GEMS_CAT(put, HOW)(q, i, n, 1, sum);                                                                           \
    }

__kernel void run(ARGS)
{
    OPEN
    ROW_SHARE(row, rows) {
        __global MEM_D *q = out + row * n;
        const int begin = places[row], end = places[row + 1];
        long i = 0;
        for (; i + 16 <= n; i += 16)
            COLUMNS(_full)
        if (i < n)
            COLUMNS(_part)
    }
}
#endif

#ifdef KERNEL_item
__kernel void item(ARGS)
{
    OPEN
    const long k = get_global_id(0), row = k / n, i = k - row * n;
    if (row >= rows)
        return;
    T sum = 0;
    for (int j = places[row]; j < places[row + 1]; j++)
        sum += (T)GEMS_CAT(load_, D)(grad + gems_nest_offset(&grad_rows, places[rows + 1 + j]), i * stride);
    GEMS_CAT(store_, D)(out, k, sum);
}
#endif
