/* CDI files, the first byte says in which language, and names of shared libraries: any bytes are
 * decoded or refused with a message, and what is decoded is whole. */
#include "agent/gpu/cdi.h"
#include "agent/gpu/soname.h"
#include "common/check.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void edits_check(const struct cdi_edits *e)
{
    CHECK(e->nodes_count <= CDI_NODES_MAX && e->mounts_count <= CDI_MOUNTS_MAX);
    for (size_t i = 0; i < e->nodes_count; i++) {
        CHECK(strncmp(e->nodes[i].inside, "/dev/", 5) == 0 && e->nodes[i].outside[0] == '/');
    }
    for (size_t i = 0; i < e->mounts_count; i++) {
        CHECK(e->mounts[i].inside[0] == '/' && e->mounts[i].outside[0] == '/');
    }
    for (size_t i = 0; i < e->env_count; i++) {
        CHECK(strchr(e->env[i], '=') != NULL);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cdi_spec spec;
    struct errmsg msg = {""};
    char name[SONAME_BYTES];
    if (soname_of(bytes_of(data, size), name)) {
        CHECK(name[0] != '\0' && strchr(name, '/') == NULL);
    }
    if (size == 0) {
        return 0;
    }
    if (!status_is_ok(cdi_parse("f", bytes_of(data + 1, size - 1), data[0] == 'y', &spec, &msg))) {
        CHECK(msg.text[0] != '\0');
        return 0;
    }
    edits_check(&spec.edits);
    for (size_t i = 0; i < spec.devices_count; i++) {
        CHECK(spec.devices[i].name[0] != '\0');
        edits_check(&spec.devices[i].edits);
    }
    cdi_spec_close(&spec);
    return 0;
}
