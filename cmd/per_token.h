/* per_token.h: the KL of every predicted token as a table that other programs read.
 *
 * Columns separated by tabs: window (from 0), domain, token (its place in the window; the first,
 * which nothing predicts, is left out), then the KL of each candidate in nats with nine digits,
 * under its name. Tabs and line ends in names become spaces.
 */
#ifndef MT_CMD_PER_TOKEN_H
#define MT_CMD_PER_TOKEN_H

#include "cmd/report.h"

/* rows[0] is the reference. The file appears whole or not at all; an existing one is replaced with
 * `force` only. */
MT_NODISCARD mt_status cmd_per_token_write(struct mt_ctx *ctx, const char *path, bool force,
                                           const struct cmd_report_row *rows, int n,
                                           const struct mt_dataset *data);
#endif
