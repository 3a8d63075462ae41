/* The table of schema types. Passing of each is documented in shim/abi.h. */
#include "shim/gen/types.h"

#include <string.h>

#define TENSOR "N2at6TensorE"
#define OPT(t) "St8optionalI" t "E"
#define LIST(t)                                                                                                        \
    "N3c108ArrayRefI" t "E"                                                                                            \
    "E"
#define OPT_LIST(t)                                                                                                    \
    "N3c1016OptionalArrayRefI" t "E"                                                                                   \
    "E"
#define T(t)       "GEMS_T_" #t, GEMS_T_##t
#define LIST_C     "struct gems_abi_list"
#define OPT_LIST_C "struct gems_abi_opt_list"

static const gems_cxx_type types[] = {
    {"Tensor", T(TENSOR), "RK" TENSOR, "const void *", true, GEMS_WORK_TENSOR, GEMS_AOTI_VALUE, "void *"},
    {"Tensor?", T(OPT_TENSOR), "RK" OPT(TENSOR), "const void *", true, GEMS_WORK_OPT_TENSOR, GEMS_AOTI_OPT, "void *"},
    {"Tensor[]", T(TENSORS), LIST(TENSOR), LIST_C, false, GEMS_WORK_ANY, GEMS_AOTI_LIST, "void *"},
    {"Tensor?[]", T(OPT_TENSORS), "RKN3c104ListI" OPT(TENSOR) "EE", "const void *", true, GEMS_WORK_ANY, GEMS_AOTI_LIST,
     "void *const *"},
    {"Scalar", T(SCALAR), "RKN3c106ScalarE", "const void *", true, GEMS_WORK_NONE, GEMS_AOTI_VALUE, "double"},
    {"Scalar?", T(OPT_SCALAR), "RK" OPT("N3c106ScalarE"), "const void *", true, GEMS_WORK_NONE, GEMS_AOTI_OPT,
     "double"},
    {"int", T(INT), "l", "int64_t", false, GEMS_WORK_NONE, GEMS_AOTI_VALUE, "int64_t"},
    {"int?", T(OPT_INT), OPT("l"), "struct gems_abi_opt_int", false, GEMS_WORK_NONE, GEMS_AOTI_OPT, "int64_t"},
    {"SymInt", T(SYMINT), "N3c106SymIntE", "const void *", true, GEMS_WORK_NONE, GEMS_AOTI_VALUE, "int64_t"},
    {"SymInt?", T(OPT_SYMINT), OPT("N3c106SymIntE"), "const void *", true, GEMS_WORK_NONE, GEMS_AOTI_OPT, "int64_t"},
    {"int[]", T(INTS), LIST("l"), LIST_C, false, GEMS_WORK_NONE, GEMS_AOTI_LIST, "int64_t"},
    {"int[]?", T(OPT_INTS), OPT_LIST("l"), OPT_LIST_C, false, GEMS_WORK_NONE, GEMS_AOTI_OPT_LIST, "int64_t"},
    {"SymInt[]", T(SYMINTS), LIST("N3c106SymIntE"), LIST_C, false, GEMS_WORK_NONE, GEMS_AOTI_LIST, "int64_t"},
    {"SymInt[]?", T(OPT_SYMINTS), OPT_LIST("N3c106SymIntE"), OPT_LIST_C, false, GEMS_WORK_NONE, GEMS_AOTI_OPT_LIST,
     "int64_t"},
    {"float", T(FLOAT), "d", "double", false, GEMS_WORK_NONE, GEMS_AOTI_VALUE, "double"},
    {"float?", T(OPT_FLOAT), OPT("d"), "struct gems_abi_opt_float", false, GEMS_WORK_NONE, GEMS_AOTI_OPT, "double"},
    {"float[]?", T(OPT_FLOATS), OPT(LIST("d")), OPT_LIST_C, false, GEMS_WORK_NONE, GEMS_AOTI_OPT_LIST, "double"},
    {"bool", T(BOOL), "b", "bool", false, GEMS_WORK_NONE, GEMS_AOTI_VALUE, "int32_t"},
    {"bool?", T(OPT_BOOL), OPT("b"), "struct gems_abi_opt_bool", false, GEMS_WORK_NONE, GEMS_AOTI_OPT, "int32_t"},
    {"bool[]", T(BOOLS), "St5arrayIbLm%uEE", "struct gems_abi_bools%u", false, GEMS_WORK_NONE, GEMS_AOTI_LIST,
     "int32_t"},
    {"str", T(STR), "St17basic_string_viewIcSt11char_traitsIcEE", "struct gems_abi_str", false, GEMS_WORK_NONE,
     GEMS_AOTI_VALUE, "const char *"},
    {"str?", T(OPT_STR), OPT("St17basic_string_viewIcSt11char_traitsIcEE"), "struct gems_abi_opt_str", false,
     GEMS_WORK_NONE, GEMS_AOTI_OPT, "const char *"},
    {"ScalarType", T(DTYPE), "N3c1010ScalarTypeE", "int8_t", false, GEMS_WORK_NONE, GEMS_AOTI_VALUE, "int32_t"},
    {"ScalarType?", T(OPT_DTYPE), OPT("N3c1010ScalarTypeE"), "struct gems_abi_opt_i8", false, GEMS_WORK_NONE,
     GEMS_AOTI_OPT, "int32_t"},
    {"Layout?", T(OPT_LAYOUT), OPT("N3c106LayoutE"), "struct gems_abi_opt_i8", false, GEMS_WORK_NONE, GEMS_AOTI_OPT,
     "int32_t"},
    {"Device?", T(OPT_DEVICE), OPT("N3c106DeviceE"), "struct gems_abi_opt_device", false, GEMS_WORK_NONE,
     GEMS_AOTI_DEVICE, "int32_t"},
    {"MemoryFormat", T(MEMFMT), "N3c1012MemoryFormatE", "int8_t", false, GEMS_WORK_NONE, GEMS_AOTI_VALUE, "int32_t"},
    {"MemoryFormat?", T(OPT_MEMFMT), OPT("N3c1012MemoryFormatE"), "struct gems_abi_opt_i8", false, GEMS_WORK_NONE,
     GEMS_AOTI_OPT, "int32_t"},
    {"Generator?", T(GENERATOR), OPT("N2at9GeneratorE"), "const void *", true, GEMS_WORK_NONE, GEMS_AOTI_OPT, "void *"},
};

static const gems_cxx_type written_tensor = {"Tensor(a!)", T(TENSOR),        "R" TENSOR,      "void *",
                                             true,         GEMS_WORK_TENSOR, GEMS_AOTI_VALUE, "void *"};
static const gems_cxx_type itensors = {"Tensor[]",     T(ITENSORS), "RKN3c108IListRefI" TENSOR "EE",
                                       "const void *", true,        GEMS_WORK_ANY,
                                       GEMS_AOTI_LIST, "void *"};

const gems_cxx_type *gems_types_find(const char *spelling)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(types[i].spelling, spelling) == 0)
            return &types[i];
    return NULL;
}

const gems_cxx_type *gems_types_written_tensor(void)
{
    return &written_tensor;
}

const gems_cxx_type *gems_types_itensors(void)
{
    return &itensors;
}
