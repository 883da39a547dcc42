#include "agent/runners/c/pool.h"

#include "common/check.h"
#include "common/mem.h"

#include <inttypes.h>
#include <string.h>

void pool_send(struct pool *p, const struct runner_frame *frame)
{
    (void)pthread_mutex_lock(&p->send_lock);
    struct status s = channel_send(p->channel, frame);
    (void)pthread_mutex_unlock(&p->send_lock);
    if (!status_is_ok(s)) {
        (void)pthread_mutex_lock(&p->lock);
        p->send_failed = true;
        (void)pthread_mutex_unlock(&p->lock);
        channel_interrupt(p->channel->fd);
    }
}

/* Under the lock: the next job of the queue, NULL when the pool stops. */
static struct job *queue_take(struct pool *p)
{
    while (p->head == NULL && !p->stopping) {
        p->idle_count++;
        (void)pthread_cond_wait(&p->queued, &p->lock);
        p->idle_count--;
    }
    struct job *j = p->head;
    if (j == NULL) {
        return NULL;
    }
    CHECK(j->now == JOB_QUEUED);
    p->head = j->next;
    if (p->head == NULL) {
        p->tail = &p->head;
    }
    p->queued_count--;
    j->now = JOB_RUNNING;
    return j;
}

static void job_release(struct pool *p, struct job *j)
{
    if (j->input.capacity > CALL_KEPT_BYTES_MAX) {
        buffer_close(&j->input);
    }
    j->now = JOB_FREE;
    j->next = p->free;
    p->free = j;
    p->busy_count--;
    (void)pthread_cond_signal(&p->done);
}

static void *worker_main(void *arg)
{
    struct pool *p = arg;
    (void)pthread_mutex_lock(&p->lock);
    for (;;) {
        struct job *j = queue_take(p);
        if (j == NULL) {
            break;
        }
        (void)pthread_mutex_unlock(&p->lock);
        struct runner_frame result = call_run(&j->call, p->handler);
        (void)pthread_mutex_lock(&p->lock);
        j->now = JOB_ANSWERING;
        (void)pthread_mutex_unlock(&p->lock);
        pool_send(p, &result);
        (void)pthread_mutex_lock(&p->lock);
        job_release(p, j);
    }
    (void)pthread_mutex_unlock(&p->lock);
    return NULL;
}

struct status pool_open(struct pool *p, struct channel *channel, skep_handler *handler,
                        void *context, unsigned threads_max)
{
    CHECK(threads_max > 0);
    CHECK(threads_max <= SKEP_CONCURRENCY_MAX);
    unsigned jobs_count = 2 * threads_max;
    *p = (struct pool){.channel = channel, .handler = handler, .threads_max = threads_max};
    p->tail = &p->head;
    p->jobs = mem_zalloc(jobs_count, sizeof *p->jobs);
    p->threads = mem_zalloc(threads_max, sizeof *p->threads);
    (void)pthread_mutex_init(&p->send_lock, NULL);
    (void)pthread_mutex_init(&p->lock, NULL);
    (void)pthread_cond_init(&p->queued, NULL);
    (void)pthread_cond_init(&p->done, NULL);
    bool enough = p->jobs != NULL && p->threads != NULL;
    while (enough && p->jobs_count < jobs_count) {
        struct job *j = &p->jobs[p->jobs_count];
        enough = call_state_open(&j->state);
        if (enough) {
            j->call = (struct skep_call){.context = context, .state = &j->state};
            j->next = p->free;
            p->free = j;
            p->jobs_count++;
        }
    }
    if (!enough) {
        pool_close(p);
        return status_of(STATUS_NOMEM);
    }
    return status_ok();
}

void pool_close(struct pool *p)
{
    (void)pthread_mutex_lock(&p->lock);
    while (p->busy_count > 0) {
        (void)pthread_cond_wait(&p->done, &p->lock);
    }
    p->stopping = true;
    (void)pthread_cond_broadcast(&p->queued);
    (void)pthread_mutex_unlock(&p->lock);
    for (unsigned i = 0; i < p->threads_count; i++) {
        (void)pthread_join(p->threads[i], NULL);
    }
    for (unsigned i = 0; i < p->jobs_count; i++) {
        call_state_close(&p->jobs[i].state);
        buffer_close(&p->jobs[i].input);
    }
    mem_free(p->jobs);
    mem_free(p->threads);
    (void)pthread_cond_destroy(&p->done);
    (void)pthread_cond_destroy(&p->queued);
    (void)pthread_mutex_destroy(&p->lock);
    (void)pthread_mutex_destroy(&p->send_lock);
    p->jobs = NULL;
    p->threads = NULL;
}

/* Under the lock: the job that has not answered yet. */
static struct job *job_find(struct pool *p, uint64_t id)
{
    for (unsigned i = 0; i < p->jobs_count; i++) {
        struct job *j = &p->jobs[i];
        if ((j->now == JOB_QUEUED || j->now == JOB_RUNNING) && j->call.id == id) {
            return j;
        }
    }
    return NULL;
}

/* Under the lock: makes sure that a thread will take one more job. False when no thread exists and
 * none can be made. */
static bool thread_ensure(struct pool *p)
{
    if (p->queued_count < p->idle_count || p->threads_count == p->threads_max) {
        return true;
    }
    if (pthread_create(&p->threads[p->threads_count], NULL, worker_main, p) == 0) {
        p->threads_count++;
    }
    return p->threads_count > 0;
}

/* Under the lock. NULL when it was queued, the reason when not. */
static const char *invoke_locked(struct pool *p, const struct runner_frame *frame)
{
    struct job *j = p->free;
    if (j == NULL) {
        return "more invocations at once than the runner offered";
    }
    j->input.size = 0;
    if (!status_is_ok(buffer_append(&j->input, frame->data.data, frame->data.size))) {
        return "no memory for the input";
    }
    if (!thread_ensure(p)) {
        return "no thread can be created";
    }
    p->free = j->next;
    j->next = NULL;
    j->call.id = frame->id;
    j->call.input = j->input.data;
    j->call.input_size = j->input.size;
    call_begin(&j->state, frame->arg);
    j->now = JOB_QUEUED;
    p->busy_count++;
    p->queued_count++;
    *p->tail = j;
    p->tail = &j->next;
    (void)pthread_cond_signal(&p->queued);
    return NULL;
}

void pool_invoke(struct pool *p, const struct runner_frame *frame)
{
    (void)pthread_mutex_lock(&p->lock);
    bool known = job_find(p, frame->id) != NULL;
    const char *refused = known ? NULL : invoke_locked(p, frame);
    (void)pthread_mutex_unlock(&p->lock);
    if (known) {
        channel_log("skep-runner: invocation %" PRIu64 " is already running", frame->id);
    }
    if (refused != NULL) {
        struct runner_frame result = call_refuse(frame->id, STATUS_LIMIT, refused);
        pool_send(p, &result);
    }
}

void pool_cancel(struct pool *p, uint64_t id)
{
    (void)pthread_mutex_lock(&p->lock);
    struct job *j = job_find(p, id);
    if (j != NULL) {
        atomic_store(&j->state.canceled, true);
    }
    (void)pthread_mutex_unlock(&p->lock);
}
