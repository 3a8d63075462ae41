/* Access by 16 bytes at a time, which a GPU needs to reach the bandwidth of its memory: whether a layout allows it, and
 * how a group's items share rows out that are read once and passed over several times. The device's side is
 * kernels/wide.cl. */
#ifndef GEMS_WIDE_H
#define GEMS_WIDE_H

#include "kernels/work/launcher.h"

enum {
    GEMS_WIDE = 16 /* bytes */
};

/* Whether all rows begin at multiples of 16 bytes: the first element, and those of all visits of the nest. */
bool gems_wide_rows(const gems_tensor *t, const gems_nest *rows);

/* Items of a row, rows of a group; vectors of 16 bytes that an item keeps in registers and in local memory. */
typedef struct gems_hold {
    int64_t lanes, rows, held, spare;
    bool rest; /* there are more than that */
} gems_hold;

/* The parameters of a variant that holds rows: a rule's numbers are taken as far as the device can. */
#define GEMS_HOLD_PARAMETERS                                                                                           \
    {"lanes", 1, 1024, 1, 0}, {"held", 1, 8, 1, 0},                                                                    \
    {                                                                                                                  \
        "spare", 0, 14, 1, 0                                                                                           \
    }
/* For rows of so many vectors. Depends on choice and device alone. */
gems_hold gems_hold_for(const gems_choice *choice, int64_t vectors);
/* Bits for gems_kernel_wanted.types, from bit 36 on; and the definitions for its text. */
uint64_t gems_hold_types(const gems_hold *hold);
void gems_hold_defines(const gems_hold *hold, char *text, size_t n);
/* Work-items in all and in a group, for so many rows: two dimensions. */
void gems_hold_items(const gems_hold *hold, int64_t rows, size_t global[2], size_t local[2]);

#endif
