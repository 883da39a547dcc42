/* proto/version_own.c of the next version. */
#include "proto/version.h"

const struct version_range version_own = {.min = 1, .max = 2};
