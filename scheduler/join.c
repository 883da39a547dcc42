#include "scheduler/join.h"

#include "common/config.h"
#include "common/net/join.h"
#include "common/seal/keys_file.h"
#include "common/seal/wrap.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static struct status put_config(const struct join_options *o, const char *data,
                                const struct join_result *r, struct buffer *text)
{
    TRY(buffer_printf(text, "cluster: %s\nid: %s\nlisten: \"%s\"\nadvertise: \"%s\"\ndata: %s\n",
                      r->identity.cluster.text, o->name, o->address, o->address, data));
    TRY(buffer_printf(text,
                      "ca: %s/pki/ca.pem\ncert: %s/pki/cert.pem\nkey: %s/pki/key.pem\nca_key: "
                      "%s/pki/ca.key\n",
                      data, data, data, data));
    /* Given by hand, as the key is: no message carries it. */
    if (o->cluster_key != NULL) {
        TRY(buffer_printf(text, "seal: {cluster_key: \"%s\"}\n", o->cluster_key));
    }
    TRY(buffer_printf(text, "peers:\n"));
    /* Its own name is not among them: it does not found a cluster but waits to be added. */
    for (size_t i = 0; i < r->schedulers_count; i++) {
        TRY(buffer_printf(text, "  - {id: %s, address: \"%s\"}\n", r->scheduler_names[i],
                          r->schedulers[i]));
    }
    return buffer_append(text, "", 1);
}

static struct status write_all(const struct join_options *o, const char *data,
                               const struct join_result *r, struct errmsg *msg)
{
    char folder[CONFIG_PATH_BYTES_MAX + 8];
    (void)snprintf(folder, sizeof folder, "%s/pki", data);
    TRY(join_result_write(r, folder, msg));
    if (r->keys.size > 0) {
        (void)snprintf(folder, sizeof folder, "%s/keys", data);
        TRY(keys_file_write(folder, bytes_of(r->keys.data, r->keys.size), msg));
    }
    struct buffer text = {0};
    struct status s = put_config(o, data, r, &text);
    if (status_is_ok(s)) {
        s = pki_write(o->config_out, false, (const char *)text.data, msg);
    }
    buffer_close(&text);
    return s;
}

static struct status join_with(const struct join_options *o, const char *data, struct errmsg *msg)
{
    struct pki_token token;
    struct join_result result;
    TRY(join_token_read(o->token_file, &token, msg));
    const struct join_request request = {
        .token = &token, .role = ROLE_SCHEDULER, .name = o->name, .address = o->address};
    struct status s = join_run(&request, &result, msg);
    pki_token_close(&token);
    TRY(s);
    s = write_all(o, data, &result, msg);
    if (status_is_ok(s)) {
        (void)printf("joined %s as scheduler %s; configuration in %s\nstart it, then: skep cluster "
                     "add %s --address %s\n",
                     result.identity.cluster.text, o->name, o->config_out, o->name, o->address);
        if (result.keys.size > 0 && o->cluster_key == NULL) {
            (void)printf("but first give it the cluster's key: seal: {cluster_key: file:PATH}, or "
                         "join with --cluster-key\n");
        }
    }
    join_result_close(&result);
    return s;
}

struct status join_scheduler(const struct join_options *o, struct errmsg *msg)
{
    struct name name;
    TRY(name_parse("--name", o->name, strlen(o->name), &name, msg));
    TRY(status_prefix(msg, address_check(o->address, 1, msg), "--address"));
    if (o->cluster_key != NULL) {
        TRY(status_prefix(msg, cluster_key_check(o->cluster_key, msg), "--cluster-key"));
    }
    if (mkdir(o->data, 0700) != 0 && errno != EEXIST) {
        return status_fail(msg, status_from_errno(errno), "%s: %s", o->data, strerror(errno));
    }
    char *data = realpath(o->data, NULL);
    if (data == NULL) {
        return status_fail(msg, status_from_errno(errno), "%s: %s", o->data, strerror(errno));
    }
    struct status s = join_with(o, data, msg);
    free(data);
    return s;
}
