/* YAML files of ours: read with a bound on everything, checked against a libcyaml schema with
 * errors of one line (FILE:LINE: KEY: what is wrong), then loaded by libcyaml.
 *
 * libcyaml explains a refused file in a log of many lines and knows neither duplicate keys nor
 * limits. So a first pass with libyaml builds a small tree that remembers lines, refuses what we
 * never accept (aliases, anchors, tags, duplicate keys, a second document, depth, size), and is
 * walked along the schema; what remains for libcyaml to refuse is out of memory.
 *
 *     yamldoc_open | yamldoc_parse -> yamldoc_load (struct of texts) -> yamldoc_numbers,
 * yamldoc_fail ... -> yamldoc_close
 *
 * Thread: the owner's; no shared state. */
#ifndef COMMON_YAMLDOC_H
#define COMMON_YAMLDOC_H

#include "common/buffer.h"
#include "common/status.h"
#include "common/units.h"

#include <cyaml/cyaml.h>
#include <stdint.h>

enum {
    YAMLDOC_BYTES_MAX = 256 << 10,
    YAMLDOC_DEPTH_MAX = 8,
    YAMLDOC_NODES_MAX = 4096,
    YAMLDOC_KEY_BYTES_MAX = 128,
    YAMLDOC_PATH_BYTES = 256, /* of a dotted key path in messages, cut beyond */
};

enum yamlnode_kind { YAMLNODE_SCALAR, YAMLNODE_MAP, YAMLNODE_LIST };

/* A value; siblings are linked in the order of the file. */
struct yamlnode {
    enum yamlnode_kind kind;
    uint32_t line;  /* from 1: of the key where there is one, of the value otherwise */
    uint32_t index; /* among its siblings */
    uint32_t count; /* children */
    struct yamlnode *parent;
    struct yamlnode *first, *last; /* children */
    struct yamlnode *next;
    char *key;  /* in a map; NULL otherwise */
    char *text; /* scalars; never holds NUL or other control bytes but tab and newline */
};

struct yamldoc {
    char *name; /* as errors name the file */
    uint8_t *bytes;
    size_t size;
    struct yamlnode *root; /* NULL: the file holds nothing */
    size_t nodes_count;
};

/* Reads a file. NOT_FOUND, DENIED, IO, LIMIT, INVALID, NOMEM; msg names the file. */
NODISCARD struct status yamldoc_open(struct yamldoc **out, const char *path, struct errmsg *msg);
/* The same from memory, which is copied; name stands for the file in messages. */
NODISCARD struct status yamldoc_parse(struct yamldoc **out, const char *name, struct bytes text,
                                      struct errmsg *msg);
void yamldoc_close(struct yamldoc *d);

/* Checks the document against the schema, a mapping by pointer whose values are texts, lists and
 * mappings (further CYAML_IGNORE), and loads it. *out is freed by yamldoc_unload with the same
 * schema. INVALID, LIMIT, NOMEM. */
NODISCARD struct status yamldoc_load(const struct yamldoc *d, const cyaml_schema_value_t *schema,
                                     void **out, struct errmsg *msg);
void yamldoc_unload(const cyaml_schema_value_t *schema, void *loaded);

/* Writes what the schema describes as YAML. LIMIT when the text has more than YAMLDOC_BYTES_MAX,
 * NOMEM; *out is untouched then. */
NODISCARD struct status yamldoc_save(const cyaml_schema_value_t *schema, const void *from,
                                     struct buffer *out);

/* The value at a path such as "scaling.max" or "peers[1].id" (from 0); NULL when there is none. */
const struct yamlnode *yamldoc_find(const struct yamldoc *d, const char *path);

/* Composes "FILE:LINE: PATH: text"; the line is that of the path's deepest part that exists. An
 * empty path is left out. */
struct status yamldoc_fail(const struct yamldoc *d, const char *path, enum status_code code,
                           struct errmsg *msg, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
/* Puts "FILE:LINE: PATH: " in front of msg; returns s. */
struct status yamldoc_blame(const struct yamldoc *d, const char *path, struct status s,
                            struct errmsg *msg);

/* Fields of a schema: an optional or required text that is not empty, by pointer. */
#define YAMLDOC_TEXT(key_, type_, member_)                                                         \
    CYAML_FIELD_STRING_PTR(key_, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, type_, member_, 1,      \
                           YAMLDOC_BYTES_MAX)
#define YAMLDOC_REQUIRED_TEXT(key_, type_, member_)                                                \
    CYAML_FIELD_STRING_PTR(key_, CYAML_FLAG_POINTER, type_, member_, 1, YAMLDOC_BYTES_MAX)
/* An optional part, embedded in the struct around it. */
#define YAMLDOC_PART(key_, type_, member_, fields_)                                                \
    CYAML_FIELD_MAPPING(key_, CYAML_FLAG_OPTIONAL, type_, member_, fields_)

/* One amount: the text at text_offset of the loaded struct (NULL: the default that is there stays),
 * read as unit, between min and max, goes to the integer of out_size bytes at out_offset of the
 * result. */
struct yamldoc_number {
    const char *path;
    size_t text_offset;
    enum unit unit;
    uint64_t min;
    uint64_t max;
    size_t out_offset;
    size_t out_size; /* 4 or 8 */
};
#define YAMLDOC_NUMBER(path_, raw_type, raw_member, unit_, min_, max_, out_type, out_member)       \
    {                                                                                              \
        .path = (path_), .text_offset = offsetof(raw_type, raw_member), .unit = (unit_),           \
        .min = (min_), .max = (max_), .out_offset = offsetof(out_type, out_member),                \
        .out_size = sizeof(((out_type *)NULL)->out_member)                                         \
    }
NODISCARD struct status yamldoc_numbers(const struct yamldoc *d, const struct yamldoc_number *rows,
                                        size_t count, const void *raw, void *out,
                                        struct errmsg *msg);

#endif
