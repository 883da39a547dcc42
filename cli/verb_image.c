/* skep image: what others made becomes one erofs file, its chunks go to the leader, then its
 * record. */
#include "cli/cli.h"

#include "common/chunks.h"
#include "common/image/image.h"
#include "common/mem.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

enum { QUERY_CHUNKS = 1024 /* asked about at once */, PUT_MS = 30 * 60 * 1000 };

struct import {
    struct cli *cli;
    struct client *client;
    struct image_built image;
    struct image_ref ref;
    struct digest lists[IMAGE_LISTS_MAX];
    struct text env[IMAGE_ENV_MAX];
    struct text entrypoint[IMAGE_WORDS_MAX];
    uint32_t sent;
};

static bool put(struct import *im, const struct digest *digest, struct bytes data, int *code)
{
    struct arena a = {0};
    struct message answer;
    const struct message m = {.type = MESSAGE_CHUNK_PUT,
                              .chunk_put = {.digest = *digest, .data = data}};
    bool ok = cli_ask(im->cli, im->client, &m, CLIENT_REQUEST_MS, &a, &answer, code);
    arena_close(&a);
    return ok;
}

static bool put_chunk(struct import *im, uint32_t index, int *code)
{
    struct errmsg msg = {.text = ""};
    struct buffer data = {0};
    struct status s = image_built_chunk(&im->image, index, &data, &msg);
    if (!status_is_ok(s)) {
        *code = cli_fail(s, msg.text);
    }
    bool ok =
        status_is_ok(s) && put(im, &im->image.chunks[index], bytes_of(data.data, data.size), code);
    buffer_close(&data);
    im->sent += ok;
    if (ok && isatty(STDERR_FILENO) != 0) {
        (void)fprintf(stderr, "\rupload %" PRIu32 " of at most %" PRIu32 " chunks", im->sent,
                      im->image.chunks_count);
    }
    return ok;
}

/* Sends what the leader lacks of count chunks from first on. */
static bool put_some(struct import *im, uint32_t first, uint32_t count, int *code)
{
    struct arena a = {0};
    struct message answer;
    const struct digest *chunks = &im->image.chunks[first];
    const struct message ask = {
        .type = MESSAGE_CHUNK_QUERY,
        .chunk_query = {.digests = bytes_of(chunks, (size_t)count * DIGEST_BYTES)}};
    bool ok = cli_ask(im->cli, im->client, &ask, CLIENT_REQUEST_MS, &a, &answer, code);
    struct bytes missing = ok && answer.type == MESSAGE_CHUNK_MISSING ? answer.chunk_missing.digests
                                                                      : (struct bytes){0};
    for (size_t i = 0; i < missing.size / DIGEST_BYTES && ok; i++) {
        uint32_t at = 0;
        while (at < count &&
               memcmp(chunks[at].v, missing.data + i * DIGEST_BYTES, DIGEST_BYTES) != 0) {
            at++;
        }
        if (at == count) {
            *code = cli_fail(status_of(STATUS_INTERNAL),
                             "the scheduler asked for a chunk that the image does not have");
            ok = false;
        } else {
            ok = put_chunk(im, first + at, code);
        }
    }
    arena_close(&a);
    return ok;
}

static bool upload(struct import *im, int *code)
{
    bool ok = true;
    for (uint32_t at = 0; at < im->image.chunks_count && ok; at += QUERY_CHUNKS) {
        uint32_t left = im->image.chunks_count - at;
        ok = put_some(im, at, left < QUERY_CHUNKS ? left : QUERY_CHUNKS, code);
    }
    if (im->sent > 0 && isatty(STDERR_FILENO) != 0) {
        (void)fputc('\n', stderr);
    }
    for (uint32_t i = 0; i < image_lists_count(im->image.bytes) && ok; i++) {
        struct bytes list = image_built_list(&im->image, i);
        struct status s = digest_of(&list, 1, &im->lists[i]);
        if (!status_is_ok(s)) {
            *code = cli_fail(s, "out of memory");
            return false;
        }
        ok = put(im, &im->lists[i], list, code);
    }
    return ok;
}

static void report(const struct import *im)
{
    char digest[DIGEST_STRING_BYTES];
    digest_format(&im->image.digest, digest);
    if (im->image.skipped > 0) {
        (void)fprintf(stderr, "left out %" PRIu64 " device nodes, pipes and sockets\n",
                      im->image.skipped);
    }
    if (im->cli->json) {
        (void)printf("{\"name\": \"%s\", \"digest\": \"%s\", \"bytes\": %" PRIu64
                     ", \"entries\": %" PRIu64 ", \"uploaded_chunks\": %" PRIu32 "}\n",
                     im->ref.name.text, digest, im->image.bytes, im->image.entries, im->sent);
    } else {
        (void)printf("%s@sha256:%s: %" PRIu64 " entries, %" PRIu64 " bytes, %" PRIu32
                     " chunks uploaded\n",
                     im->ref.name.text, digest, im->image.entries, im->image.bytes, im->sent);
    }
}

/* The leader's place is learnt from a question that only it answers; uploads would go astray
 * otherwise. */
static bool find_leader(struct import *im, int *code)
{
    struct arena a = {0};
    struct message answer;
    const struct message ask = {.type = MESSAGE_QUERY, .query = {.what = "images", .name = ""}};
    bool ok = cli_ask(im->cli, im->client, &ask, CLIENT_REQUEST_MS, &a, &answer, code);
    arena_close(&a);
    return ok;
}

static int send_image(struct import *im)
{
    int code = CLI_DONE;
    const struct oci_config *c = &im->image.config;
    for (size_t i = 0; i < c->env_count; i++) {
        im->env[i].text = c->env[i];
    }
    for (size_t i = 0; i < c->entrypoint_count; i++) {
        im->entrypoint[i].text = c->entrypoint[i];
    }
    if (!find_leader(im, &code) || !upload(im, &code)) {
        return code;
    }
    struct image_spec spec = {
        .name = im->ref.name.text,
        .digest = im->image.digest,
        .bytes = im->image.bytes,
        .lists = bytes_of(im->lists, (size_t)image_lists_count(im->image.bytes) * DIGEST_BYTES),
        .env = im->env,
        .env_count = c->env_count,
        .workdir = c->workdir,
        .entrypoint = im->entrypoint,
        .entrypoint_count = c->entrypoint_count};
    const struct message m = {.type = MESSAGE_IMAGE_PUT, .image_put = {.spec = &spec}};
    struct arena a = {0};
    struct message answer;
    if (cli_ask(im->cli, im->client, &m, PUT_MS, &a, &answer, &code)) {
        report(im);
    }
    arena_close(&a);
    return code;
}

int verb_image_import(struct cli *cli)
{
    struct errmsg msg = {.text = ""};
    struct import *im = mem_must(mem_zalloc(1, sizeof *im));
    int code = CLI_DONE;
    *im = (struct import){.cli = cli, .image = {.fd = -1}};
    struct status s = image_ref_parse(cli->args[0], &im->ref, &msg);
    if (status_is_ok(s) && im->ref.pinned) {
        s = status_fail(&msg, STATUS_INVALID,
                        "an image's digest comes from its content: give NAME");
    }
    if (status_is_ok(s)) {
        s = image_build(cli->args[1], &im->image, &msg);
    }
    if (!status_is_ok(s)) {
        code = cli_fail(s, msg.text);
        code = code == CLI_DENIED ? CLI_FAILED : code;
    } else {
        im->client = cli_connect(cli, &code);
        if (im->client != NULL) {
            code = send_image(im);
            client_close(im->client);
        }
    }
    image_built_close(&im->image);
    mem_free(im);
    return code;
}

int verb_image_list(struct cli *cli)
{
    static const char *const columns[] = {"name", "digest", "bytes", "used_by", NULL};
    return cli_query(cli, "images", "", columns);
}

int verb_image_show(struct cli *cli)
{
    return cli_query(cli, "image", cli->args[0], NULL);
}

int verb_image_delete(struct cli *cli)
{
    if (!cli_confirm(cli, "Delete image %s?", cli->args[0])) {
        return CLI_USAGE;
    }
    return cli_admin(cli, "image.delete", cli->args[0], NULL, 0, "deleted");
}

int verb_image_gc(struct cli *cli)
{
    return cli_admin(cli, "image.gc", "", NULL, 0, "collecting");
}
