/* decode.h: the "decoder" of a tokenizer.json, which turns the texts of tokens into text.
 *
 * ByteLevel, Replace (String), ByteFallback, Fuse, Strip, Metaspace, WordPiece, BPEDecoder and
 * Sequences. Unlike the
 * reference library, bytes that do not form characters are kept as they are instead of becoming
 * U+FFFD, so that a sequence cut inside a character can be joined again. Without a decoder the
 * tokens are joined by spaces.
 *
 * Ownership: mt_decoder_open fills a zeroed struct, mt_decoder_end ends it also after a failure.
 * Threads: read-only once open.
 */
#ifndef MT_TEXT_DECODE_H
#define MT_TEXT_DECODE_H

#include "lib/base/json.h"
#include "lib/base/mem.h"
#include "lib/text/pieces.h"

#define MT_DECODER_STAGES_MAX 16

struct mt_decoder_stage {
    enum {
        MT_DECODE_BYTES,
        MT_DECODE_REPLACE,
        MT_DECODE_FALLBACK,
        MT_DECODE_FUSE,
        MT_DECODE_STRIP,
        MT_DECODE_META,
        MT_DECODE_WORDPIECE, /* pattern: the prefix of what continues a word */
        MT_DECODE_SUFFIX,    /* pattern: what ends a word */
    } kind;
    const char *pattern, *content; /* REPLACE; STRIP and META: pattern is the character */
    size_t n_pattern, n_content;
    int64_t start, stop; /* STRIP: at most so many from either end */
    bool cleanup;        /* WORDPIECE: no space before punctuation and contractions */
    bool drop_first;     /* META: the first token's marks vanish instead of becoming spaces */
};
struct mt_decoder {
    struct mt_decoder_stage stages[MT_DECODER_STAGES_MAX];
    int n;
    bool absent;
    struct mt_arena arena;
};

MT_NODISCARD mt_status mt_decoder_open(struct mt_ctx *ctx, const struct mt_json *j,
                                       struct mt_decoder *out);
void mt_decoder_end(struct mt_decoder *d);

/* text[0], pieces[0] hold the tokens; the result is text[*now] with pieces[*now] in order. */
MT_NODISCARD mt_status mt_decoder_run(struct mt_ctx *ctx, const struct mt_decoder *d,
                                      struct mt_text text[2], struct mt_pieces pieces[2], int *now);
#endif
