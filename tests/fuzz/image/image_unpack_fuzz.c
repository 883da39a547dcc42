/* Two layers, the same one twice, over each other: whatever they are, nothing appears or changes
 * beside the root, and nothing special in it. */
#include "common/check.h"
#include "common/image/beneath.h"
#include "common/image/unpack.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int look(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)path;
    (void)at;
    CHECK(kind == FTW_SL || S_ISREG(st->st_mode) || S_ISDIR(st->st_mode));
    CHECK(kind == FTW_SL || (st->st_mode & (S_ISUID | S_ISGID)) == 0);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char around[] = "/tmp/skep-fuzz.XXXXXX";
    struct errmsg msg = {.text = ""};
    struct stat st;
    CHECK(mkdtemp(around) != NULL);
    int outer = open(around, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(outer >= 0 && mkdirat(outer, "root", 0700) == 0 && mkdirat(outer, "other", 0700) == 0);
    int root = openat(outer, "root", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int layer = memfd_create("layer", MFD_CLOEXEC);
    CHECK(root >= 0 && layer >= 0 && write(layer, data, size) == (ssize_t)size);
    struct image_unpack u;
    image_unpack_init(&u, root);
    u.bytes_max = 1 << 20;
    for (unsigned i = 0; i < 2; i++) {
        struct status s = image_unpack_layer(&u, layer, &msg);
        CHECK(status_is_ok(s) || msg.text[0] != '\0');
        CHECK(strpbrk(msg.text, "\n\r\x1b") == NULL);
    }
    image_unpack_close(&u);
    CHECK(nftw(around, look, 16, FTW_PHYS) == 0);
    CHECK(fstat(outer, &st) == 0 && st.st_nlink == 4);
    CHECK(unlinkat(outer, "other", AT_REMOVEDIR) == 0); /* still empty */
    (void)close(layer);
    (void)close(root);
    (void)close(outer);
    CHECK(beneath_remove(AT_FDCWD, around) == 0);
    return 0;
}
