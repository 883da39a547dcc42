#include "common/ids.h"

#include <stdio.h>
#include <string.h>

static const char base32[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
enum { ID_TIME_BITS = 48, BASE32_BITS = 5 };

struct id128 id_make(uint64_t now_ms, uint64_t high_random, uint64_t low_random)
{
    return (struct id128){
        .high = (now_ms & ((UINT64_C(1) << ID_TIME_BITS) - 1)) << (64 - ID_TIME_BITS) |
                (high_random & 0xFFFF),
        .low = low_random,
    };
}

int id_compare(struct id128 a, struct id128 b)
{
    if (a.high != b.high) {
        return a.high < b.high ? -1 : 1;
    }
    return a.low < b.low ? -1 : a.low > b.low;
}

bool id_is_zero(struct id128 id)
{
    return id.high == 0 && id.low == 0;
}

void id_format(struct id128 id, char prefix, char out[ID_STRING_BYTES])
{
    unsigned __int128 v = (unsigned __int128)id.high << 64 | id.low;
    out[0] = prefix;
    out[1] = '-';
    for (int i = ID_TEXT_BYTES - 1; i >= 0; i--) {
        out[ID_PREFIX_BYTES + i] = base32[(unsigned)v & 31];
        v >>= BASE32_BITS;
    }
    out[ID_STRING_BYTES - 1] = '\0';
}

/* A copy that is safe to print: bytes outside printable ASCII become \xNN; long texts are cut. */
static void quote(const char *text, size_t size, char *out, size_t out_size)
{
    size_t used = 0;
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];
        if (used + 8 > out_size) {
            (void)snprintf(out + used, out_size - used, "...");
            return;
        }
        if (c >= ' ' && c < 0x7F && c != '"') {
            out[used++] = (char)c;
        } else {
            used += (size_t)snprintf(out + used, out_size - used, "\\x%02x", c);
        }
    }
    out[used] = '\0';
}

struct status id_parse(const char *text, char prefix, struct id128 *out, struct errmsg *msg)
{
    if (strnlen(text, ID_STRING_BYTES) != ID_STRING_BYTES - 1 || text[0] != prefix ||
        text[1] != '-') {
        char quoted[80];
        quote(text, strnlen(text, sizeof quoted), quoted, sizeof quoted);
        return status_fail(msg, STATUS_INVALID,
                           "\"%s\" is not an id of the form %c-XXXXXXXXXXXXXXXXXXXXXXXXXX", quoted,
                           prefix);
    }
    unsigned __int128 v = 0;
    for (int i = 0; i < ID_TEXT_BYTES; i++) {
        const char *at = strchr(base32, text[ID_PREFIX_BYTES + i]);
        if (at == NULL || (i == 0 && at - base32 > 7)) {
            char quoted[80];
            quote(text, ID_STRING_BYTES - 1, quoted, sizeof quoted);
            return status_fail(msg, STATUS_INVALID, "\"%s\" is not an id: character %d", quoted,
                               i + 1 + ID_PREFIX_BYTES);
        }
        v = v << BASE32_BITS | (unsigned)(at - base32);
    }
    *out = (struct id128){.high = (uint64_t)(v >> 64), .low = (uint64_t)v};
    return status_ok();
}

static bool name_char(char c, bool first)
{
    bool alnum = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
    return alnum || (!first && (c == '.' || c == '_' || c == '-'));
}

struct status name_parse(const char *what, const char *text, size_t size, struct name *out,
                         struct errmsg *msg)
{
    char quoted[80];
    quote(text, size, quoted, sizeof quoted);
    if (size == 0) {
        return status_fail(msg, STATUS_INVALID, "%s is empty", what);
    }
    if (size > NAME_BYTES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "%s \"%s\" has %zu bytes, at most %d are allowed",
                           what, quoted, size, NAME_BYTES_MAX);
    }
    for (size_t i = 0; i < size; i++) {
        if (!name_char(text[i], i == 0)) {
            return status_fail(msg, STATUS_INVALID,
                               "%s \"%s\" may hold only a-z, 0-9, '.', '_' and '-', and starts "
                               "with a letter or digit",
                               what, quoted);
        }
    }
    struct name parsed = {{0}};
    memcpy(parsed.text, text, size);
    *out = parsed;
    return status_ok();
}

void digest_format(const struct digest *d, char out[DIGEST_STRING_BYTES])
{
    static const char hex[] = "0123456789abcdef";
    for (int i = 0; i < DIGEST_BYTES; i++) {
        out[2 * i] = hex[d->v[i] >> 4];
        out[2 * i + 1] = hex[d->v[i] & 15];
    }
    out[DIGEST_STRING_BYTES - 1] = '\0';
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

struct status digest_parse(const char *text, struct digest *out, struct errmsg *msg)
{
    struct digest parsed;
    if (strnlen(text, DIGEST_STRING_BYTES) != DIGEST_STRING_BYTES - 1) {
        char quoted[80];
        quote(text, strnlen(text, sizeof quoted), quoted, sizeof quoted);
        return status_fail(msg, STATUS_INVALID, "\"%s\" is not a SHA-256 digest of 64 hex digits",
                           quoted);
    }
    for (int i = 0; i < DIGEST_BYTES; i++) {
        int high = hex_value(text[2 * i]);
        int low = hex_value(text[2 * i + 1]);
        if (high < 0 || low < 0) {
            char quoted[80];
            quote(text, DIGEST_STRING_BYTES - 1, quoted, sizeof quoted);
            return status_fail(msg, STATUS_INVALID, "\"%s\" is not a SHA-256 digest: digit %d",
                               quoted, 2 * i + 1);
        }
        parsed.v[i] = (uint8_t)(high << 4 | low);
    }
    *out = parsed;
    return status_ok();
}

int digest_compare(const struct digest *a, const struct digest *b)
{
    return memcmp(a->v, b->v, DIGEST_BYTES);
}

bool digest_is_zero(const struct digest *d)
{
    static const struct digest zero;
    return memcmp(d, &zero, sizeof zero) == 0;
}
