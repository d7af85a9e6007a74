/* A libcrypt.so.1 that notes each call of crypt(3) in the file CALLS, by its setting, and lets the
   library REAL compute. For a setting with the salt `held` it waits until somebody writes to the
   FIFO GATE, and closes it. */

#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void note(const char *setting)
{
    int calls = open(CALLS, O_WRONLY | O_APPEND | O_CLOEXEC);
    dprintf(calls, "%s\n", setting);
    close(calls);
}

static void wait_at_gate(void)
{
    char octet;
    int gate = open(GATE, O_RDONLY | O_CLOEXEC);
    while (read(gate, &octet, 1) > 0)
        ;
    close(gate);
}

char *crypt(const char *key, const char *setting)
{
    static char *(*real)(const char *, const char *);
    if (!real)
        real = (char *(*)(const char *, const char *))dlsym(dlopen(REAL, RTLD_NOW), "crypt");
    note(setting);
    if (strstr(setting, "$held$"))
        wait_at_gate();
    return real(key, setting);
}
