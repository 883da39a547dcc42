/* What the launcher inside a sandbox says to the supervisor outside, on one pipe that runsc's own
 * words travel on too: none of them holds such a byte. */
#ifndef AGENT_GVISOR_LAUNCHER_H
#define AGENT_GVISOR_LAUNCHER_H

enum {
    LAUNCHER_READY = 1,  /* becomes the runner now */
    LAUNCHER_FAILED = 2, /* what follows says why the runner did not run */
};

#endif
