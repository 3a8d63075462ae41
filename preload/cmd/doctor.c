/* gems doctor: what is there, whether it works together, and in words what is wrong. */
#include "preload/cmd/cmd.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Everything found, as it is printed with --json; `problems` is a list of sentences. */
typedef struct report {
    json_t *root, *problems;
    bool json;
} report;

__attribute__((format(printf, 2, 3))) static void problem(report *r, const char *fmt, ...)
{
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    json_array_append_new(r->problems, json_string(text));
}

/* One line of the report for people. */
__attribute__((format(printf, 3, 4))) static void say(const report *r, const char *topic, const char *fmt, ...)
{
    if (r->json)
        return;
    printf("%-10s", topic);
    va_list args;
    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);
    putchar('\n');
}

/* ---- library and devices ---- */

static bool check_library(report *r)
{
    const char *path = cmd_library_path();
    void *function = path ? cmd_library_function("gems_version") : NULL;
    if (!function) {
        problem(r, "The library is not there or cannot be loaded; install it beside this command, in ../lib or "
                   "in ../lib/gems-preload.");
        return false;
    }
    const char *version = ((const char *(*)(void))function)();
    json_object_set_new(r->root, "library", json_string(path));
    json_object_set_new(r->root, "version", json_string(version));
    say(r, "library", "%s, version %s", path, version);
    return true;
}

static void check_devices(report *r)
{
    json_t *devices = cmd_library_describe("devices");
    if (!devices)
        return;
    json_object_set_new(r->root, "opencl", devices);
    json_t *list = json_object_get(devices, "devices"), *device;
    size_t i;
    json_array_foreach(list, i, device)
    {
        char index[16] = "-";
        if (json_is_integer(json_object_get(device, "index")))
            snprintf(index, sizeof index, "%lld", cmd_number(device, "index"));
        say(r, i ? "" : "devices", "%s  %s: %s (%s)%s", index, cmd_text(device, "vendor"), cmd_text(device, "name"),
            cmd_text(device, "platform"),
            json_is_true(json_object_get(device, "main"))    ? "  <- in use"
            : json_is_true(json_object_get(device, "small")) ? "  <- in use for small calls"
                                                             : "");
    }
    json_t *main = json_object_get(devices, "main");
    if (json_is_object(main))
        say(r, "device", "vendor %s, driver %s, memory %s, %lld compute units, %s", cmd_text(main, "vendor"),
            cmd_text(main, "driver"), cmd_text(main, "memory"), cmd_number(main, "compute_units"),
            json_is_true(json_object_get(main, "f64")) ? "f64" : "no f64: calls in f64 stay on the host");
    else
        problem(r, "No OpenCL device can be used: %s. Every call stays on the host.", cmd_text(devices, "error"));
}

/* ---- PyTorch ---- */

static const char FIND_TORCH[] = "import importlib.util as u\n"
                                 "s = u.find_spec('torch')\n"
                                 "print(s.origin if s and s.origin else '', end='')\n";

/* Path of libtorch_cpu.so of that Python's PyTorch, to be freed; NULL if it has none. */
static char *find_libtorch(report *r, const char *python)
{
    int status = 0;
    char *origin = cmd_python(python, FIND_TORCH, NULL, NULL, &status), *path = NULL;
    if (!origin)
        problem(r, "%s cannot be run; set GEMS_PYTHON to a Python that has PyTorch.", python);
    else if (!*origin || !strrchr(origin, '/'))
        problem(r, "%s has no PyTorch; set GEMS_PYTHON to one that has.", python);
    else if (asprintf(&path, "%.*s/lib/libtorch_cpu.so", (int)(strrchr(origin, '/') - origin), origin) < 0)
        path = NULL;
    free(origin);
    return path;
}

/* All interposed symbols: names borrowed from *owner. */
static const char **our_symbols(json_t **owner, size_t *n)
{
    *owner = cmd_library_describe("symbols");
    *n = 0;
    const char *name;
    json_t *list, *symbol;
    size_t i;
    json_object_foreach(*owner, name, list) *n += json_array_size(list);
    const char **symbols = calloc(*n + 1, sizeof *symbols);
    size_t at = 0;
    json_object_foreach(*owner, name, list)
    {
        json_array_foreach(list, i, symbol) if (symbols) symbols[at++] = json_string_value(symbol);
    }
    return symbols;
}

/* Reads the file's symbol table. */
static void check_libtorch(report *r, const char *path)
{
    json_t *owner, *found = NULL;
    size_t n;
    const char **symbols = our_symbols(&owner, &n);
    cmd_elf elf;
    const char *why = symbols ? cmd_elf_read(path, symbols, n, &elf) : "out of memory";
    if (why) {
        problem(r, "%s: %s.", path, why);
    } else {
        say(r, "libtorch", "%s", path);
        say(r, "symbols", "%zu of our %zu are exported, %zu of them are also called through the dynamic linker",
            elf.exported, n, elf.reached);
        found = json_pack("{s:I, s:I, s:I, s:b}", "ours", (json_int_t)n, "exported", (json_int_t)elf.exported,
                          "reached", (json_int_t)elf.reached, "symbolic", elf.symbolic);
        if (elf.exported == 0)
            problem(r, "This PyTorch exports none of the symbols that we interpose: it is of an unknown version, or "
                       "linked in a way of its own. Every call stays on the host.");
        else if (elf.symbolic || elf.reached == 0)
            problem(r, "This PyTorch is linked with -Bsymbolic: its own calls do not pass the dynamic linker, so a "
                       "preloaded library cannot see them. It cannot be interposed; use another build.");
        else if (elf.exported < n)
            say(r, "", "operators whose symbols are missing stay on the host");
    }
    found = found ? found : json_object();
    json_object_set_new(found, "path", json_string(path));
    json_object_set_new(r->root, "libtorch", found);
    free(symbols);
    json_decref(owner);
}

/* ---- the proof: one real call ---- */

static const char PROOF[] =
    "import ctypes, json, sys\n"
    "try:\n"
    "    import torch\n"
    "    gems = ctypes.CDLL(sys.argv[1])\n"
    "    class Counters(ctypes.Structure):\n"
    "        _fields_ = [(n, ctypes.c_uint64) for n in ('routed', 'passed', 'failed', 'bytes')] + "
    "[(n, ctypes.c_double) for n in ('seconds', 'device_seconds')]\n"
    "    gems.gems_last_reason.restype = ctypes.c_char_p\n"
    "    a = torch.arange(4096, dtype=torch.float32)\n"
    "    before, after = Counters(), Counters()\n"
    "    gems.gems_counters(b'add.Tensor', ctypes.byref(before))\n"
    "    b = a + a\n"
    "    reason = gems.gems_last_reason().decode()\n"
    "    gems.gems_counters(b'add.Tensor', ctypes.byref(after))\n"
    "    got = {n: getattr(after, n) - getattr(before, n) for n in ('routed', 'passed')}\n"
    "    right = b.tolist() == [2.0 * i for i in range(4096)]\n"
    "    print(json.dumps({'torch': torch.__version__, 'right': right, 'reason': reason, **got}))\n"
    "except BaseException as e:\n"
    "    print(json.dumps({'error': f'{type(e).__name__}: {e}'}))\n";

/* The environment of the proof: the user's choice of device stands, everything that could keep the call away does
 * not. */
static void prepare_environment(void)
{
    static const char *const away[] = {"GEMS_EXCLUDE", "GEMS_ONLY",  "GEMS_DISABLE", "GEMS_FAULT",    "GEMS_LOG",
                                       "GEMS_REPORT",  "GEMS_CHECK", "GEMS_STRICT",  "GEMS_TUNE_JSON"};
    for (size_t i = 0; i < sizeof away / sizeof *away; i++)
        unsetenv(away[i]);
    setenv("GEMS_ROUTE", "all", 1);
    setenv("GEMS_LOG", "/dev/null", 1); /* with a log the gate lets every call in, so that it is counted */
}

static void judge_proof(report *r, const json_t *proof)
{
    if (*cmd_text(proof, "error"))
        problem(r, "The proof by a real call failed: %s.", cmd_text(proof, "error"));
    else if (!cmd_number(proof, "routed") && !cmd_number(proof, "passed"))
        problem(r, "An addition in PyTorch %s never came to us: this build cannot be interposed by LD_PRELOAD.",
                cmd_text(proof, "torch"));
    else if (!cmd_number(proof, "routed"))
        problem(r, "An addition in PyTorch %s came to us and was left to the host: %s.", cmd_text(proof, "torch"),
                cmd_text(proof, "reason"));
    else if (!json_is_true(json_object_get(proof, "right")))
        problem(r, "An addition ran on the device and its result is wrong: do not use this device.");
    else
        say(r, "proof", "PyTorch %s: an addition was intercepted, ran on the device, and its result is right",
            cmd_text(proof, "torch"));
}

static void prove(report *r, const char *python)
{
    prepare_environment();
    int status = 0;
    char *text = cmd_python(python, PROOF, cmd_library_path(), cmd_library_path(), &status);
    const char *last = text ? strrchr(text, '{') : NULL;
    json_t *proof = last ? json_loads(last, 0, NULL) : NULL;
    if (proof) {
        judge_proof(r, proof);
        json_object_set_new(r->root, "proof", proof);
    } else if (WIFSIGNALED(status)) {
        problem(r, "%s under the library was killed by signal %d.", python, WTERMSIG(status));
    } else {
        problem(r, "%s under the library ended with status %d and said nothing.", python, WEXITSTATUS(status));
    }
    free(text);
}

/* ---- cache ---- */

static void check_cache(report *r)
{
    json_t *cache = cmd_library_describe("cache");
    if (!cache)
        return;
    json_object_set_new(r->root, "cache", cache);
    if (!*cmd_text(cache, "folder"))
        say(r, "cache", "none: kernels are built anew in every process");
    else
        say(r, "cache", "%s: %lld kernels, %.1f of at most %lld MiB", cmd_text(cache, "folder"),
            cmd_number(cache, "entries"), (double)cmd_number(cache, "bytes") / 1048576, cmd_number(cache, "limit_mb"));
    if (*cmd_text(cache, "folder") && !json_is_true(json_object_get(cache, "writable")))
        problem(r,
                "The cache folder %s cannot be written: kernels are built anew in every process. Set GEMS_CACHE_DIR.",
                cmd_text(cache, "folder"));
    else if (!*cmd_text(cache, "folder") && cmd_number(cache, "limit_mb") > 0)
        problem(r, "There is no folder for compiled kernels: set GEMS_CACHE_DIR to one that can be written.");
}

/* ---- all of it ---- */

static void examine(report *r, const char *libtorch)
{
    if (!check_library(r))
        return;
    check_devices(r);
    const char *python = getenv("GEMS_PYTHON");
    python = python && *python ? python : "python3";
    char *found = libtorch ? NULL : find_libtorch(r, python);
    if (found)
        say(r, "python", "%s", python);
    if (libtorch || found)
        check_libtorch(r, libtorch ? libtorch : found);
    check_cache(r);
    if (found)
        prove(r, python);
    free(found);
}

int cmd_doctor(int argc, char **argv)
{
    report r = {.root = json_object(), .problems = json_array()};
    const char *libtorch = NULL;
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0)
            r.json = true;
        else if (strcmp(argv[i], "--libtorch") == 0 && i + 1 < argc)
            libtorch = argv[++i];
        else
            return fputs("usage: gems doctor [--json] [--libtorch libtorch_cpu.so]\n", stderr), 2;
    }
    examine(&r, libtorch);
    size_t n = json_array_size(r.problems);
    json_object_set(r.root, "problems", r.problems);
    if (r.json)
        cmd_print_json(r.root);
    for (size_t i = 0; i < n; i++)
        say(&r, i ? "" : "wrong", "%s", json_string_value(json_array_get(r.problems, i)));
    if (n == 0)
        say(&r, "all well", "LD_PRELOAD=%s, or gems run", cmd_library_path());
    json_decref(r.problems);
    json_decref(r.root);
    return n ? 1 : 0;
}
