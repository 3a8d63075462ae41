/* What happens when the library is loaded: next to nothing. Everything else waits for the first operator call. */
#include "preload/base/config.h"
#include "preload/base/text.h"

#include <stdlib.h>
#include <string.h>

/* GEMS_NO_INHERIT: takes us out of LD_PRELOAD, so that child processes start without us; other entries are kept. */
static void leave_preload(void)
{
    const char *list = getenv("LD_PRELOAD");
    if (!list)
        return;
    char *kept = malloc(strlen(list) + 1);
    if (!kept)
        return;
    size_t n = 0;
    const char *entry;
    for (size_t len; (len = gems_word(&list, " :", &entry));) {
        size_t base = len;
        while (base > 0 && entry[base - 1] != '/')
            base--;
        if (strncmp(entry + base, "libgems_preload.so", 18) == 0)
            continue;
        if (n)
            kept[n++] = ':';
        memcpy(kept + n, entry, len);
        n += len;
    }
    kept[n] = 0;
    if (n)
        setenv("LD_PRELOAD", kept, 1);
    else
        unsetenv("LD_PRELOAD");
    free(kept);
}

__attribute__((constructor)) static void loaded(void)
{
    if (gems_config_flag("GEMS_NO_INHERIT"))
        leave_preload();
}
