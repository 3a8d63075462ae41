/* f32 as two f16: a row of A or a column of B (a line, k elements) times a power of two, so that its largest element lies
 * in [2^14, 2^15); then each element is the sum of a high and a low f16, to 24 bits where the low one is a normal number.
 *
 * What is noted of a line is an int4: exponent (of its largest element), small elements (not 0, but fewer than 24 bits),
 * elements that are not 0, and whether one is infinite or NaN. */
#ifndef GEMS_PARTS_CL
#define GEMS_PARTS_CL

#define PARTS_TOP 14
#define PARTS_LEAST (1.0f / 8) /* times 2^-11 the low part is 2^-14, the least normal number */

/* Their order is the numbers' own, infinity and NaN above all others. */
static inline uint parts_magnitude(float v) { return as_uint(v) & 0x7fffffffu; }
/* Neither 0 nor with two full parts: of what has been scaled. */
static inline int parts_is_small(float scaled) { return scaled != 0 && fabs(scaled) < PARTS_LEAST; }

static inline ushort parts_to_half(float v)
{
    ushort h;
    vstore_half_rte(v, 0, (half *)&h);
    return h;
}
static inline float parts_of_half(ushort h) { return vload_half(0, (const half *)&h); }

static inline int parts_exponent_of(uint largest) { return max((int)(largest >> 23) - 127, -100); }
static inline float parts_scale_of(int exponent) { return as_float((uint)(127 + PARTS_TOP - min(exponent, 127)) << 23); }
/* High part below, low part above. */
static inline uint parts_of(float v)
{
    const ushort high = parts_to_half(v);
    return high | (uint)parts_to_half(v - parts_of_half(high)) << 16;
}
/* Of a line are noted how many elements are small, and how many not 0. */
static inline int4 parts_line_of(uint largest, int small, int some)
{
    return (int4)(parts_exponent_of(largest), small, some, largest >= 0x7f800000u);
}
/* Puts n (2, 4, ...) elements into their places: the high parts at y, the low ones `low` elements further on. */
static inline void parts_put(__global ushort *y, long low, const __local uint *parts, int n)
{
    __global uint *to = (__global uint *)y, *to_low = (__global uint *)(y + low);
    for (int q = 0; q < n / 2; q++) {
        const uint p0 = parts[2 * q], p1 = parts[2 * q + 1];
        to[q] = (p0 & 0xffffu) | p1 << 16;
        to_low[q] = p0 >> 16 | (p1 & 0xffff0000u);
    }
}

/* sum * 2^x, rounded once but where it is subnormal; |x| up to 500. */
static inline float parts_scaled(float sum, int x)
{
    const int half_x = x / 2;
    return sum * as_float((uint)(clamp(half_x, -126, 127) + 127) << 23) *
           as_float((uint)(clamp(x - half_x, -126, 127) + 127) << 23);
}
/* The exponent by which a sum of products of two lines' parts is to be scaled. */
static inline int parts_exponent(int a, int b) { return a + b - 2 * PARTS_TOP; }

/* Whether the parts of a pair of lines may give another sum than f32's products would. A sum's error is at most 2^-39 of
 * the lines' largest elements for each small one: that is less than the rounding of f32 unless the other line takes the
 * large ones out of the sum. Where it may, since it has many small elements or zeros itself, and where a line picks
 * single elements, the pair is refused. */
enum {
    PARTS_GRADED = 1, /* many small elements */
    PARTS_THIN = 2,   /* many elements that are small or 0 */
    PARTS_REFUSED = 4
};
static inline int parts_kind(int4 line, int k)
{
    int kind = line.y * 64l > k ? PARTS_GRADED : 0;
    if ((k - (line.z - line.y)) * 64l > k)
        kind |= PARTS_THIN;
    if (line.w || (line.z > 0 && line.z * 64l < k))
        kind |= PARTS_REFUSED;
    return kind;
}
static inline bool parts_refuse(int a, int b)
{
    return ((a | b) & PARTS_REFUSED) || ((a & PARTS_GRADED) && (b & PARTS_THIN)) ||
           ((b & PARTS_GRADED) && (a & PARTS_THIN));
}
/* Of a convolution, whose lines are a filter and an image of `elements`, of which a sum takes a part only, the error is
 * held against the largest elements: at most 2^-39 of their product for each that is small. That is less than f32's own as
 * long as most are not. */
static inline bool parts_refuse_image(int4 line, int elements) { return line.w || line.y * 64l > elements; }
static inline bool parts_refuse_filter(int4 line) { return line.w || line.y * 2l > line.z; }

#endif
