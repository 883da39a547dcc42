/* The schedulers among themselves: whom we dial, who leads, and changes of membership. */
#include "common/log.h"
#include "common/mem.h"
#include "common/units.h"
#include "scheduler/api/members_policy.h"
#include "scheduler/api/server_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* The dialler's tag names the member and says which of its two connections this is. */
static uint64_t tag_of(uint64_t member_id, bool bulk)
{
    return (member_id & ~UINT64_C(1)) | (bulk ? 1 : 0);
}

static void outbound_drop(struct server *s, struct outbound *o)
{
    LOG_INFO("stop dialling", LOG_STR("scheduler", o->address));
    link_hub_undial(s->hub, o->address, tag_of(o->member_id, false));
    link_hub_undial(s->hub, o->address, tag_of(o->member_id, true));
    for (int i = 0; i < 2; i++) {
        if (o->sessions[i] != NULL) {
            o->sessions[i]->outbound = NULL;
        }
    }
    *o = (struct outbound){.used = false};
}

static void outbound_dial(struct server *s, uint64_t member_id, const char *name,
                          const char *address)
{
    struct outbound *o = NULL;
    for (size_t i = 0; i < OUTBOUND_MAX && o == NULL; i++) {
        o = s->outbound[i].used ? NULL : &s->outbound[i];
    }
    if (o == NULL) {
        return;
    }
    *o = (struct outbound){.used = true, .member_id = member_id};
    (void)snprintf(o->name, sizeof o->name, "%s", name);
    (void)snprintf(o->address, sizeof o->address, "%s", address);
    struct identity expect = {.cluster = s->own.cluster, .role = ROLE_SCHEDULER};
    (void)snprintf(expect.name.text, sizeof expect.name.text, "%s", name);
    for (int bulk = 0; bulk < 2; bulk++) {
        struct errmsg msg = {.text = ""};
        struct status dialled =
            link_hub_dial(s->hub, address, &expect, tag_of(member_id, bulk == 1), &msg);
        if (!status_is_ok(dialled)) {
            LOG_ERROR("cannot dial", LOG_STR("scheduler", address), LOG_STR("why", msg.text));
        }
    }
}

static struct outbound *outbound_find(struct server *s, uint64_t member_id)
{
    for (size_t i = 0; i < OUTBOUND_MAX; i++) {
        if (s->outbound[i].used && s->outbound[i].member_id == member_id) {
            return &s->outbound[i];
        }
    }
    return NULL;
}

void members_connected(struct server *s, struct session *p)
{
    uint64_t tag = link_tag(p->link);
    for (size_t i = 0; i < OUTBOUND_MAX; i++) {
        struct outbound *o = &s->outbound[i];
        if (!o->used || (o->member_id & ~UINT64_C(1)) != (tag & ~UINT64_C(1))) {
            continue;
        }
        p->outbound = o;
        o->sessions[tag & 1] = p;
        (void)snprintf(o->name, sizeof o->name, "%s", link_peer(p->link)->name.text);
        return;
    }
    link_close(p->link, false, "no longer a member");
}

void members_disconnected(struct server *s, struct session *p)
{
    (void)s;
    for (int i = 0; i < 2; i++) {
        if (p->outbound->sessions[i] == p) {
            p->outbound->sessions[i] = NULL;
        }
    }
    p->outbound = NULL;
}

/* ---- Who should be dialled: the members that Raft knows, else those of the configuration. ---- */

static const char *name_of_member(struct server *s, uint64_t id)
{
    for (struct catalog_setting *k = core_catalog(s->core)->schedulers; k != NULL; k = k->hh.next) {
        if (member_id_of(k->key) == id) {
            return k->key;
        }
    }
    for (size_t i = 0; i < s->config->peers_count; i++) {
        if (member_id_of(s->config->peers[i].id.text) == id) {
            return s->config->peers[i].id.text;
        }
    }
    return "";
}

static size_t wanted_members(struct server *s, struct replica_member out[REPLICA_MEMBERS_MAX])
{
    size_t count = replica_members(s->replica, out);
    if (count > 0) {
        return count;
    }
    for (size_t i = 0; i < s->config->peers_count && count < REPLICA_MEMBERS_MAX; i++) {
        out[count].id = member_id_of(s->config->peers[i].id.text);
        (void)snprintf(out[count].address, sizeof out[count].address, "%s",
                       s->config->peers[i].address);
        out[count++].role = REPLICA_VOTER;
    }
    return count;
}

static void refresh_outbound(struct server *s)
{
    struct replica_member members[REPLICA_MEMBERS_MAX];
    size_t count = wanted_members(s, members);
    for (size_t i = 0; i < OUTBOUND_MAX; i++) {
        struct outbound *o = &s->outbound[i];
        bool wanted = false;
        for (size_t k = 0; k < count; k++) {
            wanted = wanted ||
                     (o->member_id == members[k].id && strcmp(o->address, members[k].address) == 0);
        }
        if (o->used && !wanted) {
            outbound_drop(s, o);
        }
    }
    for (size_t k = 0; k < count; k++) {
        if (members[k].id != member_id_of(s->config->id.text) &&
            outbound_find(s, members[k].id) == NULL) {
            outbound_dial(s, members[k].id, name_of_member(s, members[k].id), members[k].address);
        }
    }
}

struct status members_open(struct server *s, struct errmsg *msg)
{
    (void)msg;
    refresh_outbound(s);
    return status_ok();
}

/* ---- Role ---- */

const char *members_leader_address(struct server *s)
{
    struct replica_status st = replica_status(s->replica);
    (void)snprintf(s->leader_address, sizeof s->leader_address, "%s",
                   st.leader ? s->config->advertise : st.leader_address);
    return s->leader_address;
}

size_t members_majority(struct server *s)
{
    struct replica_member members[REPLICA_MEMBERS_MAX];
    size_t count = replica_members(s->replica, members), voters = 0;
    for (size_t i = 0; i < count; i++) {
        voters += members[i].role == REPLICA_VOTER;
    }
    return voters / 2 + 1;
}

static void on_recorded(void *data, struct status status, const char *message, uint64_t index)
{
    (void)data;
    (void)index;
    if (!status_is_ok(status)) {
        LOG_WARN("cannot record a scheduler's address", LOG_STR("code", status_name(status.code)),
                 LOG_STR("why", message));
    }
}

static void record(struct server *s, const char *name, const char *address)
{
    struct catalog_setting *known;
    HASH_FIND_STR(core_catalog(s->core)->schedulers, name, known);
    if (known != NULL && strcmp(known->value, address) == 0) {
        return;
    }
    const struct command cmd = {.type = COMMAND_SCHEDULER_PUT,
                                .by = "scheduler",
                                .command_scheduler_put = {.name = name, .address = address}};
    core_submit(s->core, server_now(s), &cmd, on_recorded, NULL);
}

/* Every leader sees to it that the catalog knows all members, itself last: once the leader is in
 * the list, the list is whole, and only then do agents hear it (nodes.c). */
static void record_members(struct server *s)
{
    struct replica_member members[REPLICA_MEMBERS_MAX];
    size_t count = replica_members(s->replica, members);
    for (size_t i = 0; i < count; i++) {
        const char *name = name_of_member(s, members[i].id);
        if (name[0] != '\0' && strcmp(name, s->config->id.text) != 0) {
            record(s, name, members[i].address);
        }
    }
    record(s, s->config->id.text, s->config->advertise);
}

void members_role(struct server *s)
{
    struct replica_status st = replica_status(s->replica);
    const char *name = st.leader ? s->config->id.text : name_of_member(s, st.leader_id);
    LOG_INFO("role", LOG_BOOL("leader", st.leader), LOG_UINT("term", st.term),
             LOG_STR("leader_name", name));
    core_role(s->core, server_now(s), st.leader, st.term, name, members_leader_address(s));
    if (st.leader) {
        record_members(s);
    }
}

/* A change of membership on its way. */
struct change_job {
    struct server *server;
    uint64_t client, request;
    char name[NAME_BYTES_MAX + 1];
    bool add;
    bool policy; /* nobody asked: the policy does it */
    bool forget; /* take the scheduler's address out of the catalog once it is removed */
};

static void on_changed(void *data, struct status status, const char *message);

/* ---- Members that are dead for good: the setting schedulers.dead_after ---- */

/* How long a member has been silent towards this leader; 0 when it is connected, 1 when it is not
 * even dialled. */
static uint64_t silent_ms(struct server *s, uint64_t member_id, uint64_t now_us)
{
    struct outbound *o = outbound_find(s, member_id);
    if (o == NULL) {
        return 1;
    }
    if (o->sessions[0] != NULL) {
        o->silent_since_us = 0;
        return 0;
    }
    if (o->silent_since_us == 0) {
        o->silent_since_us = now_us;
    }
    return (now_us - o->silent_since_us) / 1000 + 1;
}

static uint64_t dead_after_ms(struct server *s)
{
    const char *text = catalog_setting_find(core_catalog(s->core), "schedulers.dead_after", "0s");
    uint64_t ms = 0;
    if (!status_is_ok(unit_parse(UNIT_DURATION, text, strlen(text), &ms, NULL)) || ms == 0) {
        return 0;
    }
    return ms < MEMBERS_DEAD_AFTER_MS_MIN ? MEMBERS_DEAD_AFTER_MS_MIN : ms;
}

static void remove_dead(struct server *s)
{
    struct replica_member members[REPLICA_MEMBERS_MAX];
    struct policy_member states[REPLICA_MEMBERS_MAX];
    size_t count = replica_members(s->replica, members);
    uint64_t now_us = server_now(s).mono_us;
    for (size_t i = 0; i < count; i++) {
        bool self = members[i].id == member_id_of(s->config->id.text);
        states[i] = (struct policy_member){.voter = members[i].role == REPLICA_VOTER};
        states[i].silent_ms = self ? 0 : silent_ms(s, members[i].id, now_us);
    }
    int dead = s->removing_dead ? -1 : members_policy_dead(states, count, dead_after_ms(s));
    const char *name = dead < 0 ? "" : name_of_member(s, members[dead].id);
    struct change_job *job = name[0] == '\0' ? NULL : mem_zalloc(1, sizeof *job);
    if (job == NULL) {
        return;
    }
    LOG_WARN("removing a scheduler that is dead", LOG_STR("name", name),
             LOG_UINT("silent_s", states[dead].silent_ms / 1000));
    *job = (struct change_job){.server = s, .forget = true, .policy = true};
    (void)snprintf(job->name, sizeof job->name, "%s", name);
    s->removing_dead = true;
    replica_remove(s->replica, members[dead].id, on_changed, job);
}

void members_maintain(struct server *s)
{
    refresh_outbound(s);
    if (core_is_leader(s->core)) {
        remove_dead(s);
        return;
    }
    for (size_t i = 0; i < OUTBOUND_MAX; i++) {
        s->outbound[i].silent_since_us = 0; /* a new leader counts anew */
    }
}

/* ---- Operators ---- */

static void change_done(struct change_job *job, struct status status, const char *message)
{
    if (job->policy) {
        job->server->removing_dead = false;
        LOG_INFO("removed a dead scheduler", LOG_STR("name", job->name),
                 LOG_STR("outcome", status_name(status.code)), LOG_STR("why", message));
    }
    session_reply_detail(job->server, job->client, job->request, status, message, 0,
                         bytes_of(NULL, 0));
    mem_free(job);
}

static void on_forgotten(void *data, struct status status, const char *message, uint64_t index)
{
    (void)index;
    change_done(data, status, message);
}

static void on_changed(void *data, struct status status, const char *message)
{
    struct change_job *job = data;
    struct server *s = job->server;
    if (job->add && !status_is_ok(status) && status.code != STATUS_EXISTS) {
        char text[ERRMSG_BYTES_MAX];
        (void)snprintf(text, sizeof text,
                       "%s; see that it runs and can be reached, or take it back with skep cluster "
                       "remove %s",
                       message, job->name);
        change_done(job, status, text);
        return;
    }
    if (!status_is_ok(status) || !job->forget) {
        change_done(job, status, message);
        return;
    }
    const struct command cmd = {.type = COMMAND_SCHEDULER_REMOVE,
                                .by = "operator",
                                .command_scheduler_remove = {.name = job->name}};
    core_submit(s->core, server_now(s), &cmd, on_forgotten, job);
}

static void add_member(struct change_job *job);

static void on_put_then_add(void *data, struct status status, const char *message, uint64_t index)
{
    (void)index;
    struct change_job *job = data;
    if (status_is_ok(status)) {
        add_member(job);
    } else {
        change_done(job, status, message);
    }
}

static void add_member(struct change_job *job)
{
    struct server *s = job->server;
    struct catalog_setting *known;
    HASH_FIND_STR(core_catalog(s->core)->schedulers, job->name, known);
    if (known == NULL) {
        change_done(job, status_of(STATUS_NOT_FOUND), "the scheduler was removed meanwhile");
        return;
    }
    struct replica_member m = {.id = member_id_of(job->name), .role = REPLICA_VOTER};
    (void)snprintf(m.address, sizeof m.address, "%s", known->value);
    replica_add(s->replica, &m, on_changed, job);
    refresh_outbound(s);
}

static const char *arg(const struct message *m, const char *key)
{
    for (size_t i = 0; i < m->admin.args_count; i++) {
        if (strcmp(m->admin.args[i].key, key) == 0) {
            return m->admin.args[i].value;
        }
    }
    return "";
}

static struct status check_change(struct server *s, const struct message *m, struct errmsg *msg)
{
    if (!core_is_leader(s->core)) {
        return status_fail(msg, STATUS_NOT_LEADER, "this scheduler is not the leader");
    }
    bool transfer = strcmp(m->admin.action, "cluster.transfer") == 0;
    if (!(transfer && m->admin.name[0] == '\0')) {
        struct name name;
        TRY(name_parse("scheduler name", m->admin.name, strlen(m->admin.name), &name, msg));
    }
    struct catalog_setting *known;
    HASH_FIND_STR(core_catalog(s->core)->schedulers, m->admin.name, known);
    if (strcmp(m->admin.action, "cluster.add") == 0) {
        return address_check(arg(m, "address"), 1, msg);
    }
    if (m->admin.name[0] != '\0' && known == NULL) {
        return status_fail(msg, STATUS_NOT_FOUND,
                           "no scheduler is named %.80s; see skep cluster status", m->admin.name);
    }
    return status_ok();
}

bool members_admin(struct server *s, struct session *from, const struct message *m)
{
    if (strcmp(m->admin.action, "token.create") == 0) {
        token_create(s, from, m);
        return true;
    }
    bool add = strcmp(m->admin.action, "cluster.add") == 0,
         remove = strcmp(m->admin.action, "cluster.remove") == 0,
         promote = strcmp(m->admin.action, "cluster.promote") == 0;
    if (!add && !remove && !promote && strcmp(m->admin.action, "cluster.transfer") != 0) {
        return false;
    }
    struct errmsg msg = {.text = ""};
    struct status status = check_change(s, m, &msg);
    struct change_job *job = status_is_ok(status) ? mem_zalloc(1, sizeof *job) : NULL;
    if (job == NULL) {
        session_reply(s, from, m->request, status_is_ok(status) ? STATUS_NOMEM : status.code,
                      msg.text);
        return true;
    }
    *job = (struct change_job){.server = s,
                               .client = from->handle,
                               .request = m->request,
                               .add = add || promote,
                               .forget = remove};
    (void)snprintf(job->name, sizeof job->name, "%s", m->admin.name);
    if (add) {
        const struct command cmd = {
            .type = COMMAND_SCHEDULER_PUT,
            .by = "operator",
            .command_scheduler_put = {.name = job->name, .address = arg(m, "address")}};
        core_submit(s->core, server_now(s), &cmd, on_put_then_add, job);
    } else if (promote) {
        add_member(job); /* adding again continues where it was given up */
    } else if (remove) {
        replica_remove(s->replica, member_id_of(job->name), on_changed, job);
    } else {
        replica_transfer(s->replica, job->name[0] == '\0' ? 0 : member_id_of(job->name), on_changed,
                         job);
    }
    return true;
}

/* "1", "1-2"; empty for one that is not connected. */
static void protocol_text(const struct version_range *r, char out[VERSION_TEXT_BYTES])
{
    out[0] = '\0';
    if (r != NULL && r->min == r->max) {
        (void)snprintf(out, VERSION_TEXT_BYTES, "%u", r->max);
    } else if (r != NULL) {
        (void)snprintf(out, VERSION_TEXT_BYTES, "%u-%u", r->min, r->max);
    }
}

/* Any scheduler answers this one, with or without a leader. */
void members_status(struct server *s, struct session *from, const struct message *m)
{
    static const char *const roles[] = {
        [REPLICA_STANDBY] = "standby", [REPLICA_VOTER] = "voter", [REPLICA_SPARE] = "spare"};
    struct replica_member members[REPLICA_MEMBERS_MAX];
    struct replica_status st = replica_status(s->replica);
    size_t count = replica_members(s->replica, members);
    struct record rows[REPLICA_MEMBERS_MAX];
    struct pair fields[REPLICA_MEMBERS_MAX][10];
    char protocols[REPLICA_MEMBERS_MAX][VERSION_TEXT_BYTES];
    char numbers[3][24];
    (void)snprintf(numbers[0], sizeof numbers[0], "%" PRIu64, st.term);
    (void)snprintf(numbers[1], sizeof numbers[1], "%" PRIu64, st.commit_index);
    (void)snprintf(numbers[2], sizeof numbers[2], "%" PRIu64, st.applied_index);
    for (size_t i = 0; i < count; i++) {
        struct outbound *o = outbound_find(s, members[i].id);
        bool self = members[i].id == member_id_of(s->config->id.text);
        bool connected = self || (o != NULL && o->sessions[0] != NULL);
        bool leader =
            members[i].id == (st.leader ? member_id_of(s->config->id.text) : st.leader_id);
        const struct session *to = o == NULL ? NULL : o->sessions[0];
        protocol_text(self ? &version_own : to == NULL ? NULL : &to->speaks, protocols[i]);
        const struct pair row[10] = {{"name", name_of_member(s, members[i].id), 0},
                                     {"address", members[i].address, 0},
                                     {"role", roles[members[i].role], 0},
                                     {"leader", leader ? "true" : "false", 2},
                                     {"connected", connected ? "true" : "false", 2},
                                     {"term", numbers[0], 1},
                                     {"commit_index", numbers[1], 1},
                                     {"applied_index", numbers[2], 1},
                                     {"skep",
                                      self         ? SKEP_VERSION
                                      : to == NULL ? ""
                                                   : to->build,
                                      0},
                                     {"protocol", protocols[i], 0}};
        memcpy(fields[i], row, sizeof row);
        rows[i] = (struct record){.fields = fields[i], .fields_count = 10};
    }
    const struct message answer = {.type = MESSAGE_RECORDS,
                                   .request = m->request,
                                   .records = {.rows = rows, .rows_count = count}};
    session_send(s, from, &answer);
}
