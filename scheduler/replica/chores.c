#include "scheduler/replica/chores.h"

#include "common/check.h"

#include <stdio.h>

void chores_init(struct chores *c, const char *folder)
{
    *c = (struct chores){.space = true};
    int length = snprintf(c->folder, sizeof c->folder, "%s", folder);
    CHECK(length >= 0);
    CHECK((size_t)length < sizeof c->folder);
}

static void look_at_space(struct chores *c)
{
    if (c->mark > c->written && status_is_ok(folder_mark_write(c->folder, c->mark))) {
        c->written = c->mark;
    }
    folder_ballast_make(c->folder, c->ballast_bytes, c->keep_free);
    c->found_space = status_is_ok(folder_space_read(c->folder, &c->found));
}

void chores_run(struct chores *c)
{
    slow_ends_finish(&c->ends);
    if (c->space) {
        look_at_space(c);
    }
    c->space = false;
}
