/* The machine of a test: what the fake NVML answers, and the module that asks it. */
#ifndef TESTS_UNIT_GPU_FAKE_H
#define TESTS_UNIT_GPU_FAKE_H

#include "agent/gpu/gpu.h"

struct fake {
    char folder[64];
    char file[80];
    struct gpu *gpu;
};

/* An empty machine; ends by fake_close, which is fine with or without the module open. */
void fake_open(struct fake *f);
void fake_close(struct fake *f);
/* What is answered from now on. */
void fake_say(const struct fake *f, const char *text);
/* Opens the module with short intervals. */
void fake_start(struct fake *f, const char *library);
/* Polls until the condition holds; fails after a while. */
void fake_wait(struct fake *f, bool (*condition)(const struct gpu_inventory *i));
/* After fake_wait. */
const struct gpu_inventory *fake_now(struct fake *f);
/* Has the library been shut down? */
bool fake_marked(const struct fake *f);
void fake_wait_mark(const struct fake *f);

#endif
