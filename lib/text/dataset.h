/* dataset.h: texts to windows of token ids, for calibration and evaluation.
 *
 * A source is FILE or name=FILE (a domain name; default: the file name up to its first dot) or a
 * directory of such files (in the order of their names; hidden ones are left out). Sources of one
 * domain name form one domain. A path that exists is a path, also with "=" in it. `.jsonl`: one
 * document per line, field "text", or else "messages", a conversation, which is written as the
 * model's chat template would (chat.h) and gets a BOS only from there; lines with neither are
 * refused by name. `.u16`, `.u32`: ids that are made already, little-endian; they are checked and
 * nothing is added. Anything else: one document per file.
 *
 * Documents are tokenized, each with BOS in front (see `bos_id`), joined within their domain, and
 * cut into windows of seq_len ids; a last window of at least 2 ids is kept. The text of special
 * tokens becomes those tokens, as when the model is used. Each domain gives an equal share of
 * `samples`; what a small one leaves over goes to the others in order. A domain's windows are the
 * middles of as many equal stretches, so a smaller number still sees the whole file. The result is
 * the same for any thread count.
 *
 * Ownership: *given*, end with mt_dataset_free.
 */
#ifndef MT_TEXT_DATASET_H
#define MT_TEXT_DATASET_H

#include "lib/base/opt.h"
#include "lib/text/chat.h"
#include "lib/text/tokenizer.h"

struct mt_window {
    const int32_t *ids; /* in the data set's storage */
    int32_t n;
    int32_t domain;
};

struct mt_dataset {
    struct mt_window *windows;
    size_t n_windows;
    size_t n_tokens; /* over all windows */
    int32_t window_len_max;
    char **domains; /* [n_domains] */
    int n_domains;
    char sha256[65]; /* of every source's bytes, in order */
    void *storage;   /* dataset.c's own */
};

struct mt_dataset_opts {
    int64_t samples;     /* windows over all domains, shared equally; 0: all */
    int64_t seq_len;     /* >= 2 */
    int32_t bos_id;      /* put before each document unless the tokenizer does; -1: none */
    int64_t vocab;       /* ids must be below it; 0: unchecked, and those of files below the
                            tokenizer's */
    struct mt_chat chat; /* for "messages" */
};

/* Whether a source is a file of ids, by its suffix (.u16, .u32). */
bool mt_dataset_is_ids(const char *source);
/* `t` may be NULL when all sources are files of ids and opts->vocab is set. */
MT_NODISCARD mt_status mt_dataset_open(struct mt_ctx *ctx, const struct mt_tokenizer *t,
                                       const struct mt_strlist *sources,
                                       const struct mt_dataset_opts *opts, struct mt_dataset *out);
void mt_dataset_free(struct mt_dataset *d);
#endif
