/* Unpacking: whatever the archive, nothing appears outside the folder, and nothing at all after a
 * failure. The folder lies alone in a temporary one, which must hold it or nothing at the end. */
#include "common/check.h"
#include "common/package.h"

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned names_in(const char *path)
{
    unsigned names = 0;
    DIR *dir = opendir(path);
    CHECK(dir != NULL);
    for (struct dirent *d = readdir(dir); d != NULL; d = readdir(dir)) {
        if (strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0) {
            CHECK(strcmp(d->d_name, "out") == 0);
            names++;
        }
    }
    (void)closedir(dir);
    return names;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char around[] = "/tmp/skep-fuzz.XXXXXX";
    char folder[64];
    struct errmsg msg = {""};
    CHECK(mkdtemp(around) != NULL);
    (void)snprintf(folder, sizeof folder, "%s/out", around);
    struct status s = package_unpack_bytes(bytes_of(data, size), folder, &msg);
    CHECK(names_in(around) == (status_is_ok(s) ? 1U : 0U));
    CHECK(status_is_ok(s) || msg.text[0] != '\0');
    CHECK(strpbrk(msg.text, "\n\r\x1b") == NULL);
    CHECK(status_is_ok(package_remove(around, &msg)));
    return 0;
}
