#include "tests/profile_kit.h"

#include "tests/toy.h"

#include <stdio.h>
#include <string.h>

void profile_kit_text(struct profile_kit_text *x, const char *domain, int first, int n)
{
    memset(x, 0, sizeof *x);
    x->domains[0] = (char *)domain;
    x->set.domains = x->domains;
    x->set.n_domains = 1;
    x->set.windows = x->w;
    snprintf(x->set.sha256, sizeof x->set.sha256, "%064d", first * 100 + n);
    for (int i = 0; i < n; i++) {
        int len = 5 + 3 * (first + i);
        toy_ids(40 + (uint64_t)(first + i), 61, x->ids[i], len);
        x->w[i] = (struct mt_window){x->ids[i], len, 0};
        x->set.n_windows++;
        x->set.n_tokens += (size_t)len;
        if (len > x->set.window_len_max)
            x->set.window_len_max = len;
    }
}

mt_status profile_kit_measure(struct mt_ctx *ctx, const struct mt_model *m, const char *device,
                              const struct mt_dataset *sets, int n_sets, bool extras,
                              struct mt_profile **out)
{
    struct mt_profile_opts o = {.model = m,
                                .seq_len = 32,
                                .x_gram = extras,
                                .h_gram = extras,
                                .gates = extras,
                                .all_experts = extras};
    struct mt_profile_text text;
    struct mt_device *dev;
    mt_status st;

    MT_TRY(mt_profile_text_make(ctx, sets, n_sets, 0, &text));
    o.text = &text;
    st = mt_device_open(ctx, device, &dev);
    o.dev = dev;
    if (st == MT_OK) {
        st = mt_profile_plan(ctx, &o, out);
        if (st == MT_OK) {
            st = mt_profile_run(ctx, &o, *out, NULL, NULL);
            if (st != MT_OK) {
                mt_profile_free(*out);
                *out = NULL;
            }
        }
        mt_device_close(dev);
    }
    mt_profile_text_free(&text);
    return st;
}
