#pragma once
// A set of ranks that call the same operations in the same order: Gloo's on CPUs, NCCL's on CUDA devices.
#include <ATen/ATen.h>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ctorch_collectives.h"

namespace ct {

// An operation under way, holding on to its tensors.
class Pending {
  public:
    virtual ~Pending() = default;
    // Host memory: until the results are there. CUDA: makes the current stream wait for them, and returns at once.
    virtual void wait() = 0;
    // Whether the results are there, without waiting; throws what went wrong.
    virtual bool done() = 0;
    // Tells, from any thread and as long as it is kept, whether the operation has ended, well or not; empty where only `wait` tells.
    virtual std::function<bool()> probe() { return {}; }
};
using PendingPointer = std::unique_ptr<Pending>;

class Group {
  public:
    using Tensors = std::vector<at::Tensor>;
    struct Message {
        at::Tensor tensor;
        int peer;
    };
    const int rank, size;

    Group(int rank, int size) : rank(rank), size(size) {}
    virtual ~Group() = default;
    Group(const Group &) = delete;

    // All tensors are contiguous and lie on the group's device.
    virtual PendingPointer all_reduce(Tensors tensors, ct_merge reduction) = 0;
    // outputs[i] is as many times inputs[i] as there are ranks, one after the other.
    virtual PendingPointer all_gather(Tensors inputs, Tensors outputs) = 0;
    // inputs[i] is as many times outputs[i] as there are ranks.
    virtual PendingPointer reduce_scatter(Tensors inputs, Tensors outputs, ct_merge reduction) = 0;
    virtual PendingPointer broadcast(Tensors tensors, int root) = 0;
    // Rows (of dimension 0) for and from each rank.
    virtual PendingPointer all_to_all(at::Tensor input, at::Tensor output, std::vector<int64_t> input_rows,
                                      std::vector<int64_t> output_rows) = 0;
    // Sends and receives that run together; between two ranks, in the order of the lists.
    virtual PendingPointer exchange(std::vector<Message> sends, std::vector<Message> receives) = 0;
    // Its host waits until every rank has come here.
    virtual PendingPointer start_barrier() = 0;
    // Ends what is under way with an error, from any thread; the group is good for nothing after.
    virtual void abort() = 0;
    // An error that no call has reported yet; empty for none.
    virtual std::string problem() { return {}; }
    // Whether operations are recorded now, into a graph, rather than run.
    virtual bool is_captured() { return false; }
};

} // namespace ct

struct ct_group_impl {
    std::shared_ptr<ct::Group> group;
};
