#pragma once
// Which queries meet which keys in a pack, laid out once for every layer.
#include "kernels.hpp"

#include <ATen/ATen.h>
#include <mutex>
#include <torch/custom_class.h>
#include <vector>

namespace ct {

// Tokens [start, start + count) of the pack.
struct TokenRange {
    int64_t start = 0, count = 0;
    at::Tensor of(const at::Tensor &x) const { return count == x.size(0) ? x : x.narrow(0, start, count); }
};

// `batch` pairs of runs of equally many queries, and of equally many keys, each side by side in the pack.
struct EvenRun {
    int64_t batch, query_start, query_length, key_start, key_length;
};

// Pairs of query runs and key runs, each query seeing its keys whole, or causally where they are itself.
struct AttentionPass {
    bool causal;
    TokenRange queries, keys;
    at::Tensor query_index, key_index;     // int64 on the device, where queries or keys are not in one piece; else undefined
    at::Tensor query_offsets, key_offsets; // int32 cumulative, on the device
    int64_t longest_query, longest_key;
    std::vector<EvenRun> runs;             // the same pairs as batches without padding; empty where they are too uneven
};

class AttentionPlan : public torch::CustomClassHolder {
  public:
    // Throws c10::Error for segments that name later parents or are empty.
    AttentionPlan(const int32_t *raw, int count, bool fixed_backend);

    const std::vector<PackedSegment> segments;
    const bool fixed_backend;
    int64_t tokens = 0, longest = 0; // of the pack; of its longest sequence
    bool has_parents = false;

    // The first pass is each segment over itself; each further one is over ancestors one generation further up.
    const std::vector<AttentionPass> &passes(at::Device device) const;

  private:
    std::vector<AttentionPass> make_passes(at::Device device) const;

    mutable std::mutex mutex;
    mutable std::vector<AttentionPass> made;
    mutable at::Device made_for = at::kCPU;
};

} // namespace ct
