/* chat.h: a conversation ("messages") as the text its model was trained on.
 *
 * Chat templates are programs (Jinja); they are not run here. The common forms are recognised by
 * strings in them and written out:
 *
 *   ChatML      <|im_start|>      <|im_start|>ROLE\nTEXT<|im_end|>\n
 *   Phi-4       <|im_sep|>        <|im_start|>ROLE<|im_sep|>TEXT<|im_end|>
 *   Llama-3     <|start_header_id|>  BOS, then <|start_header_id|>ROLE<|end_header_id|>\n\nTEXT
 *                                 <|eot_id|>
 *   Gemma       <start_of_turn>   BOS, then <start_of_turn>ROLE\nTEXT<end_of_turn>\n, where the
 *                                 assistant is "model" and the system's text opens the first turn
 *   Llama-2     [INST], <<SYS>>   BOS[INST] <<SYS>>\nSYSTEM\n<</SYS>>\n\nTEXT [/INST] ANSWER EOS
 *   Mistral     [INST]            BOS, then [INST] TEXT [/INST] ANSWEREOS; a system's text opens
 *                                 the first instruction
 *   Phi-3       <|user|>, <|end|> <|ROLE|>\nTEXT<|end|>\n
 *   Zephyr      <|user|>          <|ROLE|>\nTEXTEOS\n
 *   plain       no template       TEXT\n
 *
 * Llama's and Gemma's trim texts of white space. A system message that a ChatML template holds for
 * conversations without one is put in front. Dates, tools and reasoning that a template may add are
 * not. Any other template is refused, saying what was looked for; so are messages with more than
 * "role" and "content", roles but system, user and assistant, and content that is not text.
 *
 * Threads: safe.
 */
#ifndef MT_TEXT_CHAT_H
#define MT_TEXT_CHAT_H

#include "lib/base/json.h"
#include "lib/text/pieces.h"

struct mt_chat {
    const char *template_text; /* NULL: the model has none */
    const char *bos, *eos;     /* texts of these tokens; NULL: none */
};

/* Appends the conversation: an array of {"role", "content"}. */
MT_NODISCARD mt_status mt_chat_render(struct mt_ctx *ctx, const struct mt_chat *c,
                                      const struct mt_json *messages, struct mt_text *out);
#endif
