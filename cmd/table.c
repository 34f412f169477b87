#include "cmd/table.h"

#include <stdarg.h>
#include <string.h>

#define TABLE_CELL_MAX 1024

void cmd_table_begin(struct cmd_table *t, const char *align)
{
    *t = (struct cmd_table){.align = align, .n_cols = (int)strlen(align)};
    mt_assert(t->n_cols <= CMD_TABLE_COLS_MAX);
    mt_arena_init(&t->arena);
}

void cmd_table_cell(struct mt_ctx *ctx, struct cmd_table *t, const char *fmt, ...)
{
    char text[TABLE_CELL_MAX];
    va_list ap;

    if (t->failed != MT_OK)
        return;
    if (t->n == t->cap) {
        size_t cap = 2 * t->cap + 64;
        t->failed = mt_realloc(ctx, cap, sizeof *t->cells, "a table", &t->cells);
        if (t->failed != MT_OK)
            return;
        t->cap = cap;
    }
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    t->failed = mt_arena_strndup(ctx, &t->arena, text, strlen(text), &t->cells[t->n]);
    if (t->failed == MT_OK)
        t->n++;
}

void cmd_table_end_row(struct mt_ctx *ctx, struct cmd_table *t)
{
    while (t->failed == MT_OK && t->n % (size_t)t->n_cols != 0)
        cmd_table_cell(ctx, t, "%s", "");
}

/* Characters, not bytes: names may hold UTF-8. */
static int table_width(const char *s)
{
    int n = 0;

    for (; *s != '\0'; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

mt_status cmd_table_print(struct mt_ctx *ctx, const struct cmd_table *t, FILE *f)
{
    int width[CMD_TABLE_COLS_MAX] = {0};

    if (t->failed != MT_OK)
        return mt_fail(ctx, t->failed, "out of memory for a table");
    for (size_t i = 0; i < t->n; i++) {
        int w = table_width(t->cells[i]), c = (int)(i % (size_t)t->n_cols);
        if (w > width[c])
            width[c] = w;
    }
    for (size_t row = 0; row < t->n; row += (size_t)t->n_cols) {
        int gap = 0; /* blanks owed before the next text */
        for (int c = 0; c < t->n_cols; c++) {
            const char *cell = t->cells[row + (size_t)c];
            int pad = width[c] - table_width(cell);
            if (t->align[c] == 'r')
                gap += pad;
            if (cell[0] != '\0') {
                fprintf(f, "%*s%s", gap, "", cell);
                gap = 0;
            }
            gap += t->align[c] == 'l' ? pad + 2 : 2;
        }
        fputc('\n', f);
    }
    return MT_OK;
}

void cmd_table_free(struct cmd_table *t)
{
    mt_free(t->cells);
    t->cells = NULL;
    mt_arena_free(&t->arena);
}
