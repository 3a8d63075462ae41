/* OpenCL as the device layer sees it: one table of functions, filled from the ICD loader at first use, and one way to
 * call them. No other file in the project includes OpenCL's headers, and nothing links against libOpenCL.
 *
 * Every call goes through CL or CL_NEW, so that fault injection (GEMS_FAULT) has one place; CL_SURE is for cleaning up
 * and for asking again after a failure, and is never made to fail. */
#ifndef GEMS_DEVICE_CL_H
#define GEMS_DEVICE_CL_H

#define CL_USE_DEPRECATED_OPENCL_1_2_APIS /* clCreateCommandQueue: the only one that every driver has */
#include <CL/cl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GEMS_CL_FUNCTIONS(X)                                                                                           \
    X(clGetPlatformIDs)                                                                                                \
    X(clGetPlatformInfo)                                                                                               \
    X(clGetDeviceIDs)                                                                                                  \
    X(clGetDeviceInfo)                                                                                                 \
    X(clCreateContext)                                                                                                 \
    X(clReleaseContext)                                                                                                \
    X(clCreateCommandQueue)                                                                                            \
    X(clReleaseCommandQueue)                                                                                           \
    X(clCreateBuffer)                                                                                                  \
    X(clReleaseMemObject)                                                                                              \
    X(clCreateProgramWithSource)                                                                                       \
    X(clCreateProgramWithBinary)                                                                                       \
    X(clBuildProgram)                                                                                                  \
    X(clGetProgramInfo)                                                                                                \
    X(clGetProgramBuildInfo)                                                                                           \
    X(clReleaseProgram)                                                                                                \
    X(clCreateKernel)                                                                                                  \
    X(clReleaseKernel)                                                                                                 \
    X(clSetKernelArg)                                                                                                  \
    X(clEnqueueNDRangeKernel)                                                                                          \
    X(clEnqueueReadBuffer)                                                                                             \
    X(clEnqueueWriteBuffer)                                                                                            \
    X(clEnqueueMapBuffer)                                                                                              \
    X(clEnqueueUnmapMemObject)                                                                                         \
    X(clWaitForEvents)                                                                                                 \
    X(clGetEventInfo)                                                                                                  \
    X(clGetEventProfilingInfo)                                                                                         \
    X(clRetainEvent)                                                                                                   \
    X(clReleaseEvent)                                                                                                  \
    X(clFlush)                                                                                                         \
    X(clFinish)

struct gems_cl_table {
#define X(function) __typeof__(&function) function;
    GEMS_CL_FUNCTIONS(X)
#undef X
    __typeof__(&clSetKernelArgSVMPointer) clSetKernelArgSVMPointer; /* OpenCL 2.0: NULL with an old loader */
};
extern struct gems_cl_table gems_cl;

/* The code that an injected failure has. */
#define GEMS_CL_INJECTED CL_OUT_OF_RESOURCES

/* Calls a function that returns a cl_int. */
#define CL(function, ...) (gems_cl_fault() ? GEMS_CL_INJECTED : gems_cl.function(__VA_ARGS__))
/* Calls a function that returns an object and takes the address of an error code as its last argument. */
#define CL_NEW(error, function, ...)                                                                                   \
    (gems_cl_fault() ? (*(error) = GEMS_CL_INJECTED, NULL) : gems_cl.function(__VA_ARGS__, error))
#define CL_SURE(function, ...) gems_cl.function(__VA_ARGS__)

extern int64_t gems_cl_faulty; /* 0: no fault injection */
bool gems_cl_fault_hit(void);
/* True if this call must fail. */
static inline bool gems_cl_fault(void)
{
    return __builtin_expect(gems_cl_faulty != 0, 0) && gems_cl_fault_hit();
}
/* From now on: the n-th call fails (n > 0), all fail from the -n-th on (n < 0), none fails (0). */
void gems_cl_fault_set(int64_t n);
/* Calls counted since then; 0 while nothing is to fail. */
int64_t gems_cl_fault_calls(void);

/* Loads the OpenCL loader (or takes one that is already in the process). False: not there, *why says what is missing.
 */
bool gems_cl_load(const char **why);
/* The same without a loader: takes the functions of one driver's library. All objects must be that driver's then. */
bool gems_cl_load_driver(const char *library);
/* Whether that was done. */
bool gems_cl_is_one_driver(void);
/* A function in the library of a platform's driver (one with cl_khr_icd). */
void *gems_cl_driver_function(cl_platform_id platform);
/* Platforms of a driver library that the loader does not know (no .icd file): its name is given to dlopen. Their
 * objects work with the loader's functions, which only follow the dispatch pointer. Number of platforms written, at
 * most n. */
unsigned gems_cl_driver_platforms(const char *library, cl_platform_id *out, unsigned n);
/* True for codes that say that memory ran out, so that the same call may work later. */
bool gems_cl_error_is_memory(cl_int code);

#endif
