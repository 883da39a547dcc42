/* A payload's two files, the key file first with its length in front (u8): opened as they lie on a
 * disk. Also a log entry's opener, on the whole input. The corpus holds files sealed under the key
 * that is given here. */
#include "common/check.h"
#include "common/mem.h"
#include "common/seal/payload_seal.h"

#include <openssl/err.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct seal_key key = {{'f', 'u', 'z', 'z'}};
    static const struct digest digest = {{'d'}};
    struct keyring *ring = keyring_new();
    struct sealer *sealer = mem_must(sealer_new());
    struct buffer plain = {0};
    CHECK(ring != NULL && status_is_ok(keyring_put(ring, 1, &key)));
    size_t key_size = size > 0 ? data[0] : 0;
    if (size > 0 && key_size < size) {
        struct status s =
            payload_open(ring, &digest, bytes_of(data + 1 + key_size, size - 1 - key_size),
                         bytes_of(data + 1, key_size), &plain);
        CHECK(status_is_ok(s) || plain.size == 0);
    }
    plain.size = 0;
    struct status s = sealer_open(sealer, &key, bytes_of("log", 3), bytes_of(data, size), &plain);
    CHECK(plain.size == (status_is_ok(s) ? size - SEAL_EXTRA_BYTES : 0));
    CHECK(ERR_peek_error() == 0);
    buffer_close(&plain);
    sealer_free(sealer);
    keyring_free(ring);
    return 0;
}
