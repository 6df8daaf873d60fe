// Copies of many tensors at once. See ctorch.h for the conventions.
#ifndef CTORCH_COPIES_H
#define CTORCH_COPIES_H

#include "ctorch.h"

#ifdef __cplusplus
extern "C" {
#endif

// targets[i] takes the elements of sources[i], of the same sizes, converted; in few kernels where the layouts allow it.
int ct_copy_each_(const ct_tensor *targets, const ct_tensor *sources, int count, ct_message *error);
// Where the first element lies; for comparisons only.
uint64_t ct_address(ct_tensor tensor);

#ifdef __cplusplus
}
#endif
#endif
