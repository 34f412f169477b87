/* Interruptions, kills, full disks and failing allocations: what stands afterwards, and that a
 * resumed walk ends with the very bytes of an undisturbed one. */
#include "tests/flow_kit.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* A sequential pass, a plain one and an observer: everything a resumed walk has to bring back. */
struct job {
    struct kit_scale_opts tilt, scale;
    struct kit_watch_opts watch;
    struct mt_walk_pass passes[3];
    struct kit_run run;
};

static void job_make(struct t *t, struct job *j, const char *source, const char *out)
{
    j->tilt = (struct kit_scale_opts){.by = 0.25, .cancel = &t->cancel};
    j->watch = (struct kit_watch_opts){.rounds = 2};
    j->passes[0] = (struct mt_walk_pass){&kit_tilt, &j->tilt};
    j->passes[1] = (struct mt_walk_pass){&kit_watch, &j->watch};
    j->run = (struct kit_run){.source = source,
                              .out = out,
                              .passes = j->passes,
                              .n_passes = 2,
                              .data = true,
                              .keep = true,
                              .shard_bytes = 5000,
                              .threads = 2};
    t->cancel = 0;
}

/* Without activations. */
static void job_make_plain(struct t *t, struct job *j, const char *source, const char *out)
{
    job_make(t, j, source, out);
    j->scale = (struct kit_scale_opts){.by = 0.5, .cancel = &t->cancel};
    j->passes[0] = (struct mt_walk_pass){&kit_scale, &j->scale};
    j->run.n_passes = 1;
    j->run.data = false;
}

static void remove_tree(const char *dir)
{
    char cmd[700];

    snprintf(cmd, sizeof cmd, "rm -rf '%s' '%s.partial'", dir, dir);
    if (system(cmd) != 0)
        perror(cmd);
}

static bool there(const char *path)
{
    return access(path, F_OK) == 0;
}

/* Interrupted at layer `at` (hooks run before it is written) and resumed. */
static void interrupt_and_resume(struct t *t, struct job *j, const char *want, int at, bool cancel)
{
    const char *out = j->run.out, *partial = kit_path(t, "out.partial");
    struct kit_scale_opts *o = j->run.data ? &j->tilt : &j->scale;

    o->fail_at = cancel ? 0 : at;
    o->cancel_at = cancel ? at : 0;
    j->run.flags = 0;
    T_CHECK(t, kit_walk(t, &j->run) == (cancel ? MT_E_CANCELLED : MT_E_NUMERIC));
    T_CHECK(t, !there(out));
    T_CHECK(t, there(partial) == (at > 1));
    o->fail_at = o->cancel_at = 0;
    t->cancel = 0;
    if (at > 1) {
        T_FAILS(t, kit_walk(t, &j->run), MT_E_IO, "--resume");
        T_CHECK(t, there(partial));
    }
    j->run.flags = MT_OUT_RESUME;
    T_OK(t, kit_walk(t, &j->run));
    T_CHECK(t, !there(partial));
    T_CHECK(t, t_same_tree(want, out));
    remove_tree(out);
}

T_TEST(interrupted_at_any_layer_and_resumed_it_is_the_same)
{
    const char *src = kit_make(t, "src");
    struct job j;

    for (int plain = 0; plain < 2; plain++) {
        const char *want = kit_path(t, plain ? "want_plain" : "want");
        (plain ? job_make_plain : job_make)(t, &j, src, want);
        T_OK(t, kit_walk(t, &j.run));
        (plain ? job_make_plain : job_make)(t, &j, src, kit_path(t, "out"));
        for (int at = 1; at <= KIT_LAYERS && !t->failed; at++) {
            interrupt_and_resume(t, &j, want, at, false);
            interrupt_and_resume(t, &j, want, at, true);
        }
    }
}

T_TEST(interrupted_again_and_again_it_is_the_same)
{
    const char *src = kit_make(t, "src");
    struct job j;

    job_make(t, &j, src, kit_path(t, "want"));
    T_OK(t, kit_walk(t, &j.run));
    job_make(t, &j, src, kit_path(t, "out"));
    j.run.flags = MT_OUT_RESUME;
    for (int at = 2; at <= KIT_LAYERS; at++) {
        j.tilt.fail_at = at;
        T_FAILS(t, kit_walk(t, &j.run), MT_E_NUMERIC, "told to fail");
        j.run.threads = 1 + at % 3;
    }
    j.tilt.fail_at = 0;
    T_OK(t, kit_walk(t, &j.run));
    T_CHECK(t, t_same_tree(kit_path(t, "want"), kit_path(t, "out")));
}

T_TEST(without_keep_a_failure_leaves_nothing)
{
    struct job j;

    job_make_plain(t, &j, kit_make(t, "src"), kit_path(t, "out"));
    j.run.keep = false;
    j.scale.fail_at = KIT_LAYERS;
    T_FAILS(t, kit_walk(t, &j.run), MT_E_NUMERIC, "scale: layer 2: told to fail");
    T_CHECK(t, !there(kit_path(t, "out")) && !there(kit_path(t, "out.partial")));
}

T_TEST(the_log_says_how_to_go_on)
{
    struct job j;

    job_make_plain(t, &j, kit_make(t, "src"), kit_path(t, "out"));
    j.run.threads = 0; /* the test's context, whose log is kept */
    j.scale.fail_at = 3;
    T_CHECK(t, kit_walk(t, &j.run) == MT_E_NUMERIC);
    T_CHECK(t, strstr(t->log, "2 of 3 layers stand") != NULL && strstr(t->log, "--resume") != NULL);
    j.scale.fail_at = 0;
    j.run.flags = MT_OUT_RESUME;
    T_OK(t, kit_walk(t, &j.run));
    T_CHECK(t, strstr(t->log, "resuming: 2 of 3") != NULL);
}

T_TEST(other_settings_cannot_resume)
{
    const char *src = kit_make(t, "src");
    struct job j;

    job_make_plain(t, &j, src, kit_path(t, "out"));
    j.scale.fail_at = 3;
    T_CHECK(t, kit_walk(t, &j.run) == MT_E_NUMERIC);
    j.scale.fail_at = 0;
    j.scale.by = 0.75;
    j.run.flags = MT_OUT_RESUME;
    T_FAILS(t, kit_walk(t, &j.run), MT_E_OPTION, "--by: 0.5 then, 0.75 now");
    T_CHECK(t, there(kit_path(t, "out.partial")));
    j.scale.by = 0.5;
    j.run.shard_bytes = 0;
    T_FAILS(t, kit_walk(t, &j.run), MT_E_OPTION, "--max-shard-size: 5000 then, 0 now");
    j.run.shard_bytes = 5000;
    T_OK(t, kit_walk(t, &j.run));
}

/* A byte that changed under an interrupted run is seen, unless it is written again anyway. */
T_TEST(what_stands_must_be_what_was_written)
{
    const char *file = kit_path(t, "out.partial/model.safetensors.partial");
    const char *src = kit_make(t, "src");
    int refused = 0, flips = 0;
    struct job j;
    size_t n = 1000; /* told by the file */

    job_make_plain(t, &j, src, kit_path(t, "want"));
    j.run.shard_bytes = 0;
    T_OK(t, kit_walk(t, &j.run));
    job_make_plain(t, &j, src, kit_path(t, "out"));
    j.run.shard_bytes = 0;
    for (size_t at = 40; at < n; at += n / 40) {
        j.run.flags = 0;
        j.scale.fail_at = KIT_LAYERS;
        T_CHECK(t, kit_walk(t, &j.run) == MT_E_NUMERIC);
        char *data = t_read_file(file, &n);
        T_CHECK(t, data != NULL);
        data[at] = (char)(data[at] ^ 0x40);
        t_write_file(t, file, data, n);
        free(data);
        j.scale.fail_at = 0;
        j.run.flags = MT_OUT_RESUME;
        flips++;
        if (kit_walk(t, &j.run) == MT_OK) {
            T_CHECK(t, t_same_tree(kit_path(t, "want"), j.run.out));
        } else {
            T_CHECK(t, strstr(mt_error(&t->ctx), "not as it was written") != NULL);
            T_CHECK(t, !there(j.run.out) && there(kit_path(t, "out.partial")));
            refused++;
        }
        remove_tree(j.run.out);
    }
    T_CHECK(t, refused > flips / 2 && refused < flips);
}

/* --resume with nothing to resume starts; foreign leftovers do not travel. */
T_TEST(resuming_nothing_starts)
{
    const char *src = kit_make(t, "src");
    struct job j;

    job_make_plain(t, &j, src, kit_path(t, "want"));
    T_OK(t, kit_walk(t, &j.run));
    job_make_plain(t, &j, src, kit_path(t, "out"));
    j.run.flags = MT_OUT_RESUME;
    T_CHECK(t, mkdir(kit_path(t, "out.partial"), 0777) == 0);
    t_write_file(t, kit_path(t, "out.partial/model-00009-of-00009.safetensors.partial"), "x", 1);
    t_write_file(t, kit_path(t, "out.partial/" MT_JOURNAL_NAME), "moetool-journal 2 ", 18);
    T_OK(t, kit_walk(t, &j.run));
    T_CHECK(t, t_same_tree(kit_path(t, "want"), kit_path(t, "out")));
}

/* ---- kills ---- */

/* Runs the job in a child that is killed after `usec`, or kills itself. True: it was killed. */
static bool run_killed(struct t *t, const struct job *j, useconds_t usec)
{
    int status = 0;
    pid_t pid;

    fflush(stdout);
    pid = fork();
    if (pid == 0)
        _exit(kit_walk(t, &j->run) == MT_OK ? 0 : 1);
    if (pid < 0)
        return false;
    if (usec > 0) {
        usleep(usec);
        kill(pid, SIGKILL);
    }
    waitpid(pid, &status, 0);
    return WIFSIGNALED(status);
}

T_TEST(killed_at_any_layer_and_resumed_it_is_the_same)
{
    const char *src = kit_make(t, "src");
    struct job j;

    job_make(t, &j, src, kit_path(t, "want"));
    T_OK(t, kit_walk(t, &j.run));
    job_make(t, &j, src, kit_path(t, "out"));
    for (int at = 1; at <= KIT_LAYERS; at++) {
        j.run.flags = 0;
        j.tilt.kill_at = at;
        T_CHECK(t, run_killed(t, &j, 0));
        T_CHECK(t, !there(j.run.out) && there(kit_path(t, "out.partial")));
        j.tilt.kill_at = 0;
        j.run.flags = MT_OUT_RESUME;
        T_OK(t, kit_walk(t, &j.run));
        T_CHECK(t, t_same_tree(kit_path(t, "want"), j.run.out));
        remove_tree(j.run.out);
    }
}

static mt_status die(struct mt_ctx *ctx, void *arg, const struct mt_model *result,
                     const struct mt_json *manifest, struct mt_outdir *out)
{
    (void)ctx;
    (void)arg;
    (void)result;
    (void)manifest;
    (void)out;
    raise(SIGKILL);
    return MT_OK;
}

/* Files have their final names by then; the directory has not. */
T_TEST(killed_while_the_result_is_looked_at_and_resumed_it_is_the_same)
{
    const char *src = kit_make(t, "src");
    struct job j;

    job_make(t, &j, src, kit_path(t, "want"));
    T_OK(t, kit_walk(t, &j.run));
    job_make(t, &j, src, kit_path(t, "out"));
    j.run.finish = die;
    T_CHECK(t, run_killed(t, &j, 0));
    T_CHECK(t, there(kit_path(t, "out.partial/config.json")) && !there(j.run.out));
    j.run.flags = MT_OUT_RESUME;
    T_CHECK(t, run_killed(t, &j, 0));
    j.run.finish = NULL;
    T_OK(t, kit_walk(t, &j.run));
    T_CHECK(t, t_same_tree(kit_path(t, "want"), j.run.out));
}

T_TEST(killed_at_any_moment_and_resumed_it_is_the_same)
{
    const char *src = kit_make(t, "src");
    struct job j;
    int kills = 0;

    job_make(t, &j, src, kit_path(t, "want"));
    T_OK(t, kit_walk(t, &j.run));
    job_make(t, &j, src, kit_path(t, "out"));
    for (int i = 0; i < 24; i++) {
        j.run.flags = 0;
        kills += run_killed(t, &j, (useconds_t)(200 + 661 * i));
        /* A second child that goes on is killed too; what it left is finished here. */
        j.run.flags = MT_OUT_RESUME;
        if (!there(j.run.out))
            kills += run_killed(t, &j, (useconds_t)(200 + 251 * i));
        if (!there(j.run.out))
            T_OK(t, kit_walk(t, &j.run));
        T_CHECK(t, t_same_tree(kit_path(t, "want"), j.run.out));
        T_CHECK(t, !there(kit_path(t, "out.partial")));
        remove_tree(j.run.out);
    }
    T_CHECK(t, kills > 0);
}

/* ---- faults ---- */

T_TEST(a_full_disk_at_any_write_is_one_sentence_and_can_be_resumed)
{
    const char *src = kit_make(t, "src"), *out = kit_path(t, "out");
    struct job j;
    int faults = 0;

    job_make_plain(t, &j, src, kit_path(t, "want"));
    T_OK(t, kit_walk(t, &j.run));
    job_make_plain(t, &j, src, out);
    for (uint64_t n = 1;; n++) {
        j.run.flags = 0;
        j.run.keep = n % 2 == 0;
        mt_fault_write(n);
        mt_status st = kit_walk(t, &j.run);
        mt_fault_write(0);
        if (st == MT_OK)
            break;
        faults++;
        T_EQ_INT(t, st, MT_E_IO);
        T_CHECK(t, strstr(mt_error(&t->ctx), "disk full") != NULL);
        T_CHECK(t, strchr(mt_error(&t->ctx), '\n') == NULL);
        T_CHECK(t, !there(out));
        T_CHECK(t, j.run.keep || !there(kit_path(t, "out.partial")));
        j.run.flags = MT_OUT_RESUME;
        T_OK(t, kit_walk(t, &j.run));
        T_CHECK(t, t_same_tree(kit_path(t, "want"), out));
        remove_tree(out);
    }
    T_CHECK(t, faults >= KIT_LAYERS * 9 + 3);
    T_CHECK(t, t_same_tree(kit_path(t, "want"), out));
}

static void every_allocation_fails_once(struct t *t, struct job *j)
{
    const char *out = j->run.out;

    j->run.keep = false;
    j->run.threads = 1;
    j->run.shard_bytes = 0; /* few files to flush */
    for (uint64_t n = 1;; n++) {
        mt_fault_alloc(n);
        mt_status st = kit_walk(t, &j->run);
        bool waits = mt_fault_alloc_waits();
        mt_fault_alloc(0);
        if (waits)
            break;
        T_CHECK(t, st == MT_OK || st == MT_E_NOMEM);
        T_CHECK(t, there(out) == (st == MT_OK));
        T_CHECK(t, !there(kit_path(t, "out.partial")));
        if (st == MT_OK) /* what failed was something that may be missing */
            remove_tree(out);
    }
    T_CHECK(t, t_same_tree(kit_path(t, "want"), out));
}

T_TEST(every_allocation_may_fail)
{
    const char *src = kit_make(t, "src");
    struct job j;

    job_make(t, &j, src, kit_path(t, "want"));
    j.run.shard_bytes = 0;
    T_OK(t, kit_walk(t, &j.run));
    job_make(t, &j, src, kit_path(t, "out"));
    every_allocation_fails_once(t, &j);
}
