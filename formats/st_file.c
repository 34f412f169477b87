/* One .safetensors file that is a model by itself: the config stands in its header. */
#include "formats/check.h"
#include "formats/safetensors.h"
#include "formats/st_header.h"

#include <string.h>

mt_status mt_st_carried_config(struct mt_ctx *ctx, struct mt_model *m, const char *path,
                               const struct mt_st_header *h)
{
    for (size_t i = 0; i < h->n_meta; i++) {
        const char *text = h->meta[i].value;
        if (strcmp(h->meta[i].key, MT_ST_CONFIG_KEY) != 0)
            continue;
        MT_TRY(mt_wrap(ctx, mt_json_parse(ctx, text, strlen(text), MT_ST_CONFIG_KEY, &m->config),
                       "%s: __metadata__", path));
        if (mt_json_kind(m->config) != MT_JSON_OBJECT)
            return mt_fail(ctx, MT_E_FORMAT, "%s: " MT_ST_CONFIG_KEY " is not an object", path);
    }
    return MT_OK;
}

static bool st_file_probe(const char *path)
{
    (void)path; /* the reader above knows such files */
    return false;
}

const struct mt_format mt_format_safetensors_file = {
    .name = "safetensors-file",
    .summary = "one .safetensors file that carries its config",
    .probe = st_file_probe,
    .open = mt_st_open,
    .open_lenient = mt_st_open_lenient,
    .check = mt_check_written,
    .one_file = true,
    .plan = mt_st_plan_file,
    .put = mt_st_put,
    .sync = mt_st_sync,
    .end = mt_st_end,
    .reread = mt_st_reread,
    .place = mt_st_where,
    .free = mt_st_writer_free,
};
