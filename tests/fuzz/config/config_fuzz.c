/* The configuration files of the scheduler, the agent and the command line, all three from the same
 * bytes. */
#include "common/check.h"
#include "common/config.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_message(struct status s, const struct errmsg *msg)
{
    CHECK(status_is_ok(s) || strncmp(msg->text, "f:", 2) == 0);
    CHECK(strpbrk(msg->text, "\n\r\x1b") == NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct errmsg msg = {""};
    struct scheduler_config *scheduler = NULL;
    struct agent_config *agent = NULL;
    struct context_config *contexts = NULL;
    check_message(scheduler_config_parse("f", bytes_of(data, size), &scheduler, &msg), &msg);
    scheduler_config_close(scheduler);
    msg.text[0] = '\0';
    check_message(agent_config_parse("f", bytes_of(data, size), &agent, &msg), &msg);
    agent_config_close(agent);
    msg.text[0] = '\0';
    check_message(context_config_parse("f", bytes_of(data, size), &contexts, &msg), &msg);
    context_config_close(contexts);
    return 0;
}
