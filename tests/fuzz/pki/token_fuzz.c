/* Join tokens. An input that starts with 's' is a token's content from its addresses on: version,
 * size and checksum are put around it here, for no fuzzer finds a SHA-256. Any other input is the
 * text as it was pasted. */
#include "common/buffer.h"
#include "common/check.h"
#include "common/mem.h"
#include "common/pki/pki.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void parse(const char *text, size_t size)
{
    struct pki_token t;
    struct errmsg msg = {""};
    if (status_is_ok(pki_token_parse(text, size, &t, &msg))) {
        CHECK(t.addresses_count >= 1 && t.addresses_count <= PKI_ADDRESSES_MAX);
        CHECK(strlen(t.id) >= 2);
        CHECK(t.ca_pem != NULL && t.cert_pem != NULL && t.key_pem != NULL);
        pki_token_close(&t);
    } else {
        CHECK(msg.text[0] != '\0');
    }
    CHECK(ERR_peek_error() == 0);
}

static void parse_sealed(const uint8_t *data, size_t size)
{
    enum { VERSION = 1, HEAD = 5 };
    struct buffer body = {0};
    uint8_t digest[DIGEST_BYTES];
    CHECK(status_is_ok(buffer_put_u8(&body, VERSION)));
    CHECK(status_is_ok(buffer_put_u32(&body, (uint32_t)(HEAD + size + sizeof digest))));
    CHECK(status_is_ok(buffer_append(&body, data, size)));
    CHECK(EVP_Digest(body.data, body.size, digest, NULL, EVP_sha256(), NULL) == 1);
    CHECK(status_is_ok(buffer_append(&body, digest, sizeof digest)));
    static const char prefix[] = "skep-join-v1.";
    char *text = mem_must(mem_alloc(sizeof prefix + body.size * 2 + 4));
    memcpy(text, prefix, sizeof prefix);
    char *at = text + sizeof prefix - 1;
    (void)EVP_EncodeBlock((unsigned char *)at, body.data, (int)body.size);
    for (; *at != '\0' && *at != '='; at++) {
        *at = *at == '+' ? '-' : *at == '/' ? '_' : *at;
    }
    parse(text, (size_t)(at - text));
    mem_free(text);
    buffer_close(&body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    parse((const char *)data, size);
    if (size > 0 && data[0] == 's' && size < PKI_TOKEN_BYTES_MAX) {
        parse_sealed(data + 1, size - 1);
    }
    return 0;
}
