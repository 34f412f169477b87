#include "lib/text/pre_table.h"

#include <stddef.h>
#include <string.h>

#define PRE_GPT2                                                                                   \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define PRE_LLAMA3                                                                                 \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}"         \
    "\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define PRE_QWEN2                                                                                  \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N"         \
    "}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static const char *const pre_default[] = {"default", NULL};
static const char *const pre_gpt_2[] = {
    "gpt-2",      "phi-2",        "jina-es",  "jina-de",         "jina-v1-en", "jina-v2-es",
    "jina-v2-de", "jina-v2-code", "gigachat", "roberta-bpe",     "a.x-4.0",    "mellum",
    "jais",       "trillion",     "exaone4",  "granite-docling", NULL};
static const char *const pre_mpt[] = {"mpt", "olmo", "modern-bert", NULL};
static const char *const pre_llama_bpe[] = {"llama-bpe",    "llama3",  "llama-v3", "falcon3",
                                            "falcon-h1",    "pixtral", "midm-2.0", "lfm2",
                                            "jina-v5-nano", NULL};
static const char *const pre_dbrx[] = {"dbrx", "smaug-bpe", "glm4", "chatglm-bpe", NULL};
static const char *const pre_qwen2[] = {"qwen2",   "deepseek-r1-qwen", "kormo",
                                        "f2llmv2", "megrez",           NULL};
static const char *const pre_stablelm2[] = {"stablelm2", "hunyuan", "solar-open", "grok-2", NULL};
static const char *const pre_qwen35[] = {"qwen35", NULL};
static const char *const pre_starcoder[] = {"starcoder", "refact",     "smollm", "codeshell",
                                            "exaone",    "minerva-7b", NULL};
static const char *const pre_command_r[] = {"command-r", NULL};
static const char *const pre_falcon[] = {"falcon", NULL};
static const char *const pre_deepseek_llm[] = {"deepseek-llm", NULL};
static const char *const pre_deepseek_coder[] = {"deepseek-coder", NULL};
static const char *const pre_deepseek_v3[] = {"deepseek-v3", "hunyuan-dense", "joyai-llm", NULL};
static const char *const pre_chameleon[] = {"chameleon", NULL};
static const char *const pre_tekken[] = {"tekken", NULL};
static const char *const pre_gpt_4o[] = {"gpt-4o", "llama4", "kanana2", NULL};
static const char *const pre_poro_chat[] = {"poro-chat", "bloom", "gpt3-finnish", NULL};
static const char *const pre_viking[] = {"viking", NULL};
static const char *const pre_bailingmoe[] = {"bailingmoe", "bailingmoe2", "llada-moe", NULL};
static const char *const pre_seed_coder[] = {"seed-coder", NULL};
static const char *const pre_jais_2[] = {"jais-2", NULL};

static const struct mt_pre pre_table[] = {
    {
        .names = pre_default,
        .regex = {"[\\p{P}\\$\\+<=>\\^~\\|]+", PRE_GPT2, "\\p{N}+", "[0-9][0-9][0-9]"},
    },
    {
        .names = pre_gpt_2,
        .regex = {PRE_GPT2},
    },
    {
        .names = pre_mpt,
        .regex = {PRE_GPT2},
        .nfc = true,
    },
    {
        .names = pre_llama_bpe,
        .regex = {PRE_LLAMA3},
        .ignore_merges = true,
        .add_bos = true,
    },
    {
        .names = pre_dbrx,
        .regex = {PRE_LLAMA3},
    },
    {
        .names = pre_qwen2,
        .regex = {PRE_QWEN2},
        .nfc = true,
    },
    {
        .names = pre_stablelm2,
        .regex = {PRE_QWEN2},
    },
    {
        .names = pre_qwen35,
        .regex =
            {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p"
             "{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
        .nfc = true,
    },
    {
        .names = pre_starcoder,
        .regex = {"\\p{N}", PRE_GPT2},
    },
    {
        .names = pre_command_r,
        .regex = {"\\p{N}", PRE_GPT2},
        .nfc = true,
    },
    {
        .names = pre_falcon,
        .regex = {"[\\p{P}\\$\\+<=>\\^~\\|`]+", PRE_GPT2, "[0-9][0-9][0-9]"},
    },
    {
        .names = pre_deepseek_llm,
        .regex =
            {"[\\r\\n]",
             "\\s?[A-Za-z\u00B5\u00C0-\u00D6\u00D8-\u00F6\u00F8-\u01BA\u01BC-\u01BF\u01C4-\u0293"
             "\u0295-\u02AF\u0370-\u0373\u0376\u0377\u037B-\u037D\u037F\u0386\u0388-\u038A\u038C"
             "\u038E-\u03A1\u03A3-\u03F5\u03F7-\u0481\u048A-\u052F\u0531-\u0556\u10A0-\u10C5\u13A0"
             "-\u13F5\u13F8-\u13FD\u1C90-\u1CBA\u1CBD-\u1CBF\u1D00-\u1D2B\u1D6B-\u1D77\u1D79-"
             "\u1D9A\u1E00-\u1F15\u1F18-\u1F1D\u1F20-\u1F45\u1F48-\u1F4D\u1F50-\u1F57\u1F59\u1F5B"
             "\u1F5D\u1F5F-\u1F7D\u1F80-\u1FB4\u1FB6-\u1FBC\u1FBE\u1FC2-\u1FC4\u1FC6-\u1FCC\u1FD0-"
             "\u1FD3\u1FD6-\u1FDB\u1FE0-\u1FEC\u1FF2-\u1FF4\u1FF6-\u1FFC\u2102\u2107\u210A-\u2113"
             "\u2115\u2119-\u211D\u2124\u2126\u2128\u212A-\u212D\u212F-\u2134\u2139\u213C-\u213F"
             "\u2145-\u2149\u214E\u2183\u2184\u2C00-\u2C7B\u2C7E-\u2CE4\u2CEB-\u2CEE\u2CF2\u2CF3"
             "\uA640-\uA66D\uA680-\uA69B\uA722-\uA76F\uA771-\uA787\uA78B-\uA78E\uAB70-\uABBF\uFB00"
             "-\uFB06\uFB13-\uFB17\uFF21-\uFF3A\uFF41-\uFF5A\U00010400-\U0001044F\U000104B0-"
             "\U000104D3\U000104D8-\U000104FB\U00010C80-\U00010CB2\U00010CC0-\U00010CF2\U000118A0-"
             "\U000118DF\U0001E900-\U0001E943]+",
             "\\s?[!-/:-~\uFF01-\uFF0F\uFF1A-\uFF5E\u2018-\u201F\u3000-\u3002]+", "\\s+$",
             "[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+", "\\p{N}+"},
    },
    {
        .names = pre_deepseek_coder,
        .regex = {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+",
                  "[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+", "\\p{N}"},
    },
    {
        .names = pre_deepseek_v3,
        .regex =
            {"\\p{N}{1,3}", "[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+",
             "[!\\\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?"
             "[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
    },
    {
        .names = pre_chameleon,
        .regex = {"<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", "([\\t\\n]|    |  )",
                  "\\p{N}", "[\\p{P}!-/:-@\\[-`{-~]", PRE_GPT2},
        .add_bos = true,
    },
    {
        .names = pre_tekken,
        .regex =
            {"[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p"
             "{M}]+|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{"
             "Lo}\\p{M}]*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
        .ignore_merges = true,
        .add_bos = true,
    },
    {
        .names = pre_gpt_4o,
        .regex =
            {"[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p"
             "{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{L"
             "o}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}| ?"
             "[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
    },
    {
        .names = pre_poro_chat,
        .regex = {" ?[^(\\s|.,!?\u2026\u3002\uFF0C\u3001\u0964\u06D4\u060C)]+"},
    },
    {
        .names = pre_viking,
        .regex = {" ?[^(\\s|.,!?\u2026\u3002\uFF0C\u3001\u0964\u06D4\u060C)]+", "\\p{N}"},
    },
    {
        .names = pre_bailingmoe,
        .regex =
            {"'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]++["
             "\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"},
    },
    {
        .names = pre_seed_coder,
        .regex =
            {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1}| ?[^\\s\\p{L}\\"
             "p{N}\\r\\n]+|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
    },
    {
        .names = pre_jais_2,
        .regex =
            {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}"
             "\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s{512}(?!\\S)|\\s{256}(?!\\S)|\\s{128}(?!\\S)|\\s{"
             "64}(?!\\S)|\\s{32}(?!\\S)|\\s{16}(?!\\S)|\\s{8}(?!\\S)|\\s{4}(?!\\S)|\\s{1,2}(?!\\S)"
             "|\\s{1}"},
    },
};

const struct mt_pre *mt_pre_find(const char *name)
{
    for (size_t i = 0; i < sizeof pre_table / sizeof *pre_table; i++)
        for (const char *const *n = pre_table[i].names; *n != NULL; n++)
            if (strcmp(*n, name) == 0)
                return &pre_table[i];
    return NULL;
}

static bool pre_same(const struct mt_pre *p, const char *const *regex)
{
    int i = 0;

    while (i < MT_PRE_REGEX_MAX && p->regex[i] != NULL && regex[i] != NULL &&
           strcmp(p->regex[i], regex[i]) == 0)
        i++;
    return (i == MT_PRE_REGEX_MAX || p->regex[i] == NULL) && regex[i] == NULL;
}

const char *mt_pre_name(const char *const *regex, bool nfc, bool ignore_merges)
{
    const char *other = NULL;

    for (size_t i = 0; i < sizeof pre_table / sizeof *pre_table; i++) {
        const struct mt_pre *p = &pre_table[i];
        if (!pre_same(p, regex))
            continue;
        if (p->nfc == nfc && p->ignore_merges == ignore_merges)
            return p->names[0];
        if (other == NULL)
            other = p->names[0];
    }
    return other;
}
