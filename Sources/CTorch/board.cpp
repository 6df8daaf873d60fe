// The board on which ranks show what they do.
#include "shim.hpp"
#include "watch_facts.hpp"

#include "ctorch_ranks.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

using namespace ct;

namespace ct {

Board::Board(const std::string &path, int ranks, bool creates) : bytes(sizeof(RankSlot) * ranks), ranks(ranks) {
    static_assert(std::atomic<uint64_t>::is_always_lock_free && std::atomic<int32_t>::is_always_lock_free);
    TORCH_CHECK(ranks > 0, "a board for ", ranks, " ranks");
    int file = -1;
    if (!path.empty()) {
        file = open(path.c_str(), creates ? O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC : O_RDWR | O_CLOEXEC, 0600);
        struct stat facts = {};
        bool fits = file >= 0 && (!creates || ftruncate(file, static_cast<off_t>(bytes)) == 0) && fstat(file, &facts) == 0;
        if (fits && static_cast<size_t>(facts.st_size) != bytes) {
            fits = false;
            errno = EINVAL;
        }
        if (!fits) {
            const std::string reason = strerror(errno);
            if (file >= 0) close(file);
            TORCH_CHECK(false, "the ranks' board ", path, ": ", reason);
        }
    }
    memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | (file < 0 ? MAP_ANONYMOUS : 0), file, 0);
    const std::string reason = strerror(errno);
    if (file >= 0) close(file);
    TORCH_CHECK(memory != MAP_FAILED, "the ranks' board ", path, " cannot be mapped: ", reason);
}
Board::~Board() { munmap(memory, bytes); }

void Board::place(int rank, const std::string &node, bool elsewhere) {
    auto &slot = this->slot(rank);
    set(slot.node, node);
    slot.told = elsewhere ? '?' : 0;
}

bool Board::is_alive(int rank, int64_t within_ms) const {
    const auto &slot = this->slot(rank);
    if (slot.state == RankSlot::absent) return true;
    if (slot.state != RankSlot::working || now_ms() - slot.beat > within_ms) return false;
    const auto facts = facts_of(slot);
    return !facts.is_dead() && facts.start == slot.process_start;
}

void Board::lose(int rank) {
    auto &slot = this->slot(rank);
    if (slot.told) slot.told = 'X';
}

void Board::keep(int rank) {
    auto &slot = this->slot(rank);
    if (slot.told) slot.beat = now_ms();
}

// MARK: - Reports

namespace {

constexpr uint32_t report_mark = 0x46444731;

class ReportWriter {
    std::vector<uint8_t> bytes;

  public:
    template <class Value> void add(Value value) {
        const auto *start = reinterpret_cast<const uint8_t *>(&value);
        bytes.insert(bytes.end(), start, start + sizeof value);
    }
    void text(const char *text) {
        add(static_cast<uint16_t>(strlen(text)));
        bytes.insert(bytes.end(), text, text + strlen(text));
    }
    std::vector<uint8_t> take() { return std::move(bytes); }
};

class ReportReader {
    const uint8_t *at, *const end;

  public:
    ReportReader(const uint8_t *bytes, size_t count) : at(bytes), end(bytes + count) {}
    template <class Value> Value value() {
        Value value;
        TORCH_CHECK(static_cast<size_t>(end - at) >= sizeof value, "a rank's report is cut off");
        memcpy(&value, at, sizeof value);
        at += sizeof value;
        return value;
    }
    template <size_t capacity> void text(char (&field)[capacity]) {
        const size_t length = value<uint16_t>();
        TORCH_CHECK(static_cast<size_t>(end - at) >= length && length < capacity, "a rank's report has a text of ", length, " bytes");
        set(field, std::string(reinterpret_cast<const char *>(at), length));
        at += length;
    }
    void finish() const { TORCH_CHECK(at == end, "a rank's report has bytes too many"); }
};

} // namespace

std::vector<uint8_t> Board::report(int rank) const {
    const auto &slot = this->slot(rank);
    // The process first: one that says why it ends does so before it ends.
    auto facts = facts_of(slot);
    if (facts.start != slot.process_start) facts.state = 'X';
    const int32_t state = slot.state;
    const auto text = read(rank);
    const int64_t now = now_ms();
    ReportWriter out;
    out.add(report_mark);
    out.add(state);
    out.add(static_cast<int32_t>(facts.is_dead() ? 'X' : facts.state));
    out.add(slot.pid.load());
    out.add(slot.process_start.load());
    out.add(now - slot.beat);
    out.add(now - slot.active);
    out.add(text.step);
    for (const char *part : {text.phase, text.unit, text.last, text.failure}) out.text(part);
    const int32_t groups = slot.group_count;
    out.add(groups);
    for (int place = 0; place < groups; ++place) {
        out.add(slot.groups[place].key.load());
        out.add(slot.groups[place].begun.load());
    }
    return out.take();
}

void Board::take(int rank, const uint8_t *bytes, size_t count) {
    auto &slot = this->slot(rank);
    TORCH_CHECK(slot.told, "a report of rank ", rank, ", which is of this host");
    ReportReader in(bytes, count);
    TORCH_CHECK(in.value<uint32_t>() == report_mark, "what came is no rank's report");
    const auto state = in.value<int32_t>();
    const auto letter = in.value<int32_t>();
    TORCH_CHECK(state >= RankSlot::absent && state <= RankSlot::failed && letter > 0 && letter < 128, "a rank's report has state ", state);
    const auto pid = in.value<int32_t>();
    const auto process_start = in.value<uint64_t>();
    const auto beat = in.value<int64_t>(), active = in.value<int64_t>();
    RankSlot::Text text = {};
    text.step = in.value<int64_t>();
    in.text(text.phase);
    in.text(text.unit);
    in.text(text.last);
    in.text(text.failure);
    const auto groups = in.value<int32_t>();
    TORCH_CHECK(groups >= 0 && groups <= RankSlot::group_capacity, "a rank's report has ", groups, " groups");
    std::pair<uint64_t, uint64_t> counts[RankSlot::group_capacity];
    for (int place = 0; place < groups; ++place) {
        counts[place].first = in.value<uint64_t>();
        counts[place].second = in.value<uint64_t>();
    }
    in.finish();

    const int64_t now = now_ms(), most = int64_t{1} << 40;
    slot.version.fetch_add(1, std::memory_order_acq_rel);
    slot.text = text;
    slot.version.fetch_add(1, std::memory_order_release);
    for (int place = 0; place < groups; ++place) {
        slot.groups[place].key = counts[place].first;
        slot.groups[place].begun = counts[place].second;
    }
    slot.group_count = groups;
    slot.pid = pid;
    slot.process_start = process_start;
    slot.beat = now - std::clamp<int64_t>(beat, 0, most);
    slot.active = now - std::clamp<int64_t>(active, 0, most);
    slot.state = state;
    slot.told = letter;
}

} // namespace ct

extern "C" {

int ct_board_create(const char *path, int ranks, ct_board *out, ct_message *error) {
    return guarded(error, [&] { *out = new ct_board_impl{std::make_shared<Board>(path ? path : "", ranks, true)}; });
}
int ct_board_open(const char *path, int ranks, ct_board *out, ct_message *error) {
    return guarded(error, [&] { *out = new ct_board_impl{std::make_shared<Board>(path, ranks, false)}; });
}
void ct_board_free(ct_board board) { delete board; }

static Board &placed(ct_board board, int rank) {
    TORCH_CHECK(rank >= 0 && rank < board->board->ranks, "rank ", rank, " of ", board->board->ranks);
    return *board->board;
}
int ct_board_place(ct_board board, int rank, const char *node, bool elsewhere, ct_message *error) {
    return guarded(error, [&] { placed(board, rank).place(rank, node, elsewhere); });
}
int ct_board_report(ct_board board, int rank, uint8_t *out, size_t capacity, size_t *count, ct_message *error) {
    return guarded(error, [&] {
        const auto bytes = placed(board, rank).report(rank);
        TORCH_CHECK(bytes.size() <= capacity, "a rank's report of ", bytes.size(), " bytes");
        memcpy(out, bytes.data(), bytes.size());
        *count = bytes.size();
    });
}
int ct_board_take(ct_board board, int rank, const uint8_t *bytes, size_t count, ct_message *error) {
    return guarded(error, [&] { placed(board, rank).take(rank, bytes, count); });
}
int ct_board_lose(ct_board board, int rank, ct_message *error) {
    return guarded(error, [&] { placed(board, rank).lose(rank); });
}
int ct_board_keep(ct_board board, int rank, ct_message *error) {
    return guarded(error, [&] { placed(board, rank).keep(rank); });
}
int ct_board_facts(ct_board board, int rank, int64_t within_ms, bool *is_alive, bool *has_ended, ct_message *error) {
    return guarded(error, [&] {
        auto &own = placed(board, rank);
        *is_alive = own.is_alive(rank, within_ms);
        const int state = own.slot(rank).state;
        *has_ended = state == RankSlot::left || state == RankSlot::failed;
    });
}

} // extern "C"
