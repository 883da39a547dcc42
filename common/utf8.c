#include "common/utf8.h"

size_t utf8_size(const char *from)
{
    const unsigned char *text = (const unsigned char *)from;
    static const struct {
        unsigned char first_min, first_max, second_min, second_max;
        size_t size;
    } forms[] = {
        {0xC2, 0xDF, 0x80, 0xBF, 2}, {0xE0, 0xE0, 0xA0, 0xBF, 3}, {0xE1, 0xEC, 0x80, 0xBF, 3},
        {0xED, 0xED, 0x80, 0x9F, 3}, {0xEE, 0xEF, 0x80, 0xBF, 3}, {0xF0, 0xF0, 0x90, 0xBF, 4},
        {0xF1, 0xF3, 0x80, 0xBF, 4}, {0xF4, 0xF4, 0x80, 0x8F, 4},
    };
    if (text[0] < 0x80) {
        return text[0] == '\0' ? 0 : 1;
    }
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        if (text[0] < forms[i].first_min || text[0] > forms[i].first_max) {
            continue;
        }
        if (text[1] < forms[i].second_min || text[1] > forms[i].second_max) {
            return 0;
        }
        for (size_t k = 2; k < forms[i].size; k++) {
            if (text[k] < 0x80 || text[k] > 0xBF) {
                return 0;
            }
        }
        return forms[i].size;
    }
    return 0;
}
