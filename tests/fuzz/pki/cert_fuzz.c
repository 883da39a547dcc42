/* PEM texts of a stranger: certificate, request and key readers, none of which may do more than
 * refuse. */
#include "common/check.h"
#include "common/mem.h"
#include "common/pki/pki.h"
#include "common/pki/x509.h"

#include <openssl/err.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = mem_must(mem_zalloc(1, size + 1));
    if (size > 0) {
        memcpy(text, data, size);
    }
    struct errmsg msg = {""};
    struct identity id = {.role = ROLE_NONE};
    int64_t start_s = 0;
    if (status_is_ok(pki_identity_of(text, &id, &start_s, &msg))) {
        CHECK(id.role != ROLE_NONE);
        CHECK(strlen(id.serial) >= 2);
    }
    CHECK(!status_is_ok(pki_check(text, text, "", 0, &msg)));
    char *signed_pem = NULL;
    CHECK(!status_is_ok(pki_sign("", "", text, &id, 0, 1, &signed_pem, &msg)));
    EVP_PKEY *key = NULL;
    if (status_is_ok(x509_key_read("key", text, &key, &msg))) {
        EVP_PKEY_free(key);
    }
    CHECK(ERR_peek_error() == 0);
    mem_free(text);
    return 0;
}
