/* The JSON of images: whatever it is, it is decoded or refused with one line that says why. */
#include "common/check.h"
#include "common/image/oci.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void judged(struct status s, const struct errmsg *msg)
{
    CHECK(status_is_ok(s) || msg->text[0] != '\0');
    CHECK(strpbrk(msg->text, "\n\r\x1b") == NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct bytes json = bytes_of(data, size);
    struct arena a = {0};
    struct errmsg msg = {.text = ""};
    struct oci_target target;
    struct oci_manifest manifest;
    struct oci_config config;
    struct docker_manifest docker;
    judged(oci_index_decode(json, &target, &msg), &msg);
    judged(oci_manifest_decode(json, &a, &manifest, &msg), &msg);
    judged(oci_config_decode(json, &a, &config, &msg), &msg);
    judged(docker_manifest_decode(json, &a, &docker, &msg), &msg);
    arena_close(&a);
    return 0;
}
