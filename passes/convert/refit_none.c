/* refit_none.c
 * none: neurons keep their down columns, bit for bit. */
#include "passes/convert/method.h"

const struct mt_convert_refit mt_convert_refit_none = {
    .name = "none",
    .summary = "neurons stay as they are",
};
