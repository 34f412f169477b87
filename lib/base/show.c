#include "lib/base/show.h"

#include <string.h>

void mt_show_line(char *s)
{
    for (; *s != '\0'; s++) {
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            *s = '?';
    }
}

const char *mt_show_text(const char *name, size_t n, char buf[MT_SHOW_BYTES])
{
    const size_t room = MT_SHOW_BYTES - 4;
    size_t i = n < room ? n : room;

    memcpy(buf, name, i);
    if (i < n) {
        while (i > 0 && ((unsigned char)name[i] & 0xc0) == 0x80)
            i--;
        memcpy(buf + i, "...", 3);
        i += 3;
    }
    buf[i] = '\0';
    mt_show_line(buf);
    return buf;
}

const char *mt_show_name(const char *name, char buf[MT_SHOW_BYTES])
{
    return mt_show_text(name, strlen(name), buf);
}
