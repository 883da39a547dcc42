#include "proto/version.h"

/* Nothing else belongs here: tests/integration/e2e links programs with other numbers in its
 * place. */
const struct version_range version_own = {.min = 1, .max = 1};
