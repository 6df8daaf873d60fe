#include "attention_plan.hpp"

#include <algorithm>
#include <cstring>

namespace ct {
namespace {

// More batches than this, and their launches cost more than a faster kernel saves.
constexpr size_t most_runs = 6;
constexpr int64_t shortest_run = 128;

std::vector<PackedSegment> read(const int32_t *raw, int count) {
    std::vector<PackedSegment> segments(count);
    for (int i = 0; i < count; ++i) {
        segments[i] = {raw[4 * i], raw[4 * i + 1], raw[4 * i + 2], 0};
        const auto &s = segments[i];
        TORCH_CHECK(s.start >= 0 && s.length > 0 && int64_t(s.start) + s.length <= INT32_MAX && s.parent >= -1 && s.parent < i,
                    "packed attention: segment ", i, " {start ", s.start, ", length ", s.length, ", parent ", s.parent,
                    "} is empty, lies outside the pack or names a later parent");
    }
    return segments;
}

// cuDNN builds a program, in some 40 ms, for each batch and length that it meets. Lengths that are chosen rather than found, whole
// multiples of 64 or one less (the last token of an answer is left out), keep those few. The choice depends on the pack alone, so
// that a resumed run computes what the first one did.
bool is_chosen(int64_t length) { return length >= shortest_run && (length % 64 == 0 || length % 64 == 63); }

std::vector<EvenRun> even_runs(const std::vector<int32_t> &query_ends, const std::vector<int32_t> &key_ends, TokenRange queries,
                               TokenRange keys) {
    std::vector<EvenRun> runs;
    for (size_t i = 0; i + 1 < query_ends.size(); ++i) {
        const int64_t query = query_ends[i + 1] - query_ends[i], key = key_ends[i + 1] - key_ends[i];
        if (query == 0 || key == 0) continue;
        const int64_t query_start = queries.start + query_ends[i], key_start = keys.start + key_ends[i];
        if (!runs.empty()) {
            auto &last = runs.back();
            if (last.query_length == query && last.key_length == key && last.query_start + last.batch * query == query_start &&
                last.key_start + last.batch * key == key_start) {
                ++last.batch;
                continue;
            }
        }
        if (runs.size() == most_runs) return {};
        runs.push_back({1, query_start, query, key_start, key});
    }
    return runs;
}

// Behind the host's back where that goes: who lays out the next micro-batch does not wait for this one.
at::Tensor upload(const at::Tensor &x, at::Device device) {
    return device.is_cuda() ? x.pin_memory().to(device, /*non_blocking=*/true) : x;
}

} // namespace

AttentionPlan::AttentionPlan(const int32_t *raw, int count, bool fixed_backend)
    : segments(read(raw, count)), fixed_backend(fixed_backend) {
    std::vector<int64_t> ends(segments.size());
    for (size_t i = 0; i < segments.size(); ++i) {
        const auto &s = segments[i];
        tokens += s.length;
        has_parents = has_parents || s.parent >= 0;
        ends[i] = s.length + (s.parent >= 0 ? ends[s.parent] : 0);
        longest = std::max(longest, ends[i]);
    }
}

const std::vector<AttentionPass> &AttentionPlan::passes(at::Device device) const {
    const std::lock_guard lock(mutex);
    if (made.empty() || made_for != device) {
        made = make_passes(device);
        made_for = device;
    }
    return made;
}

std::vector<AttentionPass> AttentionPlan::make_passes(at::Device device) const {
    const size_t count = segments.size();
    std::vector<int> depth(count);
    int deepest = 0;
    // Whether tokens follow one another by depth and by parent, so that a pass's queries and keys are each in one piece.
    bool in_order = true;
    for (size_t i = 0; i < count; ++i) {
        const auto &s = segments[i];
        depth[i] = s.parent >= 0 ? depth[s.parent] + 1 : 0;
        deepest = std::max(deepest, depth[i]);
        if (i == 0) in_order = s.start == 0;
        else {
            const auto &before = segments[i - 1];
            in_order = in_order && s.start == before.start + before.length &&
                       (depth[i] > depth[i - 1] || (depth[i] == depth[i - 1] && s.parent >= before.parent));
        }
    }
    struct Draft {
        std::vector<int32_t> query_ends{0}, key_ends{0};
        std::vector<int64_t> query_index, key_index;
        TokenRange queries, keys;
        int64_t longest_query = 0, longest_key = 0;
    };
    std::vector<Draft> drafts(deepest + 1);
    for (int generation = 0; generation <= deepest; ++generation) {
        auto &draft = drafts[generation];
        std::vector<int32_t> ancestor(count);
        for (size_t i = 0; i < count; ++i) {
            ancestor[i] = static_cast<int32_t>(i);
            for (int step = 0; step < generation && ancestor[i] >= 0; ++step) ancestor[i] = segments[ancestor[i]].parent;
        }
        if (in_order) {
            // Every segment that is high enough has its keys in the pass, though nobody may be under it.
            std::vector<int32_t> queries(count, 0);
            draft.queries.start = tokens;
            for (size_t i = 0; i < count; ++i)
                if (ancestor[i] >= 0) {
                    queries[ancestor[i]] += segments[i].length;
                    draft.queries.start = std::min<int64_t>(draft.queries.start, segments[i].start);
                }
            draft.queries.count = tokens - draft.queries.start;
            for (size_t i = 0; i < count && depth[i] <= deepest - generation; ++i) {
                draft.query_ends.push_back(draft.query_ends.back() + queries[i]);
                draft.key_ends.push_back(draft.key_ends.back() + segments[i].length);
            }
            draft.keys.count = draft.key_ends.back();
        } else {
            int32_t last = -1;
            for (size_t i = 0; i < count; ++i) {
                if (ancestor[i] < 0) continue;
                const auto &s = segments[i];
                for (int32_t t = 0; t < s.length; ++t) draft.query_index.push_back(s.start + t);
                if (ancestor[i] == last) {
                    draft.query_ends.back() += s.length;
                    continue;
                }
                last = ancestor[i];
                const auto &keys = segments[last];
                for (int32_t t = 0; t < keys.length; ++t) draft.key_index.push_back(keys.start + t);
                draft.query_ends.push_back(draft.query_ends.back() + s.length);
                draft.key_ends.push_back(draft.key_ends.back() + keys.length);
            }
        }
        for (size_t i = 0; i + 1 < draft.query_ends.size(); ++i) {
            draft.longest_query = std::max<int64_t>(draft.longest_query, draft.query_ends[i + 1] - draft.query_ends[i]);
            draft.longest_key = std::max<int64_t>(draft.longest_key, draft.key_ends[i + 1] - draft.key_ends[i]);
        }
    }
    // All offsets go over in one copy.
    std::vector<int32_t> all;
    for (const auto &draft : drafts) {
        all.insert(all.end(), draft.query_ends.begin(), draft.query_ends.end());
        all.insert(all.end(), draft.key_ends.begin(), draft.key_ends.end());
    }
    const auto offsets = upload(at::tensor(all, at::kInt), device);
    int64_t next = 0;
    auto take = [&](const std::vector<int32_t> &values) {
        const auto size = static_cast<int64_t>(values.size());
        next += size;
        return offsets.narrow(0, next - size, size);
    };
    auto index = [&](const std::vector<int64_t> &values) {
        return values.empty() ? at::Tensor() : upload(at::tensor(values, at::kLong), device);
    };
    const bool is_even = in_order && !fixed_backend &&
                         std::all_of(segments.begin(), segments.end(), [](const auto &s) { return is_chosen(s.length); });
    std::vector<AttentionPass> passes;
    for (size_t generation = 0; generation < drafts.size(); ++generation) {
        const auto &draft = drafts[generation];
        auto query_offsets = take(draft.query_ends), key_offsets = take(draft.key_ends);
        passes.push_back({generation == 0, draft.queries, draft.keys, index(draft.query_index), index(draft.key_index),
                          std::move(query_offsets), std::move(key_offsets), draft.longest_query, draft.longest_key,
                          is_even ? even_runs(draft.query_ends, draft.key_ends, draft.queries, draft.keys)
                                  : std::vector<EvenRun>()});
    }
    return passes;
}

} // namespace ct
