/* Letting go of what the configuration files gave. */
#include "common/config.h"

#include "common/mem.h"

static void identity_close(struct config_identity *id)
{
    mem_free(id->ca);
    mem_free(id->cert);
    mem_free(id->key);
}

void scheduler_config_close(struct scheduler_config *c)
{
    if (c == NULL) {
        return;
    }
    mem_free(c->listen);
    mem_free(c->advertise);
    mem_free(c->data);
    identity_close(&c->identity);
    mem_free(c->ca_key);
    mem_free(c->seal.cluster_key);
    mem_free(c->seal.cluster_key_old);
    mem_free(c->seal.pkcs11_module);
    mem_free(c->backup.to);
    mem_free(c->backup.endpoint);
    mem_free(c->backup.endpoint_ca);
    mem_free(c->backup.region);
    mem_free(c->backup.credentials);
    for (size_t i = 0; i < c->peers_count; i++) {
        mem_free(c->peers[i].address);
    }
    mem_free(c->peers);
    mem_free(c);
}

void agent_config_close(struct agent_config *c)
{
    if (c == NULL) {
        return;
    }
    for (size_t i = 0; i < c->schedulers_count; i++) {
        mem_free(c->schedulers[i]);
    }
    mem_free(c->schedulers);
    mem_free(c->data);
    identity_close(&c->identity);
    text_pairs_close(c->labels, c->labels_count);
    mem_free(c->cells_root);
    mem_free(c->gvisor_program);
    mem_free(c->cells_canary);
    mem_free(c->gpu_library);
    for (size_t i = 0; i < c->gpu_simulate_count; i++) {
        mem_free(c->gpu_simulate[i].model);
    }
    mem_free(c->gpu_simulate);
    for (size_t i = 0; i < c->gpu_cdi_count; i++) {
        mem_free(c->gpu_cdi[i]);
    }
    mem_free(c->gpu_cdi);
    mem_free(c);
}
