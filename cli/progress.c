/* How far a batch is, on one line of a terminal. */
#include "cli/durable.h"

#include <inttypes.h>
#include <unistd.h>
#include <uv.h>

enum { SHOW_US = 100000, BAR = 30 };

void progress_show(struct progress *p, uint64_t done, uint64_t all, const char *what)
{
    uint64_t now_us = uv_hrtime() / 1000;
    if (now_us - p->shown_us < SHOW_US || isatty(STDERR_FILENO) == 0 ||
        isatty(STDOUT_FILENO) != 0) {
        return;
    }
    p->shown_us = now_us;
    p->shown = true;
    if (all == 0) {
        (void)fprintf(stderr, "\r%" PRIu64 " %s", done, what);
        return;
    }
    uint64_t part = done < all ? done * BAR / all : BAR;
    (void)fprintf(stderr, "\r[");
    for (uint64_t i = 0; i < BAR; i++) {
        (void)fputc(i < part ? '#' : ' ', stderr);
    }
    (void)fprintf(stderr, "] %3" PRIu64 "%% %s", done < all ? done * 100 / all : 100, what);
}

void progress_end(struct progress *p)
{
    if (p->shown) {
        (void)fputs("\r\033[K", stderr);
        p->shown = false;
    }
}
