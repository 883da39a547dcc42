#include "common/config.h"
#include "common/mem.h"
#include "tests/unit/config/folder.h"

static const char scheduler[] =
    "cluster: prod\nid: s1\nlisten: 0.0.0.0:7400\nadvertise: 10.0.0.1:7400\ndata: /var/lib/s\n"
    "ca: /etc/ca.pem\ncert: /etc/cert.pem\nkey: /etc/key.pem\nca_key: /etc/ca.key\n"
    "peers:\n- {id: s1, address: \"10.0.0.1:7400\"}\n- {id: s2, address: \"[fe80::2]:7400\"}\n"
    "raft: {election_timeout: 1s, heartbeat: 100ms, ballast: 32Mi, free_min: 96Mi,\n"
    "  snapshot_entries: 5000}\n"
    "limits: {connections: 100, send_queue: 8Mi, chunks: 1Gi, payloads: 1Gi}\n"
    "seal: {cluster_key: \"file:/etc/k\", cluster_key_old: credential:old, pkcs11_module: /m.so}\n"
    "log: {level: warn, format: json}\n";

static const char agent[] =
    "cluster: prod\nname: node-7\nschedulers: [\"10.0.0.1:7400\", \"s2.example:7400\"]\n"
    "data: /var/lib/a\nca: /etc/ca.pem\ncert: /etc/cert.pem\nkey: /etc/key.pem\n"
    "capacity: {cpu: 7.5, memory: 3Gi}\nlabels: {zone: eu-1, arch: x86}\n"
    "gvisor: {enabled: off, platform: ptrace, program: /opt/runsc}\n"
    "cells: {root: /srv/root, walls_not_needed: [landlock, cgroup_memory], io_bps: 1Mi,\n"
    "  uids: {first: 100000, count: 500}}\nlease: 2s\nlimits: {chunks: 2Gi}\n"
    "gpu: {discovery: off, cdi: [/a, /b], library: /opt/libnvidia-ml.so.1, simulate: [{model: "
    "H100, memory: "
    "80Gi,\n"
    "  count: 8}, {model: T4, memory: 16Gi}]}\n"
    "log: {level: debug}\n";

static struct scheduler_config *scheduler_of(const char *text)
{
    struct scheduler_config *c = NULL;
    struct errmsg msg = {""};
    struct status s = scheduler_config_parse("s.yaml", bytes_of(text, strlen(text)), &c, &msg);
    assert_string_equal(msg.text, "");
    assert_true(status_is_ok(s));
    return c;
}

static struct agent_config *agent_of(const char *text)
{
    struct agent_config *c = NULL;
    struct errmsg msg = {""};
    struct status s = agent_config_parse("a.yaml", bytes_of(text, strlen(text)), &c, &msg);
    assert_string_equal(msg.text, "");
    assert_true(status_is_ok(s));
    return c;
}

static void every_scheduler_key_is_read(void **state)
{
    (void)state;
    struct scheduler_config *c = scheduler_of(scheduler);
    assert_string_equal(c->cluster.text, "prod");
    assert_string_equal(c->id.text, "s1");
    assert_string_equal(c->listen, "0.0.0.0:7400");
    assert_string_equal(c->advertise, "10.0.0.1:7400");
    assert_string_equal(c->data, "/var/lib/s");
    assert_string_equal(c->identity.ca, "/etc/ca.pem");
    assert_string_equal(c->identity.cert, "/etc/cert.pem");
    assert_string_equal(c->identity.key, "/etc/key.pem");
    assert_string_equal(c->ca_key, "/etc/ca.key");
    assert_int_equal(c->peers_count, 2);
    assert_string_equal(c->peers[1].id.text, "s2");
    assert_string_equal(c->peers[1].address, "[fe80::2]:7400");
    assert_true(c->bootstrap);
    assert_int_equal(c->election_timeout_ms, 1000);
    assert_int_equal(c->heartbeat_ms, 100);
    assert_int_equal(c->ballast_bytes, 32 << 20);
    assert_int_equal(c->free_bytes_min, 96 << 20);
    assert_int_equal(c->snapshot_entries, 5000);
    assert_int_equal(c->connections_max, 100);
    assert_int_equal(c->send_queue_bytes, 8 << 20);
    assert_int_equal(c->chunk_bytes_max, 1 << 30);
    assert_int_equal(c->payload_bytes_max, 1 << 30);
    assert_string_equal(c->seal.cluster_key, "file:/etc/k");
    assert_string_equal(c->seal.cluster_key_old, "credential:old");
    assert_string_equal(c->seal.pkcs11_module, "/m.so");
    assert_int_equal(c->log.level, LOG_LEVEL_WARN);
    assert_int_equal(c->log.format, LOG_FORMAT_JSON);
    scheduler_config_close(c);
}

static void a_short_scheduler_file_gets_defaults(void **state)
{
    (void)state;
    struct scheduler_config *c = scheduler_of(
        "cluster: c\nid: s9\nlisten: 127.0.0.1:7400\ndata: /d\nca: /a\ncert: /b\nkey: /k\n"
        "peers: [{id: s1, address: \"127.0.0.1:1\"}]\n");
    assert_string_equal(c->advertise, "127.0.0.1:7400");
    assert_null(c->ca_key);
    assert_null(c->seal.cluster_key);
    assert_false(c->bootstrap);
    assert_int_equal(c->election_timeout_ms, 500);
    assert_int_equal(c->heartbeat_ms, 50);
    assert_int_equal(c->ballast_bytes, CONFIG_BALLAST_BYTES_DEFAULT);
    assert_int_equal(c->free_bytes_min, CONFIG_FREE_BYTES_MIN_DEFAULT);
    assert_int_equal(c->snapshot_entries, CONFIG_SNAPSHOT_ENTRIES_DEFAULT);
    assert_int_equal(c->connections_max, 4096);
    assert_int_equal(c->log.level, LOG_LEVEL_INFO);
    assert_int_equal(c->log.format, LOG_FORMAT_KV);
    scheduler_config_close(c);
}

static void a_seal_has_a_cluster_key_of_a_known_form(void **state)
{
    (void)state;
    static const struct {
        const char *seal, *says;
    } cases[] = {
        {"{cluster_key_old: \"file:/k\"}", "s.yaml:9: seal: needs cluster_key"},
        {"{cluster_key: /k}",
         "s.yaml:9: seal.cluster_key: is none of file:PATH, credential:NAME and pkcs11:URI"},
        {"{cluster_key: \"file:k\"}", "s.yaml:9: seal.cluster_key: file: takes an absolute path"},
        {"{cluster_key: \"file:/k\", cluster_key_old: credential:a/b}",
         "s.yaml:9: seal.cluster_key_old: credential: takes the name of a credential, not a path"},
        {"{cluster_key: \"file:/k\", pkcs11_module: m.so}",
         "s.yaml:9: seal.pkcs11_module: \"m.so\" is not an absolute path"},
        {"{cluster_key: \"file:/k\", clusterkey: x}", "s.yaml:9: seal.clusterkey: unknown key"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[1024];
        struct scheduler_config *c = NULL;
        struct errmsg msg = {""};
        int size =
            snprintf(text, sizeof text,
                     "cluster: c\nid: s9\nlisten: 127.0.0.1:7400\ndata: /d\nca: /a\ncert: /b\n"
                     "key: /k\npeers: [{id: s1, address: \"127.0.0.1:1\"}]\nseal: %s\n",
                     cases[i].seal);
        struct status s = scheduler_config_parse("s.yaml", bytes_of(text, (size_t)size), &c, &msg);
        assert_string_equal(msg.text, cases[i].says);
        assert_int_equal(s.code, STATUS_INVALID);
    }
}

static void every_agent_key_is_read(void **state)
{
    (void)state;
    struct agent_config *c = agent_of(agent);
    assert_string_equal(c->cluster.text, "prod");
    assert_string_equal(c->name.text, "node-7");
    assert_int_equal(c->schedulers_count, 2);
    assert_string_equal(c->schedulers[1], "s2.example:7400");
    assert_string_equal(c->data, "/var/lib/a");
    assert_string_equal(c->identity.key, "/etc/key.pem");
    assert_int_equal(c->cpu_millis, 7500);
    assert_true(c->memory_bytes == UINT64_C(3) << 30);
    assert_int_equal(c->labels_count, 2);
    assert_string_equal(c->labels[0].key, "arch");
    assert_string_equal(c->labels[1].value, "eu-1");
    assert_int_equal(c->walls_not_needed,
                     WALL_BIT(LANDLOCK) | WALL_BIT(CGROUP_MEMORY) | WALL_BIT(CGROUP_SWAP));
    assert_int_equal(c->cells_io_bps, 1 << 20);
    assert_int_equal(c->cells_uid_first, 100000);
    assert_int_equal(c->cells_uid_count, 500);
    assert_string_equal(c->cells_root, "/srv/root");
    assert_int_equal(c->gvisor_enabled, GVISOR_ENABLED_OFF);
    assert_string_equal(gvisor_choice_name(c->gvisor_platform), "ptrace");
    assert_string_equal(c->gvisor_program, "/opt/runsc");
    assert_int_equal(c->gpu_discovery, GPU_DISCOVERY_OFF);
    assert_string_equal(c->gpu_library, "/opt/libnvidia-ml.so.1");
    assert_int_equal(c->gpu_cdi_count, 2);
    assert_string_equal(c->gpu_cdi[1], "/b");
    assert_int_equal(c->gpu_simulate_count, 2);
    assert_string_equal(c->gpu_simulate[0].model, "H100");
    assert_true(c->gpu_simulate[0].memory_bytes == UINT64_C(80) << 30);
    assert_int_equal(c->gpu_simulate[0].count, 8);
    assert_string_equal(c->gpu_simulate[1].model, "T4");
    assert_int_equal(c->gpu_simulate[1].count, 1);
    assert_int_equal(c->lease_ms, 2000);
    assert_true(c->chunk_bytes_max == UINT64_C(2) << 30);
    assert_int_equal(c->log.level, LOG_LEVEL_DEBUG);
    agent_config_close(c);
}

static void an_agent_without_capacity_has_the_machines(void **state)
{
    (void)state;
    struct agent_config *c = agent_of(
        "cluster: c\nname: n\nschedulers: [\"h:1\"]\ndata: /d\nca: /a\ncert: /b\nkey: /k\n");
    assert_true(c->cpu_millis >= 1000);
    assert_int_equal(c->cpu_millis % 1000, 0);
    assert_true(c->memory_bytes > CONFIG_MEMORY_BYTES_MIN);
    assert_int_equal(c->walls_not_needed, 0);
    assert_int_equal(c->cells_uid_first, CONFIG_UID_FIRST_DEFAULT);
    assert_int_equal(c->cells_uid_count, CONFIG_UID_COUNT_DEFAULT);
    assert_null(c->cells_root);
    assert_int_equal(c->lease_ms, CONFIG_LEASE_MS_DEFAULT);
    agent_config_close(c);
}

#define SMALL_AGENT                                                                                \
    "cluster: c\nname: n\nschedulers: [\"h:1\"]\ndata: /d\nca: /a\ncert: /b\nkey: /k\n"

static void cgroup_off_names_the_walls_that_limit(void **state)
{
    (void)state;
    struct agent_config *c = agent_of(SMALL_AGENT "cells: {cgroup: off}\n");
    assert_int_equal(c->walls_not_needed, WALLS_CGROUP);
    agent_config_close(c);
    c = agent_of(SMALL_AGENT "cells: {cgroup: auto}\n");
    assert_int_equal(c->walls_not_needed, 0);
    agent_config_close(c);
}

static void walls_and_users_that_cannot_be_are_refused(void **state)
{
    static const char *const rows[][2] = {
        {"cells: {walls_not_needed: [landlock, moat]}\n",
         "a:8: cells.walls_not_needed[1]: no wall is named \"moat\"; these may be named: "
         "cgroup_namespace, landlock, cgroup_memory"},
        {"cells: {walls_not_needed: [seccomp]}\n",
         "a:8: cells.walls_not_needed[0]: the wall seccomp is always needed"},
        {"cells: {uids: {first: 4294967000, count: 1000}}\n", "a:8: cells.uids: ends above"},
        {"cells: {uids: {first: 0}}\n", "a:8: cells.uids.first: "},
        {"cells: {uids: {count: 0}}\n", "a:8: cells.uids.count: "},
        {"cells: {io_bps: 1}\n", "a:8: cells.io_bps: "},
        {"cells: {io_bps: 1Mi, cgroup: off}\n", "a:8: cells.io_bps: needs the wall cgroup_io"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[512];
        struct agent_config *c = NULL;
        struct errmsg msg = {""};
        (void)snprintf(text, sizeof text, "%s%s", SMALL_AGENT, rows[i][0]);
        struct status s = agent_config_parse("a", bytes_of(text, strlen(text)), &c, &msg);
        assert_false(status_is_ok(s));
        if (strncmp(msg.text, rows[i][1], strlen(rows[i][1])) != 0) {
            fail_msg("%s", msg.text);
        }
    }
}

static void out_of_memory_in_a_daemon_file_leaks_nothing(void **state)
{
    (void)state;
    unsigned delivered = 1;
    for (unsigned delay = 0; delivered > 0; delay++) {
        struct scheduler_config *s = NULL;
        struct agent_config *a = NULL;
        struct errmsg msg = {""};
        mem_fault(delay, 1);
        struct status first =
            scheduler_config_parse("f", bytes_of(scheduler, strlen(scheduler)), &s, &msg);
        struct status second = agent_config_parse("f", bytes_of(agent, strlen(agent)), &a, &msg);
        delivered = mem_fault_clear();
        assert_int_equal(status_is_ok(first) && status_is_ok(second), delivered == 0);
        assert_string_equal(msg.text, delivered > 0 ? "f: out of memory" : "");
        scheduler_config_close(s);
        agent_config_close(a);
        assert_true(delay < 1000);
    }
}

static void addresses_are_host_and_port(void **state)
{
    static const char *const good[] = {"h:1", "a-b.example:65535", "10.0.0.1:7400", "[::1]:80"};
    static const char *const bad[] = {"",
                                      ":1",
                                      "h",
                                      "h:",
                                      "h:0",
                                      "h:65536",
                                      "h:-1",
                                      "::1:80",
                                      "[::1:80",
                                      "h b:1",
                                      "h:1 ",
                                      "http://h:1",
                                      "h:99999999999999999999999"};
    struct errmsg msg;
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_true(status_is_ok(address_check(good[i], 1, &msg)));
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_false(status_is_ok(address_check(bad[i], 1, &msg)));
    }
    assert_true(status_is_ok(address_check("h:0", 0, &msg)));
}

/* ---- Contexts ---- */

static char address_a[] = "127.0.0.1:1";
static char address_b[] = "[::1]:2";
static char *addresses[] = {address_a, address_b};

static struct context context_of(char *name)
{
    static char ca[] = "/home/a b/ca: #1.pem";
    static char cert[] = "/c\"ert";
    static char key[] = "/k'ey";
    return (struct context){.name = name,
                            .schedulers = addresses,
                            .schedulers_count = 2,
                            .ca = ca,
                            .cert = cert,
                            .key = key};
}

static void saved_contexts_read_back(void **state)
{
    struct folder f;
    char path[PATH_BYTES];
    char a[] = "a";
    char b[] = "b";
    struct errmsg msg = {""};
    const struct context *found = NULL;
    struct context first = context_of(a);
    struct context second = context_of(b);
    struct stat st;
    (void)state;
    folder_open(&f);
    struct context_config *c = context_config_new();
    assert_non_null(c);
    assert_true(status_is_ok(context_put(c, &first, false, &msg)));
    assert_true(status_is_ok(context_put(c, &second, true, &msg)));
    assert_true(status_is_ok(context_config_save(c, folder_path(&f, "contexts.yaml", path), &msg)));
    context_config_close(c);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_true(status_is_ok(context_config_load(path, &c, &msg)));
    assert_int_equal(c->contexts_count, 2);
    assert_true(status_is_ok(context_find(c, NULL, &found, &msg)));
    assert_string_equal(found->name, "b");
    assert_true(status_is_ok(context_find(c, "a", &found, &msg)));
    assert_string_equal(found->ca, first.ca);
    assert_string_equal(found->cert, first.cert);
    assert_string_equal(found->key, first.key);
    assert_int_equal(found->schedulers_count, 2);
    assert_string_equal(found->schedulers[1], address_b);
    context_config_close(c);
    folder_close(&f);
}

static void an_empty_list_of_contexts_reads_back(void **state)
{
    struct folder f;
    char path[PATH_BYTES];
    struct errmsg msg = {""};
    (void)state;
    folder_open(&f);
    struct context_config *c = context_config_new();
    assert_true(status_is_ok(context_config_save(c, folder_path(&f, "contexts.yaml", path), &msg)));
    context_config_close(c);
    assert_true(status_is_ok(context_config_load(path, &c, &msg)));
    assert_int_equal(c->contexts_count, 0);
    context_config_close(c);
    folder_close(&f);
}

static void putting_a_context_again_replaces_it(void **state)
{
    char a[] = "a";
    struct errmsg msg = {""};
    struct context context = context_of(a);
    (void)state;
    struct context_config *c = context_config_new();
    assert_true(status_is_ok(context_put(c, &context, true, &msg)));
    context.schedulers_count = 1;
    assert_true(status_is_ok(context_put(c, &context, true, &msg)));
    assert_int_equal(c->contexts_count, 1);
    assert_int_equal(c->contexts[0].schedulers_count, 1);
    context_config_close(c);
}

static void a_bad_context_is_not_put(void **state)
{
    char a[] = "a";
    char relative[] = "key.pem";
    struct errmsg msg = {""};
    struct context context = context_of(a);
    (void)state;
    context.key = relative;
    struct context_config *c = context_config_new();
    assert_int_equal(context_put(c, &context, true, &msg).code, STATUS_INVALID);
    assert_string_equal(msg.text, "key: \"key.pem\" is not an absolute path");
    assert_int_equal(c->contexts_count, 0);
    assert_null(c->current);
    context_config_close(c);
}

static void an_unknown_context_is_named_with_those_there_are(void **state)
{
    char a[] = "a";
    char b[] = "b";
    struct errmsg msg = {""};
    const struct context *found = NULL;
    struct context first = context_of(a);
    struct context second = context_of(b);
    (void)state;
    struct context_config *c = context_config_new();
    assert_int_equal(context_find(c, NULL, &found, &msg).code, STATUS_NOT_FOUND);
    assert_string_equal(msg.text, "no context is chosen; there are: none");
    assert_true(status_is_ok(context_put(c, &first, false, &msg)));
    assert_true(status_is_ok(context_find(c, NULL, &found, &msg)));
    assert_true(status_is_ok(context_put(c, &second, false, &msg)));
    assert_int_equal(context_find(c, "x", &found, &msg).code, STATUS_NOT_FOUND);
    assert_string_equal(msg.text, "there is no context \"x\"; there are: a, b");
    context_config_close(c);
}

static void a_removed_context_is_no_longer_current(void **state)
{
    char a[] = "a";
    char b[] = "b";
    struct errmsg msg = {""};
    struct context first = context_of(a);
    struct context second = context_of(b);
    (void)state;
    struct context_config *c = context_config_new();
    assert_true(status_is_ok(context_put(c, &first, true, &msg)));
    assert_true(status_is_ok(context_put(c, &second, false, &msg)));
    assert_true(status_is_ok(context_remove(c, "a")));
    assert_null(c->current);
    assert_int_equal(c->contexts_count, 1);
    assert_string_equal(c->contexts[0].name, "b");
    assert_int_equal(context_remove(c, "a").code, STATUS_NOT_FOUND);
    context_config_close(c);
}

static void contexts_have_a_limit(void **state)
{
    struct errmsg msg = {""};
    (void)state;
    struct context_config *c = context_config_new();
    for (int i = 0; i <= CONFIG_CONTEXTS_MAX; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "c%d", i);
        struct context context = context_of(name);
        struct status s = context_put(c, &context, false, &msg);
        assert_int_equal(s.code, i < CONFIG_CONTEXTS_MAX ? STATUS_OK : STATUS_LIMIT);
    }
    assert_int_equal(c->contexts_count, CONFIG_CONTEXTS_MAX);
    context_config_close(c);
}

static void out_of_memory_in_put_changes_nothing(void **state)
{
    char a[] = "a";
    struct errmsg msg = {""};
    struct context context = context_of(a);
    (void)state;
    unsigned delivered = 1;
    for (unsigned delay = 0; delivered > 0; delay++) {
        struct context_config *c = context_config_new();
        mem_fault(delay, 1);
        struct status s = context_put(c, &context, true, &msg);
        delivered = mem_fault_clear();
        assert_int_equal(s.code, delivered > 0 ? STATUS_NOMEM : STATUS_OK);
        assert_int_equal(c->contexts_count, delivered > 0 ? 0 : 1);
        context_config_close(c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_scheduler_key_is_read),
        cmocka_unit_test(a_short_scheduler_file_gets_defaults),
        cmocka_unit_test(a_seal_has_a_cluster_key_of_a_known_form),
        cmocka_unit_test(every_agent_key_is_read),
        cmocka_unit_test(an_agent_without_capacity_has_the_machines),
        cmocka_unit_test(cgroup_off_names_the_walls_that_limit),
        cmocka_unit_test(walls_and_users_that_cannot_be_are_refused),
        cmocka_unit_test(out_of_memory_in_a_daemon_file_leaks_nothing),
        cmocka_unit_test(addresses_are_host_and_port),
        cmocka_unit_test(saved_contexts_read_back),
        cmocka_unit_test(an_empty_list_of_contexts_reads_back),
        cmocka_unit_test(putting_a_context_again_replaces_it),
        cmocka_unit_test(a_bad_context_is_not_put),
        cmocka_unit_test(an_unknown_context_is_named_with_those_there_are),
        cmocka_unit_test(a_removed_context_is_no_longer_current),
        cmocka_unit_test(contexts_have_a_limit),
        cmocka_unit_test(out_of_memory_in_put_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
