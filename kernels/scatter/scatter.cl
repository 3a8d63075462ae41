/* Device code of kernels/scatter/scatter.h. `keys` are the sources' destinations.
 *
 *   keys    from the index tensor (of type INDEX); CLAIM: each destination's largest source is found, too
 *   reset   no destination has a source yet
 *   put     one work-item an element of a source, in words W of as many elements as there are: if it is the last one
 *   part    one work-item an element of each CHUNK of sources, keys sorted: adds up (OPERATOR) those at its beginning
 *           that have the destination of the source before them
 *   sum     one work-item an element of a source, keys sorted: the first of those that have its destination adds up
 *           what the chunk has of them, then the parts of the chunks after it
 *
 * D is the dtype, T what is computed in. ONE: there is one column. WIDE: what counts elements of sources. */
#ifdef KERNEL_keys
__kernel void keys(GEMS_BUFFER(const INDEX, index), GEMS_BUFFER(uint, keys),
#ifdef CLAIM
                   GEMS_BUFFER(int, last),
#endif
                   const gems_nest nest, const gems_nest base, long n, long size, long scale)
{
    GEMS_AT(const INDEX, index);
    GEMS_AT(uint, keys);
    const long i = get_global_id(0);
    if (i >= n)
        return;
    long v = index[gems_nest_offset(&nest, i)];
    v = clamp(v, 0L, size - 1); /* it was checked, but another thread may have changed it */
    const uint key = (uint)(gems_nest_offset(&base, i) + v * scale);
    keys[i] = key;
#ifdef CLAIM
    GEMS_AT(int, last);
    atomic_max(last + key, (int)i);
#endif
}
#endif

#ifdef KERNEL_reset
__kernel void reset(GEMS_BUFFER(int, last), long n)
{
    GEMS_AT(int, last);
    const long i = get_global_id(0);
    if (i < n)
        last[i] = -1;
}
#endif

#ifdef ONE
#define SPLIT(row, column)                                                                                             \
    const long row = get_global_id(0);                                                                                 \
    const long column = 0;
#else
#define SPLIT(row, column)                                                                                             \
    const WIDE k_ = get_global_id(0), row_ = k_ / (WIDE)cols;                                                          \
    const long row = row_, column = k_ - row_ * (WIDE)cols;
#endif
#define NESTS const gems_nest to_rows, const gems_nest to_cols, const gems_nest from_rows, const gems_nest from_cols

#ifdef KERNEL_put
__kernel void put(GEMS_BUFFER(const uint, keys), GEMS_BUFFER(const int, last), GEMS_BUFFER(const W, from),
                  GEMS_BUFFER(W, to), NESTS, long n, long cols)
{
    GEMS_AT(const uint, keys);
    GEMS_AT(const int, last);
    GEMS_AT(const W, from);
    GEMS_AT(W, to);
    SPLIT(j, c)
    if (j >= n)
        return;
    const uint key = keys[j];
    if (last[key] == (int)j)
        to[gems_nest_offset(&to_rows, key) + gems_nest_offset(&to_cols, c)] =
            from[gems_nest_offset(&from_rows, j) + gems_nest_offset(&from_cols, c)];
}
#endif

#define MEM GEMS_CAT(mem_, D)

#define COLUMN gems_nest_offset(&from_cols, c)
#ifdef SCALED
#define TIMES *alpha
#else
#define TIMES
#endif
#define SOURCE(j) (T)((T)GEMS_CAT(load_, D)(from, gems_nest_offset(&from_rows, numbers[j]) + column) TIMES)

#ifdef KERNEL_part
__kernel void part(GEMS_BUFFER(const uint, keys), GEMS_BUFFER(const uint, numbers), GEMS_BUFFER(const MEM, from),
                   GEMS_BUFFER(T, parts), const gems_nest from_rows, const gems_nest from_cols, long n, long cols,
                   T alpha)
{
    GEMS_AT(const uint, keys);
    GEMS_AT(const uint, numbers);
    GEMS_AT(const MEM, from);
    GEMS_AT(T, parts);
    SPLIT(chunk, c)
    const long first = chunk * CHUNK, end = min(first + CHUNK, n), column = COLUMN;
    if (first == 0 || first >= n || keys[first - 1] != keys[first])
        return;
    T all = SOURCE(first);
    for (long j = first + 1; j < end && keys[j] == keys[first]; j++)
        all = all OPERATOR SOURCE(j);
    parts[chunk * cols + c] = all;
}
#endif

#ifdef KERNEL_sum
__kernel void sum(GEMS_BUFFER(const uint, keys), GEMS_BUFFER(const uint, numbers), GEMS_BUFFER(const MEM, from),
                  GEMS_BUFFER(const T, parts), GEMS_BUFFER(MEM, to), NESTS, long n, long cols, T alpha)
{
    GEMS_AT(const uint, keys);
    GEMS_AT(const uint, numbers);
    GEMS_AT(const MEM, from);
    GEMS_AT(const T, parts);
    GEMS_AT(MEM, to);
    SPLIT(first, c)
    if (first >= n || (first > 0 && keys[first - 1] == keys[first]))
        return;
    const uint key = keys[first];
    const long at = gems_nest_offset(&to_rows, key) + gems_nest_offset(&to_cols, c), column = COLUMN;
    long chunk = first / CHUNK + 1, j = first;
    T all = GEMS_CAT(load_, D)(to, at);
    for (; j < min(chunk * CHUNK, n) && keys[j] == key; j++)
        all = all OPERATOR SOURCE(j);
    if (j == chunk * CHUNK)
        for (; chunk * CHUNK < n && keys[chunk * CHUNK] == key; chunk++)
            all = all OPERATOR parts[chunk * cols + c];
    GEMS_CAT(store_, D)(to, at, all);
}
#endif
