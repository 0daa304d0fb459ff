/* Stands between a test's child process and its files: makes the n-th write or sync fail, or a
 * sync wait. Loaded with LD_PRELOAD.
 *
 * SHIM_FILES   only paths that begin with this
 * SHIM_ERRNO   what a failing call says
 * SHIM_FAIL    which call fails, counted from 1
 * SHIM_STICKY  set: every later call fails too
 * SHIM_LOG     where the call that failed first is named
 * SHIM_GATE    a sync of the log waits while a file of this name exists, and says so by making
 *              another one, whose name ends in `.waiting`
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_long calls;

static const char *path_of(int fd, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);
    if (length < 0) return NULL;
    path[length] = 0;
    const char *files = getenv("SHIM_FILES");
    return files && strncmp(path, files, strlen(files)) == 0 ? path : NULL;
}

/* Whether this call fails. */
static int fails(int fd, const char *call) {
    const char *fail = getenv("SHIM_FAIL");
    if (!fail) return 0;
    int before = errno;
    char path[4096];
    if (!path_of(fd, path, sizeof path)) {
        errno = before;
        return 0;
    }
    long number = atomic_fetch_add(&calls, 1) + 1, chosen = atol(fail);
    if (number == chosen) {
        FILE *log = fopen(getenv("SHIM_LOG"), "w");
        if (log) {
            fprintf(log, "%s %s\n", call, path);
            fclose(log);
        }
    }
    if (number == chosen || (number > chosen && getenv("SHIM_STICKY"))) {
        errno = atoi(getenv("SHIM_ERRNO"));
        return 1;
    }
    errno = before;
    return 0;
}

static void wait_at_gate(int fd) {
    const char *gate = getenv("SHIM_GATE");
    char path[4096];
    if (!gate || !path_of(fd, path, sizeof path)) return;
    size_t length = strlen(path);
    if (length < 4 || strcmp(path + length - 4, "-wal") != 0) return;
    char waiting[4200];
    snprintf(waiting, sizeof waiting, "%s.waiting", gate);
    while (access(gate, F_OK) == 0) {
        int made = open(waiting, O_CREAT | O_WRONLY, 0600);
        if (made >= 0) close(made);
        usleep(1000);
    }
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

#define WRITE(name, parameters, arguments) \
    ssize_t name parameters { \
        REAL(name); \
        return fails(fd, "write") ? -1 : real arguments; \
    }

WRITE(write, (int fd, const void *data, size_t size), (fd, data, size))
WRITE(pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
WRITE(pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at))

#define SYNC(name) \
    int name(int fd) { \
        REAL(name); \
        wait_at_gate(fd); \
        return fails(fd, "sync") ? -1 : real(fd); \
    }

SYNC(fsync)
SYNC(fdatasync)

#define TRUNCATE(name, offset) \
    int name(int fd, offset size) { \
        REAL(name); \
        return fails(fd, "truncate") ? -1 : real(fd, size); \
    }

TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)
