/* A kernel that writes one element past the end of its tensor, and one whose work-items race: what make check-oclgrind
 * must notice, so that its silence about the real kernels means something. Ends with status 0 once both have run. */
#include "tests/unit/device_jobs.h"

static const char source[] = "__kernel void past_the_end(GEMS_BUFFER(float, p), int n)\n"
                             "{\n"
                             "    GEMS_AT(float, p);\n"
                             "    p[get_global_id(0) + 1] = n;\n"
                             "}\n"
                             "__kernel void race(GEMS_BUFFER(float, p), int n)\n"
                             "{\n"
                             "    GEMS_AT(float, p);\n"
                             "    p[0] = n + (int)get_global_id(0);\n"
                             "}\n";

static gems_status run(const char *entry, uint64_t key)
{
    int n = 4;
    float data[8] = {0};
    vector v;
    size_t global = (size_t)n, local = 1;
    gems_call call = {.op = some_op()};
    gems_work work;
    begin_work(&work, GEMS_LANE_MAIN);
    gems_kernel *kernel = build_kernel(&work, key, entry, NULL, source, entry);
    if (kernel)
        gems_launch(&work, kernel, 1, &global, &local, (gems_arg[]){GEMS_INOUT(vector_of(&v, data, n)), GEMS_VALUE(n)},
                    2);
    gems_status status = run_and_end(&work, &call);
    if (status != GEMS_OK)
        fprintf(stderr, "%s: %s\n", entry, call.why ? call.why : "failed");
    return status;
}

int main(void)
{
    return run("past_the_end", 1) != GEMS_OK || run("race", 2) != GEMS_OK;
}
