/* A canary's answer: what decodes is within its bounds and safe to print, and stays so when checks
 * are added. And a canary's targets, which the agent writes, never hurt the canary. */
#include "agent/canary/canary.h"
#include "agent/canary_report.h"
#include "common/check.h"
#include "common/mem.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_texts(const struct canary_report *r)
{
    CHECK(r->count <= ISOLATION_RESULTS_MAX);
    for (size_t i = 0; i < r->count; i++) {
        const struct isolation_result *one = &r->results[i];
        CHECK(strlen(one->check) > 0 && strlen(one->check) < ISOLATION_CHECK_BYTES);
        CHECK(strlen(one->detail) < ISOLATION_DETAIL_BYTES);
        CHECK(one->verdict >= ISOLATION_HELD && one->verdict <= ISOLATION_NOT_RUN);
        for (const char *at = one->detail; *at != '\0'; at++) {
            CHECK(*at >= ' ' && *at <= '~');
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct canary_targets targets;
    struct canary_report *r = mem_must(mem_zalloc(1, sizeof *r));
    struct errmsg msg;
    if (status_is_ok(canary_report_decode(bytes_of(data, size), r, &msg))) {
        check_texts(r);
        canary_report_prove(r, "0123456789abcdef0123456789abcdef");
        canary_report_complete(r);
        check_texts(r);
    } else {
        CHECK(r->count == 0);
    }
    if (canary_targets_read((const char *)data, size, &targets)) {
        CHECK(targets.addresses_count <= CANARY_ADDRESSES_MAX);
    }
    mem_free(r);
    return 0;
}
