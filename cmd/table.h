/* table.h: aligned text tables for stdout.
 *
 * A table has a fixed number of columns; cells are added from left to right, row after row. Columns
 * are as wide as their widest cell, two blanks apart; lines have no trailing blanks. Cells live in
 * the table's arena; cmd_table_free ends them. A failed cell is remembered and told by print.
 */
#ifndef MT_CMD_TABLE_H
#define MT_CMD_TABLE_H

#include "lib/base/mem.h"

#include <stdio.h>

#define CMD_TABLE_COLS_MAX 12

struct cmd_table {
    struct mt_arena arena;
    const char *align; /* one letter per column: 'l' or 'r' */
    int n_cols;
    const char **cells;
    size_t n, cap;
    mt_status failed;
};

void cmd_table_begin(struct cmd_table *t, const char *align);
void cmd_table_cell(struct mt_ctx *ctx, struct cmd_table *t, const char *fmt, ...) MT_PRINTF(3, 4);
/* Fills the row that was begun with empty cells. */
void cmd_table_end_row(struct mt_ctx *ctx, struct cmd_table *t);
MT_NODISCARD mt_status cmd_table_print(struct mt_ctx *ctx, const struct cmd_table *t, FILE *f);
void cmd_table_free(struct cmd_table *t);
#endif
