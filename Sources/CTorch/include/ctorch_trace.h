// What runs on the CUDA devices, kernel by kernel, as CUPTI's activity records tell it: kernels of replayed graphs too.
// Times are in nanoseconds of CUPTI's clock. One trace at a time.
#ifndef CTORCH_TRACE_H
#define CTORCH_TRACE_H

#include "ctorch.h"

#ifdef __cplusplus
extern "C" {
#endif

// One kernel, copy or fill on a device. `name` is an index for ct_trace_name, -1 for a copy, -2 for a fill. `correlation` names
// the call that launched it; all kernels of one replay share that of the graph's launch.
typedef struct {
    uint64_t start, end;
    uint32_t correlation;
    int32_t name;
} ct_trace_span;

// A call of the CUDA runtime or driver.
typedef struct {
    uint64_t start, end;
    uint32_t correlation;
} ct_trace_call;

typedef struct {
    // When recording started, and when it was stopped.
    uint64_t start, end;
    // Records that CUPTI had no room for.
    uint64_t dropped;
    // Valid until the next start or clear.
    const ct_trace_span *spans;
    const ct_trace_call *calls;
    size_t span_count, call_count;
} ct_trace;

// Opens CUPTI and records from now on. Graphs are seen kernel by kernel only if they are made while this records.
int ct_trace_start(ct_message *error);
// Forgets what was recorded and goes on recording. The devices must be idle.
int ct_trace_clear(ct_message *error);
// Stops recording. The devices must be idle.
int ct_trace_stop(ct_trace *out, ct_message *error);
// The kernel's name, readable; owned.
int ct_trace_name(int32_t name, ct_message *out, ct_message *error);

#ifdef __cplusplus
}
#endif
#endif
