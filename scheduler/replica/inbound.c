#include "scheduler/replica/inbound.h"

#include "common/check.h"

#include <string.h>

void inbound_close(struct inbound *in)
{
    raft_free(in->data);
    *in = (struct inbound){0};
}

static bool same_snapshot(const struct inbound *in, uint64_t from, const struct wire_part *part)
{
    return in->from == from && in->head.term == part->term &&
           in->head.last_index == part->last_index && in->head.last_term == part->last_term &&
           in->head.total == part->total;
}

static struct status configuration_copy(struct raft_configuration *out,
                                        const struct raft_configuration *from)
{
    raft_configuration_init(out);
    for (unsigned i = 0; i < from->n; i++) {
        const struct raft_server *s = &from->servers[i];
        if (raft_configuration_add(out, s->id, s->address, s->role) != 0) {
            raft_configuration_close(out);
            return status_of(STATUS_NOMEM);
        }
    }
    return status_ok();
}

/* The last part has come: hands the bytes over, and stays able to answer repeated parts. */
static struct status finish(struct inbound *in, const struct wire_part *part,
                            struct raft_install_snapshot *out)
{
    struct raft_configuration conf;
    TRY(configuration_copy(&conf, &part->conf));
    *out = (struct raft_install_snapshot){
        .term = part->term,
        .last_index = part->last_index,
        .last_term = part->last_term,
        .conf = conf,
        .conf_index = part->conf_index,
        .data = {.base = in->data, .len = (size_t)part->total},
    };
    in->data = NULL;
    return status_ok();
}

struct status inbound_put(struct inbound *in, uint64_t from, const struct wire_part *part,
                          uint64_t now_ms, struct wire_part_ack *ack, bool *complete,
                          struct raft_install_snapshot *out)
{
    *complete = false;
    *ack = (struct wire_part_ack){part->last_index, part->last_term, 0};
    /* The start of a snapshot that has been handed over already: its sender has not heard from
     * libraft and sends it again, so libraft must see it again. */
    bool again = in->data == NULL && part->offset == 0;
    if (again || !same_snapshot(in, from, part)) {
        if (part->offset != 0) {
            return status_ok(); /* the answer, 0, makes the sender start again */
        }
        uint8_t *data = raft_malloc((size_t)part->total);
        if (data == NULL) {
            return status_of(STATUS_NOMEM);
        }
        inbound_close(in);
        in->from = from;
        in->head = *part;
        in->head.conf = (struct raft_configuration){0};
        in->head.data = (struct bytes){0};
        in->data = data;
    }
    in->seen_ms = now_ms;
    if (part->offset == in->received && in->data != NULL) {
        CHECK(part->data.size <= part->total - part->offset);
        memcpy(in->data + in->received, part->data.data, part->data.size);
        if (part->offset + part->data.size == part->total) {
            TRY(finish(in, part, out));
            *complete = true;
        }
        in->received += part->data.size;
    }
    ack->received = in->received;
    return status_ok();
}

void inbound_tick(struct inbound *in, uint64_t now_ms)
{
    if (in->from != 0 && now_ms > in->seen_ms && now_ms - in->seen_ms > INBOUND_IDLE_MS_MAX) {
        inbound_close(in);
    }
}
