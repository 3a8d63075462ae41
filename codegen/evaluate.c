#include "codegen/evaluate.h"
#include <stdlib.h>
bool gems_pw_evaluate(const gems_pw_spec *spec, int rank, const int64_t *size, const gems_pw_memory *memory,
                      int64_t first, int64_t last)
{
    (void)spec; (void)rank; (void)size; (void)memory; (void)first; (void)last;
    abort();
}
