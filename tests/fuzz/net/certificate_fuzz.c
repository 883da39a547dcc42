/* tls_identity_read on certificates of strangers: any DER that OpenSSL takes for a certificate. */
#include "common/check.h"
#include "common/net/tls_context.h"

#include <openssl/err.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const unsigned char *at = data;
    X509 *certificate = d2i_X509(NULL, &at, (long)size);
    ERR_clear_error();
    if (certificate == NULL) {
        return 0;
    }
    struct identity id;
    struct errmsg msg = {{0}};
    if (status_is_ok(tls_identity_read(certificate, &id, &msg))) {
        CHECK(id.role > ROLE_NONE && id.role < ROLE_COUNT_);
        CHECK(strlen(id.serial) < sizeof id.serial);
    } else {
        CHECK(msg.text[0] != '\0');
    }
    X509_free(certificate);
    return 0;
}
