/* A snapshot of the whole core, as a disk or a backup may hold it: restoring never reads past it,
 * what is restored keeps every invariant, and its own snapshot restores to the same state. */
#include "common/check.h"
#include "scheduler/core/catalog.h"
#include "scheduler/core/core.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void send(void *data, uint64_t peer, const struct message *m)
{
    (void)data;
    (void)peer;
    (void)m;
}

static struct status propose(void *data, uint64_t ticket, const struct command *c)
{
    (void)data;
    (void)ticket;
    (void)c;
    return status_of(STATUS_NOT_LEADER);
}

static uint64_t random_number(void *data)
{
    (void)data;
    return 4;
}

static void restore_again(struct core *c, struct core_time now)
{
    const struct core_env env = {.send = send, .propose = propose, .random = random_number};
    const struct core_config config = {0};
    struct core *other = core_new(&env, &config);
    struct core_pin *pin = core_pin(c);
    CHECK(other != NULL);
    CHECK(pin != NULL);
    struct parts parts = {0};
    struct buffer whole = {0};
    struct errmsg msg = {.text = ""};
    CHECK(status_is_ok(core_pin_encode(pin, &parts)));
    core_unpin(c, pin);
    for (size_t i = 0; i < parts.count; i++) {
        CHECK(status_is_ok(buffer_append(&whole, parts.items[i].data, parts.items[i].size)));
    }
    const struct bytes bytes = bytes_of(whole.data, whole.size);
    CHECK(status_is_ok(core_restore(other, now, bytes, &msg)));
    CHECK(catalog_digest(core_catalog(other)) == catalog_digest(core_catalog(c)));
    parts_close(&parts);
    buffer_close(&whole);
    core_free(other);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct core_env env = {.send = send, .propose = propose, .random = random_number};
    const struct core_config config = {0};
    const struct core_time now = {.mono_us = 1000000, .unix_ms = 1700000000000};
    struct core *c = core_new(&env, &config);
    CHECK(c != NULL);
    struct errmsg msg = {.text = ""};
    if (status_is_ok(core_restore(c, now, bytes_of(data, size), &msg))) {
        core_check(c);
        restore_again(c, now);
    } else {
        CHECK(msg.text[0] != '\0');
    }
    core_free(c);
    return 0;
}
