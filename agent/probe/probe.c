#include "agent/probe/probe.h"

#include "common/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { FILE_BYTES_MAX = 16 << 10 };

/* Reads the beginning of a file, which is all that matters in the files read here. */
static bool file_read(const char *path, char *text, size_t size)
{
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    size_t got = 0;
    while (got + 1 < size) {
        ssize_t n = read(fd, text + got, size - 1 - got);
        if (n < 0) {
            return false;
        }
        if (n == 0) {
            break;
        }
        got += (size_t)n;
    }
    text[got] = '\0';
    return true;
}

/* cpu user nice system idle iowait irq softirq steal guest guest_nice: guest is in user already. */
bool probe_parse_stat(const char *text, uint64_t *busy_ticks)
{
    uint64_t user, nice, system, idle, iowait, irq, softirq, steal;
    int n = sscanf(text,
                   "cpu %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64
                   " %" SCNu64 " %" SCNu64,
                   &user, &nice, &system, &idle, &iowait, &irq, &softirq, &steal);
    if (n != 8) {
        return false;
    }
    *busy_ticks = user + nice + system + irq + softirq;
    return true;
}

static bool kib_of(const char *text, const char *key, uint64_t *bytes)
{
    const char *at = strstr(text, key);
    uint64_t kib;
    if (at == NULL || sscanf(at + strlen(key), ": %" SCNu64 " kB", &kib) != 1) {
        return false;
    }
    *bytes = kib << 10;
    return true;
}

bool probe_parse_meminfo(const char *text, uint64_t *total_bytes, uint64_t *available_bytes)
{
    return kib_of(text, "MemTotal", total_bytes) && kib_of(text, "MemAvailable", available_bytes);
}

bool probe_parse_milli(const char *text, uint32_t *milli)
{
    unsigned whole;
    unsigned hundredths;
    if (sscanf(text, "%7u.%2u", &whole, &hundredths) != 2) {
        return false;
    }
    *milli = (uint32_t)(whole * 1000 + hundredths * 10);
    return true;
}

bool probe_parse_psi(const char *text, uint32_t *some_milli)
{
    static const char key[] = "some avg10=";
    const char *at = strstr(text, key);
    uint32_t percent_milli;
    if (at == NULL || !probe_parse_milli(at + sizeof key - 1, &percent_milli)) {
        return false;
    }
    *some_milli = percent_milli / 100;
    return true;
}

/* The memory limit of the group we run in, where it is mounted as in a container: at the
 * hierarchy's root. */
static uint64_t own_limit(void)
{
    static const char *const paths[] = {
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    };
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        char text[64];
        uint64_t value;
        if (file_read(paths[i], text, sizeof text) && sscanf(text, "%" SCNu64, &value) == 1 &&
            value > 0) {
            return value;
        }
    }
    return UINT64_MAX;
}

void probe_init(struct probe *p, const char *data)
{
    *p = (struct probe){.memory_limit = own_limit()};
    (void)snprintf(p->data, sizeof p->data, "%s", data);
}

static uint32_t psi_read(const char *path)
{
    char text[512];
    uint32_t milli;
    return file_read(path, text, sizeof text) && probe_parse_psi(text, &milli) ? milli : 0;
}

static void cpu_read(struct probe *p, uint64_t now_us, char *text, struct probe_sample *out)
{
    uint64_t busy;
    if (!file_read("/proc/stat", text, FILE_BYTES_MAX) || !probe_parse_stat(text, &busy)) {
        return;
    }
    uint64_t elapsed_us = now_us - p->sample_us;
    if (p->sample_us != 0 && elapsed_us > 0 && busy >= p->busy_ticks) {
        uint64_t ticks_per_s = (uint64_t)sysconf(_SC_CLK_TCK);
        uint64_t busy_us = (busy - p->busy_ticks) * 1000000 / ticks_per_s;
        out->cpu_used_millis = (uint32_t)(busy_us * 1000 / elapsed_us);
    }
    p->busy_ticks = busy;
    p->sample_us = now_us;
}

void probe_read(struct probe *p, uint64_t now_us, struct probe_sample *out)
{
    char text[FILE_BYTES_MAX];
    *out = (struct probe_sample){0};
    cpu_read(p, now_us, text, out);
    uint64_t total;
    uint64_t available;
    if (file_read("/proc/meminfo", text, sizeof text) &&
        probe_parse_meminfo(text, &total, &available)) {
        out->memory_total_bytes = total < p->memory_limit ? total : p->memory_limit;
        out->memory_used_bytes = total > available ? total - available : 0;
    }
    if (file_read("/proc/loadavg", text, sizeof text)) {
        (void)probe_parse_milli(text, &out->load1_milli);
    }
    out->psi_cpu_milli = psi_read("/proc/pressure/cpu");
    out->psi_memory_milli = psi_read("/proc/pressure/memory");
    out->psi_io_milli = psi_read("/proc/pressure/io");
    struct statvfs disk;
    if (statvfs(p->data, &disk) == 0) {
        out->disk_free_bytes = (uint64_t)disk.f_bavail * disk.f_frsize;
    }
}
