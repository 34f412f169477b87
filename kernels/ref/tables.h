/* tables.h: the tables that kernels/dispatch.c chooses from; nobody else names them. */
#ifndef MT_KERNELS_REF_TABLES_H
#define MT_KERNELS_REF_TABLES_H

#include "kernels/kernels.h"

extern const struct mt_kernels mtk_table_ref;
extern const struct mt_kernels mtk_table_avx2; /* x86-64 only, like the next */
extern const struct mt_kernels mtk_table_avx512;

#endif
