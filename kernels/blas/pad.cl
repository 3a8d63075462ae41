/* Copies matrices of 16-bit elements so that their rows begin at multiples of 16 bytes, `pitch` elements apart; what
 * follows a row's last element is 0. Dimensions of the grid: pairs of a row's elements, rows, batches. */
__kernel void pad(GEMS_SHARED_BUFFER(const ushort, x), GEMS_SHARED_BUFFER(ushort, y), int rows, int columns, int pitch,
                  long row, long column, long batch)
{
    GEMS_AT(const ushort, x);
    GEMS_AT(ushort, y);
    const long i = get_global_id(0) * 2, r = get_global_id(1), z = get_global_id(2);
    if (i >= pitch)
        return;
    x += z * batch + r * row;
    const uint low = i < columns ? x[i * column] : 0, high = i + 1 < columns ? x[(i + 1) * column] : 0;
    *(__global uint *)(y + (z * rows + r) * pitch + i) = low | high << 16;
}
