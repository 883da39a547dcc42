#include "common/wall.h"

#include "common/check.h"

#include <stdio.h>
#include <string.h>

static const struct wall_row rows[WALLS_COUNT_] = {
#define WALL_ROW(id, name, excusable, purpose, probe)                                              \
    [WALL_##id] = {name, excusable, purpose, probe},
    WALLS(WALL_ROW)
#undef WALL_ROW
};

const struct wall_row *wall_row(enum wall wall)
{
    CHECK(wall < WALLS_COUNT_);
    return &rows[wall];
}

void walls_format(wall_set walls, char out[WALLS_TEXT_BYTES])
{
    size_t used = 0;
    out[0] = '\0';
    for (unsigned i = 0; i < WALLS_COUNT_; i++) {
        if ((walls & (UINT32_C(1) << i)) != 0) {
            used += (size_t)snprintf(out + used, WALLS_TEXT_BYTES - used, "%s%s",
                                     used > 0 ? ", " : "", rows[i].name);
            CHECK(used < WALLS_TEXT_BYTES);
        }
    }
}

static wall_set excusable(void)
{
    wall_set walls = 0;
    for (unsigned i = 0; i < WALLS_COUNT_; i++) {
        walls |= rows[i].excusable ? UINT32_C(1) << i : 0;
    }
    return walls;
}

struct status wall_find_excusable(const char *name, enum wall *out, struct errmsg *msg)
{
    char may[WALLS_TEXT_BYTES];
    walls_format(excusable(), may);
    for (unsigned i = 0; i < WALLS_COUNT_; i++) {
        if (strcmp(rows[i].name, name) != 0) {
            continue;
        }
        if (!rows[i].excusable) {
            return status_fail(msg, STATUS_DENIED,
                               "the wall %s is always needed; these may be named: %s", name, may);
        }
        *out = (enum wall)i;
        return status_ok();
    }
    return status_fail(msg, STATUS_NOT_FOUND, "no wall is named \"%.40s\"; these may be named: %s",
                       name, may);
}
