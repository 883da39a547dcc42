/* A bucket's answer to a list, and a credentials file. */
#include "scheduler/backup/s3.h"

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct name cluster = {"prod"};
    struct target_list list = {.count = 0};
    char token[S3_TOKEN_BYTES_MAX], text[64];
    struct s3_credentials credentials;
    struct status s = s3_list_parse(bytes_of(data, size), "skep/", &cluster, &list, token, NULL);
    target_list_close(&list);
    s3_element(bytes_of(data, size), "Code", text, sizeof text);
    s = s3_credentials_parse("f", (const char *)data, size, &credentials, NULL);
    (void)s;
    return 0;
}
