/* Invocations on threads, inside libskep_runner.
 *
 *     FREE -> QUEUED -> RUNNING -> ANSWERING -> FREE
 *
 * A thread is created when a job finds none waiting, so a process that has not worked yet has one
 * thread, which is what a memory snapshot wants. There are twice as many jobs as threads: the agent
 * sends the next invocation as soon as it has a result, which may be before the thread that sent
 * the result has put its job back.
 *
 * Thread: the receiving one, unless said otherwise. */
#ifndef AGENT_RUNNERS_C_POOL_H
#define AGENT_RUNNERS_C_POOL_H

#include "agent/runners/c/call.h"
#include "agent/runners/channel.h"

#include <pthread.h>

enum job_state { JOB_FREE, JOB_QUEUED, JOB_RUNNING, JOB_ANSWERING };

struct job {
    struct skep_call call;
    struct skep_call_state state;
    struct buffer input;
    enum job_state now;
    struct job *next; /* in the free list or in the queue */
};

struct pool {
    struct channel *channel;
    skep_handler *handler;
    pthread_mutex_t send_lock; /* a frame is sent whole */
    pthread_mutex_t lock;      /* of all below */
    pthread_cond_t queued;
    pthread_cond_t done;
    struct job *jobs;
    unsigned jobs_count;
    struct job *free;
    struct job *head;
    struct job **tail;
    unsigned busy_count;   /* jobs not free */
    unsigned queued_count; /* jobs in the queue */
    unsigned idle_count;   /* threads that wait for a job */
    pthread_t *threads;
    unsigned threads_count;
    unsigned threads_max;
    bool stopping;
    bool send_failed;
};

NODISCARD struct status pool_open(struct pool *p, struct channel *channel, skep_handler *handler,
                                  void *context, unsigned threads_max);
/* Waits for all jobs, ends the threads, frees what is inside. */
void pool_close(struct pool *p);

/* Queues an INVOKE frame, or answers it with an error. */
void pool_invoke(struct pool *p, const struct runner_frame *frame);
void pool_cancel(struct pool *p, uint64_t id);
/* Any thread. */
void pool_send(struct pool *p, const struct runner_frame *frame);

#endif
