#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/mem.h"
#include "common/net/tls.h"
#include "common/pki/pki.h"
#include "proto/codec.h"
#include "tests/component/agent/fake_scheduler.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

#define MUST(expression)                                                                           \
    do {                                                                                           \
        struct errmsg must_msg_ = {{0}};                                                           \
        struct errmsg *msg = &must_msg_;                                                           \
        struct status must_status_ = (expression);                                                 \
        if (!status_is_ok(must_status_)) {                                                         \
            fail_msg("%s: %s: %s", #expression, status_name(must_status_.code), must_msg_.text);   \
        }                                                                                          \
        (void)msg;                                                                                 \
    } while (0)

/* Control groups are named after instances, machine-wide: two runs of the test may not share
 * ids. */
struct id128 fake_instance_id(unsigned n)
{
    return (struct id128){(uint64_t)getpid() << 16, n};
}

static struct id128 invocation_id(unsigned n)
{
    return (struct id128){UINT64_C(7) << 16, n};
}

/* ---- Messages ---- */

static void send_to(struct link *l, const struct message *m)
{
    struct buffer text = {0};
    MUST(message_encode(m, &text));
    const struct bytes part = bytes_of(text.data, text.size);
    MUST(link_send(l, &part, 1));
    buffer_close(&text);
}

void fake_send(struct fake *f, const struct message *m)
{
    assert_non_null(f->link);
    struct message led = *m;
    led.term = f->term;
    send_to(f->link, &led);
}

void fake_lead(struct fake *f, const char *name, const char *address, const char *revoked)
{
    struct pair schedulers[] = {{.key = name, .value = address}};
    struct text what[] = {{.text = revoked}};
    fake_send(f, &(struct message){.type = MESSAGE_LEAD,
                                   .lead = {.leader = "s1",
                                            .lease_ms = 10000,
                                            .schedulers = schedulers,
                                            .schedulers_count = 1,
                                            .revoked = what,
                                            .revoked_count = revoked != NULL}});
}

static void lead(struct fake *f)
{
    char address[64];
    (void)snprintf(address, sizeof address, "127.0.0.1:%u", f->port);
    fake_lead(f, "s1", address, NULL);
}

static struct fake_instance *instance_slot(struct fake *f, unsigned n)
{
    for (size_t i = 0; i < f->instances_count; i++) {
        if (f->instances[i].n == n) {
            return &f->instances[i];
        }
    }
    assert_true(f->instances_count < FAKE_INSTANCES_MAX);
    f->instances[f->instances_count] = (struct fake_instance){.n = n};
    return &f->instances[f->instances_count++];
}

static void take_event(struct fake *f, const struct instance_report *r, uint32_t code)
{
    struct fake_instance *i = instance_slot(f, (unsigned)r->instance.low);
    i->state = r->state;
    i->code = (enum status_code)code;
    (void)snprintf(i->message, sizeof i->message, "%s", r->message);
}

static void take_result(struct fake *f, const struct result *r)
{
    assert_true(f->results_count < FAKE_RESULTS_MAX);
    struct fake_result *to = &f->results[f->results_count++];
    to->invocation = (unsigned)r->invocation.low;
    to->code = (enum status_code)r->code;
    (void)snprintf(to->message, sizeof to->message, "%s", r->message);
    MUST(buffer_append(&to->output, r->output.data, r->output.size));
}

static void give_chunk(struct fake *f, struct link *l, const struct message *m)
{
    struct buffer data = {0};
    struct message answer = {
        .type = MESSAGE_CHUNK_DATA,
        .request = m->request,
        .chunk_data = {.code = STATUS_NOT_FOUND, .digest = m->chunk_get.digest}};
    for (size_t i = 0; i < f->chunks.count && !f->chunks_lost; i++) {
        if (digest_compare(&f->chunks.digests[i], &m->chunk_get.digest) == 0) {
            MUST(chunk_of_package(&f->package, i, &data, msg));
            answer.chunk_data.code = STATUS_OK;
            answer.chunk_data.data = bytes_of(data.data, data.size);
            f->chunks_given++;
        }
    }
    send_to(l, &answer);
    buffer_close(&data);
}

static void sign(struct fake *f, struct link *l, uint64_t request, const char *csr,
                 const struct identity *who)
{
    char *cert = NULL;
    MUST(pki_sign(f->ca_pem, f->ca_key_pem, csr, who, (int64_t)time(NULL), 3600, &cert, msg));
    char address[64];
    (void)snprintf(address, sizeof address, "127.0.0.1:%u", f->port);
    struct pair schedulers[] = {{.key = "s1", .value = address}};
    send_to(l, &(struct message){.type = MESSAGE_JOIN_REPLY,
                                 .request = request,
                                 .join_reply = {.cert = cert,
                                                .ca = f->ca_pem,
                                                .schedulers = schedulers,
                                                .schedulers_count = 1}});
    mem_free(cert);
}

static void take_join(struct fake *f, struct link *l, const struct message *m)
{
    f->joins++;
    if (f->joins == 1) {
        /* Not yet: the joiner must ask again. */
        send_to(l, &(struct message){
                       .type = MESSAGE_JOIN_REPLY,
                       .request = m->request,
                       .join_reply = {.code = STATUS_NOT_LEADER, .message = "an election runs"}});
        return;
    }
    struct identity who = {.role = ROLE_AGENT};
    (void)snprintf(who.cluster.text, sizeof who.cluster.text, "test");
    (void)snprintf(who.name.text, sizeof who.name.text, "%s", m->join.name);
    sign(f, l, m->request, m->join.csr, &who);
}

static void take_register(struct fake *f, const struct message *m)
{
    if (m->term != f->term) {
        return; /* made before the agent knew us */
    }
    f->registered = true;
    f->registered_instances = m->node_register.instances_count;
    f->registered_attempts = m->node_register.attempts_count;
    for (size_t i = 0; i < m->node_register.instances_count; i++) {
        take_event(f, &m->node_register.instances[i], STATUS_OK);
    }
}

static void take_beat(struct fake *f, struct link *l, const struct message *m)
{
    f->heartbeats++;
    f->heartbeat = m->heartbeat;
    f->heartbeat.instances = NULL;
    send_to(l, &(struct message){.type = MESSAGE_REPLY, .request = m->request});
}

static void take(struct fake *f, struct link *l, const struct message *m)
{
    switch (m->type) {
    case MESSAGE_HELLO:
        if (link_peer(l)->role == ROLE_AGENT && f->leads) {
            f->link = l;
            lead(f);
        }
        break;
    case MESSAGE_NODE_REGISTER:
        take_register(f, m);
        break;
    case MESSAGE_HEARTBEAT:
        take_beat(f, l, m);
        break;
    case MESSAGE_INSTANCE_EVENT:
        take_event(f, m->instance_event.report, m->instance_event.code);
        break;
    case MESSAGE_RESULT:
        take_result(f, &m->result);
        break;
    case MESSAGE_CHUNK_GET:
        give_chunk(f, l, m);
        break;
    case MESSAGE_LOG_DATA:
        MUST(buffer_append(&f->log, m->log_data.data.data, m->log_data.data.size));
        f->log_ended = m->log_data.end;
        f->log_code = (enum status_code)m->log_data.code;
        break;
    case MESSAGE_METRICS_TEXT:
        MUST(buffer_append(&f->metrics, m->metrics_text.text.data, m->metrics_text.text.size));
        MUST(buffer_append(&f->metrics, "", 1));
        break;
    case MESSAGE_RENEW:
        f->renewals++;
        sign(f, l, m->request, m->renew.csr, link_peer(l));
        break;
    case MESSAGE_JOIN:
        take_join(f, l, m);
        break;
    default:
        break;
    }
}

static void on_open(void *data, struct link *l)
{
    (void)data;
    send_to(l, &(struct message){.type = MESSAGE_HELLO,
                                 .hello = {.version_min = 1, .version_max = 1, .build = "fake"}});
}

static void on_message(void *data, struct link *l, struct bytes payload)
{
    struct arena a = {0};
    struct message m;
    MUST(message_decode(payload, &a, &m, msg));
    take(data, l, &m);
    arena_close(&a);
}

static void on_close(void *data, struct link *l, struct status why, const char *reason)
{
    struct fake *f = data;
    (void)why;
    (void)reason;
    if (f->link == l) {
        f->link = NULL;
        f->registered = false;
    }
}

/* ---- Setting up ---- */

static void make_certificate(struct fake *f, enum role role, const char *name, int64_t valid_s,
                             char **cert, char **key)
{
    struct identity id = {.role = role};
    (void)snprintf(id.cluster.text, sizeof id.cluster.text, "test");
    (void)snprintf(id.name.text, sizeof id.name.text, "%s", name);
    char *csr = NULL;
    MUST(pki_request_create(&csr, key, msg));
    MUST(pki_sign(f->ca_pem, f->ca_key_pem, csr, &id, (int64_t)time(NULL), valid_s, cert, msg));
    mem_free(csr);
}

static void file_write(const struct fake *f, const char *name, const char *text, mode_t mode)
{
    char path[FAKE_PATH_BYTES + 64];
    (void)snprintf(path, sizeof path, "%s/%s", f->folder, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(close(fd), 0);
}

void fake_agent_certificate(struct fake *f, int64_t valid_s)
{
    mem_free(f->agent_cert_pem);
    pki_key_free(f->agent_key_pem);
    make_certificate(f, ROLE_AGENT, "n1", valid_s, &f->agent_cert_pem, &f->agent_key_pem);
    file_write(f, "ca.pem", f->ca_pem, 0644);
    file_write(f, "cert.pem", f->agent_cert_pem, 0644);
    file_write(f, "key.pem", f->agent_key_pem, 0600);
}

static void config_write(const struct fake *f)
{
    char text[4096];
    (void)snprintf(text, sizeof text,
                   "cluster: test\nname: n1\nschedulers: [\"127.0.0.1:%u\"]\ndata: %s/data\n"
                   "ca: %s/ca.pem\ncert: %s/cert.pem\nkey: %s/key.pem\n"
                   "capacity: {cpu: 4, memory: 2Gi}\nlabels: {zone: a}\n",
                   f->port, f->folder, f->folder, f->folder, f->folder);
    file_write(f, "agent.yaml", text, 0600);
}

static void package_make(struct fake *f)
{
    char folder[FAKE_PATH_BYTES + 16];
    char command[2 * FAKE_PATH_BYTES + 512];
    (void)snprintf(folder, sizeof folder, "%s/code", f->folder);
    assert_int_equal(mkdir(folder, 0700), 0);
    (void)snprintf(command, sizeof command, "cp %s %s/guest", GUEST_PROGRAM, folder);
    assert_int_equal(system(command), 0);
    MUST(package_open(&f->package, folder, msg));
    MUST(chunk_list_of_package(&f->package, &f->chunks, msg));
    MUST(revision_digest(bytes_of("test", 4), f->chunks.digests, f->chunks.count, &f->revision));
}

static void hub_open(struct fake *f)
{
    char *cert;
    char *key;
    make_certificate(f, ROLE_SCHEDULER, "s1", 3600, &cert, &key);
    const struct tls_identity own = {.ca_pem = f->ca_pem, .cert_pem = cert, .key_pem = key};
    const struct link_events events = {
        .data = f, .on_open = on_open, .on_message = on_message, .on_close = on_close};
    const struct link_limits limits = {0};
    MUST(link_hub_open(&f->hub, &f->loop, &own, &limits, &events, msg));
    MUST(link_hub_listen(f->hub, "127.0.0.1:0", &f->port, msg));
    mem_free(cert);
    pki_key_free(key);
}

/* Conditions outside the loop are looked at now and then. */
static void on_wake(uv_timer_t *timer)
{
    (void)timer;
}

int fake_setup(void **state)
{
    struct fake *f = mem_must(mem_zalloc(1, sizeof *f));
    (void)snprintf(f->folder, sizeof f->folder, "/tmp/skep-agent-test-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    assert_int_equal(uv_loop_init(&f->loop), 0);
    assert_int_equal(uv_timer_init(&f->loop, &f->wake), 0);
    assert_int_equal(uv_timer_start(&f->wake, on_wake, 20, 20), 0);
    struct name cluster = {"test"};
    MUST(pki_ca_create(&cluster, (int64_t)time(NULL), 24 * 3600, &f->ca_pem, &f->ca_key_pem, msg));
    f->term = 3;
    f->leads = true;
    hub_open(f);
    fake_agent_certificate(f, 3600);
    config_write(f);
    package_make(f);
    *state = f;
    return 0;
}

int fake_setup_registered(void **state)
{
    fake_setup(state);
    struct fake *f = *state;
    fake_agent_start(f);
    FAKE_UNTIL(f, f->registered);
    return 0;
}

/* ---- The agent's process ---- */

static pid_t spawn(const char *const *args)
{
    pid_t pid;
    assert_int_equal(
        posix_spawn(&pid, AGENT_PROGRAM, NULL, NULL, (char *const *)(uintptr_t)args, environ), 0);
    return pid;
}

void fake_agent_start(struct fake *f)
{
    char config[FAKE_PATH_BYTES + 16];
    (void)snprintf(config, sizeof config, "%s/agent.yaml", f->folder);
    const char *const args[] = {AGENT_PROGRAM, "--config",  config,         "--cell",
                                CELL_PROGRAM,  "--runners", RUNNERS_FOLDER, NULL};
    f->agent = spawn(args);
}

static bool has_ended(pid_t pid, int *code)
{
    int status;
    if (waitpid(pid, &status, WNOHANG) != pid) {
        return false;
    }
    *code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return true;
}

int fake_agent_end(struct fake *f, int number)
{
    int code = -1;
    assert_int_equal(kill(f->agent, number), 0);
    FAKE_UNTIL(f, has_ended(f->agent, &code));
    f->agent = 0;
    return code;
}

int fake_agent_verb(struct fake *f, const char *const *args)
{
    int code = -1;
    pid_t pid = spawn(args);
    FAKE_UNTIL(f, has_ended(pid, &code));
    return code;
}

/* ---- Commands ---- */

void fake_start(struct fake *f, unsigned n, uint32_t concurrency)
{
    struct function_spec spec = {
        .name = "guest",
        .runtime = "c",
        .handler = "guest",
        .cpu_millis = 500,
        .memory_bytes = 64 << 20,
        .tmp_bytes = 1 << 20,
        .processes_max = 32,
        .concurrency = concurrency,
        .timeout_ms = 30000,
        .startup_timeout_ms = 30000,
        .chunks = bytes_of(f->chunks.digests, f->chunks.count * sizeof *f->chunks.digests),
        .package_bytes = f->chunks.bytes,
    };
    fake_send(
        f, &(struct message){
               .type = MESSAGE_START,
               .start = {.instance = fake_instance_id(n), .revision = f->revision, .spec = &spec}});
}

void fake_stop(struct fake *f, unsigned n, bool kill)
{
    fake_send(f, &(struct message){
                     .type = MESSAGE_STOP,
                     .stop = {.instance = fake_instance_id(n), .kill = kill, .reason = "test"}});
}

void fake_invoke(struct fake *f, unsigned invocation, unsigned instance, const char *input,
                 uint32_t timeout_ms)
{
    fake_send(f, &(struct message){.type = MESSAGE_INVOKE,
                                   .invoke = {.invocation = invocation_id(invocation),
                                              .attempt = 1,
                                              .instance = fake_instance_id(instance),
                                              .timeout_ms = timeout_ms,
                                              .payload = bytes_of(input, strlen(input))}});
}

const struct fake_result *fake_result(const struct fake *f, unsigned invocation)
{
    for (size_t i = 0; i < f->results_count; i++) {
        if (f->results[i].invocation == invocation) {
            return &f->results[i];
        }
    }
    return NULL;
}

const struct fake_instance *fake_instance(const struct fake *f, unsigned n)
{
    for (size_t i = 0; i < f->instances_count; i++) {
        if (f->instances[i].n == n) {
            return &f->instances[i];
        }
    }
    return NULL;
}

uint32_t fake_state(const struct fake *f, unsigned n)
{
    const struct fake_instance *i = fake_instance(f, n);
    return i == NULL ? 0 : i->state;
}

void fake_ready(struct fake *f, unsigned n, uint32_t concurrency)
{
    fake_start(f, n, concurrency);
    FAKE_UNTIL(f, fake_instance(f, n) != NULL && fake_state(f, n) != INSTANCE_STARTING);
    if (fake_state(f, n) != INSTANCE_READY) {
        fail_msg("instance %u: %s: %s", n, status_name(fake_instance(f, n)->code),
                 fake_instance(f, n)->message);
    }
}

/* ---- Taking down ---- */

static void on_hub_closed(void *data)
{
    struct fake *f = data;
    f->closed = true;
}

static void folder_check_empty(const char *path)
{
    DIR *dir = opendir(path);
    if (dir == NULL) {
        return;
    }
    for (const struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        if (e->d_name[0] != '.') {
            fail_msg("%s/%s is left", path, e->d_name);
        }
    }
    (void)closedir(dir);
}

int fake_teardown(void **state)
{
    struct fake *f = *state;
    char path[FAKE_PATH_BYTES + 32];
    if (f->agent != 0) {
        assert_int_equal(fake_agent_end(f, SIGTERM), 0);
    }
    (void)snprintf(path, sizeof path, "%s/data", f->folder);
    const char *const args[] = {AGENT_PROGRAM, "stop-instances", "--data", path, NULL};
    assert_int_equal(fake_agent_verb(f, args), 0);
    (void)snprintf(path, sizeof path, "%s/data/instances", f->folder);
    folder_check_empty(path);
    link_hub_close(f->hub, on_hub_closed, f);
    FAKE_UNTIL(f, f->closed);
    uv_close((uv_handle_t *)&f->wake, NULL);
    (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    MUST(package_remove(f->folder, msg));
    for (size_t i = 0; i < f->results_count; i++) {
        buffer_close(&f->results[i].output);
    }
    package_close(&f->package);
    chunk_list_close(&f->chunks);
    buffer_close(&f->log);
    buffer_close(&f->metrics);
    mem_free(f->ca_pem);
    pki_key_free(f->ca_key_pem);
    mem_free(f->agent_cert_pem);
    pki_key_free(f->agent_key_pem);
    mem_free(f);
    return 0;
}
