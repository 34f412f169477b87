#include "kernels/ref/table.inc.h"

MTK_TABLE(avx2);
