#include "scheduler/backup/s3.h"

#include "common/chunks.h"
#include "common/mem.h"

#include <curl/curl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    URL_BYTES = CONFIG_PATH_BYTES_MAX + S3_TOKEN_BYTES_MAX * 3 + 512,
    CONNECT_S = 10,
    SLOW_S = 60, /* slower than SLOW_BYTES_S for so long: given up */
    SLOW_BYTES_S = 1024,
    HASH_BYTES = 1 << 20,
    PAGES_MAX = 100,
};

/* The SHA-256 of no bytes. */
static const char nothing_digest[] =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

struct s3 {
    CURL *curl;
    char base[CONFIG_PATH_BYTES_MAX + 1];   /* ENDPOINT/BUCKET */
    char prefix[CONFIG_PATH_BYTES_MAX + 1]; /* of keys; ends in a slash when not empty */
    char signing[CONFIG_PATH_BYTES_MAX + 32];
    const char *ca; /* of the configuration */
    struct s3_credentials credentials;
    const atomic_bool *canceled;
    struct buffer answer;
    bool answer_long;
    char error[CURL_ERROR_SIZE];
};

/* What a PUT reads. */
struct body {
    int fd;
    uint64_t at, size;
};

struct status s3_open(struct s3 **out, const struct config_backup *config,
                      const atomic_bool *canceled, struct errmsg *msg)
{
    struct s3 *s = mem_zalloc(1, sizeof *s);
    if (s == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    s->canceled = canceled;
    s->ca = config->endpoint_ca;
    const char *bucket = config->to + strlen(CONFIG_BACKUP_S3);
    const char *slash = strchr(bucket, '/');
    int bucket_size = slash == NULL ? (int)strlen(bucket) : (int)(slash - bucket);
    const char *prefix = slash == NULL ? "" : slash + 1;
    bool closed = prefix[0] == '\0' || prefix[strlen(prefix) - 1] == '/';
    (void)snprintf(s->prefix, sizeof s->prefix, "%s%s", prefix, closed ? "" : "/");
    if (config->endpoint != NULL) {
        size_t size = strlen(config->endpoint);
        size -= size > 0 && config->endpoint[size - 1] == '/' ? 1 : 0;
        (void)snprintf(s->base, sizeof s->base, "%.*s/%.*s", (int)size, config->endpoint,
                       bucket_size, bucket);
    } else {
        (void)snprintf(s->base, sizeof s->base, "https://s3.%s.amazonaws.com/%.*s", config->region,
                       bucket_size, bucket);
    }
    (void)snprintf(s->signing, sizeof s->signing, "aws:amz:%s:s3", config->region);
    struct status read = s3_credentials_read(config->credentials, &s->credentials, msg);
    s->curl = status_is_ok(read) ? curl_easy_init() : NULL;
    if (s->curl == NULL) {
        s3_close(s);
        return status_is_ok(read) ? status_fail(msg, STATUS_NOMEM, "out of memory") : read;
    }
    *out = s;
    return status_ok();
}

void s3_close(struct s3 *s)
{
    if (s == NULL) {
        return;
    }
    curl_easy_cleanup(s->curl);
    buffer_close(&s->answer);
    mem_wipe(&s->credentials, sizeof s->credentials);
    mem_free(s);
}

/* ---- One request ---- */

static size_t on_answer(char *data, size_t one, size_t size, void *arg)
{
    (void)one;
    struct s3 *s = arg;
    if (size > S3_ANSWER_BYTES_MAX - s->answer.size ||
        !status_is_ok(buffer_append(&s->answer, data, size))) {
        s->answer_long = true;
        return 0;
    }
    return size;
}

static size_t on_body(char *into, size_t one, size_t size, void *arg)
{
    struct body *b = arg;
    uint64_t left = b->size - b->at;
    size_t want = one * size < left ? one * size : (size_t)left;
    ssize_t got = want == 0 ? 0 : pread(b->fd, into, want, (off_t)b->at);
    if (got < 0 || (got == 0 && want > 0)) {
        return CURL_READFUNC_ABORT;
    }
    b->at += (uint64_t)got;
    return (size_t)got;
}

/* curl sends again on a connection that was closed under it. */
static int on_seek(void *arg, curl_off_t offset, int origin)
{
    struct body *b = arg;
    if (origin != SEEK_SET || offset < 0 || (uint64_t)offset > b->size) {
        return CURL_SEEKFUNC_FAIL;
    }
    b->at = (uint64_t)offset;
    return CURL_SEEKFUNC_OK;
}

static int on_progress(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    (void)a;
    (void)b;
    (void)c;
    (void)d;
    const struct s3 *s = arg;
    return atomic_load(s->canceled) ? 1 : 0;
}

static void prepare(struct s3 *s, const char *url)
{
    CURL *c = s->curl;
    curl_easy_reset(c);
    s->answer.size = 0;
    s->answer_long = false;
    s->error[0] = '\0';
    (void)curl_easy_setopt(c, CURLOPT_URL, url);
    (void)curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
    (void)curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L);
    (void)curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_S);
    (void)curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, (long)SLOW_BYTES_S);
    (void)curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, (long)SLOW_S);
    (void)curl_easy_setopt(c, CURLOPT_ERRORBUFFER, s->error);
    (void)curl_easy_setopt(c, CURLOPT_USERAGENT, "skep/" SKEP_VERSION);
    (void)curl_easy_setopt(c, CURLOPT_AWS_SIGV4, s->signing);
    (void)curl_easy_setopt(c, CURLOPT_USERNAME, s->credentials.access_key);
    (void)curl_easy_setopt(c, CURLOPT_PASSWORD, s->credentials.secret_key);
    (void)curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_answer);
    (void)curl_easy_setopt(c, CURLOPT_WRITEDATA, s);
    (void)curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
    (void)curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_progress);
    (void)curl_easy_setopt(c, CURLOPT_XFERINFODATA, s);
    if (s->ca != NULL) {
        (void)curl_easy_setopt(c, CURLOPT_CAINFO, s->ca);
    }
}

static enum status_code code_of(long http)
{
    return http == 403 || http == 401   ? STATUS_DENIED
           : http == 404                ? STATUS_NOT_FOUND
           : http >= 500 || http == 429 ? STATUS_UNAVAILABLE
                                        : STATUS_IO;
}

/* Takes the line into the list; when there is no memory the bucket refuses the request. */
static void header_add(struct curl_slist **headers, const char *line)
{
    struct curl_slist *longer = curl_slist_append(*headers, line);
    *headers = longer == NULL ? *headers : longer;
}

/* what: for messages, "PUT NAME". body_digest: of what is sent; it is signed, and the bucket checks
 * the body against it. */
static struct status perform(struct s3 *s, const char *what, const char *body_digest,
                             struct curl_slist *headers, struct errmsg *msg)
{
    char digest_line[128];
    (void)snprintf(digest_line, sizeof digest_line, "x-amz-content-sha256: %s", body_digest);
    header_add(&headers, digest_line);
    if (s->credentials.session_token[0] != '\0') {
        char line[S3_SECRET_BYTES_MAX + 32];
        (void)snprintf(line, sizeof line, "x-amz-security-token: %s", s->credentials.session_token);
        header_add(&headers, line);
        mem_wipe(line, sizeof line);
    }
    (void)curl_easy_setopt(s->curl, CURLOPT_HTTPHEADER, headers);
    CURLcode rc = curl_easy_perform(s->curl);
    curl_slist_free_all(headers);
    (void)curl_easy_setopt(s->curl, CURLOPT_HTTPHEADER, NULL);
    if (rc == CURLE_ABORTED_BY_CALLBACK && atomic_load(s->canceled)) {
        return status_fail(msg, STATUS_CANCELED, "the scheduler is stopping");
    }
    if (rc != CURLE_OK) {
        enum status_code code = rc == CURLE_OUT_OF_MEMORY ? STATUS_NOMEM
                                : s->answer_long          ? STATUS_CORRUPT
                                                          : STATUS_UNAVAILABLE;
        return status_fail(msg, code, "%s: %s", what,
                           s->error[0] != '\0' ? s->error : curl_easy_strerror(rc));
    }
    long http = 0;
    (void)curl_easy_getinfo(s->curl, CURLINFO_RESPONSE_CODE, &http);
    if (http >= 200 && http < 300) {
        return status_ok();
    }
    char error[64], text[160];
    const struct bytes answer = bytes_of(s->answer.data, s->answer.size);
    s3_element(answer, "Code", error, sizeof error);
    s3_element(answer, "Message", text, sizeof text);
    return status_fail(msg, code_of(http), "%s: the bucket answers %ld %s %s", what, http, error,
                       text);
}

/* ---- Verbs ---- */

/* An element's text with the five entities that XML has of its own. */
static void unescape(char *text)
{
    static const struct {
        const char *entity;
        char c;
    } entities[] = {
        {"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&apos;", '\''}};
    char *to = text;
    for (const char *at = text; *at != '\0';) {
        size_t skip = 1;
        char c = *at;
        for (size_t i = 0; i < sizeof entities / sizeof entities[0]; i++) {
            if (strncmp(at, entities[i].entity, strlen(entities[i].entity)) == 0) {
                c = entities[i].c;
                skip = strlen(entities[i].entity);
            }
        }
        *to++ = c;
        at += skip;
    }
    *to = '\0';
}

/* Of keys that begin with the cluster's name. */
static struct status page_get(struct s3 *s, const struct name *cluster, const char *token,
                              struct errmsg *msg)
{
    char url[URL_BYTES], ours[sizeof s->prefix + sizeof cluster->text + 1];
    (void)snprintf(ours, sizeof ours, "%s%s-", s->prefix, cluster->text);
    char *next = curl_easy_escape(s->curl, token, 0);
    char *prefix = curl_easy_escape(s->curl, ours, 0);
    struct status st = status_fail(msg, STATUS_NOMEM, "out of memory");
    if (next != NULL && prefix != NULL) {
        /* In the order of their names, as they are signed. */
        (void)snprintf(url, sizeof url, "%s?%s%s%slist-type=2&prefix=%s", s->base,
                       token[0] != '\0' ? "continuation-token=" : "", next,
                       token[0] != '\0' ? "&" : "", prefix);
        prepare(s, url);
        (void)curl_easy_setopt(s->curl, CURLOPT_HTTPGET, 1L);
        st = perform(s, "list the bucket", nothing_digest, NULL, msg);
    }
    curl_free(next);
    curl_free(prefix);
    return st;
}

struct status s3_list(struct s3 *s, const struct name *cluster, struct target_list *out,
                      struct errmsg *msg)
{
    char token[S3_TOKEN_BYTES_MAX] = "";
    for (unsigned page = 0; page < PAGES_MAX; page++) {
        TRY(page_get(s, cluster, token, msg));
        TRY(s3_list_parse(bytes_of(s->answer.data, s->answer.size), s->prefix, cluster, out, token,
                          msg));
        if (token[0] == '\0') {
            return status_ok();
        }
        unescape(token);
    }
    return status_fail(msg, STATUS_LIMIT, "the bucket's list has over %d pages", PAGES_MAX);
}

static struct status body_digest(const struct s3 *s3, int fd, uint64_t size, struct digest *out,
                                 struct errmsg *msg)
{
    EVP_MD_CTX *sha = EVP_MD_CTX_new();
    uint8_t *piece = mem_alloc(HASH_BYTES);
    bool good = sha != NULL && piece != NULL && EVP_DigestInit_ex(sha, EVP_sha256(), NULL) == 1;
    struct status s = good ? status_ok() : status_fail(msg, STATUS_NOMEM, "out of memory");
    for (uint64_t at = 0; status_is_ok(s) && at < size;) {
        if (atomic_load(s3->canceled)) {
            s = status_fail(msg, STATUS_CANCELED, "the scheduler is stopping");
            break;
        }
        size_t want = size - at < HASH_BYTES ? (size_t)(size - at) : HASH_BYTES;
        ssize_t got = pread(fd, piece, want, (off_t)at);
        if (got <= 0 || EVP_DigestUpdate(sha, piece, (size_t)got) != 1) {
            s = status_fail(msg, STATUS_IO, "the backup cannot be read again");
        }
        at += got > 0 ? (uint64_t)got : 0;
    }
    if (status_is_ok(s) && EVP_DigestFinal_ex(sha, out->v, NULL) != 1) {
        s = status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    EVP_MD_CTX_free(sha);
    mem_free(piece);
    return s;
}

struct status s3_put(struct s3 *s, const char *name, int fd, uint64_t bytes, struct errmsg *msg)
{
    if (bytes > S3_PUT_BYTES_MAX) {
        return status_fail(msg, STATUS_LIMIT,
                           "the backup has %llu bytes; a bucket takes %llu at once",
                           (unsigned long long)bytes, (unsigned long long)S3_PUT_BYTES_MAX);
    }
    struct digest digest;
    TRY(body_digest(s, fd, bytes, &digest, msg));
    char url[URL_BYTES], hex[DIGEST_STRING_BYTES], what[TARGET_NAME_BYTES + 16];
    digest_format(&digest, hex);
    (void)snprintf(url, sizeof url, "%s/%s%s", s->base, s->prefix, name);
    struct curl_slist *headers = NULL;
    header_add(&headers, "Content-Type: application/octet-stream");
    header_add(&headers, "Expect:");
    struct body body = {.fd = fd, .size = bytes};
    prepare(s, url);
    (void)curl_easy_setopt(s->curl, CURLOPT_UPLOAD, 1L);
    (void)curl_easy_setopt(s->curl, CURLOPT_INFILESIZE_LARGE, (curl_off_t)bytes);
    (void)curl_easy_setopt(s->curl, CURLOPT_READFUNCTION, on_body);
    (void)curl_easy_setopt(s->curl, CURLOPT_READDATA, &body);
    (void)curl_easy_setopt(s->curl, CURLOPT_SEEKFUNCTION, on_seek);
    (void)curl_easy_setopt(s->curl, CURLOPT_SEEKDATA, &body);
    (void)snprintf(what, sizeof what, "PUT %s", name);
    return perform(s, what, hex, headers, msg);
}

struct status s3_remove(struct s3 *s, const char *name, struct errmsg *msg)
{
    char url[URL_BYTES], what[TARGET_NAME_BYTES + 16];
    (void)snprintf(url, sizeof url, "%s/%s%s", s->base, s->prefix, name);
    (void)snprintf(what, sizeof what, "DELETE %s", name);
    prepare(s, url);
    (void)curl_easy_setopt(s->curl, CURLOPT_CUSTOMREQUEST, "DELETE");
    struct status st = perform(s, what, nothing_digest, NULL, msg);
    return st.code == STATUS_NOT_FOUND ? status_ok() : st;
}
