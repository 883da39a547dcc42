#include "tests/bench/queue_peers.h"

const struct queue *queue_rabbitmq(void)
{
    return NULL;
}
