/* Lines of standard input, taken as they come: never waiting for more while something else has to
 * go on.
 *
 * Thread: the owner's. */
#ifndef CLI_LINES_H
#define CLI_LINES_H

#include "common/buffer.h"

enum lines_next {
    LINES_LINE,
    LINES_LATER, /* no whole line is there yet */
    LINES_END,
    LINES_FAILED,
};

/* All zeros but fd and line_bytes_max is a beginning. */
struct lines {
    int fd;
    size_t line_bytes_max; /* without the newline */
    struct buffer read;
    size_t at;       /* in read: where the next line begins */
    size_t searched; /* no newline before it */
    bool ended;
    uint64_t number; /* of the last line, from 1 */
    uint64_t bytes;  /* taken so far */
};

/* The next line without its newline, borrowed until the next call; a last line needs none. With
 * wait it blocks until there is one. FAILED: INVALID for a line that is too long, naming it, or
 * what reading said. */
enum lines_next lines_take(struct lines *l, bool wait, struct bytes *line, struct status *failed,
                           struct errmsg *msg);
void lines_close(struct lines *l);

#endif
