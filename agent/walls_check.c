#include "agent/walls_check.h"

#include "agent/cell/walls_probe.h"
#include "common/cleanup.h"
#include "common/log.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

enum { LINE_BYTES_MAX = 1024, LINES_MAX = 1 << 20 };

/* ---- Walls ---- */

static wall_set bit(unsigned wall)
{
    return UINT32_C(1) << wall;
}

static wall_set excusable(wall_set walls)
{
    for (unsigned i = 0; i < WALLS_COUNT_; i++) {
        walls &= wall_row((enum wall)i)->excusable ? UINT32_MAX : ~bit(i);
    }
    return walls;
}

static void probe(const struct agent_config *config, struct walls_found *found)
{
    char cgroup[sizeof config->name.text + 16];
    (void)snprintf(cgroup, sizeof cgroup, "skep/%s", config != NULL ? config->name.text : "walls");
    const struct walls_question q = {
        .walls =
            ((UINT32_C(1) << WALLS_COUNT_) - 1) & ~(config != NULL ? config->walls_not_needed : 0),
        .cgroup = cgroup,
        .uid = config != NULL ? config->cells_uid_first : CONFIG_UID_FIRST_DEFAULT,
        .io_bps = config != NULL ? config->cells_io_bps : 0,
    };
    walls_probe(&q, found);
}

/* "cells: {walls_not_needed: [...]}" with what is named already. */
static void line_of(wall_set walls, char *out, size_t size)
{
    char names[WALLS_TEXT_BYTES];
    walls_format(walls, names);
    (void)snprintf(out, size, "cells: {walls_not_needed: [%s]}", names);
}

struct status cell_walls_check(const struct agent_config *config, struct errmsg *msg)
{
    static struct walls_found found;
    char names[WALLS_TEXT_BYTES];
    probe(config, &found);
    for (unsigned i = 0; i < WALLS_COUNT_; i++) {
        if ((found.missing & bit(i)) != 0) {
            LOG_ERROR("a wall of cells cannot be built",
                      LOG_STR("wall", wall_row((enum wall)i)->name), LOG_STR("why", found.why[i]));
        } else if ((config->walls_not_needed & bit(i)) != 0) {
            LOG_WARN("a wall of cells is named as not needed",
                     LOG_STR("wall", wall_row((enum wall)i)->name));
        }
    }
    if (found.missing == 0) {
        return status_ok();
    }
    wall_set always = found.missing & ~excusable(found.missing);
    if (always != 0) {
        walls_format(always, names);
        return status_fail(msg, STATUS_UNSUPPORTED,
                           "no cell can run on this machine, walls that are always needed are "
                           "missing: %s; see skep-agent walls",
                           names);
    }
    char line[WALLS_TEXT_BYTES + 64];
    walls_format(found.missing, names);
    line_of(found.missing | config->walls_not_needed, line, sizeof line);
    return status_fail(msg, STATUS_UNSUPPORTED,
                       "walls of cells are missing: %s; to run without, configure %s", names, line);
}

bool cell_walls_print(const struct agent_config *config, FILE *out)
{
    static struct walls_found found;
    wall_set not_needed = config != NULL ? config->walls_not_needed : 0;
    probe(config, &found);
    for (unsigned i = 0; i < WALLS_COUNT_; i++) {
        const struct wall_row *row = wall_row((enum wall)i);
        if ((found.missing & bit(i)) != 0) {
            (void)fprintf(out, "%-18s missing     %s\n", row->name, found.why[i]);
        } else {
            const char *state = (not_needed & bit(i)) != 0      ? "not_needed"
                                : (found.untried & bit(i)) != 0 ? "untried"
                                                                : "up";
            (void)fprintf(out, "%-18s %s\n", row->name, state);
        }
    }
    if (found.missing != 0 && found.missing == excusable(found.missing)) {
        char line[WALLS_TEXT_BYTES + 64];
        line_of(found.missing | not_needed, line, sizeof line);
        (void)fprintf(out, "\nTo run without: %s\n", line);
    }
    return found.missing == 0;
}

/* ---- Users ---- */

/* Lines of colon-separated fields: the name first, a number in field `at`, and how many there are
 * in field at + 1 when `ranges` is set. */
struct user_file {
    const char *path;
    int at;
    bool ranges;
};

/* The field's number; false when it has none. */
static bool field_number(const char *line, int at, uint64_t *out)
{
    for (; at > 0 && line != NULL; at--) {
        line = strchr(line, ':');
        line = line != NULL ? line + 1 : NULL;
    }
    return line != NULL && sscanf(line, "%10" SCNu64, out) == 1;
}

static struct status file_check(uint32_t first, uint32_t count, const struct user_file *f,
                                struct errmsg *msg)
{
    char line[LINE_BYTES_MAX];
    uint64_t last = (uint64_t)first + count - 1;
    AUTO_FILE FILE *file = fopen(f->path, "re");
    for (int n = 0; file != NULL && n < LINES_MAX && fgets(line, sizeof line, file) != NULL; n++) {
        uint64_t from = 0;
        uint64_t number = 1;
        if (!field_number(line, f->at, &from) ||
            (f->ranges && (!field_number(line, f->at + 1, &number) || number == 0))) {
            continue;
        }
        if (from <= last && from + number - 1 >= first) {
            line[strcspn(line, ":")] = '\0';
            return status_fail(msg, STATUS_CONFLICT,
                               "cells.uids: %u to %" PRIu64 " overlap with %.64s of %s, who has "
                               "%" PRIu64 " to %" PRIu64 "; configure cells: {uids: {first: N, "
                               "count: N}} with users that belong to nobody",
                               first, last, line, f->path, from, from + number - 1);
        }
    }
    return status_ok();
}

struct status cell_users_check(uint32_t first, uint32_t count, const struct user_files *files,
                               struct errmsg *msg)
{
    const struct user_file all[] = {
        {files->passwd, 2, false},
        {files->group, 2, false},
        {files->subuid, 1, true},
        {files->subgid, 1, true},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        TRY(file_check(first, count, &all[i], msg));
    }
    return status_ok();
}
