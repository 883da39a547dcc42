/* proto/version_own.c of the version after the next. */
#include "proto/version.h"

const struct version_range version_own = {.min = 2, .max = 3};
