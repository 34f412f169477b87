/* sink.h: log lines and progress on stderr.
 *
 * On a terminal a running region shows one line that is redrawn: bar, percentage, rate (bytes or
 * tokens per second) and time left. Elsewhere a plain line appears about every ten seconds. Regions
 * of ten seconds and more leave a line with their time. --quiet leaves errors and warnings, -v
 * adds details. The callbacks run under the environment's lock, so the sink needs none.
 */
#ifndef MT_CMD_SINK_H
#define MT_CMD_SINK_H

#include "lib/base/ctx.h"

struct cmd_sink {
    bool quiet, verbose, terminal;
    bool drawn;         /* a progress line stands on the terminal */
    double begin, last; /* seconds: of the region, of the latest line */
    double all_begin;   /* of the first part of a work in parts */
    double all_share;   /* how much of it is done; never goes back */
    struct mt_progress_event now;
};

void cmd_sink_open(struct cmd_sink *s, bool quiet, bool verbose);
struct mt_sink cmd_sink_callbacks(struct cmd_sink *s);
void cmd_sink_close(struct cmd_sink *s); /* takes a standing line away */
#endif
