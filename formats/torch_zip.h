/* torch_zip.h: checkpoints that torch.save wrote (torch 1.6 and later), for the formats room alone.
 *
 * Such a file is a zip archive (zip_dir.h) of PREFIX/data.pkl, a pickle that describes objects
 * (pickle.h), and PREFIX/data/KEY, the storages with the numbers of its tensors. A tensor is a view
 * of a storage: it becomes a slice of the mapped file with that view's strides, so nothing is
 * copied and tensors that share a storage go on sharing it. No code of a file is ever run: what is
 * not needed to make tensors is refused by name.
 *
 * What is read as weights: the dictionary of tensors. When the outermost dictionary holds none
 * itself but one under a customary name ("state_dict", "model", ...), that is it, and a log line
 * says so; tensors elsewhere (an optimizer's) are left alone. Else all tensors, those of nested
 * containers under names joined by dots. Prefixes that every name shares because of how the model
 * was wrapped ("module.", "_orig_mod.") are taken off. Other values become notes of the model.
 *
 * torch_file.c reads one file, torch_tree.c finds the tensors in its objects, torch_zip.c is the
 * format; directories with pytorch_model.bin are hf_dir.c's. Refused with the remedy: files of
 * older versions of torch, TorchScript programs, big-endian ones. Threads: one per model.
 */
#ifndef MT_FORMATS_TORCH_ZIP_H
#define MT_FORMATS_TORCH_ZIP_H

#include "formats/pickle.h"
#include "lib/ir/model.h"

#define MT_TORCH_SUFFIX ".bin"
#define MT_TORCH_SINGLE "pytorch_model.bin"
#define MT_TORCH_INDEX "pytorch_model.bin.index.json"

/* Maps a file and adds its tensors to m as records of role other, in the order of its dictionary.
 * The model owns the map. */
MT_NODISCARD mt_status mt_torch_add_file(struct mt_ctx *ctx, struct mt_model *m, const char *path);

/* As above for a map that m owns already, or that outlives m. */
MT_NODISCARD mt_status mt_torch_add_map(struct mt_ctx *ctx, struct mt_model *m,
                                        const struct mt_map *map);

/* After binding: a tensor that is another one of the model, byte for byte the same view, is
 * unlisted where a loader would put it back: a tied head, and anything in a model with a config
 * whose family is not known here, unless the config says that nothing is tied. */
MT_NODISCARD mt_status mt_torch_untie(struct mt_ctx *ctx, struct mt_model *m);

/* What a file's objects hold (torch_tree.c). Names in the arena; arrays ended by
 * mt_torch_tree_free.
 */
struct mt_torch_found {
    const char *name;
    const struct mt_pickle_tensor *tensor;
};
struct mt_torch_tree {
    struct mt_torch_found *v; /* names are unique */
    size_t n, cap;
    struct mt_note *notes; /* what is no tensor; at most MT_TORCH_NOTES_MAX */
    size_t n_notes, cap_notes, n_untold;
    const char *under;     /* "model": where the dictionary of tensors was found; NULL: outermost */
    size_t n_elsewhere;    /* tensors left alone */
    const char *elsewhere; /* the name of one of them */
    const char *prefix_off; /* "module."; NULL */
};
#define MT_TORCH_NOTES_MAX 1000u
MT_NODISCARD mt_status mt_torch_tree_read(struct mt_ctx *ctx, const struct mt_pickle *root,
                                          const char *what, struct mt_arena *arena,
                                          struct mt_torch_tree *out);
void mt_torch_tree_free(struct mt_torch_tree *tree);
#endif
