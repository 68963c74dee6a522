/*
 * Loaded into a server before its own code (LD_PRELOAD): its wall clock is the system's plus as many nanoseconds as the
 * file named by ARCA_JEPSEN_CLOCK holds. The file is mapped, so a change shows at the next look at the clock, as a step
 * of the system's own clock would. The monotonic clock is left alone, as such a step leaves it alone.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#include <dlfcn.h>

static const volatile int64_t *offset;
static int (*system_clock)(clockid_t, struct timespec *);

__attribute__((constructor)) static void start(void)
{
    system_clock = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    const char *path = getenv("ARCA_JEPSEN_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *mapped = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED)
        offset = mapped;
    close(file);
}

static int ask(clockid_t clock, struct timespec *now)
{
    return system_clock ? system_clock(clock, now) : (int)syscall(SYS_clock_gettime, clock, now);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int failed = ask(clock, now);
    if (failed || !offset || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE))
        return failed;
    int64_t by = *offset;
    int64_t nanos = now->tv_nsec + by % 1000000000;
    now->tv_sec += by / 1000000000;
    if (nanos < 0) {
        nanos += 1000000000;
        now->tv_sec -= 1;
    } else if (nanos >= 1000000000) {
        nanos -= 1000000000;
        now->tv_sec += 1;
    }
    now->tv_nsec = nanos;
    return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec precise;
    (void)zone;
    int failed = clock_gettime(CLOCK_REALTIME, &precise);
    if (!failed && now) {
        now->tv_sec = precise.tv_sec;
        now->tv_usec = precise.tv_nsec / 1000;
    }
    return failed;
}

time_t time(time_t *now)
{
    struct timespec precise;
    if (clock_gettime(CLOCK_REALTIME, &precise))
        return -1;
    if (now)
        *now = precise.tv_sec;
    return precise.tv_sec;
}
