#include "formats/table.h"

#include <string.h>

#define MT_FORMAT(name) extern const struct mt_format mt_format_##name;
#include "formats/format.def"
#undef MT_FORMAT

const struct mt_format *const mt_formats[] = {
#define MT_FORMAT(name) &mt_format_##name,
#include "formats/format.def"
#undef MT_FORMAT
    NULL,
};

const struct mt_format *mt_format_writer(const char *name)
{
    for (size_t i = 0; mt_formats[i] != NULL; i++) {
        if (mt_formats[i]->plan != NULL && strcmp(mt_formats[i]->name, name) == 0)
            return mt_formats[i];
    }
    return NULL;
}
