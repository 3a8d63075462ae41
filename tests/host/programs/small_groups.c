/* Put in front of OpenCL: a CPU's device looks like a GPU, so that kernels made for those are used; and its work-groups
 * are small. (PoCL enforces that with POCL_MAX_WORK_GROUP_SIZE.) */
#define CL_TARGET_OPENCL_VERSION 300
#define _GNU_SOURCE
#include <CL/cl.h>
#include <dlfcn.h>
#include <string.h>

cl_int clGetDeviceInfo(cl_device_id device, cl_device_info what, size_t room, void *value, size_t *size)
{
    static __typeof__(&clGetDeviceInfo) original;
    if (!original)
        *(void **)&original = dlsym(RTLD_NEXT, "clGetDeviceInfo");
    cl_int error = original(device, what, room, value, size);
    if (error == CL_SUCCESS && value && what == CL_DEVICE_TYPE)
        memcpy(value, &(cl_device_type){CL_DEVICE_TYPE_GPU}, sizeof(cl_device_type));
    return error;
}
