/* authone - let one user in: name, password, uid, gid and home are the lines of ACCOUNT */
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#define ACCOUNT "/etc/courier/authone"

static int start_over(void) { /* it can't tell: the login program again, as it was called */
    char name[32], *argv[64] = {0}, *count = getenv("AUTHARGC"), *login = getenv("AUTHUSER");
    for (int n = 0; count && n < atoi(count) && n < 63; n++) {
        snprintf(name, sizeof name, "AUTHARGV%d", n);
        argv[n] = getenv(name);
    }
    return login && argv[0] ? execv(login, argv), 1 : 1;
}

int main(int argc, char **argv) {
    char record[4098] = "", line[5][1024], login[2100], *known = getenv("AUTHENTICATED"), *rest;
    int size = 0, got, ends[2];
    if (known && *known && argc > 1) return execvp(argv[1], argv + 1), 1;
    while ((got = read(3, record + size, sizeof record - 1 - size)) > 0) size += got;
    if (!size || argc < 2) return fputs("AUTHFAILURE\n", stderr), 1;
    FILE *file = close(3) || size > 4096 ? NULL : fopen(ACCOUNT, "re");
    for (int n = 0; n < 5; n++) {
        if (!file || !fgets(line[n], sizeof line[n], file)) return start_over();
        line[n][strcspn(line[n], "\n")] = '\0';
    }
    int want = snprintf(login, sizeof login, "login\n%s\n%s\n", line[0], line[1]);
    if ((rest = strchr(record, '\n')) && !strncmp(++rest, login, want) && strlen(rest + want) < 2) {
        gid_t uid = atoi(line[2]), gid = atoi(line[3]);
        if (!uid || !gid || setgroups(1, &gid) || setgid(gid) || setuid(uid)) return 1;
        setenv("AUTHENTICATED", line[0], 1), setenv("AUTHADDR", line[0], 1);
        setenv("AUTHFULLNAME", "", 1), setenv("MAILDIR", "", 1), setenv("MAILDIRQUOTA", "", 1);
        if (setenv("OPTIONS", "", 1) || chdir(line[4])) return 1;
    } else if (pipe(ends) || write(ends[1], record, size) != size || close(ends[1]) ||
               (ends[0] != 3 && (dup2(ends[0], 3) < 0 || close(ends[0])))) return start_over();
    return execvp(argv[1], argv + 1), 1; /* fd 3: nothing for who is in, else the same bytes */
}
