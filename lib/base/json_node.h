/* json_node.h: the inside of a JSON tree, for json.c, json_parse.c and json_print.c alone. */
#ifndef MT_BASE_JSON_NODE_H
#define MT_BASE_JSON_NODE_H

#include "lib/base/json.h"

struct mt_json {
    struct mt_json *next;
    char *key;
    enum mt_json_kind kind;
    bool whole;  /* a number in `integer`, else in `num` */
    bool broken; /* a setter on this node ran out of memory */
    bool root;   /* of a parsed tree: the beginning of a json_root */
    union {
        struct {
            struct mt_json *first, *last;
            size_t count;
        };
        double num;
        int64_t integer;
        bool truth;
        char *text;
    };
};

/* The root of a parsed tree keeps what its nodes were charged, and is ended with that. */
struct json_root {
    struct mt_json j;
    struct mt_budget *budget;
    uint64_t bytes;
};

/* malloc for nodes and their text; NULL when out of memory. */
void *json_malloc(size_t n);
struct mt_json *mt_json_node_new(enum mt_json_kind kind); /* NULL when out of memory */
void mt_json_node_append(struct mt_json *parent, struct mt_json *child);

#endif
