/* A CA, and certificates of it at any time, for the tests of this folder. Failures here end the
 * test. */
#ifndef TESTS_UNIT_PKI_PKI_FIXTURE_H
#define TESTS_UNIT_PKI_PKI_FIXTURE_H

#include "common/pki/pki.h"

#include <stdint.h>

/* 2026-01-01T00:00:00Z: no test reads the clock. */
#define NOW_S INT64_C(1767225600)
enum { HOUR_S = 3600, DAY_S = 86400 };

struct pair {
    char *cert;
    char *key;
};

/* A CA of cluster "hive", valid for 100 days from NOW_S. */
struct pair pair_ca(void);
struct identity identity_of(enum role role, const char *name);
/* A certificate of the CA for a fresh key. */
struct pair pair_sign(const struct pair *ca, enum role role, const char *name, int64_t now_s,
                      int64_t valid_s);
void pair_free(struct pair *p);

void assert_ok(struct status s, const struct errmsg *msg);
/* The code, and a message that holds the text. */
void assert_fails(struct status s, enum status_code code, const struct errmsg *msg,
                  const char *text);

#endif
