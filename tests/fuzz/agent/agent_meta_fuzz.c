/* meta.json of an instance's folder: what decodes must encode to what decodes to the same. */
#include "agent/instance_files.h"
#include "common/check.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct instance_meta m;
    struct errmsg msg;
    if (!status_is_ok(instance_meta_decode(bytes_of(data, size), &m, &msg))) {
        return 0;
    }
    struct buffer json = {0};
    struct instance_meta again;
    CHECK(status_is_ok(instance_meta_encode(&m, &json)));
    CHECK(status_is_ok(instance_meta_decode(bytes_of(json.data, json.size), &again, &msg)));
    CHECK(id_compare(m.instance, again.instance) == 0);
    CHECK(m.concurrency == again.concurrency);
    CHECK(m.memory_bytes == again.memory_bytes);
    CHECK(strcmp(m.cgroup, again.cgroup) == 0);
    CHECK(m.gpus_count == again.gpus_count);
    buffer_close(&json);
    return 0;
}
