/* The start time of a process, which with its pid names it for ever.
 *
 * Thread: any. */
#ifndef COMMON_PROCESS_STAT_H
#define COMMON_PROCESS_STAT_H

#include "common/status.h"

#include <stdint.h>
#include <sys/types.h>

/* Field 22 of /proc/PID/stat (proc(5)). NOT_FOUND when there is no such process or it is a zombie.
 * */
NODISCARD struct status process_start_time(pid_t pid, uint64_t *ticks);

/* The same from the text of a stat file; INVALID, or NOT_FOUND for a zombie. */
NODISCARD struct status process_start_time_parse(const char *stat, uint64_t *ticks);

#endif
