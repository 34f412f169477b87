/* A small pipeline in which every system call on a file, and every allocation, fails once: no leak
 * of memory or descriptors, no abort, nothing half-written, one sentence that names the file, and a
 * run that was kept goes on to the very bytes of an undisturbed one. */
#include "formats/table.h"
#include "lib/base/sys.h"
#include "passes/table.h"
#include "tests/pass_run.h"
#include "tests/tiny.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

struct job {
    const char *source, *out, *format;
    const char *pass, *options; /* NULL: a copy */
    const struct mt_dataset *data;
    uint64_t shard_bytes;
    unsigned flags;
    bool keep;
};

static mt_status job_walk(struct mt_ctx *ctx, const struct job *j)
{
    const struct mt_pass *p = j->pass != NULL ? mt_pass_find(j->pass) : NULL;
    struct mt_walk_pass one = {.pass = p};
    struct mt_walk_opts o = {.passes = &one,
                             .n_passes = p != NULL ? 1 : 0,
                             .data = j->data,
                             .format = mt_format_writer(j->format),
                             .formats = mt_formats,
                             .out_path = j->out,
                             .out_flags = j->flags,
                             .write = {.shard_bytes_max = j->shard_bytes},
                             .keep_on_failure = j->keep};
    struct mt_walk_result r = {0};
    struct mt_model *src = NULL;
    char opts[4096] = {0}, text[128]; /* options point into the text */
    mt_status st = mt_model_open(ctx, mt_formats, j->source, &src);

    o.source = src;
    if (p != NULL) {
        mt_assert(p->opts_size <= sizeof opts);
        mt_opt_defaults(p->opts, opts);
        one.opts = opts;
        char *rest = text;
        snprintf(text, sizeof text, "%s", j->options);
        for (char *w = strtok_r(text, " ", &rest); st == MT_OK && w != NULL;
             w = strtok_r(NULL, " ", &rest)) {
            char *eq = strchr(w, '=');
            *eq = '\0';
            st = mt_opt_set(ctx, p->opts, opts, w, eq + 1);
        }
    }
    if (st == MT_OK && j->data != NULL)
        st = mt_device_open(ctx, "cpu", &o.dev);
    if (st == MT_OK)
        st = mt_walk_run(ctx, &o, &r);
    if (st == MT_OK)
        mt_walk_result_free(&r);
    if (o.dev != NULL)
        mt_device_close(o.dev);
    mt_model_free(src);
    return st;
}

static mt_status job_run(struct t *t, const struct job *j)
{
    const struct mt_ctx_opts co = {.n_threads = 1, .seed = 1};
    struct mt_ctx own;
    mt_status st = mt_ctx_open(&own, &co);

    if (st != MT_OK)
        return st;
    st = job_walk(&own, j);
    if (mt_mem_used(&own) != 0)
        t_fail(t, __FILE__, __LINE__, "%llu counted bytes leaked",
               (unsigned long long)mt_mem_used(&own));
    memcpy(t->ctx.error, own.error, sizeof t->ctx.error);
    mt_ctx_close(&own);
    return st;
}

static bool there(const char *path)
{
    return access(path, F_OK) == 0;
}

static const char *partial_of(const char *out)
{
    static char path[512];

    snprintf(path, sizeof path, "%s.partial", out);
    return path;
}

static void remove_output(const char *out)
{
    char cmd[1100];

    snprintf(cmd, sizeof cmd, "rm -rf '%s' '%s'", out, partial_of(out));
    if (system(cmd) != 0)
        perror(cmd);
}

/* Where outputs go: memory, where there is such a place, because a disk takes its time over every
 * flush. One of two static buffers. */
static const char *output_path(struct t *t, const char *name)
{
    static char paths[2][512];
    static int next;
    char *path = paths[next++ % 2];

    if (access("/dev/shm", W_OK) == 0)
        snprintf(path, sizeof paths[0], "/dev/shm/%s-%s", strrchr(t->dir, '/') + 1, name);
    else
        snprintf(path, sizeof paths[0], "%s", t_path(t, name));
    return path;
}

/* The lowest number that the next open file gets: the same as long as none is left open. */
static int next_fd(void)
{
    int fd = open("/dev/null", O_RDONLY);

    close(fd);
    return fd;
}

static bool same(const char *a, const char *b)
{
    size_t n, m;
    char *x = t_read_file(a, &n), *y = t_read_file(b, &m);
    bool ok = x == NULL && y == NULL ? t_same_tree(a, b)
                                     : x != NULL && y != NULL && n == m && memcmp(x, y, n) == 0;

    free(x);
    free(y);
    return ok;
}

/* What must hold after a run that failed, or did not. */
static void check_after(struct t *t, const struct job *j, const char *want, mt_status st, int fd)
{
    const char *why = mt_error(&t->ctx);

    T_EQ_INT(t, next_fd(), fd);
    if (there(j->out))
        T_CHECK(t, same(want, j->out));
    else
        T_CHECK(t, st != MT_OK);
    if (st == MT_OK)
        return;
    T_CHECK(t, why[0] != '\0' && strchr(why, '\n') == NULL);
    T_CHECK(t, j->keep || !there(partial_of(j->out)));
}

/* Goes on after a failure, when something was kept, and starts again otherwise. */
static void check_resume(struct t *t, const struct job *j, const char *want)
{
    struct job again = *j;

    if (there(j->out)) /* the failure came after the result stood */
        return;
    again.flags = MT_OUT_RESUME;
    T_OK(t, job_run(t, &again));
    T_CHECK(t, same(want, j->out));
    T_CHECK(t, !there(partial_of(j->out)));
}

/* Every call on a file fails once with `err`; returns how many there are. */
static int every_call_fails(struct t *t, const struct job *j, const char *want, int err,
                            uint64_t step)
{
    int fd = next_fd(), n_failed = 0;

    for (uint64_t n = 1; !t->failed; n += step) {
        mt_fault_io(n, err);
        mt_status st = job_run(t, j);
        bool waits = mt_fault_io_waits();
        mt_fault_io(0, 0);
        check_after(t, j, want, st, fd);
        if (t->failed || (st != MT_OK && strchr(mt_error(&t->ctx), '/') == NULL))
            t_fail(t, __FILE__, __LINE__, "call %d: %s", (int)n, mt_error(&t->ctx));
        if (waits)
            break;
        n_failed += st != MT_OK;
        check_resume(t, j, want);
        remove_output(j->out);
    }
    remove_output(j->out);
    return n_failed;
}

/* The same for allocations, of which there are many: all of the first, then some. */
static int every_allocation_fails(struct t *t, const struct job *j, const char *want,
                                  uint64_t all_of)
{
    int fd = next_fd(), n_failed = 0;

    for (uint64_t n = 1; !t->failed; n += n < all_of ? 1 : 1 + n / 24) {
        mt_fault_alloc(n);
        mt_status st = job_run(t, j);
        bool waits = mt_fault_alloc_waits();
        mt_fault_alloc(0);
        check_after(t, j, want, st, fd);
        if (t->failed || (st != MT_OK && st != MT_E_NOMEM))
            t_fail(t, __FILE__, __LINE__, "allocation %d: %s", (int)n, mt_error(&t->ctx));
        if (waits)
            break;
        n_failed += st != MT_OK;
        remove_output(j->out);
    }
    remove_output(j->out);
    return n_failed;
}

/* A conversion with data: journal, manifest, sidecars, an index of shards. The scratch file of
 * hidden states has its own test (test_stream.c); that of a refit is read token by token, so once
 * through them is calls enough. */
static struct job conversion(struct t *t, const struct mt_dataset *data)
{
    const char *src =
        tiny_write(t, "src", &(struct tiny){.layers = 2, .hidden = 16, .width = 24, .seed = 3});

    return (struct job){.source = src,
                        .out = output_path(t, "out"),
                        .format = "safetensors",
                        .shard_bytes = 20000,
                        .pass = "convert-ffn",
                        .options = "experts=4 active=2 arch=mixtral refit-epochs=1",
                        .data = data,
                        .keep = true};
}

static struct noise_data noise;

T_TEST(every_call_of_a_conversion_fails)
{
    noise_data(&noise, 2, 64, 4);
    struct job j = conversion(t, &noise.set), first = j;
    const char *want = output_path(t, "want");
    int n;

    first.out = want;
    T_OK(t, job_run(t, &first));
    n = every_call_fails(t, &j, want, ENOSPC, 1);
    T_CHECK(t, n > 60);
    j.keep = false;
    every_call_fails(t, &j, want, EIO, 3);
    remove_output(j.out);
    remove_output(want);
}

/* The run that goes on fails again, anywhere, and then goes on. */
T_TEST(every_call_of_a_resumed_conversion_fails)
{
    noise_data(&noise, 2, 64, 4);
    struct job j = conversion(t, &noise.set), go_on = j, first = j;
    const char *want = output_path(t, "want");
    int fd = next_fd(), n_failed = 0;

    go_on.flags = MT_OUT_RESUME;
    first.out = want;
    T_OK(t, job_run(t, &first));
    for (uint64_t n = 1, begin = 20; !t->failed; n += 2) {
        for (;; begin++) { /* fails once with a layer on the disk */
            mt_fault_io(begin, ENOSPC);
            T_CHECK(t, job_run(t, &j) != MT_OK);
            if (there(partial_of(j.out)))
                break;
        }
        mt_fault_io(n, n % 4 == 1 ? EIO : EROFS);
        mt_status st = job_run(t, &go_on);
        bool waits = mt_fault_io_waits();
        mt_fault_io(0, 0);
        check_after(t, &go_on, want, st, fd);
        T_CHECK(t, st == MT_OK || there(j.out) || there(partial_of(j.out)));
        check_resume(t, &go_on, want);
        if (t->failed)
            t_fail(t, __FILE__, __LINE__, "call %d: %s", (int)n, mt_error(&t->ctx));
        remove_output(j.out);
        if (waits)
            break;
        n_failed += st != MT_OK;
    }
    T_CHECK(t, n_failed > 20);
    remove_output(j.out);
    remove_output(want);
}

T_TEST(every_allocation_of_a_conversion_fails)
{
    noise_data(&noise, 2, 64, 4);
    struct job j = conversion(t, &noise.set), first = j;
    const char *want = output_path(t, "want");

    first.out = want;
    T_OK(t, job_run(t, &first));
    j.keep = false;
    T_CHECK(t, every_allocation_fails(t, &j, want, 40) > 40);
    remove_output(j.out);
    remove_output(want);
}

T_TEST(every_call_and_allocation_of_an_export_fails)
{
    const char *src = tiny_write(
        t, "src",
        &(struct tiny){.layers = 2, .hidden = 32, .heads = 2, .head_dim = 16, .tokenizer = true});
    const char *want = output_path(t, "want.gguf"), *out = output_path(t, "out.gguf");
    struct job j = {.source = src, .out = want, .format = "gguf", .keep = true};

    T_OK(t, job_run(t, &j));
    j.out = out;
    T_CHECK(t, every_call_fails(t, &j, want, ENOSPC, 1) > 20);
    j.keep = false;
    T_CHECK(t, every_call_fails(t, &j, want, EIO, 2) > 10);
    T_CHECK(t, every_allocation_fails(t, &j, want, 200) > 100);
    remove_output(out);
    remove_output(want);
}

/* A checkpoint of torch is mapped and listed, then copied. */
T_TEST(every_call_and_allocation_of_a_copy_of_a_torch_checkpoint_fails)
{
    const char *want = output_path(t, "want"), *out = output_path(t, "out");
    char src[512];
    struct job j = {.source = src, .out = want, .format = "safetensors", .keep = true};

    snprintf(src, sizeof src, "%s", t_shipped("torch/llama"));
    T_OK(t, job_run(t, &j));
    j.out = out;
    T_CHECK(t, every_call_fails(t, &j, want, EIO, 1) > 20);
    j.keep = false;
    T_CHECK(t, every_allocation_fails(t, &j, want, 200) > 100);
    remove_output(out);
    remove_output(want);
}
