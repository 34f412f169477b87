#include "passes/lib/layer_list.h"

#include "tests/t.h"

#include <string.h>

T_TEST(lists_name_layers)
{
    static const struct {
        const char *text, *want;
    } cases[] = {
        {"", "......"},    {"0", "x....."},     {"-1", ".....x"},   {"1,3", ".x.x.."},
        {"0-2", "xxx..."}, {"4,0-1", "xx..x."}, {"3,3", "...x.."},  {"-6,-2", "x...x."},
        {"0-5", "xxxxxx"}, {"2-2", "..x..."},   {"-3-5", "...xxx"},
    };
    bool in[6];
    int n;

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int want = 0;
        T_OK(t, mt_layer_list_read(&t->ctx, "layers", cases[i].text, 6, in, &n));
        for (int l = 0; l < 6; l++) {
            T_EQ_INT(t, in[l], cases[i].want[l] == 'x');
            want += in[l];
        }
        T_EQ_INT(t, n, want);
    }
}

T_TEST(what_is_no_layer_is_refused)
{
    static const char *const bad[] = {"6",
                                      "-7",
                                      "x",
                                      "1,",
                                      ",1",
                                      "2-1",
                                      "1-",
                                      "--1",
                                      "1 ",
                                      "1-6",
                                      "1;2",
                                      "-",
                                      "99999999999999999999"};
    bool in[6];
    int n;

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        T_FAILS(t, mt_layer_list_read(&t->ctx, "layers", bad[i], 6, in, &n), MT_E_OPTION,
                "expected layers from 0 to 5");
}
