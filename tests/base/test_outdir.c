#include "lib/base/outdir.h"

#include "lib/base/path.h"
#include "tests/t.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int out_same(const char *path, const char *want)
{
    size_t n = 0;
    char *got = t_read_file(path, &n);
    int same = got != NULL && n == strlen(want) && memcmp(got, want, n) == 0;

    free(got);
    return same;
}

/* Entries of a directory beside "." and "..". */
static int out_entries(const char *dir)
{
    DIR *d = opendir(dir);
    int n = -2;

    if (d == NULL)
        return -1;
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n;
}

static mt_status out_write_model(struct mt_ctx *ctx, const char *path, unsigned flags,
                                 const char *weights)
{
    struct mt_outdir *o;
    struct mt_outfile *f;
    mt_status st;

    MT_TRY(mt_outdir_open(ctx, path, flags, &o));
    st = mt_outdir_file(ctx, o, "w.bin", strlen(weights), &f);
    if (st == MT_OK)
        st = mt_outfile_write(ctx, f, 0, weights, strlen(weights));
    if (st == MT_OK)
        st = mt_outdir_text(ctx, o, "config.json", "{}\n", 3);
    if (st == MT_OK)
        st = mt_outdir_commit(ctx, o);
    mt_outdir_close(o, false);
    return st;
}

T_TEST(what_is_committed_appears_whole)
{
    T_OK(t, out_write_model(&t->ctx, t_path(t, "out"), 0, "weights"));
    T_CHECK(t, out_same(t_path(t, "out/w.bin"), "weights"));
    T_CHECK(t, out_same(t_path(t, "out/config.json"), "{}\n"));
    T_EQ_INT(t, out_entries(t_path(t, "out")), 2);
    T_EQ_INT(t, out_entries(t->dir), 1);
}

T_TEST(until_then_every_name_says_partial)
{
    struct mt_outdir *o;
    struct mt_outfile *f;

    T_OK(t, mt_outdir_open(&t->ctx, t_path(t, "out//"), 0, &o));
    T_EQ_STR(t, mt_outdir_work_path(o), t_path(t, "out.partial"));
    T_OK(t, mt_outdir_file(&t->ctx, o, "w.bin", 100, &f));
    T_EQ_STR(t, mt_outfile_path(f), t_path(t, "out.partial/w.bin.partial"));
    T_OK(t, mt_outdir_text(&t->ctx, o, "config.json", "{}", 2));
    T_CHECK(t, !mt_path_exists(t_path(t, "out")));
    T_CHECK(t, mt_path_exists(t_path(t, "out.partial/config.json.partial")));
    T_CHECK(t, !mt_path_exists(t_path(t, "out.partial/config.json")));
    mt_outdir_close(o, false);
    T_EQ_INT(t, out_entries(t->dir), 0);
}

T_TEST(parts_may_be_written_in_any_order)
{
    struct mt_outdir *o;
    struct mt_outfile *f, *again;

    T_OK(t, mt_outdir_open(&t->ctx, t_path(t, "out"), 0, &o));
    T_OK(t, mt_outdir_file(&t->ctx, o, "w", 6, &f));
    T_OK(t, mt_outfile_write(&t->ctx, f, 4, "ef", 2));
    T_OK(t, mt_outfile_write(&t->ctx, f, 0, "abcd", 4));
    T_OK(t, mt_outfile_sync(&t->ctx, f));
    T_OK(t, mt_outdir_file(&t->ctx, o, "w", 6, &again));
    T_CHECK(t, again == f);
    T_OK(t, mt_outdir_commit(&t->ctx, o));
    mt_outdir_close(o, true);
    T_CHECK(t, out_same(t_path(t, "out/w"), "abcdef"));
}

T_TEST(texts_replace_and_files_are_copied_and_removed)
{
    struct mt_outdir *o;
    static char big[3000000];

    memset(big, 'z', 3000000);
    t_write_file(t, t_path(t, "big"), big, 3000000);
    T_CHECK(t, symlink("big", t_path(t, "link")) == 0);
    T_OK(t, mt_outdir_open(&t->ctx, t_path(t, "out"), 0, &o));
    T_OK(t, mt_outdir_text(&t->ctx, o, "a", "one", 3));
    T_OK(t, mt_outdir_text(&t->ctx, o, "a", "second", 6));
    T_OK(t, mt_outdir_text(&t->ctx, o, "gone", "x", 1));
    T_OK(t, mt_outdir_remove(&t->ctx, o, "gone"));
    T_OK(t, mt_outdir_remove(&t->ctx, o, "never"));
    T_OK(t, mt_outdir_copy(&t->ctx, o, "big", t_path(t, "link")));
    T_FAILS(t, mt_outdir_copy(&t->ctx, o, "no", t_path(t, "absent")), MT_E_ABSENT, "absent");
    T_OK(t, mt_outdir_commit(&t->ctx, o));
    mt_outdir_close(o, false);
    T_CHECK(t, out_same(t_path(t, "out/a"), "second"));
    T_EQ_INT(t, out_entries(t_path(t, "out")), 2);
    size_t n;
    char *got = t_read_file(t_path(t, "out/big"), &n);
    T_CHECK(t, got != NULL && n == 3000000 && memcmp(got, big, n) == 0);
    free(got);
}

T_TEST(names_that_leave_the_directory_are_refused)
{
    static const char *const bad[] = {"../x", "/etc/x",    "a/b",  "",  ".",
                                      "..",   "x.partial", "lock", NULL};
    struct mt_outdir *o;
    struct mt_outfile *f;

    T_FAILS(t, mt_outdir_open(&t->ctx, "", 0, &o), MT_E_OPTION, "cannot be an output directory");
    T_FAILS(t, mt_outdir_open(&t->ctx, "/", 0, &o), MT_E_OPTION, "cannot be");
    T_FAILS(t, mt_outdir_open(&t->ctx, "a/..", 0, &o), MT_E_OPTION, "cannot be");
    T_OK(t, mt_outdir_open(&t->ctx, t_path(t, "out"), 0, &o));
    for (int i = 0; bad[i] != NULL; i++)
        T_FAILS(t, mt_outdir_file(&t->ctx, o, bad[i], 1, &f), MT_E_FORMAT, "cannot be the name");
    mt_outdir_close(o, false);
}

T_TEST(an_existing_output_needs_force)
{
    T_OK(t, out_write_model(&t->ctx, t_path(t, "out"), 0, "old"));
    T_FAILS(t, out_write_model(&t->ctx, t_path(t, "out"), 0, "new"), MT_E_IO,
            "exists already; use --force");
    T_CHECK(t, out_same(t_path(t, "out/w.bin"), "old"));
    T_OK(t, out_write_model(&t->ctx, t_path(t, "out"), MT_OUT_FORCE, "new"));
    T_CHECK(t, out_same(t_path(t, "out/w.bin"), "new"));
    T_EQ_INT(t, out_entries(t->dir), 1);
}

T_TEST(a_failure_under_force_leaves_the_old_output)
{
    T_OK(t, out_write_model(&t->ctx, t_path(t, "out"), 0, "old"));
    mt_fault_write(1);
    T_FAILS(t, out_write_model(&t->ctx, t_path(t, "out"), MT_OUT_FORCE, "new"), MT_E_IO,
            "w.bin.partial: disk full");
    T_CHECK(t, out_same(t_path(t, "out/w.bin"), "old"));
    T_EQ_INT(t, out_entries(t->dir), 1);
}

T_TEST(force_replaces_models_only)
{
    T_CHECK(t, mkdir(t_path(t, "home"), 0777) == 0);
    t_write_file(t, t_path(t, "home/letter.txt"), "dear", 4);
    T_FAILS(t, out_write_model(&t->ctx, t_path(t, "home"), MT_OUT_FORCE, "x"), MT_E_IO,
            "does not look like a model (no config.json)");
    t_write_file(t, t_path(t, "home/config.json"), "{}", 2);
    T_CHECK(t, mkdir(t_path(t, "home/sub"), 0777) == 0);
    T_FAILS(t, out_write_model(&t->ctx, t_path(t, "home"), MT_OUT_FORCE, "x"), MT_E_IO,
            "it holds directories");
    T_CHECK(t, out_same(t_path(t, "home/letter.txt"), "dear"));
    t_write_file(t, t_path(t, "file"), "x", 1);
    T_FAILS(t, out_write_model(&t->ctx, t_path(t, "file"), MT_OUT_FORCE, "x"), MT_E_IO,
            "is not a directory");
    T_CHECK(t, mkdir(t_path(t, "empty"), 0777) == 0);
    T_OK(t, out_write_model(&t->ctx, t_path(t, "empty"), MT_OUT_FORCE, "x"));
}

/* A child that writes and is killed where it stands. */
static void out_killed_child(struct t *t, int committing)
{
    pid_t pid;

    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        struct mt_outdir *o;
        struct mt_outfile *f;
        if (mt_outdir_open(&t->ctx, t_path(t, "out"), MT_OUT_RESUME, &o) != MT_OK ||
            mt_outdir_file(&t->ctx, o, "w.bin", 6, &f) != MT_OK ||
            mt_outfile_write(&t->ctx, f, 0, "abc", 3) != MT_OK)
            _exit(3);
        /* As a kill inside commit leaves it: a name without its suffix. */
        if (committing && rename(mt_outfile_path(f), t_path(t, "out.partial/w.bin")) != 0)
            _exit(4);
        kill(getpid(), SIGKILL);
    }
    int status;
    waitpid(pid, &status, 0);
    if (!WIFSIGNALED(status))
        t_fail(t, __FILE__, __LINE__, "the child ended with %d", status);
}

static mt_status out_finish_resumed(struct t *t, unsigned flags)
{
    struct mt_outdir *o;
    struct mt_outfile *f;
    mt_status st;

    MT_TRY(mt_outdir_open(&t->ctx, t_path(t, "out"), flags, &o));
    st = mt_outdir_file(&t->ctx, o, "w.bin", 6, &f);
    if (st == MT_OK)
        st = mt_outfile_write(&t->ctx, f, 3, "def", 3);
    if (st == MT_OK)
        st = mt_outdir_commit(&t->ctx, o);
    mt_outdir_close(o, false);
    return st;
}

T_TEST(a_kill_leaves_only_partial_and_can_be_resumed)
{
    for (int committing = 0; committing < 2; committing++) {
        out_killed_child(t, committing);
        T_CHECK(t, !t->failed);
        T_EQ_INT(t, out_entries(t->dir), 1);
        T_CHECK(t, mt_path_is_dir(t_path(t, "out.partial")));
        T_FAILS(t, out_write_model(&t->ctx, t_path(t, "out"), 0, "x"), MT_E_IO,
                "left by an unfinished run; use --resume to continue it or --force");
        t_write_file(t, t_path(t, "out.partial/journal.partial"), "j", 1);
        T_OK(t, out_finish_resumed(t, MT_OUT_RESUME));
        T_CHECK(t, out_same(t_path(t, "out/w.bin"), "abcdef"));
        T_EQ_INT(t, out_entries(t_path(t, "out")), 1); /* neither journal nor lock */
        T_CHECK(t, unlink(t_path(t, "out/w.bin")) == 0 && rmdir(t_path(t, "out")) == 0);
    }
}

T_TEST(force_starts_a_killed_run_anew)
{
    out_killed_child(t, 0);
    T_CHECK(t, !t->failed);
    T_OK(t, out_finish_resumed(t, MT_OUT_FORCE));
    size_t n;
    char *got = t_read_file(t_path(t, "out/w.bin"), &n);
    T_CHECK(t, n == 6 && memcmp(got, "\0\0\0def", 6) == 0);
    free(got);
}

T_TEST(a_partial_of_unknown_origin_is_left_alone)
{
    const unsigned flags[] = {MT_OUT_FORCE, MT_OUT_RESUME, MT_OUT_FORCE | MT_OUT_RESUME};

    T_CHECK(t, mkdir(t_path(t, "out.partial"), 0777) == 0);
    t_write_file(t, t_path(t, "out.partial/thesis.txt"), "words", 5);
    for (int i = 0; i < 3; i++) {
        struct mt_outdir *o;
        T_FAILS(t, mt_outdir_open(&t->ctx, t_path(t, "out"), flags[i], &o), MT_E_IO,
                "not left by an unfinished run");
        T_FAILS(t, mt_outdir_probe(&t->ctx, t_path(t, "out"), flags[i]), MT_E_IO,
                "not left by an unfinished run");
    }
    T_CHECK(t, access(t_path(t, "out.partial/thesis.txt"), F_OK) == 0);
    T_CHECK(t, access(t_path(t, "out.partial/lock"), F_OK) != 0);
    T_CHECK(t, unlink(t_path(t, "out.partial/thesis.txt")) == 0);
    T_OK(t, out_write_model(&t->ctx, t_path(t, "out"), MT_OUT_FORCE, "x"));
}

T_TEST(closing_keeps_what_may_be_resumed)
{
    struct mt_outdir *o;

    T_OK(t, mt_outdir_open(&t->ctx, t_path(t, "out"), 0, &o));
    T_OK(t, mt_outdir_text(&t->ctx, o, "a", "x", 1));
    mt_outdir_close(o, true);
    T_CHECK(t, out_same(t_path(t, "out.partial/a.partial"), "x"));
    mt_outdir_close(NULL, false);
}

T_TEST(two_processes_cannot_write_one_output)
{
    struct mt_outdir *o, *second;

    T_OK(t, mt_outdir_open(&t->ctx, t_path(t, "out"), 0, &o));
    T_FAILS(t, mt_outdir_open(&t->ctx, t_path(t, "out"), MT_OUT_RESUME, &second), MT_E_IO,
            "another process is writing it");
    T_FAILS(t, mt_outdir_open(&t->ctx, t_path(t, "out"), MT_OUT_FORCE, &second), MT_E_IO,
            "another process");
    T_OK(t, mt_outdir_text(&t->ctx, o, "a", "x", 1));
    T_OK(t, mt_outdir_commit(&t->ctx, o));
    mt_outdir_close(o, false);
}

T_TEST(an_output_that_appears_meanwhile_is_left_alone)
{
    struct mt_outdir *o;

    T_OK(t, mt_outdir_open(&t->ctx, t_path(t, "out"), 0, &o));
    T_OK(t, mt_outdir_text(&t->ctx, o, "a", "x", 1));
    T_CHECK(t, mkdir(t_path(t, "out"), 0777) == 0);
    T_FAILS(t, mt_outdir_commit(&t->ctx, o), MT_E_IO, "appeared while it was being written");
    mt_outdir_close(o, true);
    T_CHECK(t, out_same(t_path(t, "out.partial/a"), "x"));
    T_EQ_INT(t, out_entries(t_path(t, "out")), 0);
}

T_TEST(a_missing_parent_is_named)
{
    struct mt_outdir *o;

    T_FAILS(t, mt_outdir_open(&t->ctx, t_path(t, "no/out"), 0, &o), MT_E_ABSENT,
            "no: no such directory; create it first");
    t_write_file(t, t_path(t, "file"), "x", 1);
    T_FAILS(t, mt_outdir_open(&t->ctx, t_path(t, "file/out"), 0, &o), MT_E_ABSENT, "file: no such");
}

T_TEST(every_failing_write_is_disk_full_and_leaves_nothing)
{
    for (uint64_t i = 1;; i++) {
        mt_fault_write(i);
        mt_status st = out_write_model(&t->ctx, t_path(t, "out"), 0, "weights");
        mt_fault_write(0);
        if (st == MT_OK)
            break;
        T_CHECK(t, st == MT_E_IO && i < 10);
        T_CHECK(t, strstr(mt_error(&t->ctx), "disk full") != NULL);
        T_EQ_INT(t, out_entries(t->dir), 0);
    }
    T_CHECK(t, mt_path_is_dir(t_path(t, "out")));
}

T_TEST(every_failing_allocation_leaves_nothing)
{
    for (uint64_t i = 1;; i++) {
        mt_fault_alloc(i);
        mt_status st = out_write_model(&t->ctx, t_path(t, "out"), 0, "weights");
        mt_fault_alloc(0);
        if (st == MT_OK)
            break;
        T_CHECK(t, st == MT_E_NOMEM && i < 100);
        T_CHECK(t, !mt_path_exists(t_path(t, "out")));
        T_EQ_INT(t, mt_mem_used(&t->ctx), 0);
        if (mt_path_exists(t_path(t, "out.partial"))) {
            /* Opening failed after the directory was made; the next run may take it. */
            T_CHECK(t, out_entries(t_path(t, "out.partial")) <= 1);
            unlink(t_path(t, "out.partial/lock"));
            T_CHECK(t, rmdir(t_path(t, "out.partial")) == 0);
        }
    }
}

T_TEST(a_full_file_system_is_told)
{
    static char data[1u << 20];
    struct mt_outdir *o;
    struct mt_outfile *f;

    T_CHECK(t, mkdir(t_path(t, "small"), 0777) == 0);
    if (mount("none", t_path(t, "small"), "tmpfs", 0, "size=256k") != 0) {
        T_SKIP(t, "cannot mount a small file system here");
    }
    mt_status st = mt_outdir_open(&t->ctx, t_path(t, "small/out"), 0, &o);
    if (st == MT_OK) {
        st = mt_outdir_file(&t->ctx, o, "w", 1u << 20, &f);
        if (st == MT_OK)
            st = mt_outfile_write(&t->ctx, f, 0, data, 1u << 20);
        mt_outdir_close(o, false);
    }
    int left = out_entries(t_path(t, "small"));
    umount(t_path(t, "small"));
    T_FAILS(t, st, MT_E_IO, "w.partial: disk full (0 B left); free some space");
    T_EQ_INT(t, left, 0);
}

T_TEST(a_read_only_parent_is_told)
{
    struct mt_outdir *o;
    mt_status st;

    T_CHECK(t, mkdir(t_path(t, "ro"), 0777) == 0);
    if (geteuid() != 0) {
        T_CHECK(t, chmod(t_path(t, "ro"), 0555) == 0);
        T_FAILS(t, mt_outdir_open(&t->ctx, t_path(t, "ro/out"), 0, &o), MT_E_IO,
                "ro/out.partial: no permission to write; choose another output");
        return;
    }
    if (mount("none", t_path(t, "ro"), "tmpfs", MS_RDONLY, "size=64k") == 0) {
        st = mt_outdir_open(&t->ctx, t_path(t, "ro/out"), 0, &o);
        umount(t_path(t, "ro"));
        T_FAILS(t, st, MT_E_IO, "ro/out.partial: read-only file system; choose another output");
        return;
    }
    if (mkdir("/proc/moetool-test", 0777) == 0)
        T_SKIP(t, "no read-only place found");
    T_CHECK(t, mt_outdir_open(&t->ctx, "/proc/out", 0, &o) == MT_E_IO ||
                   mt_outdir_open(&t->ctx, "/proc/out", 0, &o) == MT_E_ABSENT);
    T_CHECK(t, strstr(mt_error(&t->ctx), "/proc/out.partial") != NULL);
}

T_TEST(a_probe_refuses_what_open_would_and_touches_nothing)
{
    struct mt_outdir *o;

    T_OK(t, mt_outdir_probe(&t->ctx, t_path(t, "out"), 0));
    T_EQ_INT(t, out_entries(t->dir), 0);
    T_FAILS(t, mt_outdir_probe(&t->ctx, t_path(t, "no/out"), 0), MT_E_ABSENT, "create it first");
    T_FAILS(t, mt_outdir_probe(&t->ctx, "..", 0), MT_E_OPTION, "give it a name");
    T_OK(t, mt_outdir_open(&t->ctx, t_path(t, "out"), 0, &o));
    T_FAILS(t, mt_outdir_probe(&t->ctx, t_path(t, "out"), MT_OUT_FORCE), MT_E_IO,
            "another process is writing it");
    mt_outdir_close(o, true);
    T_FAILS(t, mt_outdir_probe(&t->ctx, t_path(t, "out"), 0), MT_E_IO, "use --resume");
    T_OK(t, mt_outdir_probe(&t->ctx, t_path(t, "out"), MT_OUT_RESUME));
}

T_TEST(expected_files_must_be_there_in_full)
{
    struct mt_outdir *o;
    struct mt_outfile *f;

    T_OK(t, mt_outdir_open(&t->ctx, t_path(t, "out"), 0, &o));
    T_OK(t, mt_outdir_file(&t->ctx, o, "w", 100, &f));
    mt_outdir_close(o, true);
    T_OK(t, mt_outdir_open(&t->ctx, t_path(t, "out"), MT_OUT_RESUME, &o));
    mt_outdir_expect(o, true);
    T_FAILS(t, mt_outdir_file(&t->ctx, o, "v", 100, &f), MT_E_FORMAT, "v.partial: is gone");
    T_FAILS(t, mt_outdir_file(&t->ctx, o, "w", 101, &f), MT_E_FORMAT, "w.partial: is gone or has");
    T_OK(t, mt_outdir_file(&t->ctx, o, "w", 100, &f));
    mt_outdir_expect(o, false);
    T_OK(t, mt_outdir_file(&t->ctx, o, "v", 100, &f));
    mt_outdir_close(o, false);
}

/* ---- one file ---- */

static mt_status out_write_file(struct mt_ctx *ctx, const char *path, unsigned flags,
                                const char *text)
{
    struct mt_outdir *out;
    struct mt_outfile *f;
    mt_status st;

    MT_TRY(mt_outdir_open(ctx, path, flags | MT_OUT_FILE, &out));
    st = mt_outdir_file(ctx, out, mt_outdir_name(out), strlen(text), &f);
    if (st == MT_OK)
        st = mt_outfile_write(ctx, f, 0, text, strlen(text));
    if (st == MT_OK)
        st = mt_outdir_text(ctx, out, "README.md", "stays behind", 12);
    if (st == MT_OK)
        st = mt_outdir_settle(ctx, out);
    if (st == MT_OK && !mt_path_is_file(mt_outdir_result_path(out)))
        st = mt_fail(ctx, MT_E_IO, "no result before commit");
    if (st == MT_OK)
        st = mt_outdir_commit(ctx, out);
    mt_outdir_close(out, false);
    return st;
}

T_TEST(a_single_file_appears_whole_and_alone)
{
    char path[512], work[512];

    snprintf(path, sizeof path, "%s", t_path(t, "x.bin"));
    snprintf(work, sizeof work, "%s", t_path(t, "x.bin.partial"));
    T_OK(t, out_write_file(&t->ctx, path, 0, "first"));
    T_CHECK(t, out_same(path, "first") && !mt_path_exists(work));
    T_EQ_INT(t, out_entries(t->dir), 1);
    T_FAILS(t, out_write_file(&t->ctx, path, 0, "second"), MT_E_IO, "use --force");
    T_CHECK(t, out_same(path, "first"));
    T_OK(t, out_write_file(&t->ctx, path, MT_OUT_FORCE, "second"));
    T_CHECK(t, out_same(path, "second") && !mt_path_exists(work));
    T_EQ_INT(t, out_entries(t->dir), 1);
}

T_TEST(a_single_file_replaces_no_directory)
{
    char path[512];

    snprintf(path, sizeof path, "%s", t_path(t, "d"));
    T_EQ_INT(t, mkdir(path, 0777), 0);
    T_FAILS(t, out_write_file(&t->ctx, path, MT_OUT_FORCE, "x"), MT_E_IO, "is not a file");
    T_CHECK(t, mt_path_is_dir(path) && out_entries(t->dir) == 1);
}

/* ---- several files ---- */

static mt_status out_write_parts(struct t *t, const char *path, unsigned flags, const char *text,
                                 const char *obstacle)
{
    static const char *const names[] = {"x-1", "x-2", "x-3"};
    struct mt_outdir *out;
    struct mt_outfile *f;
    mt_status st;

    MT_TRY(mt_outdir_open(&t->ctx, path, flags | MT_OUT_FILE, &out));
    for (int i = 0; i < 3 && (st = mt_outdir_part(&t->ctx, out, names[i])) == MT_OK; i++)
        ;
    for (int i = 0; i < 3 && st == MT_OK; i++) {
        st = mt_outdir_file(&t->ctx, out, names[i], strlen(text), &f);
        if (st == MT_OK)
            st = mt_outfile_write(&t->ctx, f, 0, text, strlen(text));
    }
    if (st == MT_OK)
        st = mt_outdir_text(&t->ctx, out, "README.md", "stays behind", 12);
    if (obstacle != NULL && mkdir(obstacle, 0777) != 0)
        st = mt_fail(&t->ctx, MT_E_IO, "no obstacle");
    if (st == MT_OK)
        st = mt_outdir_commit(&t->ctx, out);
    mt_outdir_close(out, false);
    return st;
}

T_TEST(several_files_appear_and_the_first_of_them_last)
{
    char path[512], first[512], second[512];

    snprintf(path, sizeof path, "%s", t_path(t, "x.bin"));
    snprintf(first, sizeof first, "%s", t_path(t, "x-1"));
    snprintf(second, sizeof second, "%s", t_path(t, "x-2"));
    /* Where the second cannot be moved the first does not come. */
    T_FAILS(t, out_write_parts(t, path, 0, "first", second), MT_E_IO, "x-2");
    T_CHECK(t, !mt_path_exists(first));
    T_EQ_INT(t, rmdir(second), 0);
    T_OK(t, out_write_parts(t, path, 0, "first", NULL));
    T_CHECK(t, out_same(first, "first") && out_same(second, "first") && !mt_path_exists(path));
    T_EQ_INT(t, out_entries(t->dir), 3);
    T_FAILS(t, out_write_parts(t, path, 0, "second", NULL), MT_E_IO, "use --force");
    T_CHECK(t, out_same(first, "first"));
    T_OK(t, out_write_parts(t, path, MT_OUT_FORCE, "second", NULL));
    T_CHECK(t, out_same(first, "second") && out_same(second, "second"));
    T_EQ_INT(t, out_entries(t->dir), 3);
    /* An old first part is gone before parts that are not its own stand behind it. */
    T_EQ_INT(t, remove(second), 0);
    T_FAILS(t, out_write_parts(t, path, MT_OUT_FORCE, "third", second), MT_E_IO, "x-2");
    T_CHECK(t, !mt_path_exists(first));
}

T_TEST(parts_take_the_place_of_one_file)
{
    char path[512];

    snprintf(path, sizeof path, "%s", t_path(t, "x.bin"));
    T_OK(t, out_write_file(&t->ctx, path, 0, "one"));
    T_OK(t, out_write_parts(t, path, MT_OUT_FORCE, "parts", NULL));
    T_CHECK(t, !mt_path_exists(path) && out_same(t_path(t, "x-1"), "parts"));
    T_EQ_INT(t, out_entries(t->dir), 3);
}

T_TEST(what_is_written_can_be_summed_again)
{
    struct mt_outfile *a, *b;
    struct mt_outdir *o;
    uint64_t before, sum, sum_b;

    T_OK(t, mt_outdir_open(&t->ctx, t_path(t, "out"), 0, &o));
    T_OK(t, mt_outdir_file(&t->ctx, o, "a", 100, &a));
    T_OK(t, mt_outdir_file(&t->ctx, o, "b", 100, &b));
    T_OK(t, mt_outfile_write(&t->ctx, a, 50, "before", 6));
    before = mt_outdir_sum(o);
    T_OK(t, mt_outfile_write(&t->ctx, a, 7, "words", 5));
    T_OK(t, mt_outfile_write(&t->ctx, b, 12, "there", 5));
    T_OK(t, mt_outfile_write(&t->ctx, a, 3, "some", 4));
    T_OK(t, mt_outfile_sum(&t->ctx, a, 3, 9, &sum));
    T_OK(t, mt_outfile_sum(&t->ctx, b, 12, 5, &sum_b));
    T_CHECK(t, sum + sum_b == mt_outdir_sum(o) - before);
    /* The same bytes in the other file are other bytes. */
    T_OK(t, mt_outfile_write(&t->ctx, a, 12, "there", 5));
    T_OK(t, mt_outfile_sum(&t->ctx, a, 12, 5, &sum));
    T_CHECK(t, sum != sum_b);
    T_FAILS(t, mt_outfile_sum(&t->ctx, a, 95, 6, &sum), MT_E_IO, "ends early");
    mt_outdir_close(o, false);
}
