#include "lib/text/chat.h"

#include "tests/t.h"

/* Wanted texts were made by Jinja2 from the templates that the models came with. */

#define SYSTEM "{\"role\":\"system\",\"content\":\"Be brief.\"},"
#define TURNS                                                                                      \
    "{\"role\":\"user\",\"content\":\" Hi? \"},{\"role\":\"assistant\",\"content\":\"Yes.\"},"     \
    "{\"role\":\"user\",\"content\":\"Go\"}"

static mt_status renders(struct t *t, const char *template, const char *messages,
                         struct mt_text *out)
{
    struct mt_chat c = {.template_text = template, .bos = "<s>", .eos = "</s>"};
    struct mt_json *j;
    mt_status st = mt_json_parse(&t->ctx, messages, strlen(messages), "test", &j);

    if (st != MT_OK)
        return st;
    st = mt_chat_render(&t->ctx, &c, j, out);
    mt_json_free(j);
    return st;
}

static void gives(struct t *t, const char *template, const char *messages, const char *want)
{
    struct mt_text out = {0};

    T_OK(t, renders(t, template, messages, &out));
    T_OK(t, mt_text_add(&t->ctx, &out, "", 1));
    T_EQ_STR(t, out.s, want);
    mt_text_end(&out);
}

static const char chatml[] =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + "
    "message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}";
static const char qwen2[] =
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nYou are a helpful "
    "assistant.<|im_end|>\\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\\n'}}";
static const char qwen3[] =
    "{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}";

T_TEST(chatml)
{
    gives(t, chatml, "[" SYSTEM TURNS "]",
          "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi? <|im_end|>\n"
          "<|im_start|>assistant\nYes.<|im_end|>\n<|im_start|>user\nGo<|im_end|>\n");
    gives(t, qwen2, "[" TURNS "]",
          "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
          "<|im_start|>user\n Hi? <|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>\n"
          "<|im_start|>user\nGo<|im_end|>\n");
    gives(t, qwen2, "[" SYSTEM "{\"role\":\"user\",\"content\":\"a\"}]",
          "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\na<|im_end|>\n");
    gives(t, qwen3, "[{\"role\":\"user\",\"content\":\"a\"}]", "<|im_start|>user\na<|im_end|>\n");
    gives(t, "<|im_start|> <|im_sep|>", "[{\"role\":\"user\",\"content\":\"a\"}]",
          "<|im_start|>user<|im_sep|>a<|im_end|>");
}

T_TEST(llama)
{
    static const char llama2[] = "bos_token + '[INST] ' '<<SYS>>\\n'";
    static const char llama3[] = "'<|start_header_id|>' + message['role']";

    gives(t, llama2, "[" SYSTEM TURNS "]",
          "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n Hi? [/INST] Yes. </s><s>[INST] Go [/INST]");
    gives(t, llama2, "[" TURNS "]", "<s>[INST] Hi? [/INST] Yes. </s><s>[INST] Go [/INST]");
    gives(t, llama3, "[" SYSTEM TURNS "]",
          "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
          "<|start_header_id|>user<|end_header_id|>\n\nHi?<|eot_id|>"
          "<|start_header_id|>assistant<|end_header_id|>\n\nYes.<|eot_id|>"
          "<|start_header_id|>user<|end_header_id|>\n\nGo<|eot_id|>");
}

T_TEST(other_forms)
{
    gives(t, "'[INST] '", "[" TURNS "]", "<s>[INST]  Hi?  [/INST] Yes.</s>[INST] Go [/INST]");
    gives(t, "<start_of_turn>", "[" TURNS "]",
          "<s><start_of_turn>user\nHi?<end_of_turn>\n<start_of_turn>model\nYes.<end_of_turn>\n"
          "<start_of_turn>user\nGo<end_of_turn>\n");
    gives(t, "<|user|> <|end|>", "[" SYSTEM TURNS "]",
          "<|system|>\nBe brief.<|end|>\n<|user|>\n Hi? <|end|>\n<|assistant|>\nYes.<|end|>\n"
          "<|user|>\nGo<|end|>\n");
    gives(t, "<|user|>", "[" SYSTEM TURNS "]",
          "<|system|>\nBe brief.</s>\n<|user|>\n Hi? </s>\n<|assistant|>\nYes.</s>\n"
          "<|user|>\nGo</s>\n");
    gives(t, NULL, "[" SYSTEM TURNS "]", "Be brief.\n Hi? \nYes.\nGo\n");
}

T_TEST(the_system_opens_the_first_turn_where_a_form_has_no_place_for_it)
{
    gives(t, "'[INST] '", "[" SYSTEM "{\"role\":\"user\",\"content\":\"a\"}]",
          "<s>[INST] Be brief.\n\na [/INST]");
    gives(t, "<start_of_turn>", "[" SYSTEM "{\"role\":\"user\",\"content\":\"a\"}]",
          "<s><start_of_turn>user\nBe brief.\n\na<end_of_turn>\n");
}

T_TEST(content_may_come_in_parts)
{
    gives(t, chatml,
          "[{\"role\":\"user\",\"tool_calls\":null,\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
          "{\"type\":\"text\",\"text\":\"b\"}]}]",
          "<|im_start|>user\nab<|im_end|>\n");
}

static void refuses(struct t *t, const char *template, const char *messages, mt_status st,
                    const char *part)
{
    struct mt_text out = {0};

    T_FAILS(t, renders(t, template, messages, &out), st, part);
    mt_text_end(&out);
}

T_TEST(what_is_not_known_is_refused_by_name)
{
    refuses(t, "### Instruction:", "[" TURNS "]", MT_E_UNSUPPORTED, "looked for <|im_start|>");
    refuses(t, chatml, "[]", MT_E_FORMAT, "no message");
    refuses(t, chatml, "{}", MT_E_FORMAT, "not an array");
    refuses(t, chatml, "[1]", MT_E_FORMAT, "message 1: not an object");
    refuses(t, chatml, "[{\"content\":\"a\"}]", MT_E_FORMAT, "\"role\" is missing");
    refuses(t, chatml, "[{\"role\":\"user\"}]", MT_E_FORMAT, "\"content\" is missing");
    refuses(t, chatml,
            "[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"tool\",\"content\":\"\"}]",
            MT_E_UNSUPPORTED, "message 2: role \"tool\"");
    refuses(t, chatml, "[{\"role\":\"user\",\"content\":\"a\",\"tool_calls\":[]}]",
            MT_E_UNSUPPORTED, "\"tool_calls\"");
    refuses(t, chatml, "[{\"role\":\"user\",\"content\":[{\"type\":\"image\"}]}]", MT_E_UNSUPPORTED,
            "type \"image\"");
}
