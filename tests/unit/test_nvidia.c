/* kernels/device/nvidia.c without the device: what becomes of a compiled text. That it runs is tried when the device is
 * opened. */
#include "kernels/device/driver.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static const gems_driver *nvidia(void)
{
    for (const gems_vendor_data *v = gems_vendor_all(); v->name; v++)
        if (strcmp(v->name, "nvidia") == 0)
            return v->driver;
    return NULL;
}

/* The text that is loaded instead, ended by 0; NULL: the text itself. */
static char *patched(const char *text)
{
    size_t size = strlen(text);
    const gems_driver *driver = nvidia();
    cr_assert(driver && driver->patch);
    unsigned char *changed = driver->patch(NULL, (const unsigned char *)text, &size);
    char *copy = changed ? calloc(1, size + 1) : NULL;
    if (copy)
        memcpy(copy, changed, size);
    free(changed);
    return copy;
}

Test(nvidia, marked_instructions_are_for_sm_90a)
{
    char *text =
        patched(".version 8.8\n.target sm_90\n.entry one()\n.reqntid 384, 1, 1\n{\n/*GEMS wgmma.fence; GEMS*/\n"
                "add.s32 %r1, %r2, 1; /* kept */\n}\n.entry two()\n.reqntid 128, 1, 1\n{\n"
                "/*GEMS setmaxnreg.dec 24; GEMS*/ ret;\n}\n.entry three()\n{\n}\n");
    cr_assert_str_eq(
        text,
        ".version 8.8\n.target sm_90a\n.entry one()\n.reqntid 384, 1, 1\n.minnctapersm 1\n{\n"
        "       wgmma.fence;       \nadd.s32 %r1, %r2, 1; /* kept */\n}\n.entry two()\n.reqntid 128, 1, 1\n"
        ".minnctapersm 1\n{\n       setmaxnreg.dec 24;        ret;\n}\n.entry three()\n{\n}\n",
        "%s", text);
    free(text);
}

Test(nvidia, all_else_is_left_as_it_is)
{
    cr_expect_null(patched(".target sm_90\n.entry one()\n{\nret;\n}\n"), "nothing is marked");
    cr_expect_null(patched(".target sm_80\n/*GEMS wgmma.fence; GEMS*/\n"), "another device");
    cr_expect_null(patched(""));
    cr_expect_null(patched("GEMS*/ .target sm_90"));
}
