/* What a vendor needs beyond the data of tune/<vendor>.json: one struct of functions, in one file of its name. Any
 * member may be NULL. Private to kernels/device. */
#ifndef GEMS_DRIVER_H
#define GEMS_DRIVER_H

#include "kernels/device/internal.h"

struct gems_driver {
    const char *vendor; /* as in tune/<vendor>.json */
    /* How the names of its libraries begin, its compiler's too; NULL after the last one. NULL: not known. */
    const char *const *libraries;

    /* A program's binary as the compiler made it, into one that is to be loaded instead: to free(), its size in *size.
     * NULL: as it is. `version` is part of the binary's key in the cache. */
    unsigned char *(*patch)(const gems_lane_state *lane, const unsigned char *binary, size_t *size);
    unsigned version;

    /* What the device can do beyond what it says, found by trying: fills the lane's info. */
    void (*opened)(gems_lane_state *lane);
    /* Whether the driver can be let build or load kernels now; else the reason in why[n]. */
    bool (*may_build)(const gems_vendor_data *vendor, char *why, size_t n);
    /* Around a build from source, in the thread that builds. */
    void (*before_build)(gems_program *program);
    void (*after_build)(gems_program *program, bool built);
    /* Before the driver is loaded: the i-th NAME=value that it must find in its environment, to free(). NULL: no more.
     */
    char *(*environment)(unsigned i);

    /* Around a launch; false: it must not be made (the queue's trouble says why). */
    bool (*before_launch)(gems_queue *queue, gems_kernel *kernel, const size_t local[3], const size_t global[3]);
    void (*after_launch)(gems_queue *queue, gems_kernel *kernel, const size_t local[3], const size_t global[3]);
    /* From here to `settled` nothing else of ours launches anything; false: not now. */
    bool (*alone)(gems_queue *queue);
    /* Nothing of the queue runs any more. */
    void (*settled)(gems_queue *queue);
    /* Around a request for a binary; the thread holds no queue. */
    void (*begin_binary)(void);
    void (*end_binary)(void);

    bool undoes; /* a command that failed has written nothing */
};

/* Registers it: GEMS_DRIVER(pocl) = {.vendor = "pocl", ...}; */
#define GEMS_DRIVER(name)                                                                                              \
    static const gems_driver gems_driver_##name;                                                                       \
    __attribute__((section("gems_drivers"), used)) static const gems_driver *const gems_driver_entry_##name =          \
        &gems_driver_##name;                                                                                           \
    static const gems_driver gems_driver_##name

#endif
