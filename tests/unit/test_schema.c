/* The parser of PyTorch's schema syntax, and the reading of ops.json: what is understood, and where errors point. */
#include "shim/gen/rows.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static gems_schema parse(const char *text)
{
    gems_schema s;
    gems_schema_error e = {0};
    cr_assert(gems_schema_parse(text, &s, &e), "%s: at %zu: %s", text, e.at, e.text);
    return s;
}

static void check_param(const gems_schema *s, unsigned i, const char *name, gems_type type, bool written)
{
    cr_assert_lt(i, s->nparams);
    cr_assert_str_eq(s->params[i].name, name);
    cr_assert_eq(s->params[i].type->type, type, "%s is %s", name, s->params[i].type->name);
    cr_assert_eq(s->params[i].written, written, "%s", name);
}

Test(schema, functional)
{
    gems_schema s = parse("add.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor");
    cr_assert_str_eq(s.name, "add.Tensor");
    cr_assert_str_eq(s.base, "add");
    cr_assert_str_eq(s.overload, "Tensor");
    cr_assert_str_eq(s.strukt, "add_Tensor");
    cr_assert_eq(s.nparams, 3);
    check_param(&s, 0, "self", GEMS_T_TENSOR, false);
    check_param(&s, 2, "alpha", GEMS_T_SCALAR, false);
    cr_assert_eq(s.nresults, 1);
    cr_assert_eq(s.form, GEMS_FUNCTIONAL);
    cr_assert_eq(gems_schema_returned(&s), -1);
    gems_schema_free(&s);
}

Test(schema, in_place_keeps_both_underscores)
{
    gems_schema s = parse("add_.Tensor(Tensor(a!) self, Tensor other, *, Scalar alpha=1) -> Tensor(a!)");
    cr_assert_str_eq(s.strukt, "add__Tensor");
    cr_assert_eq(s.form, GEMS_INPLACE);
    check_param(&s, 0, "self", GEMS_T_TENSOR, true);
    cr_assert_str_eq(s.params[0].type->mangled, "RN2at6TensorE");
    cr_assert_eq(gems_schema_returned(&s), 0);
    gems_schema_free(&s);
}

Test(schema, one_out)
{
    gems_schema s = parse("mm.out(Tensor self, Tensor mat2, *, Tensor(a!) out) -> Tensor(a!)");
    cr_assert_eq(s.form, GEMS_OUT);
    cr_assert_eq(gems_schema_returned(&s), 2);
    gems_schema_free(&s);
}

Test(schema, two_outs_are_a_tuple_of_references)
{
    gems_schema s =
        parse("max.dim_max(Tensor self, int dim, bool keepdim=False, *, Tensor(a!) max, Tensor(b!) max_values) "
              "-> (Tensor(a!) values, Tensor(b!) indices)");
    cr_assert_eq(s.form, GEMS_OUT);
    cr_assert_eq(s.nresults, 2);
    cr_assert_str_eq(s.results[1].name, "indices");
    cr_assert_eq(gems_schema_returned(&s), -1);
    gems_schema_free(&s);
}

/* An alias that is not written is passed as any other tensor. */
Test(schema, view)
{
    gems_schema s = parse("contiguous(Tensor(a) self, *, MemoryFormat memory_format=0) -> Tensor(a)");
    check_param(&s, 0, "self", GEMS_T_TENSOR, false);
    check_param(&s, 1, "memory_format", GEMS_T_MEMFMT, false);
    cr_assert_eq(s.params[0].alias, 'a');
    cr_assert_eq(gems_schema_returned(&s), -1);
    gems_schema_free(&s);
}

Test(schema, every_suffix_and_hard_defaults)
{
    gems_schema s =
        parse("x(Tensor?[] a, int[1]? b=None, SymInt[2] c=[1, 2], bool[3] d, str e=\"a, b)\", str? f, "
              "float[]? g, float h=1.0000000000000001e-05, int i=-1, SymInt? j=None, Generator? k=None) -> ()");
    static const gems_type want[] = {GEMS_T_OPT_TENSORS, GEMS_T_OPT_INTS,   GEMS_T_SYMINTS,    GEMS_T_BOOLS,
                                     GEMS_T_STR,         GEMS_T_OPT_STR,    GEMS_T_OPT_FLOATS, GEMS_T_FLOAT,
                                     GEMS_T_INT,         GEMS_T_OPT_SYMINT, GEMS_T_GENERATOR};
    cr_assert_eq(s.nparams, sizeof want / sizeof *want);
    for (unsigned i = 0; i < s.nparams; i++)
        cr_assert_eq(s.params[i].type->type, want[i], "%s is %s", s.params[i].name, s.params[i].type->name);
    cr_assert_eq(s.params[3].size, 3);
    cr_assert_eq(s.nresults, 0);
    gems_schema_free(&s);
}

/* The two fields that a person sees of an error: where, and what. */
static void check_error(const char *text, size_t at, const char *what)
{
    gems_schema s;
    gems_schema_error e = {0};
    cr_assert_not(gems_schema_parse(text, &s, &e), "%s", text);
    cr_assert_eq(e.at, at, "%s: at %zu, not %zu: %s", text, e.at, at, e.text);
    cr_assert(strstr(e.text, what), "%s: '%s' lacks '%s'", text, e.text, what);
}

Test(schema, errors)
{
    check_error("", 0, "expected an operator name");
    check_error("add.(Tensor self) -> Tensor", 4, "expected an overload name");
    check_error("add Tensor self", 4, "expected '(', found 'T'");
    check_error("add(Tenser self) -> Tensor", 4, "unknown type 'Tenser'");
    check_error("add(int[][] self) -> Tensor", 4, "unknown type 'int[][]'");
    check_error("add(Tensor) -> Tensor", 10, "expected a parameter name");
    check_error("add(Tensor self, int d=) -> Tensor", 23, "expected a default value");
    check_error("add(str s=\"x) -> Tensor", 10, "unterminated string");
    check_error("add(Tensor self", 15, "expected ')', found the end");
    check_error("add(Tensor self)", 16, "expected '->', found the end");
    check_error("add(Tensor self) -> Tensor, int", 26, "unexpected ',' after the results");
    check_error("add(bool[7] m) -> Tensor", 4, "bool[n] needs n from 2 to 4");
    check_error("add(int(a!) m) -> Tensor", 4, "'int' cannot be written");
    check_error("add(Tensor(A) m) -> Tensor", 11, "expected the letter of an alias set");
    check_error("add(Tensor[][][][][][][][][][][][][][][][][][][][][][][][][][][][][][] m) -> Tensor", 4,
                "too many suffixes");
}

/* ---- ops.json ---- */

static char path[] = "/tmp/gems-test-rows-XXXXXX";

static gems_fields declared(void)
{
    static const char text[] = "# of a test\n\nkernel pointwise arg   # two\n"
                               "expr!    <expression>\n"
                               "promote  <promotion> <params>\n"
                               "layout   iterator | like <tensor>\n"
                               "dtypes   <dtypes>\n"
                               "kernel glu\nexpr! <expression> first second # views\ncode <text>\n";
    static char file[] = "/tmp/gems-test-fields-XXXXXX";
    gems_fields fields = {.functions = "float gems_erf(float x);"};
    strcpy(strrchr(file, '-'), "-XXXXXX");
    int fd = mkstemp(file);
    cr_assert(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
    cr_assert(gems_fields_read(file, &fields));
    unlink(file);
    return fields;
}

static gems_rows read_text(const char *text, bool want)
{
    gems_rows rows;
    gems_fields fields = declared();
    strcpy(strrchr(path, '-'), "-XXXXXX");
    int fd = mkstemp(path);
    cr_assert(fd >= 0);
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    bool ok = gems_rows_read(path, &fields, &rows);
    unlink(path);
    gems_fields_free(&fields);
    cr_assert_eq(ok, want, "%s", text);
    return rows;
}

#define ABS "{\"schema\": \"abs(Tensor self) -> Tensor\", \"family\": \"unary\""

Test(rows, forms_are_operators_of_their_own)
{
    gems_rows rows = read_text("[\n" ABS ", \"forms\": [\"abs_\", \"abs.out\"], \"aoti\": \"abs abs.o*\", "
                               "\"composite\": true, \"kernel\": \"pointwise\", \"expr\": \"erf(self)\"}\n]\n",
                               true);
    cr_assert_eq(rows.n, 3);
    cr_assert_str_eq(rows.v[1].text, "abs_(Tensor(a!) self) -> Tensor(a!)");
    cr_assert_str_eq(rows.v[2].text, "abs.out(Tensor self, *, Tensor(a!) out) -> Tensor(a!)");
    cr_assert_null(rows.v[1].aoti);
    cr_assert_str_eq(rows.v[2].aoti, "aoti_torch_cpu_abs_out");
    for (unsigned i = 0; i < rows.n; i++) {
        cr_assert(rows.v[i].composite);
        cr_assert_str_eq(rows.v[i].kernel, "pointwise");
        cr_assert_str_eq(json_string_value(json_object_get(rows.v[i].fields, "expr")), "erf(self)");
    }
    gems_rows_free(&rows);
}

static void derives(const char *row, const char *name, const char *schema)
{
    char *known[] = {(char *)row, "add.Scalar(Tensor self, Scalar other, Scalar alpha=1) -> Tensor"};
    char *text = gems_form_derive(name, known, 2);
    if (schema)
        cr_assert(text && strcmp(text, schema) == 0, "%s: %s", name, text);
    else
        cr_assert_null(text, "%s: %s", name, text);
    free(text);
}

Test(rows, schemas_of_forms_follow_from_names)
{
    static const char add[] = "add.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor",
                      two[] = "sort(Tensor self, int dim=-1) -> (Tensor values, Tensor indices)";
    derives(add, "add_.Tensor", "add_.Tensor(Tensor(a!) self, Tensor other, *, Scalar alpha=1) -> Tensor(a!)");
    derives(add, "add_.Scalar", "add_.Scalar(Tensor(a!) self, Scalar other, Scalar alpha=1) -> Tensor(a!)");
    derives(add, "add.out", "add.out(Tensor self, Tensor other, *, Scalar alpha=1, Tensor(a!) out) -> Tensor(a!)");
    derives(add, "add.Scalar_out",
            "add.Scalar_out(Tensor self, Scalar other, Scalar alpha=1, *, Tensor(a!) out) -> Tensor(a!)");
    derives(add, "add.out_mode",
            "add.out_mode(Tensor self, Tensor other, *, Scalar alpha=1, Tensor(a!) out) -> Tensor(a!)");
    derives(add, "add.Scalar_Tensor", "add.Scalar_Tensor(Scalar self, Tensor other, *, Scalar alpha=1) -> Tensor");
    derives(add, "plus.Scalar", "plus.Scalar(Tensor self, Scalar other, *, Scalar alpha=1) -> Tensor");
    derives(add, "plus.Tensor", "plus.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor");
    derives(add, "add.other", NULL);
    derives(two, "sort.out", NULL);
    derives(two, "sort_", NULL);
    derives(two, "sort.Scalar", NULL);
}

/* The one line that is printed: path, then this. */
static void check_complaint(const char *text, const char *what)
{
    char line[400] = "";
    FILE *out = tmpfile();
    int saved = dup(STDERR_FILENO);
    cr_assert(out && saved >= 0 && dup2(fileno(out), STDERR_FILENO) >= 0);
    gems_rows rows = read_text(text, false);
    gems_rows_free(&rows);
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    rewind(out);
    cr_assert(fgets(line, sizeof line, out));
    line[strcspn(line, "\n")] = 0;
    cr_assert_str_eq(line + strlen(path), what);
    fclose(out);
}

Test(rows, error_in_schema_points_into_the_line)
{
    check_complaint("[\n" ABS "},\n{\"family\": \"x\", \"schema\": \"b(str s=\\\"n\\\", Tenser t) -> Tensor\"}\n]\n",
                    ":3:43: unknown type 'Tenser'");
}

Test(rows, json_error)
{
    check_complaint("[\n" ABS ",}\n]\n", ":2:60: string or '}' expected near '}'");
}

Test(rows, order)
{
    check_complaint("[\n{\"schema\": \"b(Tensor self) -> Tensor\", \"family\": \"x\"},\n" ABS "}\n]\n",
                    ":3:1: rows are sorted by struct: abs belongs before b");
}

Test(rows, twice)
{
    check_complaint("[\n" ABS "},\n" ABS "}\n]\n", ":3:1: abs for a second time, the first is on line 2");
}

Test(rows, two_on_a_line)
{
    check_complaint("[\n" ABS "}, {\"schema\": \"b(Tensor self) -> Tensor\", \"family\": \"x\"}\n]\n",
                    ":2:60: end of file expected near ','");
}

Test(rows, row_over_two_lines)
{
    check_complaint("[\n" ABS ",\n\"expr\": \"x\"}\n]\n", ":2:58: '}' expected near end of file");
}

Test(rows, wrong_type_of_field)
{
    check_complaint("[\n" ABS ", \"composite\": 1}\n]\n", ":2:61: \"composite\" must be true, or names of forms");
}

Test(rows, no_family)
{
    check_complaint("[\n{\"schema\": \"b(Tensor x) -> Tensor\"}\n]\n", ":2:1: the row has no \"family\"");
}

Test(rows, forms)
{
    check_complaint("[\n" ABS ", \"forms\": [\"abs_\", \"abs.dim\"]}\n]\n",
                    ":2:80: no schema follows from the name 'abs.dim': write the schema");
    check_complaint("[\n" ABS ", \"forms\": [\"abs_\", \"abs.dim(Tensor self, inty dim) -> Tensor\"]}\n]\n",
                    ":2:101: unknown type 'inty'");
    check_complaint("[\n" ABS ", \"forms\": \"abs_\"}\n]\n", ":2:61: \"forms\" must be a list of strings");
    check_complaint("[\n" ABS ", \"forms\": [\"b\"]},\n{\"schema\": \"b(Tensor x) -> Tensor\", \"family\": \"x\"}\n]\n",
                    ":3:1: b for a second time, the first is on line 2");
    check_complaint("[\n" ABS ", \"aoti\": \"abs abs_\"}\n]\n", ":2:74: the row has no form 'abs_'");
}

/* Columns count from the row's beginning; the value of the field after ABS begins at column 70 + length of the key. */
static void check_field(const char *kernel, const char *fields, const char *what)
{
    char text[600];
    snprintf(text, sizeof text, "[\n" ABS ", %s, \"kernel\": \"%s\"}\n]\n", fields, kernel);
    check_complaint(text, what);
}

Test(rows, a_field_that_nobody_declares)
{
    check_field("pointwise", "\"exqr\": \"self\"",
                ":2:61: unknown field \"exqr\"; kernel pointwise takes expr promote layout dtypes");
    check_complaint("[\n" ABS ", \"expr\": \"self\"}\n]\n", ":2:61: unknown field \"expr\"; kernel (none) takes none");
    check_field("reduze", "\"expr\": \"self\"", ":2:88: no kernels/*/fields declares the kernel 'reduze'");
    check_field("arg", "\"layout\": \"iterator\"", ":2:83: a row of kernel arg needs the field \"expr\"");
    check_field("pointwise", "\"expr\": 1", ":2:61: \"expr\" must be a string");
}

Test(rows, parts_are_operators_with_a_kernel)
{
    check_field("pointwise", "\"parts\": \"abs\"", ":2:61: \"parts\" of a row that has a kernel");
    check_complaint("[\n" ABS ", \"parts\": true}\n]\n", ":2:61: \"parts\" must be a string");
    check_complaint("[\n" ABS ", \"parts\": \" \"}\n]\n", ":2:1: \"parts\" of abs is empty");
    check_complaint("[\n" ABS ", \"parts\": \"abs\"}\n]\n", ":2:1: 'abs' in \"parts\" of abs has no kernel");
    check_complaint("[\n" ABS ", \"parts\": \"sba\"}\n]\n", ":2:1: 'sba' in \"parts\" of abs has no kernel");
}

Test(rows, a_value_that_makes_no_sense)
{
    check_field("arg", "\"promote\": \"no_opmath  slef\"",
                ":2:84: 'slef' in \"promote\" of abs, which takes <promotion> <params>");
    check_field("arg", "\"promote\": \"defualt self\"",
                ":2:73: 'defualt' in \"promote\" of abs, which takes <promotion> <params>");
    check_field("arg", "\"layout\": \"like\"",
                ":2:76: nothing more in \"layout\" of abs, which takes iterator | like <tensor>");
    check_field("arg", "\"layout\": \"iterator self\"",
                ":2:81: 'self' in \"layout\" of abs, which takes iterator | like <tensor>");
    check_field("arg", "\"dtypes\": \"int f31\"", ":2:76: 'f31' in \"dtypes\" of abs, which takes <dtypes>");
    check_field("glu", "\"code\": \"\"", ":2:70: \"code\" is empty");
}

Test(rows, an_expression_that_does_not_parse)
{
    check_field("pointwise", "\"expr\": \"self + slef\"", ":2:77: unknown name 'slef'");
    check_field("pointwise", "\"expr\": \"is(self, \\\"a\\\") ? erv(self) : 1\"",
                ":2:88: no function 'erv' in kernels/math.cl");
    check_field("pointwise", "\"expr\": \"self; 1\"", ":2:70: \"expr\" has 2 results, abs has 1");
    check_field("glu", "\"expr\": \"first + self\"", ":2:78: unknown name 'self'");
}
