#include "formats/safetensors.h"

#include "formats/table.h"
#include "tests/st_fixture.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct writing {
    uint64_t shard_bytes;
    unsigned flags;
    bool reverse;     /* the plan lists the tensors in the opposite order */
    bool rename;      /* all tensors get one name */
    const char *stop; /* "put", "end": close without commit behind that step */
};

static void reverse(struct mt_model *m)
{
    for (size_t i = 0, j = m->n_tensors; i + 1 < j; i++) {
        struct mt_tensor *x = m->tensors[i];
        m->tensors[i] = m->tensors[--j];
        m->tensors[j] = x;
    }
}

/* Puts a tensor in pieces, the last piece first. */
static mt_status put_pieces(struct mt_ctx *ctx, struct mt_writer *w, const struct mt_tensor *t)
{
    uint64_t n = mt_tensor_bytes(t), piece = n / 3 + 1;
    unsigned char *p;
    mt_status st;

    MT_TRY(mt_alloc(ctx, (size_t)n, 1, "a tensor", &p));
    st = mt_tensor_fetch(ctx, t, 0, mt_tensor_rows(t), p);
    for (uint64_t at = (n / piece) * piece + piece; st == MT_OK && at > 0;) {
        at -= piece;
        if (at < n)
            st = mt_st_put(ctx, w, t, at, p + at, (size_t)(n - at < piece ? n - at : piece));
    }
    mt_free(p);
    return st;
}

static mt_status write_body(struct mt_ctx *ctx, struct mt_model *plan, struct mt_outdir *out,
                            const struct writing *o)
{
    struct mt_write_opts wo = {.shard_bytes_max = o->shard_bytes};
    struct mt_writer *w;
    mt_status st;

    MT_TRY(mt_st_plan(ctx, out, plan, &wo, &w));
    st = MT_OK;
    for (size_t i = 0; st == MT_OK && i < plan->n_tensors; i++)
        st = put_pieces(ctx, w, plan->tensors[i]);
    if (st == MT_OK)
        st = mt_st_sync(ctx, w);
    if (st == MT_OK && (o->stop == NULL || strcmp(o->stop, "put") != 0))
        st = mt_st_end(ctx, w, plan->config);
    mt_st_writer_free(w);
    return st;
}

static mt_status write_model(struct mt_ctx *ctx, const struct mt_model *src, const char *path,
                             const struct writing *o)
{
    struct mt_model *plan;
    struct mt_outdir *out;
    mt_status st;

    MT_TRY(mt_model_plan(ctx, src, &plan));
    if (o->reverse)
        reverse(plan);
    for (size_t i = 0; o->rename && i < plan->n_tensors; i++)
        plan->tensors[i]->name = "the same";
    st = mt_outdir_open(ctx, path, o->flags, &out);
    if (st == MT_OK) {
        st = write_body(ctx, plan, out, o);
        if (st == MT_OK && o->stop == NULL)
            st = mt_outdir_commit(ctx, out);
        mt_outdir_close(out, o->stop != NULL);
    }
    mt_model_free(plan);
    return st;
}

static int same_file(const char *a, const char *b)
{
    size_t na = 0, nb = 0;
    char *pa = t_read_file(a, &na), *pb = t_read_file(b, &nb);
    int same = pa != NULL && pb != NULL && na == nb && memcmp(pa, pb, na) == 0;

    free(pa);
    free(pb);
    return same;
}

static mt_status open_one(struct t *t, const char *path, struct mt_model **m)
{
    return mt_format_writer("safetensors")->open(&t->ctx, path, m);
}

/* ---- the reference writer's bytes ---- */

T_TEST(bytes_are_those_of_the_reference_writer)
{
    static const char *const names[] = {"dtypes", "shapes", "names", "none", "pad0", "pad1",
                                        "pad2",   "pad3",   "pad4",  "pad5", "pad6", "pad7"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        for (int turn = 0; turn < 2; turn++) {
            char golden[512], out[32], file[64];
            struct writing o = {.reverse = turn == 1};
            struct mt_model *m;
            snprintf(golden, sizeof golden, "%s/%s.safetensors", t_shipped("safetensors"),
                     names[i]);
            snprintf(out, sizeof out, "%s-%d", names[i], turn);
            snprintf(file, sizeof file, "%s/model.safetensors", out);
            T_OK(t, open_one(t, golden, &m));
            T_OK(t, write_model(&t->ctx, m, t_path(t, out), &o));
            mt_model_free(m);
            if (!same_file(golden, t_path(t, file)))
                T_FAIL(t, "%s differs from the reference", names[i]);
        }
    }
}

T_TEST(a_real_model_comes_back_the_same)
{
    struct writing o = {.reverse = true};
    struct mt_model *m;

    T_OK(t, open_one(t, t_shipped("tinymix-dense"), &m));
    T_OK(t, write_model(&t->ctx, m, t_path(t, "out"), &o));
    T_CHECK(t, same_file(t_shipped("tinymix-dense/model.safetensors"),
                         t_path(t, "out/model.safetensors")));
    T_CHECK(t, access(t_path(t, "out/config.json"), R_OK) == 0);
    T_CHECK(t, access(t_path(t, "out/model.safetensors.index.json"), R_OK) != 0);
    mt_model_free(m);
}

/* Granite stores all experts of a layer as one tensor, gate and up rows too: the records by role
 * become those again, in any order and any split. */
T_TEST(stacks_of_experts_come_back_the_same)
{
    static const char *const names[] = {"granitemoe", "granitemoeshared"};
    static const uint64_t shards[] = {0, 1, 9000};

    for (int i = 0; i < 6; i++) {
        struct writing o = {.reverse = i % 2 == 1, .flags = MT_OUT_FORCE};
        char dir[64], file[96];
        struct mt_model *m, *back;

        snprintf(dir, sizeof dir, "tests/golden/%s", names[i / 3]);
        snprintf(file, sizeof file, "%s/model.safetensors", dir);
        o.shard_bytes = shards[i % 3];
        T_OK(t, open_one(t, dir, &m));
        T_OK(t, write_model(&t->ctx, m, t_path(t, "out"), &o));
        if (o.shard_bytes == 0)
            T_CHECK(t, same_file(file, t_path(t, "out/model.safetensors")));
        T_OK(t, open_one(t, t_path(t, "out"), &back));
        T_EQ_INT(t, back->n_tensors, m->n_tensors);
        for (size_t k = 0; k < m->n_tensors; k++) {
            const struct mt_tensor *x = m->tensors[k], *y = mt_model_find(back, x->role);
            float *a, *b;
            T_CHECK(t, y != NULL && mt_tensor_count(x) == mt_tensor_count(y));
            T_OK(t, mt_tensor_load_f32(&t->ctx, x, &a));
            T_OK(t, mt_tensor_load_f32(&t->ctx, y, &b));
            T_CHECK(t, memcmp(a, b, (size_t)mt_tensor_count(x) * sizeof *a) == 0);
            mt_free(a);
            mt_free(b);
        }
        mt_model_free(back);
        mt_model_free(m);
    }
}

T_TEST(parts_of_one_tensor_have_one_type)
{
    struct mt_model *m, *plan;
    const struct mt_write_opts wo = {0};
    struct mt_outdir *out;
    struct mt_writer *w;

    T_OK(t, open_one(t, "tests/golden/granitemoe", &m));
    T_OK(t, mt_model_plan(&t->ctx, m, &plan));
    mt_model_find(plan, mt_role(MT_ROLE_FFN_UP, 1, 2))->dtype = MT_BF16;
    T_OK(t, mt_outdir_open(&t->ctx, t_path(t, "out"), 0, &out));
    T_FAILS(t, mt_st_plan(&t->ctx, out, plan, &wo, &w), MT_E_UNSUPPORTED,
            "store them as one tensor; choose one type with --dtype");
    mt_outdir_close(out, false);
    mt_model_free(plan);
    mt_model_free(m);
}

/* ---- shards ---- */

static int same_tensors(const struct mt_model *a, const struct mt_model *b)
{
    if (a->n_tensors != b->n_tensors)
        return 0;
    for (size_t i = 0; i < a->n_tensors; i++) {
        const struct mt_tensor *x = a->tensors[i], *y = fx_find(b, x->name);
        const void *p, *q;
        if (y == NULL || x->dtype != y->dtype || x->rank != y->rank ||
            memcmp(x->shape, y->shape, sizeof x->shape) != 0 || !mt_tensor_contiguous(x, &p) ||
            !mt_tensor_contiguous(y, &q) || memcmp(p, q, (size_t)mt_tensor_bytes(x)) != 0)
            return 0;
    }
    return 1;
}

T_TEST(shards_hold_what_one_file_holds)
{
    static const uint64_t sizes[] = {1, 300000, 1000000, 2097152, 5000000};
    struct mt_model *m, *back;

    T_OK(t, open_one(t, t_shipped("tinymix-dense"), &m));
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct writing o = {.shard_bytes = sizes[i], .flags = MT_OUT_FORCE};
        T_OK(t, write_model(&t->ctx, m, t_path(t, "out"), &o));
        T_CHECK(t, access(t_path(t, "out/model.safetensors"), R_OK) != 0);
        T_OK(t, open_one(t, t_path(t, "out"), &back));
        T_CHECK(t, same_tensors(m, back));
        T_CHECK(t, back->family == m->family);
        if (sizes[i] == 1)
            T_EQ_INT(t, back->n_maps, m->n_tensors);
        for (size_t k = 0; k < back->n_maps; k++) {
            uint64_t bytes = 0;
            int n = 0;
            for (size_t j = 0; j < back->n_tensors; j++) {
                if (back->tensors[j]->src.slice.map == back->maps[k]) {
                    bytes += mt_tensor_bytes(back->tensors[j]);
                    n++;
                }
            }
            T_CHECK(t, bytes <= sizes[i] || n == 1);
        }
        T_CHECK(t, strstr(t->log, "total_size") == NULL);
        mt_model_free(back);
    }
    mt_model_free(m);
}

/* The split that the rule "fill in model order" gives, counted by hand. */
T_TEST(shards_are_filled_in_model_order)
{
    static const char header[] =
        "{\"c\":" FX_ENTRY("U8", "4", 0, 4) ",\"a\":" FX_ENTRY("U8", "4", 4, 8) ",\"b\":" FX_ENTRY(
            "U8", "9", 8, 17) ",\"e\":" FX_ENTRY("U8", "0", 17, 17) ",\"d\":" FX_ENTRY("U8", "1",
                                                                                       17, 18) "}";
    struct writing o = {.shard_bytes = 8};
    struct mt_model *m;
    size_t n;
    char *index;

    T_OK(t, open_one(t, fx_st(t, "x.safetensors", header, 18), &m));
    T_OK(t, write_model(&t->ctx, m, t_path(t, "out"), &o));
    index = t_read_file(t_path(t, "out/model.safetensors.index.json"), &n);
    T_CHECK(t, index != NULL);
    T_EQ_STR(t, index,
             "{\n  \"metadata\": {\n    \"total_size\": 18\n  },\n  \"weight_map\": {\n"
             "    \"a\": \"model-00001-of-00003.safetensors\",\n"
             "    \"b\": \"model-00002-of-00003.safetensors\",\n"
             "    \"c\": \"model-00001-of-00003.safetensors\",\n"
             "    \"d\": \"model-00003-of-00003.safetensors\",\n"
             "    \"e\": \"model-00003-of-00003.safetensors\"\n  }\n}\n");
    free(index);
    mt_model_free(m);
}

/* ---- refusals and accidents ---- */

T_TEST(one_name_cannot_be_written_twice)
{
    struct writing o = {.rename = true};
    struct mt_model *m;

    T_OK(t, open_one(t, t_shipped("safetensors/shapes.safetensors"), &m));
    T_FAILS(t, write_model(&t->ctx, m, t_path(t, "out"), &o), MT_E_FORMAT,
            "two tensors would be written as \"the same\"");
    T_CHECK(t, access(t_path(t, "out"), F_OK) != 0);
    mt_model_free(m);
}

T_TEST(a_header_too_large_to_read_is_not_written)
{
    const size_t n = 60000000;
    struct mt_outdir *out;
    struct mt_model *m;
    char *names[2];

    T_OK(t,
         open_one(t,
                  fx_st(t, "x.safetensors",
                        "{\"a\":" FX_ENTRY("U8", "1", 0, 1) ",\"b\":" FX_ENTRY("U8", "1", 1, 2) "}",
                        2),
                  &m));
    for (int i = 0; i < 2; i++) {
        names[i] = malloc(n + 1);
        memset(names[i], 'a' + i, n);
        names[i][n] = '\0';
        m->tensors[i]->name = names[i];
    }
    T_OK(t, mt_outdir_open(&t->ctx, t_path(t, "out"), 0, &out));
    struct mt_write_opts wo = {0};
    struct mt_writer *w;
    T_FAILS(t, mt_st_plan(&t->ctx, out, m, &wo, &w), MT_E_LIMIT,
            "choose a smaller --max-shard-size");
    wo.shard_bytes_max = 1;
    T_OK(t, mt_st_plan(&t->ctx, out, m, &wo, &w));
    mt_st_writer_free(w);
    mt_outdir_close(out, false);
    mt_model_free(m);
    free(names[0]);
    free(names[1]);
}

/* Until `end` the header is not there, so half a file cannot be taken for a whole one. */
T_TEST(a_file_without_its_end_cannot_be_read)
{
    struct writing o = {.stop = "put"};
    struct mt_model *m, *back;

    T_OK(t, open_one(t, t_shipped("tinymix-dense"), &m));
    T_OK(t, write_model(&t->ctx, m, t_path(t, "out"), &o));
    T_CHECK(t, open_one(t, t_path(t, "out.partial/model.safetensors.partial"), &back) != MT_OK);
    T_CHECK(t, access(t_path(t, "out.partial/config.json.partial"), F_OK) != 0);
    mt_model_free(m);
}

/* The source is mapped while it is replaced: the old file lives until the map goes. */
T_TEST(writing_over_the_mapped_source_is_safe)
{
    struct writing o = {.flags = MT_OUT_FORCE};
    struct mt_model *m;
    const void *bytes;

    T_OK(t, open_one(t, t_shipped("tinymix-dense"), &m));
    T_OK(t, write_model(&t->ctx, m, t_path(t, "out"), &o));
    mt_model_free(m);
    T_OK(t, open_one(t, t_path(t, "out"), &m));
    o.reverse = true;
    T_OK(t, write_model(&t->ctx, m, t_path(t, "out"), &o));
    T_CHECK(t, mt_tensor_contiguous(m->tensors[0], &bytes));
    T_CHECK(t, same_file(t_shipped("tinymix-dense/model.safetensors"),
                         t_path(t, "out/model.safetensors")));
    mt_model_free(m);
}

T_TEST(what_stands_can_be_read_back_while_writing)
{
    struct mt_write_opts wo = {.shard_bytes_max = 3000000};
    struct mt_model *m, *plan;
    struct mt_outdir *out;
    struct mt_writer *w;

    T_OK(t, open_one(t, t_shipped("tinymix-dense"), &m));
    T_OK(t, mt_model_plan(&t->ctx, m, &plan));
    T_OK(t, mt_outdir_open(&t->ctx, t_path(t, "out"), 0, &out));
    T_OK(t, mt_st_plan(&t->ctx, out, plan, &wo, &w));
    for (size_t i = 0; i < plan->n_tensors; i++) {
        const void *want, *got;
        T_OK(t, put_pieces(&t->ctx, w, plan->tensors[i]));
        T_OK(t, mt_st_reread(&t->ctx, w, plan->tensors[i]));
        T_CHECK(t, mt_tensor_contiguous(m->tensors[i], &want) &&
                       mt_tensor_contiguous(plan->tensors[i], &got) && got != want);
        T_CHECK(t, memcmp(got, want, (size_t)mt_tensor_bytes(m->tensors[i])) == 0);
    }
    mt_st_writer_free(w);
    mt_outdir_close(out, false);
    mt_model_free(plan);
    mt_model_free(m);
}

T_TEST(failing_writes_leave_no_output)
{
    struct writing o = {.shard_bytes = 64};
    mt_status st = MT_E_IO;
    struct mt_model *m;

    T_OK(t, open_one(t, t_shipped("safetensors/dtypes.safetensors"), &m));
    for (uint64_t n = 1; n < 200 && st != MT_OK; n++) {
        mt_fault_write(n);
        st = write_model(&t->ctx, m, t_path(t, "out"), &o);
        mt_fault_write(0);
        if (st != MT_OK) {
            T_FAILS(t, st, MT_E_IO, "disk full");
            T_CHECK(t, access(t_path(t, "out"), F_OK) != 0);
            T_CHECK(t, access(t_path(t, "out.partial"), F_OK) != 0);
        }
    }
    T_EQ_INT(t, st, MT_OK);
    mt_model_free(m);
}

static void failing_allocations(struct t *t, const char *path)
{
    struct writing o = {.shard_bytes = 64};
    mt_status st = MT_E_NOMEM;
    struct mt_model *m;
    uint64_t used;

    T_OK(t, open_one(t, path, &m));
    used = mt_mem_used(&t->ctx);
    for (uint64_t n = 1; n < 2000 && st != MT_OK; n++) {
        mt_fault_alloc(n);
        st = write_model(&t->ctx, m, t_path(t, "out"), &o);
        mt_fault_alloc(0);
        T_CHECK(t, mt_mem_used(&t->ctx) == used);
        T_CHECK(t, st == MT_OK || access(t_path(t, "out"), F_OK) != 0);
        if (st != MT_OK && st != MT_E_NOMEM)
            T_FAIL(t, "allocation %d: %s", (int)n, mt_error(&t->ctx));
    }
    T_EQ_INT(t, st, MT_OK);
    mt_model_free(m);
}

T_TEST(failing_allocations_leave_no_output)
{
    failing_allocations(t, t_shipped("safetensors/shapes.safetensors"));
}

T_TEST(failing_allocations_leave_no_stacks)
{
    failing_allocations(t, "tests/golden/granitemoeshared");
}
