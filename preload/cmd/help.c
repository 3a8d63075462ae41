/* gems help, and the table of variables for the man page and the README: all from the one table in config.c. */
#include "preload/cmd/cmd.h"
#include "preload/base/config.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

static void print_text(void)
{
    puts("gems run [options] [--] program [arguments]   run a program with its PyTorch operators on OpenCL\n"
         "gems doctor [--json] [--libtorch FILE]        what is found, whether it works, what is wrong\n"
         "gems ops [--json] [--variants] [pattern]      operators, their kernels, and where they are routed\n"
         "gems cache [--json] [clear]                   the folder of compiled kernels\n"
         "gems help [--markdown | --man]\n"
         "\nVariables, and the options of gems run that set them:\n");
    for (const gems_variable *v = gems_variables; v->name; v++) {
        printf("  %-16s %s%s%s\n", v->name, v->option ? "--" : "", v->option ? v->option : "",
               v->option && v->type != GEMS_VAR_FLAG ? " VALUE" : "");
        printf("      %s\n      accepted: %s%s%s\n", v->help, v->values, *v->initial ? "; default: " : "", v->initial);
    }
}

static void print_markdown(void)
{
    puts("| variable | accepted | default | what it does |\n| --- | --- | --- | --- |");
    for (const gems_variable *v = gems_variables; v->name; v++)
        printf("| `%s` | %s | %s | %s |\n", v->name, v->values, *v->initial ? v->initial : "-", v->help);
}

/* Text for troff: a hyphen is a minus, a backslash is itself, a leading dot is no request. */
static void print_troff(const char *text)
{
    for (; *text; text++) {
        if (*text == '-' || *text == '\\')
            printf(*text == '-' ? "\\-" : "\\e");
        else
            putchar(*text);
    }
}

static void print_man(void)
{
    for (const gems_variable *v = gems_variables; v->name; v++) {
        printf(".TP\n.B %s", v->name);
        if (v->option) {
            printf("\\fR, \\fB\\-\\-");
            print_troff(v->option);
            printf("\\fR");
        }
        printf("\n\\&");
        print_troff(v->help);
        printf("\nAccepted: ");
        print_troff(v->values);
        if (*v->initial) {
            printf("; default: ");
            print_troff(v->initial);
        }
        puts(".");
    }
}

int cmd_help(int argc, char **argv)
{
    if (argc == 0)
        print_text();
    else if (argc == 1 && strcmp(argv[0], "--markdown") == 0)
        print_markdown();
    else if (argc == 1 && strcmp(argv[0], "--man") == 0)
        print_man();
    else
        return fputs("usage: gems help [--markdown | --man]\n", stderr), 2;
    return 0;
}
