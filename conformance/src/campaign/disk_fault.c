// Makes file operations fail as a full or dying disk would, while the file named by FAULT_SWITCH exists. Preloaded into the server by the
// `disk` campaign. The switch holds two words: what fails, and the beginning of the paths for which it does.
//
//   write-full     writes and growth end in ENOSPC          sync-full      syncs end in ENOSPC
//   write-short    the same, after half of the bytes        sync-broken    syncs end in EIO
//   write-broken   writes and changes of length end in EIO  sync-stuck     syncs wait while the file exists

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

// The fault that this descriptor has now, in `mode`; 0 for none.
static int faulty(int fd, char mode[16]) {
    const char *path = getenv("FAULT_SWITCH");
    int kept = errno, found = 0;
    int opened = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (opened >= 0) {
        char text[PATH_MAX + 32] = {0}, prefix[PATH_MAX] = {0}, link[64], target[PATH_MAX] = {0};
        if (read(opened, text, sizeof text - 1) > 0 && sscanf(text, "%15s %4095s", mode, prefix) == 2) {
            snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
            found = readlink(link, target, sizeof target - 1) > 0 && strncmp(target, prefix, strlen(prefix)) == 0;
        }
        close(opened);
    }
    errno = kept;
    return found;
}

static int fail(int error) {
    errno = error;
    return -1;
}

// Whether a write fails (then errno is set), and how many of its bytes are written before.
static int write_fails(int fd, size_t *count) {
    char mode[16] = {0};
    if (!faulty(fd, mode) || strncmp(mode, "write-", 6) != 0)
        return 0;
    if (strcmp(mode, "write-short") == 0 && *count > 1) {
        *count /= 2;
        return 0;
    }
    errno = strcmp(mode, "write-broken") == 0 ? EIO : ENOSPC;
    return 1;
}

static int sync_fails(int fd) {
    char mode[16] = {0};
    if (!faulty(fd, mode) || strncmp(mode, "sync-", 5) != 0)
        return 0;
    if (strcmp(mode, "sync-stuck") == 0) {
        while (faulty(fd, mode) && strcmp(mode, "sync-stuck") == 0)
            usleep(2000);
        return 0;
    }
    errno = strcmp(mode, "sync-broken") == 0 ? EIO : ENOSPC;
    return 1;
}

static int length_fails(int fd, off_t length) {
    char mode[16] = {0};
    struct stat now;
    if (!faulty(fd, mode) || strncmp(mode, "write-", 6) != 0)
        return 0;
    if (strcmp(mode, "write-broken") == 0)
        return fail(EIO);
    return fstat(fd, &now) == 0 && length > now.st_size ? fail(ENOSPC) : 0;
}

ssize_t write(int fd, const void *from, size_t count) {
    return write_fails(fd, &count) ? -1 : NEXT(write)(fd, from, count);
}

ssize_t pwrite(int fd, const void *from, size_t count, off_t at) {
    return write_fails(fd, &count) ? -1 : NEXT(pwrite)(fd, from, count, at);
}

ssize_t pwrite64(int fd, const void *from, size_t count, off64_t at) {
    return write_fails(fd, &count) ? -1 : NEXT(pwrite64)(fd, from, count, at);
}

ssize_t writev(int fd, const struct iovec *from, int parts) {
    size_t whole = 1;
    return write_fails(fd, &whole) ? -1 : NEXT(writev)(fd, from, parts);
}

int fsync(int fd) { return sync_fails(fd) ? -1 : NEXT(fsync)(fd); }

int fdatasync(int fd) { return sync_fails(fd) ? -1 : NEXT(fdatasync)(fd); }

int ftruncate(int fd, off_t length) { return length_fails(fd, length) ? -1 : NEXT(ftruncate)(fd, length); }

int ftruncate64(int fd, off64_t length) { return length_fails(fd, length) ? -1 : NEXT(ftruncate64)(fd, length); }
