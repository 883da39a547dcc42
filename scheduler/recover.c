#include "scheduler/recover.h"

#include "common/config.h"
#include "scheduler/api/server.h"
#include "scheduler/replica/replica.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct status recover_scheduler(const struct scheduler_config *config, bool yes, struct errmsg *msg)
{
    char folder[CONFIG_PATH_BYTES_MAX + 16];
    (void)snprintf(folder, sizeof folder, "%s/raft", config->data);
    uint64_t term, index;
    TRY(replica_folder_last(folder, &term, &index, msg));
    (void)printf("scheduler %s: the last entry is %" PRIu64 " of term %" PRIu64 " (%s)\n",
                 config->id.text, index, term, folder);
    if (!yes) {
        (void)printf(
            "Of all schedulers that survive take the one with the highest term, then the "
            "highest entry.\nOn that one alone repeat this with --yes: it becomes the only "
            "member. On every other one run "
            "skep-scheduler wipe\nbefore it starts again, and add it with skep cluster "
            "add.\n");
        return status_ok();
    }
    struct replica_member member = {.id = member_id_of(config->id.text), .role = REPLICA_VOTER};
    (void)snprintf(member.address, sizeof member.address, "%s", config->advertise);
    const struct replica_config replica = {
        .folder = folder, .id = member.id, .address = config->advertise};
    TRY(replica_recover(&replica, &member, msg));
    (void)printf(
        "It is the only member now: start it. Run skep-scheduler wipe on the others before "
        "they start again,\nand add them with skep cluster add.\n");
    return status_ok();
}

struct status wipe_scheduler(const struct scheduler_config *config, bool yes, struct errmsg *msg)
{
    char folder[CONFIG_PATH_BYTES_MAX + 16];
    (void)snprintf(folder, sizeof folder, "%s/raft", config->data);
    if (!yes) {
        (void)printf(
            "With --yes this deletes all that scheduler %s knows of the cluster (%s).\nTake "
            "it out of the cluster first: skep cluster remove %s\n",
            config->id.text, folder, config->id.text);
        return status_ok();
    }
    TRY(replica_wipe(folder, msg));
    (void)printf("Wiped. Start it, then: skep cluster add %s --address %s\n", config->id.text,
                 config->advertise);
    return status_ok();
}
