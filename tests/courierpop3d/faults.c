/* faults - system calls that fail when a test says so

   To be preloaded (LD_PRELOAD). Stands before the functions of the C library by which Python reaches
   files, directories, processes and connections. In a process that has called faults_arm, and in
   all that it forks, the calls are counted, and one of them, or that one and all following of its
   name, fails and is written down. If none shall fail, all are written down.

   What is counted lies in memory that all processes of a program share: so one call fails, in
   whichever process it is made.

   close fails after it has closed, as it does on Linux. fsync and fdatasync are counted and don't
   sync: there is no power cut here, and a disk is slow. */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NOTED 4096 /* calls that can be written down; more are only counted */
#define SHORT (-1) /* instead of an errno: one octet is read or written */
#define HERE __attribute__((visibility("default")))

struct note {
    char call[24];
    char object[112]; /* a path, or what /proc says of a descriptor */
    int flags, mode;  /* of an open */
};

static struct shared {
    atomic_int calls, opened;
    atomic_long ahead; /* seconds that the clock of day is ahead */
    char failing_name[24];
    struct note notes[NOTED];
} *shared;

static int armed, failing_call, failing_how, failing_on;

__attribute__((constructor)) static void share(void)
{
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        abort();
}

/* For the test */

/* Begin to count: call number `call` fails with errno `how`, or is SHORT; with `on`, so do all
   following of its name. Call number 0: none does. */
HERE void faults_arm(int call, int how, int on)
{
    failing_call = call;
    failing_how = how;
    failing_on = on;
    prctl(PR_SET_DUMPABLE, 1); /* else who has changed its uid can't read its /proc/self/fd */
    armed = 1;
}

/* Forget what has been counted, and set the clock right. */
HERE void faults_reset(void)
{
    atomic_store(&shared->calls, 0);
    atomic_store(&shared->opened, 0);
    atomic_store(&shared->ahead, 0);
    *shared->failing_name = 0;
}

HERE int faults_calls(void) { return atomic_load(&shared->calls); }

/* How many times a file in cur/ has been opened. */
HERE int faults_opened(void) { return atomic_load(&shared->opened); }

HERE void faults_set_clock_ahead(long seconds) { atomic_store(&shared->ahead, seconds); }

/* Call number `call`, from 1, in words. */
HERE const char *faults_note(int call)
{
    static char text[208];
    struct note *note = &shared->notes[call - 1];
    if (call < 1 || call > NOTED || call > faults_calls())
        return "";
    snprintf(text, sizeof text, "%s %s %#o %#o", note->call, note->object, note->flags, note->mode);
    return text;
}

/* Counting */

/* The end of a path is the interesting one. */
static void describe(struct note *note, const char *call, int fd, const char *path)
{
    char link[40], target[4096] = "", *end = target;
    if (fd >= 0) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        long length = syscall(SYS_readlinkat, AT_FDCWD, link, target, sizeof target - 1);
        target[length < 0 ? 0 : length] = 0;
        if (length > 48)
            end += length - 48;
    }
    snprintf(note->call, sizeof note->call, "%s", call);
    snprintf(note->object, sizeof note->object, "%s%s%s", end, *end && path ? "/" : "",
             path ? path : "");
}

static void note_down(int number, const char *call, int fd, const char *path, int flags, int mode)
{
    struct note spare, *note = number <= NOTED ? &shared->notes[number - 1] : &spare;
    int saved = errno;
    describe(note, call, fd, path);
    errno = saved;
    note->flags = flags;
    note->mode = mode;
    if ((!strncmp(call, "open64", 6) || !strncmp(call, "openat", 6)) &&
        (!strncmp(note->object, "cur/", 4) || strstr(note->object, "/cur/")))
        atomic_fetch_add(&shared->opened, 1);
}

/* Count a call; what it shall do: 0 its work, SHORT, or fail with this errno, which is set. */
static int fault(const char *call, int fd, const char *path, int flags, int mode)
{
    if (!armed)
        return 0;
    int number = atomic_fetch_add(&shared->calls, 1) + 1;
    if (number == failing_call || !failing_call)
        note_down(number, call, fd, path, flags, mode);
    if (number == failing_call)
        snprintf(shared->failing_name, sizeof shared->failing_name, "%s", call);
    else if (!failing_on || number < failing_call || strcmp(shared->failing_name, call))
        return 0;
    if (failing_how > 0)
        errno = failing_how;
    return failing_how;
}

/* The functions. REAL(name) is the C library's, with the type of ours. */

#define REAL(name)                                  \
    static __typeof__(name) *real;                  \
    if (!real)                                      \
        real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name);

#define WRAP(type, name, parameters, arguments, failed, fd, path)   \
    HERE type name parameters                                       \
    {                                                               \
        REAL(name)                                                  \
        return fault(#name, fd, path, 0, 0) > 0 ? failed : real arguments; \
    }

/* What moves octets, and may move fewer than asked for. */
#define MOVE(type, name, parameters, arguments, fd, size)           \
    HERE type name parameters                                       \
    {                                                               \
        REAL(name)                                                  \
        int how = fault(#name, fd, NULL, 0, 0);                     \
        if (how > 0)                                                \
            return -1;                                              \
        if (how == SHORT && size > 1)                               \
            size = 1;                                               \
        return real arguments;                                      \
    }

/* An open that may make a file is noted as "create". */
#define CREATES(flags) ((flags) & O_CREAT || ((flags) & O_TMPFILE) == O_TMPFILE)

#define OPEN(name, parameters, arguments, folder)                   \
    HERE int name parameters                                        \
    {                                                               \
        REAL(name)                                                  \
        va_list rest;                                               \
        va_start(rest, flags);                                      \
        int mode = CREATES(flags) ? va_arg(rest, int) : 0;          \
        va_end(rest);                                               \
        const char *call = CREATES(flags) ? "create" : #name;       \
        return fault(call, folder, path, flags, mode) > 0 ? -1 : real arguments; \
    }

/* In a path relative to AT_FDCWD the folder isn't shown. */
#define IN(folder) ((folder) == AT_FDCWD ? -1 : (folder))

OPEN(open, (const char *path, int flags, ...), (path, flags, mode), -1)
OPEN(open64, (const char *path, int flags, ...), (path, flags, mode), -1)
OPEN(openat, (int folder, const char *path, int flags, ...), (folder, path, flags, mode),
     IN(folder))
OPEN(openat64, (int folder, const char *path, int flags, ...), (folder, path, flags, mode),
     IN(folder))

MOVE(ssize_t, read, (int fd, void *data, size_t size), (fd, data, size), fd, size)
MOVE(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size), fd, size)
MOVE(ssize_t, pread64, (int fd, void *data, size_t size, off64_t at), (fd, data, size, at), fd,
     size)
MOVE(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at),
     fd, size)
MOVE(ssize_t, readv, (int fd, const struct iovec *parts, int count), (fd, parts, count), fd, count)
MOVE(ssize_t, writev, (int fd, const struct iovec *parts, int count), (fd, parts, count), fd,
     count)
MOVE(ssize_t, preadv64v2, (int fd, const struct iovec *parts, int count, off64_t at, int flags),
     (fd, parts, count, at, flags), fd, count)
MOVE(ssize_t, pwritev64v2, (int fd, const struct iovec *parts, int count, off64_t at, int flags),
     (fd, parts, count, at, flags), fd, count)
MOVE(ssize_t, recv, (int fd, void *data, size_t size, int flags), (fd, data, size, flags), fd,
     size)
MOVE(ssize_t, recvfrom,
     (int fd, void *data, size_t size, int flags, struct sockaddr *from, socklen_t *length),
     (fd, data, size, flags, from, length), fd, size)
MOVE(ssize_t, send, (int fd, const void *data, size_t size, int flags), (fd, data, size, flags), fd,
     size)
MOVE(ssize_t, sendto,
     (int fd, const void *data, size_t size, int flags, const struct sockaddr *to,
      socklen_t length),
     (fd, data, size, flags, to, length), fd, size)
MOVE(ssize_t, sendfile64, (int fd, int from, off64_t *at, size_t size), (fd, from, at, size), from,
     size)
MOVE(ssize_t, copy_file_range,
     (int from, off64_t *at, int to, off64_t *there, size_t size, unsigned flags),
     (from, at, to, there, size, flags), from, size)
WRAP(ssize_t, recvmsg, (int fd, struct msghdr *message, int flags), (fd, message, flags), -1, fd,
     NULL)
WRAP(ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags), (fd, message, flags), -1,
     fd, NULL)

WRAP(int, setsockopt, (int fd, int level, int name, const void *value, socklen_t size),
     (fd, level, name, value, size), -1, fd, NULL)

WRAP(int, rename, (const char *from, const char *to), (from, to), -1, -1, from)
WRAP(int, renameat, (int folder, const char *from, int other, const char *to),
     (folder, from, other, to), -1, IN(folder), from)
WRAP(int, link, (const char *from, const char *to), (from, to), -1, -1, to)
WRAP(int, linkat, (int folder, const char *from, int other, const char *to, int flags),
     (folder, from, other, to, flags), -1, IN(other), to)
WRAP(int, unlink, (const char *path), (path), -1, -1, path)
WRAP(int, unlinkat, (int folder, const char *path, int flags), (folder, path, flags), -1,
     IN(folder), path)
WRAP(int, mkdir, (const char *path, mode_t mode), (path, mode), -1, -1, path)
WRAP(int, rmdir, (const char *path), (path), -1, -1, path)

WRAP(int, fstat, (int fd, struct stat *status), (fd, status), -1, fd, NULL)
WRAP(int, stat, (const char *path, struct stat *status), (path, status), -1, -1, path)
WRAP(int, lstat, (const char *path, struct stat *status), (path, status), -1, -1, path)
WRAP(int, fstatat, (int folder, const char *path, struct stat *status, int flags),
     (folder, path, status, flags), -1, IN(folder), path)
WRAP(int, fstat64, (int fd, struct stat64 *status), (fd, status), -1, fd, NULL)
WRAP(int, stat64, (const char *path, struct stat64 *status), (path, status), -1, -1, path)
WRAP(int, lstat64, (const char *path, struct stat64 *status), (path, status), -1, -1, path)
WRAP(int, fstatat64, (int folder, const char *path, struct stat64 *status, int flags),
     (folder, path, status, flags), -1, IN(folder), path)
WRAP(int, access, (const char *path, int mode), (path, mode), -1, -1, path)
WRAP(int, faccessat, (int folder, const char *path, int mode, int flags),
     (folder, path, mode, flags), -1, IN(folder), path)
WRAP(ssize_t, readlink, (const char *path, char *text, size_t size), (path, text, size), -1, -1,
     path)
WRAP(int, fchmod, (int fd, mode_t mode), (fd, mode), -1, fd, NULL)
WRAP(int, chmod, (const char *path, mode_t mode), (path, mode), -1, -1, path)
WRAP(int, futimens, (int fd, const struct timespec times[2]), (fd, times), -1, fd, NULL)
WRAP(int, utimensat, (int folder, const char *path, const struct timespec times[2], int flags),
     (folder, path, times, flags), -1, IN(folder), path)

WRAP(DIR *, opendir, (const char *path), (path), NULL, -1, path)
WRAP(DIR *, fdopendir, (int fd), (fd), NULL, fd, NULL)
WRAP(struct dirent64 *, readdir64, (DIR *folder), (folder), NULL, dirfd(folder), NULL)
WRAP(int, chdir, (const char *path), (path), -1, -1, path)
WRAP(int, fchdir, (int fd), (fd), -1, fd, NULL)
WRAP(char *, getcwd, (char *text, size_t size), (text, size), NULL, -1, NULL)

WRAP(int, flock, (int fd, int operation), (fd, operation), -1, fd, NULL)
WRAP(int, lockf64, (int fd, int operation, off64_t size), (fd, operation, size), -1, fd, NULL)
WRAP(off64_t, lseek64, (int fd, off64_t at, int whence), (fd, at, whence), -1, fd, NULL)
WRAP(int, ftruncate64, (int fd, off64_t size), (fd, size), -1, fd, NULL)
WRAP(int, posix_fallocate64, (int fd, off64_t at, off64_t size), (fd, at, size), errno, fd, NULL)

WRAP(int, poll, (struct pollfd *polled, nfds_t count, int limit), (polled, count, limit), -1,
     count ? polled->fd : -1, NULL)
WRAP(int, select, (int count, fd_set *in, fd_set *out, fd_set *other, struct timeval *limit),
     (count, in, out, other, limit), -1, -1, NULL)
WRAP(int, pipe, (int fds[2]), (fds), -1, -1, NULL)
WRAP(int, pipe2, (int fds[2], int flags), (fds, flags), -1, -1, NULL)
WRAP(int, socketpair, (int domain, int type, int protocol, int fds[2]),
     (domain, type, protocol, fds), -1, -1, NULL)
WRAP(int, dup, (int fd), (fd), -1, fd, NULL)
WRAP(int, memfd_create, (const char *name, unsigned flags), (name, flags), -1, -1, name)
/* A child that is armed has the first turn, for 50 ms: so the calls have one order in all runs. */
HERE pid_t fork(void)
{
    REAL(fork)
    if (fault("fork", -1, NULL, 0, 0) > 0)
        return -1;
    pid_t child = real();
    siginfo_t ended = {.si_pid = 0};
    for (int turn = 0; armed && child > 0 && turn < 250 && !ended.si_pid; turn++) {
        usleep(200);
        if (waitid(P_PID, child, &ended, WEXITED | WNOHANG | WNOWAIT))
            break;
    }
    return child;
}

WRAP(pid_t, waitpid, (pid_t pid, int *status, int options), (pid, status, options), -1, -1, NULL)
WRAP(pid_t, wait4, (pid_t pid, int *status, int options, struct rusage *usage),
     (pid, status, options, usage), -1, -1, NULL)

HERE int close(int fd)
{
    REAL(close)
    int how = fault("close", fd, NULL, 0, 0);
    int result = real(fd);
    if (how <= 0)
        return result;
    errno = how;
    return -1;
}

HERE int fsync(int fd) { return fault("fsync", fd, NULL, 0, 0) > 0 ? -1 : 0; }

HERE int fdatasync(int fd) { return fault("fdatasync", fd, NULL, 0, 0) > 0 ? -1 : 0; }

/* fcntl takes locks too; its other uses don't fail. */
HERE int fcntl64(int fd, int operation, ...)
{
    REAL(fcntl64)
    va_list rest;
    va_start(rest, operation);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    int locks = operation == F_SETLK || operation == F_SETLKW || operation == F_OFD_SETLK ||
                operation == F_OFD_SETLKW;
    return locks && fault("fcntl64", fd, NULL, 0, 0) > 0 ? -1 : real(fd, operation, argument);
}

/* Memory without a file behind it is not ours to count. */
HERE void *mmap64(void *at, size_t size, int protection, int flags, int fd, off64_t from)
{
    REAL(mmap64)
    int how = fd < 0 ? 0 : fault("mmap64", fd, NULL, 0, 0);
    return how > 0 ? MAP_FAILED : real(at, size, protection, flags, fd, from);
}

/* The clock of day may be wrong; the monotonic one never is. */
HERE int clock_gettime(clockid_t clock, struct timespec *now)
{
    REAL(clock_gettime)
    int result = real(clock, now);
    if (clock == CLOCK_REALTIME && shared)
        now->tv_sec += atomic_load(&shared->ahead);
    return result;
}
