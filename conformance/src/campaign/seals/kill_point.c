// Kills the process at one of its effects: preloaded into the server by the campaign `seals`. The file named by KILL_POINT holds two numbers of 8
// bytes: how many effects the process still has, 0 for no limit, and how many it has had since the first number was set. Effects are writes to
// files, sockets and pipes, changes of length, and syncs. The process ends before the last one.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int64_t *point;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("KILL_POINT");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *mapped = mmap(0, 16, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    point = mapped == MAP_FAILED ? 0 : mapped;
}

static void effect(void) {
    if (!point || __atomic_load_n(&point[0], __ATOMIC_SEQ_CST) <= 0)
        return;
    __atomic_add_fetch(&point[1], 1, __ATOMIC_SEQ_CST);
    if (__atomic_sub_fetch(&point[0], 1, __ATOMIC_SEQ_CST) == 0) {
        kill(getpid(), SIGKILL);
        for (;;)
            pause();
    }
}

// Writes of 8 bytes wake up threads of the process itself.
static void bytes(size_t count) {
    if (count != 8)
        effect();
}

ssize_t write(int fd, const void *from, size_t count) {
    bytes(count);
    return NEXT(write)(fd, from, count);
}

ssize_t pwrite(int fd, const void *from, size_t count, off_t at) {
    effect();
    return NEXT(pwrite)(fd, from, count, at);
}

ssize_t pwrite64(int fd, const void *from, size_t count, off64_t at) {
    effect();
    return NEXT(pwrite64)(fd, from, count, at);
}

ssize_t writev(int fd, const struct iovec *from, int parts) {
    effect();
    return NEXT(writev)(fd, from, parts);
}

ssize_t send(int fd, const void *from, size_t count, int flags) {
    effect();
    return NEXT(send)(fd, from, count, flags);
}

ssize_t sendto(int fd, const void *from, size_t count, int flags, const struct sockaddr *to, socklen_t length) {
    effect();
    return NEXT(sendto)(fd, from, count, flags, to, length);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    effect();
    return NEXT(sendmsg)(fd, message, flags);
}

int fsync(int fd) {
    effect();
    return NEXT(fsync)(fd);
}

int fdatasync(int fd) {
    effect();
    return NEXT(fdatasync)(fd);
}

int ftruncate(int fd, off_t length) {
    effect();
    return NEXT(ftruncate)(fd, length);
}

int ftruncate64(int fd, off64_t length) {
    effect();
    return NEXT(ftruncate64)(fd, length);
}
