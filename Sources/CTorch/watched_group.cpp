// A group whose every operation its rank's watch knows of.
#include "shim.hpp"
#include "watch_facts.hpp"

#include "ctorch_ranks.h"

using namespace ct;

namespace ct {
namespace {

class WatchedPending : public Pending {
    std::shared_ptr<Watch> watch;
    Watch::TicketPointer ticket;
    PendingPointer inner;

  public:
    WatchedPending(std::shared_ptr<Watch> watch, Watch::TicketPointer ticket, PendingPointer inner)
        : watch(std::move(watch)), ticket(std::move(ticket)), inner(std::move(inner)) {}
    ~WatchedPending() override {
        if (!ticket->finished) watch->end(ticket);
    }
    void wait() override {
        explained([&] { inner->wait(); });
        if (!ticket->finished || ticket->finished()) watch->end(ticket);
    }
    bool done() override {
        bool done = false;
        explained([&] { done = inner->done(); });
        if (done) watch->end(ticket);
        return done;
    }

  private:
    void explained(const std::function<void()> &body) {
        try {
            body();
        } catch (const std::exception &error) {
            throw std::runtime_error(watch->explain(*ticket, error.what()));
        }
    }
};

class WatchedGroup : public Group {
    std::shared_ptr<Group> inner;
    std::shared_ptr<Watch> watch;
    std::string name;
    std::vector<int> ranks;
    uint64_t key = 0xcbf29ce484222325ull;
    bool patient;

    template <class Body> PendingPointer run(const char *operation, const Tensors &tensors, Body &&body) {
        // While a graph is captured nothing runs, and events must be left alone.
        if (inner->is_captured()) return body();
        int64_t bytes = 0;
        for (const auto &tensor : tensors) bytes += static_cast<int64_t>(tensor.nbytes());
        auto ticket = watch->begin(name, key, ranks,
                                   format("%s of %zu tensor%s (%.*f MB)", operation, tensors.size(), tensors.size() == 1 ? "" : "s",
                                          bytes < 10'000'000 ? 3 : 0, static_cast<double>(bytes) / 1e6),
                                   patient);
        try {
            auto pending = body();
            watch->follow(ticket, pending->probe());
            return std::make_unique<WatchedPending>(watch, std::move(ticket), std::move(pending));
        } catch (const std::exception &error) {
            const auto message = watch->explain(*ticket, error.what());
            watch->end(ticket);
            throw std::runtime_error(message);
        }
    }

  public:
    WatchedGroup(std::shared_ptr<Group> inner, std::shared_ptr<Watch> watch, std::string name, std::vector<int> ranks, bool patient)
        : Group(inner->rank, inner->size), inner(std::move(inner)), watch(std::move(watch)), name(std::move(name)),
          ranks(std::move(ranks)), patient(patient) {
        for (unsigned char c : this->name) key = (key ^ c) * 0x100000001b3ull;
    }

    PendingPointer all_reduce(Tensors tensors, ct_merge reduction) override {
        return run("all-reduce", tensors, [&] { return inner->all_reduce(tensors, reduction); });
    }
    PendingPointer all_gather(Tensors inputs, Tensors outputs) override {
        return run("all-gather", outputs, [&] { return inner->all_gather(inputs, outputs); });
    }
    PendingPointer reduce_scatter(Tensors inputs, Tensors outputs, ct_merge reduction) override {
        return run("reduce-scatter", inputs, [&] { return inner->reduce_scatter(inputs, outputs, reduction); });
    }
    PendingPointer broadcast(Tensors tensors, int root) override {
        return run("broadcast", tensors, [&] { return inner->broadcast(tensors, root); });
    }
    PendingPointer all_to_all(at::Tensor input, at::Tensor output, std::vector<int64_t> input_rows,
                              std::vector<int64_t> output_rows) override {
        return run("all-to-all", {input}, [&] { return inner->all_to_all(input, output, input_rows, output_rows); });
    }
    PendingPointer exchange(std::vector<Message> sends, std::vector<Message> receives) override {
        Tensors tensors;
        for (const auto &message : sends) tensors.push_back(message.tensor);
        for (const auto &message : receives) tensors.push_back(message.tensor);
        return run("exchange", tensors, [&] { return inner->exchange(sends, receives); });
    }
    PendingPointer start_barrier() override {
        return run("barrier", {}, [&] { return inner->start_barrier(); });
    }
    void abort() override { inner->abort(); }
    std::string problem() override { return inner->problem(); }
    bool is_captured() override { return inner->is_captured(); }
};

} // namespace

std::shared_ptr<Group> watched(std::shared_ptr<Group> group, std::shared_ptr<Watch> watch, std::string name, std::vector<int> ranks,
                               bool patient) {
    watch->add(group);
    return std::make_shared<WatchedGroup>(std::move(group), std::move(watch), std::move(name), std::move(ranks), patient);
}

} // namespace ct

extern "C" {

int ct_group_watch(ct_group group, ct_watch watch, const char *name, const int32_t *ranks, bool patient, ct_message *error) {
    return guarded(error, [&] {
        group->group = watched(group->group, watch->watch, name, std::vector<int>(ranks, ranks + group->group->size), patient);
    });
}

} // extern "C"
