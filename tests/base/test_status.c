#include "tests/t.h"

#include <errno.h>

T_TEST(every_status_has_a_text)
{
    for (int i = 0; i <= MT_E_EXCEEDED; i++)
        T_CHECK(t, mt_status_text((mt_status)i)[0] != '\0');
    T_EQ_STR(t, mt_status_text(MT_OK), "success");
    T_EQ_STR(t, mt_status_text(MT_E_EXCEEDED), "validation limit exceeded");
    T_EQ_STR(t, mt_status_text((mt_status)999), "unknown failure");
}

T_TEST(failing_records_the_sentence)
{
    T_FAILS(t, mt_fail(&t->ctx, MT_E_FORMAT, "%s: %d bytes", "a.bin", 7), MT_E_FORMAT,
            "a.bin: 7 bytes");
    T_EQ_INT(t, t->ctx.error_status, MT_E_FORMAT);
}

T_TEST(errno_is_told_after_the_sentence)
{
    T_FAILS(t, mt_fail_errno(&t->ctx, ENOENT, "x"), MT_E_IO, "x: No such file or directory");
}

T_TEST(a_place_is_told_once)
{
    struct mt_ctx *c = &t->ctx;
    mt_status st = mt_fail(c, MT_E_LIMIT, "f.gguf: too big: layer 3: no");

    T_FAILS(t, mt_wrap(c, st, "f.gguf"), MT_E_LIMIT, "");
    T_EQ_STR(t, mt_error(c), "f.gguf: too big: layer 3: no");
    T_FAILS(t, mt_wrap(c, st, "layer 3"), MT_E_LIMIT, "");
    T_EQ_STR(t, mt_error(c), "layer 3: f.gguf: too big: no");
    T_FAILS(t, mt_wrap(c, st, "layer"), MT_E_LIMIT, "");
    T_EQ_STR(t, mt_error(c), "layer: layer 3: f.gguf: too big: no");
    T_FAILS(t, mt_wrap(c, st, "no"), MT_E_LIMIT, "");
    T_EQ_STR(t, mt_error(c), "no: layer: layer 3: f.gguf: too big: no");
    st = mt_fail(c, MT_E_LIMIT, ": no such file"); /* of a path without letters */
    T_FAILS(t, mt_wrap(c, st, "a"), MT_E_LIMIT, "");
    T_EQ_STR(t, mt_error(c), "a: : no such file");
}

T_TEST(wrapping_adds_the_place_and_passes_success_through)
{
    T_OK(t, mt_wrap(&t->ctx, MT_OK, "layer %d", 3));
    T_EQ_STR(t, mt_error(&t->ctx), "");
    T_FAILS(t, mt_wrap(&t->ctx, mt_fail(&t->ctx, MT_E_LIMIT, "too big"), "layer %d", 3), MT_E_LIMIT,
            "layer 3: too big");
}

T_TEST(a_text_that_is_too_long_keeps_the_place)
{
    char long_text[2 * MT_ERROR_TEXT_MAX];

    memset(long_text, 'x', sizeof long_text);
    long_text[sizeof long_text - 1] = '\0';
    T_FAILS(t, mt_wrap(&t->ctx, mt_fail(&t->ctx, MT_E_IO, "%s", long_text), "here"), MT_E_IO,
            "here: xxx");
    T_EQ_INT(t, strlen(mt_error(&t->ctx)), MT_ERROR_TEXT_MAX - 1);
    T_EQ_STR(t, mt_error(&t->ctx) + MT_ERROR_TEXT_MAX - 4, "...");
}

static mt_status status_try(struct mt_ctx *ctx, mt_status st, int *reached)
{
    MT_TRY(st == MT_OK ? MT_OK : mt_fail(ctx, st, "no"));
    *reached = 1;
    return MT_OK;
}

T_TEST(try_returns_on_failure_only)
{
    int reached = 0;

    T_FAILS(t, status_try(&t->ctx, MT_E_ABSENT, &reached), MT_E_ABSENT, "no");
    T_EQ_INT(t, reached, 0);
    T_OK(t, status_try(&t->ctx, MT_OK, &reached));
    T_EQ_INT(t, reached, 1);
}
