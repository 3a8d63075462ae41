/* Device code of kernels/work/indices.c: whether a tensor of INDEX has a number that is neither one of the `size` from
 * `low` on nor the ignored one (counted from there). One word a group, 1 if it has; each index is read once. */
__kernel void indices(GEMS_BUFFER(const INDEX, index), GEMS_BUFFER(int, wrong), const gems_nest nest, long n, long low,
                      ulong size, ulong ignored)
{
    GEMS_AT(const INDEX, index);
    GEMS_AT(int, wrong);
    __local int any;
    bool mine = false;
    if (get_local_id(0) == 0)
        any = 0;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (long i = get_global_id(0); i < n; i += get_global_size(0)) {
        const ulong v = (ulong)index[gems_nest_offset(&nest, i)] - (ulong)low;
        mine |= v >= size && v != ignored;
    }
    if (mine)
        atomic_or(&any, 1);
    barrier(CLK_LOCAL_MEM_FENCE);
    if (get_local_id(0) == 0)
        wrong[get_group_id(0)] = any;
}
