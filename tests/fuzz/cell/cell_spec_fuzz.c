/* spec.json: any bytes decode or are refused with a message, and what decodes survives the round
 * trip. */
#include "agent/cell/cell.h"
#include "common/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct cell_spec spec;
    static struct cell_spec back;
    struct buffer json = {0};
    struct buffer again = {0};
    struct errmsg msg = {""};
    if (!status_is_ok(cell_spec_decode(bytes_of(data, size), &spec, &msg))) {
        CHECK(msg.text[0] != '\0');
        return 0;
    }
    CHECK(spec.args_count > 0 && spec.args_count <= CELL_ARGS_MAX);
    CHECK(spec.env_count <= CELL_ENV_MAX && spec.mounts_count <= CELL_MOUNTS_MAX);
    CHECK(spec.devices_count <= CELL_DEVICES_MAX);
    CHECK(status_is_ok(cell_spec_encode(&spec, &json, &msg)));
    CHECK(status_is_ok(cell_spec_decode(bytes_of(json.data, json.size), &back, &msg)));
    CHECK(status_is_ok(cell_spec_encode(&back, &again, &msg)));
    CHECK(bytes_equal(bytes_of(json.data, json.size), bytes_of(again.data, again.size)));
    cell_spec_close(&spec);
    cell_spec_close(&back);
    buffer_close(&json);
    buffer_close(&again);
    return 0;
}
