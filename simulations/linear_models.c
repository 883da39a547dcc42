/* The sequential objects that the client API behaves like. Unknown results are resolved as late as
 * possible: by the first operation that says what they were. */
#include "simulations/linear.h"

#include "proto/message.h"

/* ---- Versioned: v[0] the last index that is known; v[1] whether there were changes since ---- */

static bool versioned_step(struct linear_state *s, const struct linear_operation *o)
{
    uint64_t check = o->argument[0];
    bool may_match = check == 0 || s->v[0] == check || (s->v[1] != 0 && check > s->v[0]);
    if (o->open) {
        if (!may_match) {
            return true; /* refused, or never happened */
        }
        s->v[0] = check > s->v[0] ? check : s->v[0];
        s->v[1] = 1;
        return true;
    }
    if (o->result[0] == 0) { /* refused: it was another index */
        return check != 0 && (s->v[0] != check || s->v[1] != 0);
    }
    if (!may_match || o->result[1] <= s->v[0]) {
        return false;
    }
    s->v[0] = o->result[1];
    s->v[1] = 0;
    return true;
}

const struct linear_model linear_versioned = {.name = "versioned", .step = versioned_step};

/* ---- Once: v[0] 0: free, 1: taken, 2: taken by somebody who does not know it; v[1] who ---- */

static bool once_step(struct linear_state *s, const struct linear_operation *o)
{
    if (o->open) {
        s->v[0] = s->v[0] == 0 ? 2 : s->v[0];
        return true;
    }
    bool existing = o->result[1] != 0;
    if (existing != (s->v[0] != 0) || (s->v[0] == 1 && s->v[1] != o->result[0])) {
        return false;
    }
    s->v[0] = 1;
    s->v[1] = o->result[0];
    return true;
}

const struct linear_model linear_once = {.name = "once", .step = once_step};

/* ---- Invocation: v[0] 0: not there, or its enum invocation_state; v[1] the result's check sum;
 * v[2] whether it has ended, seen by a refusal but not yet how; v[3] whether the sum is not
 * known ---- */

static bool invocation_read(struct linear_state *s, const struct linear_operation *o)
{
    uint64_t state = o->result[0], sum = o->result[1];
    if (s->v[0] != INVOCATION_QUEUED) {
        bool known = s->v[3] == 0;
        s->v[1] = known ? s->v[1] : sum;
        s->v[3] = 0;
        return s->v[0] == state && s->v[1] == sum;
    }
    if (state == INVOCATION_QUEUED) {
        return s->v[2] == 0;
    }
    *s = (struct linear_state){.v = {state, sum}}; /* it has ended meanwhile */
    return state != 0;
}

static bool invocation_cancel(struct linear_state *s, const struct linear_operation *o)
{
    bool alive = s->v[0] == INVOCATION_QUEUED && s->v[2] == 0;
    if (o->open || o->result[0] != 0) {
        if (alive) {
            *s = (struct linear_state){.v = {INVOCATION_CANCELED, 0, 0, 1}};
        }
        return alive || o->open;
    }
    s->v[2] = alive ? 1 : s->v[2];
    return s->v[0] != 0;
}

static bool invocation_redrive(struct linear_state *s, const struct linear_operation *o)
{
    bool may_be_dead = s->v[0] == INVOCATION_DEAD || s->v[0] == INVOCATION_QUEUED;
    if (o->open || o->result[0] != 0) {
        if (may_be_dead) {
            *s = (struct linear_state){.v = {INVOCATION_QUEUED}};
        }
        return may_be_dead || o->open;
    }
    return s->v[0] != INVOCATION_DEAD;
}

static bool invocation_step(struct linear_state *s, const struct linear_operation *o)
{
    switch (o->verb) {
    case INVOCATION_SPAWN:
        s->v[0] = s->v[0] == 0 ? INVOCATION_QUEUED : s->v[0];
        return true;
    case INVOCATION_READ:
        return o->open || invocation_read(s, o);
    case INVOCATION_CANCEL:
        return invocation_cancel(s, o);
    case INVOCATION_REDRIVE:
        return invocation_redrive(s, o);
    default:
        return false;
    }
}

const struct linear_model linear_invocation = {.name = "invocation", .step = invocation_step};
