#include "lib/text/chat.h"

#include "lib/text/unicode.h"

#include <string.h>

enum chat_form {
    CHAT_PLAIN,
    CHAT_PHI4,
    CHAT_ML,
    CHAT_LLAMA3,
    CHAT_GEMMA,
    CHAT_LLAMA2,
    CHAT_MISTRAL,
    CHAT_PHI3,
    CHAT_ZEPHYR,
};

/* What a form is known by, all of it; the first that fits counts. */
static const struct {
    enum chat_form form;
    const char *marks[2];
} chat_forms[] = {
    {CHAT_PHI4, {"<|im_sep|>", NULL}},
    {CHAT_ML, {"<|im_start|>", NULL}},
    {CHAT_LLAMA3, {"<|start_header_id|>", NULL}},
    {CHAT_GEMMA, {"<start_of_turn>", NULL}},
    {CHAT_LLAMA2, {"[INST]", "<<SYS>>"}},
    {CHAT_MISTRAL, {"[INST]", NULL}},
    {CHAT_PHI3, {"<|user|>", "<|end|>"}},
    {CHAT_ZEPHYR, {"<|user|>", NULL}},
};

/* Text that is borrowed. */
struct chat_text {
    const char *s;
    size_t n;
};

/* One conversation being written. */
struct chat_run {
    struct mt_ctx *ctx;
    const struct mt_chat *chat;
    enum chat_form form;
    struct mt_text *out;
    struct mt_text system; /* waits for the first turn, where a form has it there */
    struct mt_text parts;  /* content that came in parts */
    bool first;
};

static mt_status chat_find(struct mt_ctx *ctx, const char *text, enum chat_form *form)
{
    *form = CHAT_PLAIN;
    if (text == NULL)
        return MT_OK;
    for (size_t i = 0; i < sizeof chat_forms / sizeof *chat_forms; i++) {
        const char *const *m = chat_forms[i].marks;
        if (strstr(text, m[0]) == NULL || (m[1] != NULL && strstr(text, m[1]) == NULL))
            continue;
        *form = chat_forms[i].form;
        return MT_OK;
    }
    return mt_fail(ctx, MT_E_UNSUPPORTED,
                   "the model's chat template is of no form known here; looked for <|im_start|> "
                   "(ChatML, Phi-4), <|start_header_id|> (Llama-3), <start_of_turn> (Gemma), "
                   "[INST] (Llama-2, Mistral) and <|user|> (Phi-3, Zephyr); write the "
                   "conversation as \"text\"");
}

/* --- messages --- */

static mt_status chat_parts(struct chat_run *r, const struct mt_json *list, struct chat_text *out)
{
    r->parts.n = 0;
    for (const struct mt_json *j = mt_json_first(list); j != NULL; j = mt_json_next(j)) {
        const char *type = mt_json_text(mt_json_get(j, "type"));
        const char *text = mt_json_text(mt_json_get(j, "text"));
        if (type == NULL || strcmp(type, "text") != 0 || text == NULL)
            return mt_fail(r->ctx, MT_E_UNSUPPORTED,
                           "\"content\" has a part of type \"%.60s\"; only \"text\" is supported",
                           type != NULL ? type : "(none)");
        MT_TRY(mt_text_add(r->ctx, &r->parts, text, strlen(text)));
    }
    *out = (struct chat_text){r->parts.n > 0 ? r->parts.s : "", r->parts.n};
    return MT_OK;
}

static mt_status chat_message(struct chat_run *r, const struct mt_json *m, const char **role,
                              struct chat_text *text)
{
    const struct mt_json *content = mt_json_get(m, "content");

    if (mt_json_kind(m) != MT_JSON_OBJECT)
        return mt_fail(r->ctx, MT_E_FORMAT, "not an object");
    *role = mt_json_text(mt_json_get(m, "role"));
    if (*role == NULL)
        return mt_fail(r->ctx, MT_E_FORMAT, "\"role\" is missing or not a string");
    if (strcmp(*role, "system") != 0 && strcmp(*role, "user") != 0 &&
        strcmp(*role, "assistant") != 0)
        return mt_fail(r->ctx, MT_E_UNSUPPORTED,
                       "role \"%.60s\" is not supported; system, user and assistant are", *role);
    for (const struct mt_json *j = mt_json_first(m); j != NULL; j = mt_json_next(j)) {
        const char *key = mt_json_key(j);
        if (strcmp(key, "role") != 0 && strcmp(key, "content") != 0 &&
            mt_json_kind(j) != MT_JSON_NULL)
            return mt_fail(r->ctx, MT_E_UNSUPPORTED, "field \"%.60s\" is not supported", key);
    }
    if (mt_json_kind(content) == MT_JSON_ARRAY)
        return chat_parts(r, content, text);
    if (mt_json_kind(content) != MT_JSON_STRING)
        return mt_fail(r->ctx, MT_E_FORMAT, "\"content\" is missing or not text");
    *text = (struct chat_text){mt_json_text(content), strlen(mt_json_text(content))};
    return MT_OK;
}

/* --- writing --- */

static mt_status chat_put(struct chat_run *r, const char *s)
{
    return s == NULL ? MT_OK : mt_text_add(r->ctx, r->out, s, strlen(s));
}

static mt_status chat_put_text(struct chat_run *r, struct chat_text t)
{
    return mt_text_add(r->ctx, r->out, t.s, t.n);
}

static struct chat_text chat_trim(struct chat_text t)
{
    size_t begin = 0, end = 0;
    bool any = false;

    for (size_t at = 0; at < t.n;) {
        size_t from = at;
        if (mt_char_is_space(mt_utf8_next(t.s, t.n, &at)))
            continue;
        begin = any ? begin : from;
        any = true;
        end = at;
    }
    return (struct chat_text){t.s + begin, end - begin};
}

/* before ROLE between TEXT after */
static mt_status chat_turn(struct chat_run *r, const char *before, const char *role,
                           const char *between, struct chat_text text, const char *after)
{
    MT_TRY(chat_put(r, before));
    MT_TRY(chat_put(r, role));
    MT_TRY(chat_put(r, between));
    MT_TRY(chat_put_text(r, text));
    return chat_put(r, after);
}

/* The system's text that a ChatML template writes for conversations without one: a string between
 * the marks that is no expression. */
static bool chat_default_system(const char *text, struct chat_text *out)
{
    static const char open[] = "<|im_start|>system";

    for (const char *p = text; p != NULL && (p = strstr(p, open)) != NULL;) {
        p += sizeof open - 1;
        size_t skip = strncmp(p, "\\n", 2) == 0 ? 2 : p[0] == '\n' ? 1 : 0;
        const char *end = strstr(p, "<|im_end|>");
        if (skip == 0 || end == NULL)
            continue;
        *out = (struct chat_text){p + skip, (size_t)(end - p) - skip};
        if (out->n > 0 && memchr(out->s, '\'', out->n) == NULL &&
            memchr(out->s, '"', out->n) == NULL && memchr(out->s, '{', out->n) == NULL &&
            memchr(out->s, '\\', out->n) == NULL)
            return true;
    }
    return false;
}

static mt_status chat_ml(struct chat_run *r, const char *role, struct chat_text text)
{
    struct chat_text system;

    if (r->first && strcmp(role, "system") != 0 &&
        chat_default_system(r->chat->template_text, &system))
        MT_TRY(chat_turn(r, "<|im_start|>", "system", "\n", system, "<|im_end|>\n"));
    return chat_turn(r, "<|im_start|>", role, "\n", text, "<|im_end|>\n");
}

/* Instructions of Llama-2 and Mistral. */
static mt_status chat_inst(struct chat_run *r, const char *role, struct chat_text text)
{
    bool llama = r->form == CHAT_LLAMA2;

    if (llama) {
        struct chat_text trimmed = chat_trim(text);
        /* The template trims what the system's text is part of: space behind that stays. */
        size_t begin = r->system.n > 0 ? 0 : (size_t)(trimmed.s - text.s);
        size_t end = (size_t)(trimmed.s - text.s) + trimmed.n;
        text = (struct chat_text){text.s + begin, end - begin};
    }
    if (strcmp(role, "assistant") == 0) {
        MT_TRY(chat_put(r, " "));
        MT_TRY(chat_put_text(r, text));
        MT_TRY(chat_put(r, llama ? " " : NULL));
        return chat_put(r, r->chat->eos);
    }
    MT_TRY(chat_put(r, llama || r->first ? r->chat->bos : NULL));
    MT_TRY(chat_put(r, "[INST] "));
    if (r->system.n > 0) {
        MT_TRY(chat_put(r, llama ? "<<SYS>>\n" : NULL));
        MT_TRY(chat_put_text(r, (struct chat_text){r->system.s, r->system.n}));
        MT_TRY(chat_put(r, llama ? "\n<</SYS>>\n\n" : "\n\n"));
        r->system.n = 0;
    }
    MT_TRY(chat_put_text(r, text));
    return chat_put(r, " [/INST]");
}

static mt_status chat_gemma(struct chat_run *r, const char *role, struct chat_text text)
{
    bool model = strcmp(role, "assistant") == 0;

    MT_TRY(chat_put(r, r->first ? r->chat->bos : NULL));
    MT_TRY(chat_turn(r, "<start_of_turn>", model ? "model" : role, "\n",
                     (struct chat_text){r->system.n > 0 ? r->system.s : "", r->system.n},
                     r->system.n > 0 ? "\n\n" : NULL));
    r->system.n = 0;
    MT_TRY(chat_put_text(r, chat_trim(text)));
    return chat_put(r, "<end_of_turn>\n");
}

static mt_status chat_write(struct chat_run *r, const char *role, struct chat_text text)
{
    bool waits = r->form == CHAT_GEMMA || r->form == CHAT_LLAMA2 || r->form == CHAT_MISTRAL;

    if (waits && strcmp(role, "system") == 0) {
        r->system.n = 0;
        return mt_text_add(r->ctx, &r->system, text.s, text.n);
    }
    switch (r->form) {
    case CHAT_PHI4:
        MT_TRY(chat_turn(r, "<|im_start|>", role, "<|im_sep|>", text, "<|im_end|>"));
        break;
    case CHAT_ML:
        MT_TRY(chat_ml(r, role, text));
        break;
    case CHAT_LLAMA3:
        MT_TRY(chat_put(r, r->first ? r->chat->bos : NULL));
        MT_TRY(chat_turn(r, "<|start_header_id|>", role, "<|end_header_id|>\n\n", chat_trim(text),
                         "<|eot_id|>"));
        break;
    case CHAT_GEMMA:
        MT_TRY(chat_gemma(r, role, text));
        break;
    case CHAT_LLAMA2:
    case CHAT_MISTRAL:
        MT_TRY(chat_inst(r, role, text));
        break;
    case CHAT_PHI3:
        MT_TRY(chat_turn(r, "<|", role, "|>\n", text, "<|end|>\n"));
        break;
    case CHAT_ZEPHYR:
        MT_TRY(chat_turn(r, "<|", role, "|>\n", text, r->chat->eos));
        MT_TRY(chat_put(r, "\n"));
        break;
    case CHAT_PLAIN:
        MT_TRY(chat_turn(r, NULL, NULL, NULL, text, "\n"));
        break;
    }
    r->first = false;
    return MT_OK;
}

static mt_status chat_all(struct chat_run *r, const struct mt_json *messages)
{
    long number = 0;

    for (const struct mt_json *j = mt_json_first(messages); j != NULL; j = mt_json_next(j)) {
        const char *role = "";
        struct chat_text text = {"", 0};
        MT_TRY(mt_wrap(r->ctx, chat_message(r, j, &role, &text), "message %ld", ++number));
        MT_TRY(chat_write(r, role, text));
    }
    if (number == 0)
        return mt_fail(r->ctx, MT_E_FORMAT, "\"messages\" holds no message");
    return MT_OK;
}

mt_status mt_chat_render(struct mt_ctx *ctx, const struct mt_chat *c,
                         const struct mt_json *messages, struct mt_text *out)
{
    struct chat_run r = {.ctx = ctx, .chat = c, .out = out, .first = true};
    mt_status st;

    if (mt_json_kind(messages) != MT_JSON_ARRAY)
        return mt_fail(ctx, MT_E_FORMAT, "the field \"messages\" is not an array");
    MT_TRY(chat_find(ctx, c->template_text, &r.form));
    st = chat_all(&r, messages);
    mt_text_end(&r.system);
    mt_text_end(&r.parts);
    return st;
}
