#include "agent/gpu/soname.h"

#include <elf.h>
#include <string.h>

enum { HEADERS_MAX = 128, ENTRIES_MAX = 4096 };

static bool take(struct bytes file, uint64_t at, void *out, size_t size)
{
    if (at > file.size || size > file.size - at) {
        return false;
    }
    memcpy(out, file.data + at, size);
    return true;
}

struct image {
    struct bytes file;
    Elf64_Phdr headers[HEADERS_MAX];
    size_t count;
};

static bool image_read(struct bytes file, struct image *out)
{
    Elf64_Ehdr head;
    if (!take(file, 0, &head, sizeof head) || memcmp(head.e_ident, ELFMAG, SELFMAG) != 0 ||
        head.e_ident[EI_CLASS] != ELFCLASS64 || head.e_ident[EI_DATA] != ELFDATA2LSB ||
        head.e_phentsize != sizeof(Elf64_Phdr) || head.e_phnum > HEADERS_MAX) {
        return false;
    }
    out->file = file;
    out->count = head.e_phnum;
    return take(file, head.e_phoff, out->headers, out->count * sizeof out->headers[0]);
}

/* Where in the file an address of the loaded library lies. */
static bool offset_of(const struct image *image, uint64_t address, uint64_t *out)
{
    for (size_t i = 0; i < image->count; i++) {
        const Elf64_Phdr *h = &image->headers[i];
        if (h->p_type == PT_LOAD && address >= h->p_vaddr && address - h->p_vaddr < h->p_filesz &&
            h->p_offset <= image->file.size) {
            *out = h->p_offset + (address - h->p_vaddr);
            return true;
        }
    }
    return false;
}

static bool name_is_plain(const char *name)
{
    if (name[0] == '\0' || name[0] == '.') {
        return false;
    }
    for (; *name != '\0'; name++) {
        if (*name <= ' ' || *name > '~' || *name == '/') {
            return false;
        }
    }
    return true;
}

static bool text_at(struct bytes file, uint64_t at, char out[static SONAME_BYTES])
{
    for (size_t i = 0; i < SONAME_BYTES; i++) {
        if (!take(file, at + i, &out[i], 1)) {
            return false;
        }
        if (out[i] == '\0') {
            return name_is_plain(out);
        }
    }
    return false;
}

static bool name_of_dynamic(const struct image *image, const Elf64_Phdr *h,
                            char out[static SONAME_BYTES])
{
    uint64_t name = UINT64_MAX, strings = UINT64_MAX, at = 0;
    for (uint64_t i = 0; i < ENTRIES_MAX && i < h->p_filesz / sizeof(Elf64_Dyn); i++) {
        Elf64_Dyn d;
        if (!take(image->file, h->p_offset + i * sizeof d, &d, sizeof d) || d.d_tag == DT_NULL) {
            break;
        }
        name = d.d_tag == DT_SONAME ? d.d_un.d_val : name;
        strings = d.d_tag == DT_STRTAB ? d.d_un.d_ptr : strings;
    }
    return name < image->file.size && offset_of(image, strings, &at) && at <= image->file.size &&
           text_at(image->file, at + name, out);
}

bool soname_of(struct bytes file, char out[static SONAME_BYTES])
{
    struct image image;
    if (!image_read(file, &image)) {
        return false;
    }
    for (size_t i = 0; i < image.count; i++) {
        if (image.headers[i].p_type == PT_DYNAMIC) {
            return name_of_dynamic(&image, &image.headers[i], out);
        }
    }
    return false;
}
