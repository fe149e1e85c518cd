// Preloaded into the nodes of the `cluster` campaign: each node connects to the proxies of the cluster ports from its own address, so that they
// know the link, and its wall clock can be stepped.
//
//   NODE_ADDRESS   the address from which connections to 127.0.1.0/24 come
//   CLOCK_FILE     a file with the seconds by which the wall clock is ahead, as a number of 8 bytes
//
// Rust programs read clocks with and without the C library, and both call the vDSO. Its function is therefore replaced by a jump.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define PROXIES 0x7f0001 // 127.0.1.0/24

static volatile const int64_t *ahead;

int connect(int fd, const struct sockaddr *to, socklen_t length) {
    static int (*next)(int, const struct sockaddr *, socklen_t);
    if (!next)
        next = (__typeof__(next))dlsym(RTLD_NEXT, "connect");
    const char *own = getenv("NODE_ADDRESS");
    const struct sockaddr_in *in = (const struct sockaddr_in *)to;
    if (own && to->sa_family == AF_INET && length >= sizeof *in && ntohl(in->sin_addr.s_addr) >> 8 == PROXIES) {
        struct sockaddr_in from = {.sin_family = AF_INET};
        int late = 1; // The port is chosen by `connect`, so that it may be in use for another destination.
        inet_aton(own, &from.sin_addr);
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &late, sizeof late);
        if (bind(fd, (struct sockaddr *)&from, sizeof from) != 0)
            return -1;
    }
    return next(fd, to, length);
}

static long gettime(clockid_t clock, struct timespec *time) {
    long result;
#ifdef __x86_64__
    __asm__ volatile("syscall" : "=a"(result) : "0"((long)SYS_clock_gettime), "D"((long)clock), "S"(time) : "rcx", "r11", "memory");
#else
    result = syscall(SYS_clock_gettime, clock, time);
#endif
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_TAI))
        time->tv_sec += *ahead;
    return result;
}

// The function of the vDSO with this name; NULL when there is none.
static unsigned char *in_vdso(const unsigned char *vdso, const char *name) {
    const Elf64_Ehdr *head = (const Elf64_Ehdr *)vdso;
    const Elf64_Phdr *part = (const Elf64_Phdr *)(vdso + head->e_phoff);
    const Elf64_Dyn *dynamic = NULL;
    for (int i = 0; i < head->e_phnum; i++)
        if (part[i].p_type == PT_DYNAMIC)
            dynamic = (const Elf64_Dyn *)(vdso + part[i].p_offset);
    const Elf64_Sym *symbols = NULL;
    const char *names = NULL;
    for (; dynamic && dynamic->d_tag != DT_NULL; dynamic++) {
        if (dynamic->d_tag == DT_SYMTAB)
            symbols = (const Elf64_Sym *)(vdso + dynamic->d_un.d_ptr);
        if (dynamic->d_tag == DT_STRTAB)
            names = (const char *)(vdso + dynamic->d_un.d_ptr);
    }
    // The table of names follows that of symbols.
    for (const Elf64_Sym *symbol = symbols; symbol && names && (const char *)(symbol + 1) <= names; symbol++)
        if (strcmp(names + symbol->st_name, name) == 0)
            return (unsigned char *)vdso + symbol->st_value;
    return NULL;
}

__attribute__((constructor)) static void replace_clock(void) {
    const char *path = getenv("CLOCK_FILE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *mapped = mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    unsigned char *vdso = (unsigned char *)getauxval(AT_SYSINFO_EHDR);
    unsigned char *function = vdso ? in_vdso(vdso, "__vdso_clock_gettime") : NULL;
    if (mapped == MAP_FAILED || !function)
        abort();
    ahead = mapped;
#ifdef __x86_64__
    // movabs $gettime, %rax; jmp *%rax
    unsigned char jump[12] = {0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xe0};
    void *to = (void *)gettime;
    memcpy(jump + 2, &to, sizeof to);
    // The mapping may be sealed against mprotect; a process may write to its own memory nevertheless.
    int memory = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
    if (memory < 0 || pwrite(memory, jump, sizeof jump, (off_t)function) != sizeof jump)
        abort();
    close(memory);
#else
    abort();
#endif
}
