/* Finding and loading OpenCL, fault injection, names of errors. See cl.h. */
#include "kernels/device/cl.h"
#include "kernels/device/device.h"
#include "preload/base/log.h"

#include <CL/cl_icd.h>
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdio.h>

struct gems_cl_table gems_cl;

/* ---- loading ---- */

static const struct {
    const char *name;
    size_t offset;
} functions[] = {
#define X(function) {#function, offsetof(struct gems_cl_table, function)},
    GEMS_CL_FUNCTIONS(X)
#undef X
};

static bool one_driver;
static cl_int(CL_API_CALL *platforms_of_driver)(cl_uint, cl_platform_id *, cl_uint *);

bool gems_cl_is_one_driver(void)
{
    return one_driver;
}

/* How the loader finds a driver's functions: each of its objects begins with the address of a table of them. */
static const cl_icd_dispatch *table_of(cl_platform_id platform)
{
    return *(const cl_icd_dispatch *const *)platform;
}

void *gems_cl_driver_function(cl_platform_id platform)
{
    return (void *)table_of(platform)->clGetDeviceIDs;
}

static void *driver_entry(const char *library)
{
    void *lib = dlopen(library, RTLD_LAZY | RTLD_LOCAL);
    void *(*find)(const char *) = lib ? (void *(*)(const char *))dlsym(lib, "clGetExtensionFunctionAddress") : NULL;
    return find ? find("clIcdGetPlatformIDsKHR") : NULL;
}

bool gems_cl_load_driver(const char *library)
{
    cl_platform_id platform;
    cl_uint found = 0;
    *(void **)&platforms_of_driver = driver_entry(library);
    if (!platforms_of_driver || platforms_of_driver(1, &platform, &found) != CL_SUCCESS || found == 0)
        return false;
    const cl_icd_dispatch *table = table_of(platform);
#define X(function)                                                                                                    \
    if (!(gems_cl.function = table->function))                                                                         \
        return false;
    GEMS_CL_FUNCTIONS(X)
#undef X
    gems_cl.clGetPlatformIDs = platforms_of_driver;
    gems_cl.clSetKernelArgSVMPointer = table->clSetKernelArgSVMPointer;
    one_driver = true;
    return true;
}

bool gems_cl_load(const char **why)
{
    one_driver = false;
    /* Symbols already in the process win: a tool that stands in front of OpenCL (Oclgrind, a tracer) wants to be asked.
     */
    void *lib =
        dlsym(RTLD_DEFAULT, "clGetPlatformIDs") ? RTLD_DEFAULT : dlopen("libOpenCL.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!lib && !dlsym(RTLD_DEFAULT, "clGetPlatformIDs")) { /* RTLD_DEFAULT is NULL */
        *why = "no OpenCL loader (libOpenCL.so.1)";
        return false;
    }
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        void *address = dlsym(lib, functions[i].name);
        if (!address) {
            *why = "the OpenCL loader lacks a function of OpenCL 1.2";
            return false;
        }
        *(void **)((char *)&gems_cl + functions[i].offset) = address;
    }
    gems_cl.clSetKernelArgSVMPointer = dlsym(lib, "clSetKernelArgSVMPointer");
    return true;
}

unsigned gems_cl_driver_platforms(const char *library, cl_platform_id *out, unsigned n)
{
    typedef cl_int (*get_platforms)(cl_uint, cl_platform_id *, cl_uint *);

    get_platforms get = (get_platforms)driver_entry(library);
    cl_uint found = 0;
    if (!get || get(n, out, &found) != CL_SUCCESS)
        return 0;
    return found < n ? found : n;
}

/* ---- fault injection ---- */

int64_t gems_cl_faulty;
static _Atomic int64_t fault_calls;

bool gems_cl_fault_hit(void)
{
    int64_t call = atomic_fetch_add_explicit(&fault_calls, 1, memory_order_relaxed) + 1;
    bool hit = gems_cl_faulty > 0 ? call == gems_cl_faulty : call >= -gems_cl_faulty;
    if (hit) /* said, so that a test knows whether a program makes that many calls; repeats are dropped */
        gems_log("GEMS_FAULT=%lld: OpenCL call %lld fails on purpose", (long long)gems_cl_faulty,
                 gems_cl_faulty > 0 ? (long long)call : (long long)-gems_cl_faulty);
    return hit;
}

void gems_cl_fault_set(int64_t n)
{
    atomic_store(&fault_calls, 0);
    gems_cl_faulty = n;
}

int64_t gems_cl_fault_calls(void)
{
    return atomic_load(&fault_calls);
}

/* ---- errors ---- */

static const struct {
    cl_int code;
    const char *name;
} errors[] = {
#define E(code)                                                                                                        \
    {                                                                                                                  \
        code, #code                                                                                                    \
    }
    E(CL_DEVICE_NOT_FOUND),
    E(CL_DEVICE_NOT_AVAILABLE),
    E(CL_COMPILER_NOT_AVAILABLE),
    E(CL_MEM_OBJECT_ALLOCATION_FAILURE),
    E(CL_OUT_OF_RESOURCES),
    E(CL_OUT_OF_HOST_MEMORY),
    E(CL_BUILD_PROGRAM_FAILURE),
    E(CL_MISALIGNED_SUB_BUFFER_OFFSET),
    E(CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST),
    E(CL_INVALID_VALUE),
    E(CL_INVALID_PLATFORM),
    E(CL_INVALID_DEVICE),
    E(CL_INVALID_CONTEXT),
    E(CL_INVALID_COMMAND_QUEUE),
    E(CL_INVALID_HOST_PTR),
    E(CL_INVALID_MEM_OBJECT),
    E(CL_INVALID_BINARY),
    E(CL_INVALID_BUILD_OPTIONS),
    E(CL_INVALID_PROGRAM),
    E(CL_INVALID_PROGRAM_EXECUTABLE),
    E(CL_INVALID_KERNEL_NAME),
    E(CL_INVALID_KERNEL_DEFINITION),
    E(CL_INVALID_KERNEL),
    E(CL_INVALID_ARG_INDEX),
    E(CL_INVALID_ARG_VALUE),
    E(CL_INVALID_ARG_SIZE),
    E(CL_INVALID_KERNEL_ARGS),
    E(CL_INVALID_WORK_DIMENSION),
    E(CL_INVALID_WORK_GROUP_SIZE),
    E(CL_INVALID_WORK_ITEM_SIZE),
    E(CL_INVALID_GLOBAL_OFFSET),
    E(CL_INVALID_EVENT),
    E(CL_INVALID_OPERATION),
    E(CL_INVALID_BUFFER_SIZE),
    E(CL_INVALID_GLOBAL_WORK_SIZE),
#undef E
    {-1001, "CL_PLATFORM_NOT_FOUND_KHR"},
    {-9999, "illegal memory access (NVIDIA)"},
};

const char *gems_cl_error(int code)
{
    static __thread char text[64];
    const char *name = "OpenCL error";
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].code == code)
            name = errors[i].name;
    snprintf(text, sizeof text, "%s (%d)", name, (int)code);
    return text;
}

bool gems_cl_error_is_memory(cl_int code)
{
    return code == CL_MEM_OBJECT_ALLOCATION_FAILURE || code == CL_OUT_OF_RESOURCES || code == CL_OUT_OF_HOST_MEMORY;
}
