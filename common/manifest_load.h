/* Reads skep.yaml into a manifest. Errors are one line: FILE:LINE: KEY: what is wrong. Keys whose
 * effect this release does not have are refused (UNSUPPORTED) unless they ask for what happens
 * anyway; docs/ and DESIGN.md section 9 list all keys.
 *
 *     name: thumbnail                       required
 *     runtime: python | c                   and handler, or
 *     command: ["./thumb", "-"]
 *     handler: thumb.py:resize              c: ./program
 *     image: default
 *     resources: {cpu: 500m, memory: 256Mi, tmp: 64Mi, processes: 64}
 *     scaling: {min: 0, max: 100, concurrency: 1, buffer: 0, idle: 60s, queue: 1000}
 *     snapshot: none
 *     isolation: cell | gvisor
 *     timeout: 300s
 *     startup_timeout: 60s
 *     network: {egress: none}
 *     env: {KEY: value}
 *     placement: {require: {zone: a}}
 *     data_class: internal
 *
 * Thread: any; no shared state. */
#ifndef COMMON_MANIFEST_LOAD_H
#define COMMON_MANIFEST_LOAD_H

#include "common/buffer.h"
#include "common/manifest.h"

/* The file's name in a function's folder. */
#define MANIFEST_FILE "skep.yaml"

/* Reads and checks the file. *out is written only on success and closed with manifest_close.
 * NOT_FOUND, DENIED, IO, INVALID, LIMIT, UNSUPPORTED, NOMEM; the message names file, line and key.
 * */
NODISCARD struct status manifest_load(const char *path, struct manifest *out, struct errmsg *msg);
/* The same from memory; name stands for the file in messages. */
NODISCARD struct status manifest_parse(const char *name, struct bytes text, struct manifest *out,
                                       struct errmsg *msg);

#endif
