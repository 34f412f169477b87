/* journal.h: which units of an unfinished output stand on disk.
 *
 * A text file in OUT.partial. Its head is the key: everything that the bytes of the output depend
 * on, as readable lines, under one SHA-256. Then one line per finished unit, appended and flushed
 * after the unit's bytes were: the unit's number, a checksum of the line, one of the unit's bytes
 * (outdir.h) and what passes reported, as JSON. A resumed run gives its own key; if it differs the
 * run is refused and told what differs. A torn last line is dropped. mt_outdir_commit sweeps the
 * file away.
 *
 * Ownership: *given* by open, ended by close. Threads: one caller.
 */
#ifndef MT_FLOW_JOURNAL_H
#define MT_FLOW_JOURNAL_H

#include "lib/base/json.h"

struct mt_journal;

/* Key lines "name = value\n"; *given*, NUL-ended text that grows. */
struct mt_journal_key {
    char *text;
    size_t n, cap;
};
MT_NODISCARD mt_status mt_journal_key_add(struct mt_ctx *ctx, struct mt_journal_key *k,
                                          const char *name, const char *value);
void mt_journal_key_free(struct mt_journal_key *k);

/* Whether `dir` holds a journal whose head is whole. One that cannot be read is a failure: who
 * takes it for none would remove what it speaks of. */
MT_NODISCARD mt_status mt_journal_there(struct mt_ctx *ctx, const char *dir, bool *there);

/* Continues the journal in `dir` (`resume`) or starts one. n_units bounds unit numbers. A key that
 * differs is MT_E_OPTION and leaves everything as it is. */
MT_NODISCARD mt_status mt_journal_open(struct mt_ctx *ctx, const char *dir,
                                       const struct mt_journal_key *key, int n_units, bool resume,
                                       struct mt_journal **out);
void mt_journal_close(struct mt_journal *j); /* NULL is fine */

bool mt_journal_has(const struct mt_journal *j, int unit);
int mt_journal_count(const struct mt_journal *j); /* finished units */
/* What was reported for a unit; borrowed, NULL when nothing was. */
const struct mt_json *mt_journal_facts(const struct mt_journal *j, int unit);

/* The checksum that was noted for a unit. */
uint64_t mt_journal_sum(const struct mt_journal *j, int unit);

/* Notes that `unit` stands (its bytes, of this checksum, were flushed before); `facts` taken, may
 * be NULL. */
MT_NODISCARD mt_status mt_journal_add(struct mt_ctx *ctx, struct mt_journal *j, int unit,
                                      uint64_t sum, struct mt_json *facts);
#endif
