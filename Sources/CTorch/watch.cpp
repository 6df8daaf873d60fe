// The watch that each rank keeps over the others.
#include "shim.hpp"
#include "watch_facts.hpp"

#include "ctorch_ranks.h"
#include <cinttypes>

using namespace ct;

namespace ct {
namespace {

int64_t look_interval(int64_t deadline_ms) { return std::clamp<int64_t>(deadline_ms / 8, 10, 250); }

// After this process itself stood still, the others get their time anew.
class Stillness {
    const int64_t deadline_ms;
    int64_t last = now_ms(), until = 0;

  public:
    explicit Stillness(int64_t deadline_ms) : deadline_ms(deadline_ms) {}
    // To be asked at every look.
    bool blinds(int64_t now) {
        if (now - last > deadline_ms / 2) until = now + deadline_ms;
        last = now;
        return now < until;
    }
};

} // namespace

// MARK: - Publishing

Watch::Watch(std::shared_ptr<Board> board, int rank, WatchOptions options)
    : options(options), board(std::move(board)), rank(rank) {
    TORCH_CHECK(rank >= 0 && rank < this->board->ranks && options.deadline_ms > 0, "rank ", rank, " of ", this->board->ranks,
                ", deadline ", options.deadline_ms, " ms");
    write([](RankSlot::Text &text) {
        text = {};
        text.step = -1;
        set(text.phase, "start");
        set(text.last, "started");
    });
    own().pid = getpid();
    own().process_start = ProcessFacts::of(getpid()).start;
    own().beat = own().active = now_ms();
    own().state = RankSlot::working;
    looked_at = now_ms();
    thread = std::thread([this] { run(); });
    guardian = std::thread([this] { guard(); });
}

Watch::~Watch() {
    {
        const std::lock_guard lock(mutex);
        stops = true;
    }
    wakes.notify_all();
    thread.join();
    // The guardian outlives them: where a group cannot be ended, it ends the process.
    for (auto &one : aborting) one.join();
    is_over = true;
    guardian.join();
}

void Watch::write(const std::function<void(RankSlot::Text &)> &body) {
    const std::lock_guard lock(mutex);
    auto &slot = own();
    slot.version.fetch_add(1, std::memory_order_acq_rel);
    body(slot.text);
    slot.version.fetch_add(1, std::memory_order_release);
    slot.active.store(now_ms(), std::memory_order_release);
}

RankSlot::Text Board::read(int rank) const {
    auto &slot = this->slot(rank);
    RankSlot::Text text;
    // A rank that was killed while it wrote leaves an odd version for ever: its text is then taken as it is.
    for (int tries = 0; tries < 1000; ++tries) {
        const auto before = slot.version.load(std::memory_order_acquire);
        memcpy(&text, &slot.text, sizeof text);
        std::atomic_thread_fence(std::memory_order_acquire);
        if (before % 2 == 0 && before == slot.version.load(std::memory_order_relaxed)) break;
    }
    text.phase[sizeof text.phase - 1] = text.unit[sizeof text.unit - 1] = text.last[sizeof text.last - 1] =
        text.failure[sizeof text.failure - 1] = 0;
    return text;
}

void Watch::progress(int64_t step, const char *phase, const char *unit) {
    write([&](RankSlot::Text &text) {
        text.step = step;
        set(text.phase, phase);
        set(text.unit, unit);
    });
}

void Watch::tick() { own().active.store(now_ms(), std::memory_order_release); }

void Watch::leave(const char *failure) {
    if (failure) write([&](RankSlot::Text &text) { set(text.failure, failure); });
    own().state = failure ? RankSlot::failed : RankSlot::left;
}

void Watch::add(std::weak_ptr<Group> group) {
    const std::lock_guard lock(mutex);
    std::erase_if(groups, [](const auto &known) { return known.expired(); });
    groups.push_back(std::move(group));
}

Watch::TicketPointer Watch::begin(const std::string &group, uint64_t key, const std::vector<int> &ranks, std::string operation,
                                  bool patient) {
    check();
    auto &slot = own();
    int place = 0;
    const int known = slot.group_count;
    while (place < known && slot.groups[place].key != key) ++place;
    uint64_t number = 0;
    if (place < RankSlot::group_capacity) {
        number = slot.groups[place].begun + 1;
        if (place == known) slot.groups[place].key = key;
        slot.groups[place].begun = number;
        if (place == known) slot.group_count = known + 1;
    }
    auto ticket = std::make_shared<Ticket>(Ticket{std::move(operation), group, ranks, key, number, now_ms()});
    ticket->patient = patient;
    write([&](RankSlot::Text &text) {
        set(text.last, format("began %s, number %" PRIu64 " in group '%s'", ticket->operation.c_str(), number, group.c_str()));
    });
    const std::lock_guard lock(mutex);
    tickets.push_back(ticket);
    return ticket;
}

void Watch::follow(const TicketPointer &ticket, std::function<bool()> finished) {
    const std::lock_guard lock(mutex);
    ticket->finished = std::move(finished);
}

void Watch::end(const TicketPointer &ticket) {
    {
        const std::lock_guard lock(mutex);
        const auto found = std::find(tickets.begin(), tickets.end(), ticket);
        if (found == tickets.end()) return;
        tickets.erase(found);
    }
    write([&](RankSlot::Text &text) {
        set(text.last,
            format("finished %s, number %" PRIu64 " in group '%s'", ticket->operation.c_str(), ticket->number, ticket->group.c_str()));
    });
}

// MARK: - Seeing

std::string Watch::where(const RankSlot::Text &text) const {
    std::string place = text.step < 0 ? "before the first step" : format("at step %" PRId64, text.step);
    if (text.phase[0]) place += format(", phase %s", text.phase);
    if (text.unit[0]) place += format(", %s", text.unit);
    return place;
}

std::string Watch::describe(int rank) const {
    const auto text = read(rank);
    const auto &slot = board->slot(rank);
    if (slot.state == RankSlot::absent) return "it has not started";
    return format("last, %s ago %s: ", seconds(now_ms() - slot.active).c_str(), where(text).c_str()) + text.last;
}

int64_t Watch::idle_ms() {
    const std::lock_guard lock(mutex);
    for (const auto &ticket : tickets)
        if (!ticket->finished_now()) return 0;
    return now_ms() - board->slot(rank).active;
}

// Ranks that are dead or show no life, one a line; where there are none, those that failed and said why.
std::string Watch::lost(int64_t now) const {
    std::string primary, secondary;
    for (int other = 0; other < board->ranks; ++other) {
        if (other == rank) continue;
        const auto &slot = board->slot(other);
        if (slot.state == RankSlot::failed)
            secondary += format("\n  rank %d failed %s: ", other, where(read(other)).c_str()) + read(other).failure;
        if (slot.state != RankSlot::working) continue;
        const auto facts = facts_of(slot);
        const int64_t silent = now - slot.beat;
        if (facts.is_dead() || facts.start != slot.process_start) {
            // It may have said why between the two looks.
            if (slot.state == RankSlot::working)
                primary += format("\n  rank %d (%s) is dead; ", other, process(slot).c_str()) + describe(other);
        } else if (silent > options.deadline_ms) {
            primary += format("\n  rank %d (%s) %s and has shown no life for %s; ", other, process(slot).c_str(),
                              facts.state == 'T' || facts.state == 't' ? "is stopped" : slot.told ? "hangs or its host is lost" : "hangs",
                              seconds(silent).c_str()) +
                       describe(other);
        }
    }
    return primary.empty() ? secondary : primary;
}

std::string Watch::overdue(const Ticket &ticket, int64_t now) {
    int64_t since = ticket.begun;
    std::string missing, names;
    for (int other : ticket.ranks) {
        if (other == rank) continue;
        const auto &slot = board->slot(other);
        uint64_t begun = ticket.number;
        const int known = slot.group_count;
        bool found = known == RankSlot::group_capacity;
        for (int place = 0; place < known && !found; ++place)
            if (slot.groups[place].key == ticket.key) {
                begun = slot.groups[place].begun;
                found = true;
            }
        // A rank that works is not late, however long its share takes; nor does one hang that has arrived just now.
        since = std::max<int64_t>(since, slot.active);
        if (found && begun >= ticket.number) continue;
        const char *state = slot.state == RankSlot::left ? "has ended" : slot.state == RankSlot::absent ? "has not started" : "has not arrived";
        names += (names.empty() ? "" : ", ") + std::to_string(other);
        missing += format("\n  rank %d (%s) %s; ", other, process(slot).c_str(), state) + describe(other);
    }
    if (now - since <= options.deadline_ms) return {};
    std::string message = format("%s, number %" PRIu64 " in group '%s', begun %s ago, is past its deadline of %s", ticket.operation.c_str(),
                                 ticket.number, ticket.group.c_str(), seconds(now - ticket.begun).c_str(),
                                 seconds(options.deadline_ms).c_str());
    return message + (missing.empty() ? ", though every rank has arrived: the connection between them hangs" : missing);
}

std::string Watch::trouble(int64_t now) {
    std::string what = lost(now);
    if (!what.empty()) {
        std::string waiting;
        for (const auto &ticket : tickets)
            if (!ticket->finished_now())
                waiting = format("; this rank waits in %s, number %" PRIu64 " in group '%s'", ticket->operation.c_str(), ticket->number,
                                 ticket->group.c_str());
        return "a rank is lost" + waiting + what;
    }
    for (auto ticket = tickets.begin(); ticket != tickets.end();) {
        if ((*ticket)->finished_now()) {
            ticket = tickets.erase(ticket);
            continue;
        }
        if (!(*ticket)->patient) what = overdue(**ticket, now);
        if (!what.empty()) return what;
        ++ticket;
    }
    for (const auto &weak : groups)
        if (auto group = weak.lock()) {
            what = group->problem();
            if (!what.empty()) return what;
        }
    return {};
}

void Watch::fail(std::string message) {
    // The mark by which the caller knows this kind of error.
    failure = format("[rank] rank %d of %d gives up %s: ", rank, board->ranks, where(read(rank)).c_str()) + message;
    has_failed = true;
    std::vector<std::shared_ptr<Group>> alive;
    for (const auto &group : groups)
        if (auto strong = group.lock()) alive.push_back(std::move(strong));
    // Each on its own: a communicator that is ended frees memory, which waits for the kernels of those that are not ended yet.
    for (auto &group : alive)
        aborting.emplace_back([group = std::move(group)] {
            try {
                group->abort();
            } catch (const std::exception &error) {
                fprintf(stderr, "a group could not be ended: %s\n", error.what());
            }
        });
}

void Watch::run() {
    const int64_t interval = look_interval(options.deadline_ms);
    Stillness stillness(options.deadline_ms);
    std::unique_lock lock(mutex);
    while (!stops) {
        const int64_t now = now_ms();
        const bool is_blind = stillness.blinds(now);
        if (!failure && !is_blind) {
            if (auto what = trouble(now); !what.empty()) {
                fail(std::move(what));
                failed_at = now;
            }
        }
        looked_at = now_ms();
        wakes.wait_for(lock, std::chrono::milliseconds(interval));
    }
    looked_at = 0;
}

void Watch::end_process(const std::string &message) {
    fprintf(stderr, "error: %s\n", message.c_str() + strlen("[rank] "));
    fflush(stderr);
    own().state = RankSlot::failed;
    _exit(options.exit_code);
}

// Ranks that have done nothing for a whole deadline, one a line.
std::string Watch::silent(int64_t now) const {
    std::string names;
    for (int other = 0; other < board->ranks; ++other) {
        const auto &slot = board->slot(other);
        if (other == rank || slot.state != RankSlot::working || now - slot.active <= options.deadline_ms) continue;
        names += format("\n  rank %d (%s) does nothing; ", other, process(slot).c_str()) + describe(other);
    }
    return names;
}

void Watch::guard() {
    const int64_t interval = look_interval(options.deadline_ms);
    Stillness stillness(options.deadline_ms);
    while (!is_over) {
        const int64_t now = now_ms();
        own().beat = now;
        const bool is_blind = stillness.blinds(now);
        if (options.exit_after_ms > 0 && !is_blind) {
            if (failed_at && now - failed_at > options.exit_after_ms) end_process(*failure);
            // The watch asks the device what has ended; in some calls to it a thread waits for kernels that wait for other ranks.
            const int64_t stuck = looked_at ? now - looked_at : 0;
            if (!failed_at && stuck > options.exit_after_ms) {
                auto what = lost(now);
                if (what.empty() && stuck > options.deadline_ms) what = silent(now);
                if (!what.empty())
                    end_process(format("[rank] rank %d of %d gives up %s: a rank is lost; this rank waits for its device", rank, board->ranks,
                                       where(read(rank)).c_str()) +
                                what);
            }
        }
        usleep(static_cast<useconds_t>(interval * 1000));
    }
}

void Watch::check() {
    if (!has_failed) return;
    const std::lock_guard lock(mutex);
    throw std::runtime_error(*failure);
}

std::string Watch::explain(const Ticket &ticket, const std::string &error) {
    // A connection breaks a moment before the other process is seen to be gone.
    const int64_t limit = now_ms() + std::min<int64_t>(2000, options.deadline_ms);
    while (!has_failed && now_ms() < limit) usleep(10'000);
    if (has_failed) {
        const std::lock_guard lock(mutex);
        return *failure;
    }
    std::string message = format("[rank] rank %d of %d %s: ", rank, board->ranks, where(read(rank)).c_str()) +
                          format("%s, number %" PRIu64 " in group '%s', failed: ", ticket.operation.c_str(), ticket.number,
                                 ticket.group.c_str()) +
                          error;
    for (int other : ticket.ranks)
        if (other != rank) message += format("\n  rank %d: ", other) + describe(other);
    return message;
}

} // namespace ct

extern "C" {

int ct_watch_start(ct_board board, int rank, int64_t deadline_ms, int64_t exit_after_ms, int exit_code, ct_watch *out,
                   ct_message *error) {
    return guarded(error, [&] {
        *out = new ct_watch_impl{std::make_shared<Watch>(board->board, rank, WatchOptions{deadline_ms, exit_after_ms, exit_code})};
    });
}
void ct_watch_progress(ct_watch watch, int64_t step, const char *phase, const char *unit) {
    watch->watch->progress(step, phase, unit);
}
void ct_watch_tick(ct_watch watch) { watch->watch->tick(); }
int ct_watch_check(ct_watch watch, ct_message *error) {
    return guarded(error, [&] { watch->watch->check(); });
}
void ct_watch_leave(ct_watch watch, const char *failure) { watch->watch->leave(failure); }
int ct_watch_describe(ct_watch watch, int rank, ct_message *out, ct_message *error) {
    return guarded(error, [&] { *out = copy(watch->watch->describe(rank)); });
}
int64_t ct_watch_idle_ms(ct_watch watch) { return watch->watch->idle_ms(); }
void ct_watch_free(ct_watch watch) { delete watch; }

} // extern "C"
