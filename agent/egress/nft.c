#include "agent/egress/nft.h"

#include <jansson.h>
#include <nftables/libnftables.h>
#include <stdio.h>
#include <string.h>

static struct status run(struct nft_ctx *nft, const char *text, struct errmsg *msg)
{
    if (nft_ctx_buffer_output(nft) != 0 || nft_ctx_buffer_error(nft) != 0) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    if (nft_run_cmd_from_buffer(nft, text) != 0) {
        const char *error = nft_ctx_get_error_buffer(nft);
        error = error != NULL ? error : "";
        return status_fail(msg, STATUS_IO, "nft: %.*s", (int)strcspn(error, "\n"), error);
    }
    return status_ok();
}

struct status nft_apply(const char *text, struct errmsg *msg)
{
    struct nft_ctx *nft = nft_ctx_new(NFT_CTX_DEFAULT);
    if (nft == NULL) {
        return status_fail(msg, STATUS_NOMEM, "nft: no context");
    }
    struct status s = run(nft, text, msg);
    nft_ctx_free(nft);
    return s;
}

/* {"nftables": [{"metainfo": ...}, {"counter": {..., "packets": N}}]} */
static struct status counter_find(const char *text, uint64_t *packets, struct errmsg *msg)
{
    json_t *root = json_loads(text != NULL ? text : "", 0, NULL);
    size_t i;
    const json_t *item;
    json_array_foreach(json_object_get(root, "nftables"), i, item) {
        const json_t *n = json_object_get(json_object_get(item, "counter"), "packets");
        if (json_is_integer(n)) {
            *packets = (uint64_t)json_integer_value(n);
            json_decref(root);
            return status_ok();
        }
    }
    json_decref(root);
    return status_fail(msg, STATUS_NOT_FOUND, "nft: no such counter");
}

struct status nft_counter(const char *table, const char *counter, uint64_t *packets,
                          struct errmsg *msg)
{
    char text[256];
    struct nft_ctx *nft = nft_ctx_new(NFT_CTX_DEFAULT);
    if (nft == NULL) {
        return status_fail(msg, STATUS_NOMEM, "nft: no context");
    }
    nft_ctx_output_set_flags(nft, NFT_CTX_OUTPUT_JSON);
    (void)snprintf(text, sizeof text, "list counter inet %s %s", table, counter);
    struct status s = run(nft, text, msg);
    if (status_is_ok(s)) {
        s = counter_find(nft_ctx_get_output_buffer(nft), packets, msg);
    }
    nft_ctx_free(nft);
    return s;
}
