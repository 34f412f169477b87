/* fuzz_tokenizer: bytes up to the first NUL are a tokenizer.json, the rest is text to encode and to
 * decode again. Properties: no crash; every id has a place in the vocabulary; a refusal is one
 * sentence. */
#include "lib/base/mem.h"
#include "lib/text/tokenizer.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void fuzz_text(struct mt_ctx *ctx, const struct mt_tokenizer *k, const char *text, size_t n)
{
    for (unsigned flags = 0; flags < 4; flags++) {
        struct mt_ids ids = {0};
        char *back;
        size_t n_back;
        if (mt_tokenizer_encode(ctx, k, text, n, flags, &ids) == MT_OK) {
            for (size_t i = 0; i < ids.n && (flags & MT_ENCODE_SPECIAL) == 0; i++)
                mt_assert(ids.v[i] >= 0 && ids.v[i] < mt_tokenizer_vocab(k));
            if (mt_tokenizer_decode(ctx, k, ids.v, ids.n, flags != 0, &back, &n_back) == MT_OK) {
                mt_assert(strlen(back) <= n_back);
                mt_free(back);
            }
        }
        mt_ids_free(&ids);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const uint8_t *nul = n == 0 ? NULL : memchr(data, 0, n);
    size_t n_json = nul != NULL ? (size_t)(nul - data) : n;
    struct mt_ctx ctx;
    struct mt_tokenizer *k;

    if (mt_ctx_open(&ctx, &(struct mt_ctx_opts){.n_threads = 1, .memory_bytes_max = 256u << 20}) !=
        MT_OK)
        return 0;
    if (mt_tokenizer_parse(&ctx, (const char *)data, n_json, "input", &k) == MT_OK)
        fuzz_text(&ctx, k, nul != NULL ? (const char *)nul + 1 : "ab c",
                  nul != NULL ? n - n_json - 1 : 4);
    else
        mt_assert(mt_error(&ctx)[0] != '\0' && strchr(mt_error(&ctx), '\n') == NULL);
    mt_tokenizer_free(k);
    mt_assert(mt_mem_used(&ctx) == 0);
    mt_ctx_close(&ctx);
    return 0;
}
