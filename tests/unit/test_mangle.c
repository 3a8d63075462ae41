/* Symbol names against literals taken from a compiler's output: each shows a rule of its own. (tests/host/test_rows.py
 * compares every row's with what PyTorch exports.) */
#include "shim/gen/mangle.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static void check(const char *text, bool itensors, const char *call, const char *redispatch)
{
    gems_schema s;
    gems_schema_error e = {0};
    cr_assert(gems_schema_parse(text, &s, &e), "%s: %s", text, e.text);
    if (itensors)
        s.params[0].type = gems_types_itensors();
    char *c = gems_mangle(&s, "call", false), *r = gems_mangle(&s, "redispatch", true);
    cr_assert_str_eq(c, call);
    cr_assert_str_eq(r, redispatch);
    free(c);
    free(r);
    gems_schema_free(&s);
}

Test(mangle, references_are_substituted_whole)
{
    check("add.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor", false,
          "_ZN2at4_ops10add_Tensor4callERKNS_6TensorES4_RKN3c106ScalarE",
          "_ZN2at4_ops10add_Tensor10redispatchEN3c1014DispatchKeySetERKNS_6TensorES6_RKNS2_6ScalarE");
}

Test(mangle, written_tensor_shares_the_type_but_not_the_const)
{
    check("addmv.out(Tensor self, Tensor mat, Tensor vec, *, Scalar beta=1, Scalar alpha=1, Tensor(a!) out) -> "
          "Tensor(a!)",
          false, "_ZN2at4_ops9addmv_out4callERKNS_6TensorES4_S4_RKN3c106ScalarES8_RS2_",
          "_ZN2at4_ops9addmv_out10redispatchEN3c1014DispatchKeySetERKNS_6TensorES6_S6_RKNS2_6ScalarES9_RS4_");
}

Test(mangle, trailing_underscore_is_part_of_the_length)
{
    check("__ior__.Scalar(Tensor(a!) self, Scalar other) -> Tensor(a!)", false,
          "_ZN2at4_ops14__ior___Scalar4callERNS_6TensorERKN3c106ScalarE",
          "_ZN2at4_ops14__ior___Scalar10redispatchEN3c1014DispatchKeySetERNS_6TensorERKNS2_6ScalarE");
}

Test(mangle, template_and_its_instances)
{
    check(
        "arange(Scalar end, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? "
        "pin_memory=None) -> Tensor",
        false,
        "_ZN2at4_ops6arange4callERKN3c106ScalarESt8optionalINS2_10ScalarTypeEES6_INS2_6LayoutEES6_INS2_6DeviceEES6_IbE",
        "_ZN2at4_ops6arange10redispatchEN3c1014DispatchKeySetERKNS2_6ScalarESt8optionalINS2_10ScalarTypeEES7_INS2_"
        "6LayoutEES7_INS2_6DeviceEES7_IbE");
}

Test(mangle, array_ref_again)
{
    check("avg_pool2d(Tensor self, int[2] kernel_size, int[2] stride=[], int[2] padding=0, bool ceil_mode=False, bool "
          "count_include_pad=True, int? divisor_override=None) -> Tensor",
          false, "_ZN2at4_ops10avg_pool2d4callERKNS_6TensorEN3c108ArrayRefIlEES7_S7_bbSt8optionalIlE",
          "_ZN2at4_ops10avg_pool2d10redispatchEN3c1014DispatchKeySetERKNS_6TensorENS2_8ArrayRefIlEES8_S8_"
          "bbSt8optionalIlE");
}

Test(mangle, optional_array_ref)
{
    check("all.dims(Tensor self, int[]? dim=None, bool keepdim=False) -> Tensor", false,
          "_ZN2at4_ops8all_dims4callERKNS_6TensorEN3c1016OptionalArrayRefIlEEb",
          "_ZN2at4_ops8all_dims10redispatchEN3c1014DispatchKeySetERKNS_6TensorENS2_16OptionalArrayRefIlEEb");
}

/* optional<Tensor> is first met behind const&, optional<SymInt> by value; substitutions run past S9_ into letters. */
Test(mangle, beyond_nine_substitutions)
{
    check(
        "_flash_attention_forward(Tensor query, Tensor key, Tensor value, Tensor? cum_seq_q, Tensor? cum_seq_k, SymInt "
        "max_q, SymInt max_k, float dropout_p, bool is_causal, bool return_debug_mask, *, float? scale=None, SymInt? "
        "window_size_left=None, SymInt? window_size_right=None, Tensor? seqused_k=None, Tensor? alibi_slopes=None) -> "
        "(Tensor output, Tensor softmax_logsumexp, Tensor rng_state, Tensor unused, Tensor debug_attn_mask)",
        false,
        "_ZN2at4_ops24_flash_attention_forward4callERKNS_6TensorES4_S4_RKSt8optionalIS2_ES8_N3c106SymIntESA_dbbS5_"
        "IdES5_"
        "ISA_ESC_S8_S8_",
        "_ZN2at4_ops24_flash_attention_forward10redispatchEN3c1014DispatchKeySetERKNS_6TensorES6_S6_RKSt8optionalIS4_"
        "ESA_NS2_6SymIntESB_dbbS7_IdES7_ISB_ESD_SA_SA_");
}

Test(mangle, string_view)
{
    check("gelu(Tensor self, *, str approximate=\"none\") -> Tensor", false,
          "_ZN2at4_ops4gelu4callERKNS_6TensorESt17basic_string_viewIcSt11char_traitsIcEE",
          "_ZN2at4_ops4gelu10redispatchEN3c1014DispatchKeySetERKNS_6TensorESt17basic_string_viewIcSt11char_traitsIcEE");
}

Test(mangle, optional_string_view)
{
    check("div.Tensor_mode(Tensor self, Tensor other, *, str? rounding_mode) -> Tensor", false,
          "_ZN2at4_ops15div_Tensor_mode4callERKNS_6TensorES4_St8optionalISt17basic_string_viewIcSt11char_traitsIcEEE",
          "_ZN2at4_ops15div_Tensor_mode10redispatchEN3c1014DispatchKeySetERKNS_6TensorES6_St8optionalISt17basic_string_"
          "viewIcSt11char_traitsIcEEE");
}

Test(mangle, literal_in_a_template)
{
    check("native_layer_norm_backward(Tensor grad_out, Tensor input, SymInt[] normalized_shape, Tensor mean, Tensor "
          "rstd, "
          "Tensor? weight, Tensor? bias, bool[3] output_mask) -> (Tensor, Tensor, Tensor)",
          false,
          "_ZN2at4_ops26native_layer_norm_backward4callERKNS_6TensorES4_N3c108ArrayRefINS5_6SymIntEEES4_S4_"
          "RKSt8optionalIS2_"
          "ESC_St5arrayIbLm3EE",
          "_ZN2at4_ops26native_layer_norm_backward10redispatchEN3c1014DispatchKeySetERKNS_6TensorES6_NS2_8ArrayRefINS2_"
          "6SymIntEEES6_S6_RKSt8optionalIS4_ESD_St5arrayIbLm3EE");
}

Test(mangle, list_of_optional_tensors)
{
    check("index_put(Tensor self, Tensor?[] indices, Tensor values, bool accumulate=False) -> Tensor", false,
          "_ZN2at4_ops9index_put4callERKNS_6TensorERKN3c104ListISt8optionalIS2_EEES4_b",
          "_ZN2at4_ops9index_put10redispatchEN3c1014DispatchKeySetERKNS_6TensorERKNS2_4ListISt8optionalIS4_EEES6_b");
}

Test(mangle, tensors_and_itensors)
{
    check("stack(Tensor[] tensors, int dim=0) -> Tensor", false, "_ZN2at4_ops5stack4callEN3c108ArrayRefINS_6TensorEEEl",
          "_ZN2at4_ops5stack10redispatchEN3c1014DispatchKeySetENS2_8ArrayRefINS_6TensorEEEl");
    check("cat(Tensor[] tensors, int dim=0) -> Tensor", true, "_ZN2at4_ops3cat4callERKN3c108IListRefINS_6TensorEEEl",
          "_ZN2at4_ops3cat10redispatchEN3c1014DispatchKeySetERKNS2_8IListRefINS_6TensorEEEl");
}

Test(mangle, generator_is_in_the_first_namespace)
{
    check("exponential_(Tensor(a!) self, float lambd=1., *, Generator? generator=None) -> Tensor(a!)", false,
          "_ZN2at4_ops12exponential_4callERNS_6TensorEdSt8optionalINS_9GeneratorEE",
          "_ZN2at4_ops12exponential_10redispatchEN3c1014DispatchKeySetERNS_6TensorEdSt8optionalINS_9GeneratorEE");
}
