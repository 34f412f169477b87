/* tokenizer.h: text to token ids and back, as tokenizer.json says.
 *
 * Order of work (spec formats, 5.1): added tokens are split out (leftmost, longest; raw-text ones
 * first), then normalizer, pre-tokenizer, model, post-processor. Models: byte-level BPE with the
 * GPT-2 family of regexes, Llama-2 style BPE on characters with byte fallback, and WordPiece. What
 * the file asks for and is not built here is refused by name when the tokenizer is opened.
 * "truncation" and "padding" are requests to a server of fixed-size batches and are not applied.
 *
 * Regexes run in PCRE2 (UTF, UCP, JIT) with \s and \S replaced by Unicode White_Space, which makes
 * splits equal to those of the `tokenizers` library, up to characters younger than PCRE2's Unicode
 * (14 in PCRE2 10.42). Merging is heap-based: one very long word
 * costs n log n.
 *
 * Threads: encode and decode may run from several threads on one tokenizer.
 */
#ifndef MT_TEXT_TOKENIZER_H
#define MT_TEXT_TOKENIZER_H

#include "lib/base/ctx.h"

#include <stddef.h>

struct mt_tokenizer;

/* Token ids; *given*: end with mt_ids_free. Append keeps what is there. */
struct mt_ids {
    int32_t *v;
    size_t n, cap;
};
void mt_ids_free(struct mt_ids *ids);
MT_NODISCARD mt_status mt_ids_push(struct mt_ctx *ctx, struct mt_ids *ids, int32_t id);

/* Reads tokenizer.json at `path`. */
MT_NODISCARD mt_status mt_tokenizer_open(struct mt_ctx *ctx, const char *path,
                                         struct mt_tokenizer **out);
/* From text; `what` names it in messages. */
MT_NODISCARD mt_status mt_tokenizer_parse(struct mt_ctx *ctx, const char *json, size_t n,
                                          const char *what, struct mt_tokenizer **out);
/* A vocab.txt without more, one token per line: BERT's WordPiece with its special tokens. `lower`:
 * uncased, which lowers and strips accents. */
MT_NODISCARD mt_status mt_tokenizer_open_bert(struct mt_ctx *ctx, const char *path, bool lower,
                                              struct mt_tokenizer **out);

/* A vocabulary as GGUF files hold it (spec formats, 4.4). Everything is borrowed during the call.
 */
struct mt_token_text {
    const char *s; /* need not end in NUL */
    size_t n;
};
enum mt_token_type {
    MT_TOKEN_NORMAL = 1,
    MT_TOKEN_UNKNOWN,
    MT_TOKEN_CONTROL,
    MT_TOKEN_USER,
    MT_TOKEN_UNUSED,
    MT_TOKEN_BYTE,
};
struct mt_vocab_desc {
    const char *model; /* "gpt2": byte-level BPE; "llama": scores; "bert": WordPiece */
    const char *pre;   /* names the regexes of "gpt2"; NULL: "default" */
    const struct mt_token_text *tokens;
    size_t n_tokens;
    const float *scores;                /* [n_tokens]; "llama" needs them */
    const int32_t *types;               /* [n_tokens] enum mt_token_type; NULL: all normal */
    const struct mt_token_text *merges; /* "a b"; "gpt2" needs them */
    size_t n_merges;
    int32_t bos, eos, unk;                  /* -1: none */
    int add_bos, add_eos, add_space_prefix; /* 0, 1; -1: not said, the model's custom holds */
    const char *what;                       /* names the vocabulary in messages */
};
/* Splits, normalizer and special tokens follow from the names as the makers' tokenizers have them;
 * models and `pre` that are not known are refused by name. A text that is there twice belongs to
 * its first id. */
MT_NODISCARD mt_status mt_tokenizer_from_vocab(struct mt_ctx *ctx, const struct mt_vocab_desc *v,
                                               struct mt_tokenizer **out);
/* The tokenizer.json of a vocabulary, which makes the same tokenizer here and in the `tokenizers`
 * library; *given*, NUL-ended. Scores become merges: of each token all pairs of tokens that make
 * it, the best token first; tokens of one score, which no order divides, by their ids. */
MT_NODISCARD mt_status mt_vocab_to_json(struct mt_ctx *ctx, const struct mt_vocab_desc *v,
                                        char **text, size_t *n);
void mt_tokenizer_free(struct mt_tokenizer *t);

enum mt_encode_flags {
    MT_ENCODE_SPECIAL = 1u << 0,  /* run the post-processor (adds BOS where the file says so) */
    MT_ENCODE_NO_ADDED = 1u << 1, /* treat the text of special tokens as ordinary text */
};
/* Appends ids of text[0..n). Invalid UTF-8 is replaced by U+FFFD, as the library's bindings do. */
MT_NODISCARD mt_status mt_tokenizer_encode(struct mt_ctx *ctx, const struct mt_tokenizer *t,
                                           const char *text, size_t n, unsigned flags,
                                           struct mt_ids *out);
/* Text of ids (all bytes, also when a sequence is cut inside a character); *given*, NUL-ended.
 * skip_special leaves special tokens out. */
MT_NODISCARD mt_status mt_tokenizer_decode(struct mt_ctx *ctx, const struct mt_tokenizer *t,
                                           const int32_t *ids, size_t n, bool skip_special,
                                           char **text, size_t *len);

int64_t mt_tokenizer_vocab(const struct mt_tokenizer *t);                   /* largest id + 1 */
int32_t mt_tokenizer_find(const struct mt_tokenizer *t, const char *token); /* -1: none */
/* True when the post-processor itself puts a BOS in front. */
bool mt_tokenizer_adds_bos(const struct mt_tokenizer *t);
#endif
