#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "common/mem.h"
#include "tests/unit/pki/pki_fixture.h"

#include <stdio.h>
#include <string.h>

#include <cmocka.h>

void assert_ok(struct status s, const struct errmsg *msg)
{
    if (!status_is_ok(s)) {
        print_error("%s: %s\n", status_name(s.code), msg->text);
    }
    assert_int_equal(s.code, STATUS_OK);
}

void assert_fails(struct status s, enum status_code code, const struct errmsg *msg,
                  const char *text)
{
    if (s.code != code || strstr(msg->text, text) == NULL) {
        print_error("got %s \"%s\", expected %s \"...%s...\"\n", status_name(s.code), msg->text,
                    status_name(code), text);
    }
    assert_int_equal(s.code, code);
    assert_non_null(strstr(msg->text, text));
    assert_null(strchr(msg->text, '\n'));
}

struct pair pair_ca(void)
{
    struct pair p = {0};
    struct errmsg msg = {""};
    const struct name cluster = {"hive"};
    assert_ok(pki_ca_create(&cluster, NOW_S, 100 * DAY_S, &p.cert, &p.key, &msg), &msg);
    return p;
}

struct identity identity_of(enum role role, const char *name)
{
    struct identity id = {.cluster = {"hive"}, .role = role};
    (void)snprintf(id.name.text, sizeof id.name.text, "%s", name);
    return id;
}

struct pair pair_sign(const struct pair *ca, enum role role, const char *name, int64_t now_s,
                      int64_t valid_s)
{
    struct pair p = {0};
    struct errmsg msg = {""};
    char *request = NULL;
    const struct identity id = identity_of(role, name);
    assert_ok(pki_request_create(&request, &p.key, &msg), &msg);
    assert_ok(pki_sign(ca->cert, ca->key, request, &id, now_s, valid_s, &p.cert, &msg), &msg);
    mem_free(request);
    return p;
}

void pair_free(struct pair *p)
{
    mem_free(p->cert);
    pki_key_free(p->key);
    *p = (struct pair){0};
}
