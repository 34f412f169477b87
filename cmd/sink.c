#include "cmd/sink.h"

#include "lib/base/clock.h"
#include "lib/base/path.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SINK_DELAY_S 0.5
#define SINK_REDRAW_S 0.1
#define SINK_PLAIN_S 10.0
#define SINK_BAR 24

static void sink_erase(struct cmd_sink *s)
{
    if (s->drawn)
        fputs("\r\033[K", stderr);
    s->drawn = false;
}

static void sink_duration(double seconds, char *buf, size_t n)
{
    long s = seconds < 360000 ? (long)(seconds + 0.5) : 360000;

    if (s >= 3600)
        snprintf(buf, n, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(buf, n, "%ld:%02ld", s / 60, s % 60);
}

/* "12.3 MiB/s", "5400 tokens/s"; layers are too few and too unequal for a rate. */
static void sink_rate(const struct mt_progress_event *ev, double seconds, char *buf, size_t n)
{
    double rate = seconds > 0 ? (double)ev->done / seconds : 0;
    char b[24];

    buf[0] = '\0';
    if (strcmp(ev->unit, "B") == 0)
        snprintf(buf, n, "%s/s", mt_format_bytes((uint64_t)rate, b, sizeof b));
    else if (strcmp(ev->unit, "tokens") == 0)
        snprintf(buf, n, "%.*f tokens/s", rate < 100 ? 1 : 0, rate);
}

static double sink_share(const struct mt_progress_event *ev)
{
    double share = ev->total > 0 ? (double)ev->done / (double)ev->total : 0;

    return share > 1 ? 1 : share;
}

/* Share done of what the user waits for, and the seconds since it began. */
static double sink_whole(struct cmd_sink *s, double now, double *spent)
{
    double share = sink_share(&s->now), all;

    *spent = now - s->begin;
    if (s->now.parts < 2)
        return share;
    all = (s->now.part + share) / s->now.parts;
    s->all_share = all > s->all_share ? all : s->all_share;
    *spent = now - s->all_begin;
    return s->all_share;
}

/* "43 %, 12.3 MiB/s, 0:12 left" */
static void sink_words(struct cmd_sink *s, double now, char *buf, size_t n)
{
    const struct mt_progress_event *ev = &s->now;
    double spent, share = sink_whole(s, now, &spent);
    char rate[48], left[32] = "";
    size_t at;

    sink_rate(ev, now - s->begin, rate, sizeof rate);
    if (share > 0)
        sink_duration(spent * (1 - share) / share, left, sizeof left);
    at = ev->total > 0
             ? (size_t)snprintf(buf, n, "%3.0f %%", 100 * share)
             : (size_t)snprintf(buf, n, "%llu %s", (unsigned long long)ev->done, ev->unit);
    if (rate[0] != '\0' && at < n)
        at += (size_t)snprintf(buf + at, n - at, ", %s", rate);
    if (left[0] != '\0' && at < n)
        snprintf(buf + at, n - at, ", %s left", left);
}

static void sink_draw(struct cmd_sink *s, double now)
{
    char bar[SINK_BAR + 1], words[128];
    double spent;
    int full = (int)(sink_whole(s, now, &spent) * SINK_BAR);

    for (int i = 0; i < SINK_BAR; i++)
        bar[i] = i < full ? '=' : i == full ? '>' : ' ';
    bar[SINK_BAR] = '\0';
    sink_words(s, now, words, sizeof words);
    fprintf(stderr, "\r%s [%s] %s\033[K", s->now.title, bar, words);
    s->drawn = true;
    s->last = now;
}

static void sink_plain(struct cmd_sink *s, double now)
{
    char words[128];
    const char *p = words;

    sink_words(s, now, words, sizeof words);
    while (*p == ' ')
        p++;
    fprintf(stderr, "%s: %s\n", s->now.title, p);
    s->last = now;
}

static void sink_end(struct cmd_sink *s, double now)
{
    char rate[48];

    sink_erase(s);
    if (now - s->begin < SINK_PLAIN_S)
        return;
    s->last = now;
    sink_rate(&s->now, now - s->begin, rate, sizeof rate);
    fprintf(stderr, "%s: %.1f s%s%s\n", s->now.title, now - s->begin, rate[0] != '\0' ? ", " : "",
            rate);
}

static void sink_progress(void *self, const struct mt_progress_event *ev)
{
    struct cmd_sink *s = self;
    double now = mt_clock_seconds();

    if (s->quiet)
        return;
    if (ev->parts != s->now.parts || ev->part < s->now.part) { /* another work, or none */
        s->all_begin = now;
        s->all_share = 0;
    }
    s->now = *ev;
    if (ev->what == MT_PROGRESS_BEGIN) {
        s->begin = now;
    } else if (ev->what == MT_PROGRESS_END) {
        sink_end(s, now);
    } else if (s->terminal && now - s->begin >= SINK_DELAY_S && now - s->last >= SINK_REDRAW_S) {
        sink_draw(s, now);
    } else if (!s->terminal && now - s->last >= SINK_PLAIN_S) {
        sink_plain(s, now);
    }
    fflush(stderr);
}

static void sink_log(void *self, enum mt_log_level level, const char *text)
{
    static const char *const labels[] = {"error: ", "warning: ", "", ""};
    struct cmd_sink *s = self;

    if ((level == MT_LOG_INFO && s->quiet) || (level == MT_LOG_DEBUG && (s->quiet || !s->verbose)))
        return;
    sink_erase(s);
    fprintf(stderr, "%s%s\n", labels[level], text);
}

void cmd_sink_open(struct cmd_sink *s, bool quiet, bool verbose)
{
    *s = (struct cmd_sink){.quiet = quiet, .verbose = verbose};
    s->terminal = isatty(STDERR_FILENO) == 1;
    s->last = mt_clock_seconds();
}

struct mt_sink cmd_sink_callbacks(struct cmd_sink *s)
{
    return (struct mt_sink){s, sink_log, sink_progress};
}

void cmd_sink_close(struct cmd_sink *s)
{
    sink_erase(s);
    fflush(stderr);
}
