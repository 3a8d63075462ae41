/* gems.h: the public C API of libgems_preload.so.
 *
 * The library works without any of this: LD_PRELOAD it and PyTorch's operators run on OpenCL where that is faster. A
 * program that wants to steer it may call these functions, from C, C++ or ctypes. They are declared weak: in a process
 * without the library their addresses are NULL, so test `if (gems_enable) gems_enable();`.
 *
 * All functions are thread-safe. Strings returned live as long as the process. Functions returning int return 0 on
 * success and -1 on failure, unless they say otherwise. */
#ifndef GEMS_H
#define GEMS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GEMS_API __attribute__((weak, visibility("default")))

/* "0.1.0" */
GEMS_API const char *gems_version(void);

/* For the process: route calls (the state at start, unless GEMS_DISABLE=1), or leave all to the host. */
GEMS_API int gems_enable(void);
GEMS_API int gems_disable(void);

/* For the calling thread, until the matching gems_scope_pop: what a call may do.
 * GEMS_SCOPE_USE   route, also if the process is disabled
 * GEMS_SCOPE_OFF   leave all calls to the host
 * GEMS_SCOPE_ONLY  route only the operators named in `ops`
 * `ops`: names or patterns separated by commas ("add.Tensor,mul*,softmax"), NULL for USE and OFF. A name without
 * overload means all its overloads. Scopes nest, 16 deep; -1 if deeper, or if `ops` names an unknown operator. */
enum gems_scope_kind {
    GEMS_SCOPE_USE = 1,
    GEMS_SCOPE_OFF = 2,
    GEMS_SCOPE_ONLY = 3
};
GEMS_API int gems_scope_push(int kind, const char *ops);
GEMS_API int gems_scope_pop(void);

/* Names of the vendor ("pocl") and device in use; opens the device. NULL if there is none. */
GEMS_API const char *gems_vendor(void);
GEMS_API const char *gems_device_name(void);

/* The operators that can be intercepted: names ("add.Tensor"), in a fixed order. NULL past the end. */
GEMS_API const char *gems_operator(size_t i);
/* 1 if this library has a kernel for the operator, 0 if the host always runs it, -1 if the name is unknown. */
GEMS_API int gems_operator_has_kernel(const char *name);

/* Calls of one operator so far (name NULL: of all): routed to the device, and looked at but left to the host. Calls
 * that the gate lets pass without a look are not counted. */
struct gems_counters {
    uint64_t routed, passed, failed; /* failed: of passed, those where device or driver failed */
    uint64_t bytes_moved;            /* host to device and back */
    double seconds;                  /* in routed calls, if it is measured (gems_timing_set) */
    double device_seconds;           /* of these in kernels, by the device's clock; transfers are not in it */
};
GEMS_API int gems_counters(const char *name, struct gems_counters *out);
GEMS_API void gems_counters_reset(void);
/* 1: times are measured from now on, on the host and by the device; 0: they are not, which is a little faster. At
 * start: as GEMS_REPORT says. */
GEMS_API void gems_timing_set(int on);
/* Why the calling thread's last operator call that was looked at was left to the host, or "" if it was routed. */
GEMS_API const char *gems_last_reason(void);

/* Puts a table (JSON text, as GEMS_TUNE_JSON takes it) above all others; NULL removes it. On failure the reason is
 * written to `error` (at most n bytes) and the tables stay as they were. */
GEMS_API int gems_table_set(const char *json, char *error, size_t n);
/* "table", "all" or "off": GEMS_ROUTE, from now on. */
GEMS_API int gems_route_set(const char *mode);

/* Whether a value makes sense for a variable ("GEMS_ONLY"): names of operators that exist, a table in which all is
 * understood, a file that can be written. If not, or if there is no such variable, the reason is written to `error` (at
 * most n bytes). Nothing is changed. */
GEMS_API int gems_variable_check(const char *variable, const char *value, char *error, size_t n);

/* What the library knows, as JSON text for programs (the `gems` command reads this). Free it with free(). `what`:
 *   "operators"  every operator: names, schema, family, kernel with its dtypes and variants, whether it is allowed, the
 *                rules for it on the device in use
 *   "devices"    the OpenCL devices found and the one in use; opens the device
 *   "cache"      the folder of compiled kernels: entries, bytes, bound, whether it can be written
 *   "symbols"    the interposed symbols, by operator
 * NULL if `what` is none of these, or memory is out. */
GEMS_API char *gems_describe(const char *what);

#ifdef __cplusplus
}
#endif
#endif
