#include "preload/cmd/cmd.h"
#include "preload/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* The child's side: never returns. */
static void become(const char *python, const char *script, const char *argument, const char *preload, int out)
{
    int null = open("/dev/null", O_RDWR);
    dup2(null, STDIN_FILENO);
    dup2(null, STDERR_FILENO);
    dup2(out, STDOUT_FILENO);
    unsetenv("LD_PRELOAD");
    if (preload)
        cmd_set_preload(preload);
    execlp(python, python, "-c", script, argument, (char *)NULL);
    _exit(127);
}

char *cmd_python(const char *python, const char *script, const char *argument, const char *preload, int *status)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return NULL;
    pid_t child = fork();
    if (child == 0)
        become(python, script, argument, preload, ends[1]);
    close(ends[1]);
    char *text = child > 0 ? gems_read(ends[0], SIZE_MAX - 1) : NULL;
    close(ends[0]);
    if (child > 0)
        while (waitpid(child, status, 0) < 0 && errno == EINTR)
            ;
    if (text && WIFEXITED(*status) && WEXITSTATUS(*status) == 127 && !*text) {
        free(text);
        return NULL;
    }
    return text;
}
