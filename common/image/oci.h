/* The JSON of OCI image layouts and of docker's archives, bounded and checked: what is in it that
 * an import needs. Specification: github.com/opencontainers/image-spec, image-layout.md,
 * image-index.md, manifest.md, config.md.
 *
 * Thread: any; no shared state. */
#ifndef COMMON_IMAGE_OCI_H
#define COMMON_IMAGE_OCI_H

#include "common/arena.h"
#include "common/buffer.h"
#include "common/ids.h"
#include "common/image_ref.h"
#include "common/status.h"

#include <stdint.h>

enum {
    OCI_JSON_BYTES_MAX = 4 << 20,
    OCI_LAYERS_MAX = 256,
    OCI_MANIFESTS_MAX = 256, /* of an index */
    OCI_PATH_BYTES_MAX = 512,
};

/* A blob: what its content must be. */
struct oci_blob {
    struct digest digest;
    uint64_t bytes;
};

/* What an index points to: one blob, which is an index again or a manifest. */
struct oci_target {
    struct oci_blob blob;
    bool is_index;
};

struct oci_manifest {
    struct oci_blob config;
    struct oci_blob *layers; /* lowest first; in the arena */
    size_t layers_count;
};

/* docker's manifest.json: paths inside the archive, in the arena. */
struct docker_manifest {
    const char *config;
    const char **layers;
    size_t layers_count;
};

/* An image's configuration. Texts are in the arena. */
struct oci_config {
    const char *env[IMAGE_ENV_MAX];
    size_t env_count;
    const char *workdir; /* "" when there is none */
    const char *entrypoint[IMAGE_WORDS_MAX];
    size_t entrypoint_count; /* Entrypoint, then Cmd */
    struct digest *diff_ids; /* of each layer's uncompressed archive */
    size_t diff_ids_count;
};

/* Each: INVALID with what is wrong and where, UNSUPPORTED for what is right but not for us (another
 * architecture, another kind of layer), LIMIT, NOMEM. *out is written only on success. */

/* The one image for linux/amd64 (entries without a platform count when none has one that fits). */
NODISCARD struct status oci_index_decode(struct bytes json, struct oci_target *out,
                                         struct errmsg *msg);
NODISCARD struct status oci_manifest_decode(struct bytes json, struct arena *a,
                                            struct oci_manifest *out, struct errmsg *msg);
NODISCARD struct status oci_config_decode(struct bytes json, struct arena *a,
                                          struct oci_config *out, struct errmsg *msg);
NODISCARD struct status docker_manifest_decode(struct bytes json, struct arena *a,
                                               struct docker_manifest *out, struct errmsg *msg);

#endif
