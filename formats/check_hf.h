/* check_hf.h: rules of check_hf_tensors.c, for the table in check_hf.c alone. Each reports what it
 * finds about c->m and is OK otherwise. */
#ifndef MT_FORMATS_CHECK_HF_H
#define MT_FORMATS_CHECK_HF_H

#include "formats/check.h"

#define MT_CHECK_HF(name)                                                                          \
    MT_NODISCARD mt_status mt_check_hf_##name(struct mt_ctx *, struct mt_check *)

MT_CHECK_HF(missing);
MT_CHECK_HF(shapes);
MT_CHECK_HF(surplus);
MT_CHECK_HF(flaw);
MT_CHECK_HF(unjudged);
MT_CHECK_HF(values);
MT_CHECK_HF(unknown);
MT_CHECK_HF(undeclared);
MT_CHECK_HF(declared);
MT_CHECK_HF(queries);
MT_CHECK_HF(stacked);
MT_CHECK_HF(bias_dtype);
MT_CHECK_HF(rounded_transformers);
MT_CHECK_HF(rounded_vllm);
MT_CHECK_HF(tied);
MT_CHECK_HF(heads);
MT_CHECK_HF(needed_bias);
MT_CHECK_HF(activation);
MT_CHECK_HF(expert_count);
#endif
