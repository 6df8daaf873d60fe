// Memory that comes and goes under tensors that stay, and calls from backward. See ctorch.h for the conventions.
#ifndef CTORCH_SHARDING_H
#define CTORCH_SHARDING_H

#include "ctorch.h"

#ifdef __cplusplus
extern "C" {
#endif

// Bytes of the memory behind the tensor, whichever part of it the tensor is.
int64_t ct_storage_bytes(ct_tensor tensor);
// Frees that memory. The tensor, its views and what autograd has saved of it stay; nobody may read them before the memory is back.
int ct_storage_release(ct_tensor tensor, ct_message *error);
// Gives the tensor, its views and what autograd has saved of it uninitialised memory again, enough for `sizes`. The result is a
// tensor of these sizes over it, with a version counter of its own: to write through it is no change that autograd hears of.
int ct_storage_allocate(ct_tensor tensor, const int64_t *sizes, int ndim, CT_RESULT);

// The tensor itself; when backward comes to it, `call` runs first, on the thread that backward runs it on, and gets -1 back from
// a failure with *error. Where no gradient goes through, it never runs. `release` runs once `call` can run no more.
int ct_backward_hook(ct_tensor tensor, int (*call)(void *context, ct_message *error), void (*release)(void *context), void *context,
                     CT_RESULT);

#ifdef __cplusplus
}
#endif
#endif
