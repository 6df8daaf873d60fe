#pragma once
// AdamW over many tensors at once, and gradients that sum themselves up. Part of ctorch.h.

#ifdef __cplusplus
extern "C" {
#endif

// ---- gradient sums
// From now on what a backward pass leaves in the leaf is added to a sum of type `dtype`, and freed, as soon as it is there.
int ct_sum_gradients(ct_tensor leaf, int dtype, ct_message *error);
// Adds what was put into the leaf's gradient other than by a backward pass; nothing where there is none.
int ct_gather_gradient(ct_tensor leaf, ct_message *error);
// Ends that; the sum is lost.
int ct_end_gradient_sum(ct_tensor leaf, ct_message *error);
// The sum so far; *out is NULL where nothing has come.
int ct_gradient_sum(ct_tensor leaf, CT_RESULT);
int ct_clear_gradient_sum(ct_tensor leaf, ct_message *error);

// ---- AdamW
typedef struct {
    double lr, beta1, beta2, eps;
    uint64_t seed;         // of stochastic rounding
    bool is_stochastic;    // bfloat16 weights without a master and bfloat16 moments are rounded up or down by chance
} ct_adamw_step;

// One tensor, all of its parts contiguous and of one size N. The weight is float32 or bfloat16; a master is float32 and holds what
// the weight is rounded from; without one the weight itself is what is trained. Moments are float32 or bfloat16, or uint8 codes with
// scales float32 [ceil(N / 256)]. On CUDA, master and moments may lie in pinned host memory: they are streamed through the device.
typedef struct {
    ct_tensor weight, master, grad, exp_avg, exp_avg_sq, exp_avg_scale, exp_avg_sq_scale;
    double weight_decay;
    int64_t slot; // of `steps` and `corrections`
} ct_adamw_tensor;

// What a step decides on the device, float64 [4]: sum of squares of all gradients, their norm, the factor that clips them, and
// whether the step is taken (1) or left out because the norm is not finite (0).
enum ct_adamw_control { ct_control_squares, ct_control_norm, ct_control_factor, ct_control_taken, ct_control_count };

// control[squares] = the sum of squares of the gradients, in double, in a fixed order
int ct_adamw_squares_(const ct_adamw_tensor *tensors, int count, ct_tensor control, ct_message *error);
// The rest of `control` from its squares; where the step is taken, each tensor's steps float32 [slots] count up and corrections
// float32 [slots, 2] become 1 / (1 - beta1^t) and 1 / sqrt(1 - beta2^t). max_norm 0: no clipping.
int ct_adamw_prepare_(const ct_adamw_tensor *tensors, int count, ct_tensor steps, ct_tensor corrections, ct_tensor control,
                      double max_norm, ct_adamw_step options, ct_message *error);
// One pass: gradients times the factor, moments, masters and weights; nothing where the step is not taken. The stream is needed where
// states lie in host memory.
typedef struct ct_state_stream_object *ct_state_stream;
int ct_adamw_apply_(const ct_adamw_tensor *tensors, int count, ct_tensor steps, ct_tensor corrections, ct_tensor control,
                    ct_adamw_step options, ct_state_stream stream, ct_message *error);

// The passage of states in pinned host memory through a CUDA device.
int ct_state_stream_new(int device, ct_state_stream *out, ct_message *error);
void ct_state_stream_free(ct_state_stream stream);
// Sends for the next step's states, as many as fit in `room` bytes more; the tensors need no gradient yet. May be called again with
// the same tensors when there is more room.
int ct_state_stream_prefetch(ct_state_stream stream, const ct_adamw_tensor *tensors, int count, int64_t room, ct_message *error);
// Waits until what the last step left is home, and frees the memory that it passed through; does nothing where the next step's
// states have been sent for, unless these are to be dropped.
int ct_state_stream_settle(ct_state_stream stream, bool drops, ct_message *error);

// Float32 moments [N] to codes uint8 [N] and scales float32 [ceil(N / 256)], and back, on the CPU.
int ct_encode_moments(ct_tensor moments, bool is_signed, ct_tensor *codes, ct_tensor *scales, ct_message *error);
int ct_decode_moments(ct_tensor codes, ct_tensor scales, bool is_signed, CT_RESULT);

// Page-locked host memory of zeros, of exactly this size: libtorch's own rounds up to powers of two. Needs CUDA.
int ct_pinned_zeros(const int64_t *sizes, int ndim, int dtype, CT_RESULT);

#ifdef __cplusplus
}
#endif
