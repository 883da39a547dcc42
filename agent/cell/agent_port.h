/* skep-cell's side of the contract's socket: listens on cell.sock, serves one agent at a time,
 * hands it the runner channel, takes its commands and tells it events. An agent that does not read
 * is dropped.
 *
 * Thread: the only one of skep-cell; all descriptors are non-blocking. */
#ifndef AGENT_CELL_AGENT_PORT_H
#define AGENT_CELL_AGENT_PORT_H

#include "agent/cell/cell.h"

struct agent_port {
    int listen_fd; /* poll for reading, then agent_port_accept */
    int agent_fd;  /* -1: no agent; poll for reading, then agent_port_receive */
    int channel_fd;
    bool started;
    struct cell_event started_event;
};

/* Listens on cell.sock in the current folder, in place of an older socket. agent_fd (or -1) is a
 * connection that exists already; channel_fd is the agent's end of the runner channel. Both are
 * owned from now on. */
NODISCARD struct status agent_port_open(struct agent_port *p, int agent_fd, int channel_fd,
                                        struct errmsg *msg);
/* Takes every waiting connection of our own user or root; the last one is served. */
void agent_port_accept(struct agent_port *p);
/* Takes the agent's packets; *stop and *kill are set when asked for. */
void agent_port_receive(struct agent_port *p, bool *stop, bool *kill);
/* Sends the event, if an agent is there. STARTED is kept for later agents too. */
void agent_port_tell(struct agent_port *p, const struct cell_event *event);
void agent_port_close(struct agent_port *p);

#endif
