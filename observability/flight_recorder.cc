#include "observability/flight_recorder.h"

#include <fmt/format.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>

#include "core/base/check.h"

namespace bottega {
namespace {

struct KindRow {
  FlightKind kind;
  const char* name;
  const char* a;  // what a and b are; "": unused
  const char* b;
};
constexpr KindRow kKinds[kFlightKinds] = {
    {FlightKind::kArrived, "arrived", "", ""},
    {FlightKind::kPrepared, "prepared", "prompt_tokens", "choices"},
    {FlightKind::kPlaced, "placed", "choice", "owner_epoch"},
    {FlightKind::kFirstToken, "first_token", "choice", ""},
    {FlightKind::kLost, "lost", "choice", "tokens"},
    {FlightKind::kFinished, "finished", "status", "tokens"},
    {FlightKind::kTaken, "taken", "prompt_tokens", "resumed_tokens"},
    {FlightKind::kStarted, "started", "step", "queue_us"},
    {FlightKind::kPrefilled, "prefilled", "step", "prefill_us"},
    {FlightKind::kEnded, "ended", "step", "tokens"},
    {FlightKind::kCancelled, "cancelled", "step", "tokens"},
    {FlightKind::kResent, "resent", "why", "rows"},
    {FlightKind::kHedged, "hedged", "why", "rows"},
    {FlightKind::kMissing, "missing", "experts", ""},
    {FlightKind::kPeerDown, "peer_down", "why", ""},
    {FlightKind::kQuarantined, "quarantined", "why", ""},
    {FlightKind::kTable, "table", "epoch", "term"},
    {FlightKind::kMember, "member", "change", "role"},
    {FlightKind::kReady, "ready", "", ""},
    {FlightKind::kDraining, "draining", "", ""},
    {FlightKind::kVerified, "verified", "drafted", "accepted"},
    {FlightKind::kInStep, "in_step", "step", "tokens"},
    {FlightKind::kStep, "step", "tokens", "took_us"},
    {FlightKind::kSent, "sent", "sequence", "rows"},
    {FlightKind::kReply, "reply", "rows", "took_us"},
    {FlightKind::kComputed, "computed", "rows", "took_us"},
};

bool OfDataPath(FlightKind kind) { return kind >= FlightKind::kVerified; }

int64_t ClockNs(clockid_t clock) {
  timespec ts;
  clock_gettime(clock, &ts);
  return int64_t{ts.tv_sec} * 1'000'000'000 + ts.tv_nsec;
}

// Monotonic times are comparable within a machine, wall clock times between machines too. Read once
// for all events that are told together: they keep their order.
int64_t UnixMinusMonotonicNs() { return ClockNs(CLOCK_REALTIME) - ClockNs(CLOCK_MONOTONIC); }

// Text for a signal handler: no allocation, no locale, no stdio.
class SafeWriter {
 public:
  explicit SafeWriter(int fd) : fd_(fd) {}
  ~SafeWriter() { Flush(); }
  void Text(const char* text) {
    while (*text != '\0') Put(*text++);
  }
  void Number(uint64_t value, uint64_t base = 10) {
    char digits[20];
    int count = 0;
    do {
      digits[count++] = "0123456789abcdef"[value % base];
      value /= base;
    } while (value != 0);
    while (count > 0) Put(digits[--count]);
  }
  void Field(const char* name, uint64_t value, uint64_t base = 10) {
    if (*name == '\0') return;
    Put(' ');
    Text(name);
    Put('=');
    Number(value, base);
  }

 private:
  void Put(char c) {
    buffer_[size_++] = c;
    if (size_ == sizeof buffer_) Flush();
  }
  void Flush() {
    size_t done = 0;
    while (done < size_) {
      const ssize_t wrote = write(fd_, buffer_ + done, size_ - done);
      if (wrote <= 0) break;
      done += static_cast<size_t>(wrote);
    }
    size_ = 0;
  }

  const int fd_;
  char buffer_[1024];
  size_t size_ = 0;
};

}  // namespace

uint64_t TraceKey(std::string_view request_id) {
  for (std::string_view prefix : {"chatcmpl-", "cmpl-"}) {
    if (request_id.starts_with(prefix)) {
      request_id.remove_prefix(prefix.size());
      break;
    }
  }
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  for (const char c : request_id) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  return hash;
}

FlightQuery ParseFlightQuery(std::string_view query) {
  FlightQuery parsed;
  while (!query.empty()) {
    const std::string_view part = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(query.size(), part.size() + 1));
    const auto value_of = [&](std::string_view name, int base) -> std::optional<uint64_t> {
      if (!part.starts_with(name)) return std::nullopt;
      uint64_t value = 0;
      const char* const end = part.data() + part.size();
      const auto [stop, error] = std::from_chars(part.data() + name.size(), end, value, base);
      return error == std::errc() && stop == end ? std::optional(value) : std::nullopt;
    };
    if (const auto request = value_of("request=", 16)) parsed.request = *request;
    if (const auto last = value_of("last=", 10)) parsed.last = *last;
  }
  return parsed;
}

FlightRecorder::FlightRecorder(size_t requests, size_t steps) : requests_(requests), steps_(steps) {
  CHECK((requests & (requests - 1)) == 0 && (steps & (steps - 1)) == 0);
}

void FlightRecorder::Record(const FlightNote& note) {
  (OfDataPath(note.kind) ? steps_ : requests_).Write(ClockNs(CLOCK_MONOTONIC), note);
}

FlightRecorder::Ring::Ring(size_t capacity)
    : mask(capacity - 1), slots(static_cast<Slot*>(std::calloc(capacity, sizeof(Slot)))) {
  CHECK(slots != nullptr);
}

// Release order keeps the odd version before the words, and the words before the even one.
void FlightRecorder::Ring::Write(int64_t ns, const FlightNote& note) {
  const uint64_t at = next.fetch_add(1, std::memory_order_relaxed);
  Slot& slot = slots[at & mask];
  std::atomic_ref version(slot.version);
  version.store(2 * at + 1, std::memory_order_relaxed);
  const uint64_t words[] = {
      static_cast<uint64_t>(ns), note.key, note.a, note.b,
      uint64_t{note.peer} << 32 | uint64_t{note.layer} << 8 | static_cast<uint64_t>(note.kind)};
  for (size_t i = 0; i < std::size(words); ++i) {
    std::atomic_ref(slot.words[i]).store(words[i], std::memory_order_release);
  }
  version.store(2 * at + 2, std::memory_order_release);
}

bool FlightRecorder::Ring::Read(uint64_t at, FlightEvent* event) const {
  Slot& slot = slots[at & mask];
  const std::atomic_ref version(slot.version);
  if (version.load(std::memory_order_acquire) != 2 * at + 2) return false;
  uint64_t words[5];
  for (size_t i = 0; i < std::size(words); ++i) {
    words[i] = std::atomic_ref(slot.words[i]).load(std::memory_order_acquire);
  }
  if (version.load(std::memory_order_relaxed) != 2 * at + 2) return false;
  if ((words[4] & 0xff) >= kFlightKinds) return false;
  *event = {.monotonic_ns = static_cast<int64_t>(words[0]),
            .note = {.kind = static_cast<FlightKind>(words[4] & 0xff),
                     .key = words[1],
                     .peer = static_cast<uint32_t>(words[4] >> 32),
                     .layer = static_cast<uint16_t>(words[4] >> 8),
                     .a = words[2],
                     .b = words[3]}};
  return true;
}

uint64_t FlightRecorder::Ring::first() const {
  const uint64_t end = next.load(std::memory_order_acquire);
  return end > mask + 1 ? end - (mask + 1) : 0;
}

std::vector<FlightEvent> FlightRecorder::Read(const FlightQuery& query) const {
  std::vector<FlightEvent> events;
  for (const Ring* ring : {&requests_, &steps_}) {
    const uint64_t end = ring->next.load(std::memory_order_acquire);
    for (uint64_t at = ring->first(); at < end; ++at) {
      FlightEvent event;
      if (ring->Read(at, &event)) events.push_back(event);
    }
  }
  std::ranges::stable_sort(events, {}, &FlightEvent::monotonic_ns);
  if (query.request) {
    std::set<uint64_t> steps;
    for (const FlightEvent& event : events) {
      if (event.note.kind == FlightKind::kInStep && event.note.key == *query.request) {
        steps.insert(event.note.a);
      }
    }
    std::erase_if(events, [&](const FlightEvent& event) {
      const FlightKind kind = event.note.kind;
      const bool of_step = kind == FlightKind::kResent || kind == FlightKind::kHedged ||
                           kind == FlightKind::kMissing || kind > FlightKind::kInStep;
      return of_step ? !steps.contains(event.note.key) : event.note.key != *query.request;
    });
  }
  // A request's own events are few and tell its whole way: its frames and steps go first.
  size_t over = events.size() > query.last ? events.size() - query.last : 0;
  std::erase_if(events, [&](const FlightEvent& event) {
    return over > 0 && (!query.request || OfDataPath(event.note.kind)) && over-- > 0;
  });
  return events;
}

std::string FlightRecorder::Json(std::string_view process, const FlightQuery& query) const {
  std::string name(process);  // a member's name: nothing of it may end the JSON string
  for (char& c : name) {
    if (c == '"' || c == '\\' || static_cast<unsigned char>(c) < 0x20) c = '_';
  }
  std::string json = fmt::format(R"({{"process":"{}","events":[)", name);
  const int64_t unix_ns = UnixMinusMonotonicNs();
  const char* comma = "";
  for (const FlightEvent& event : Read(query)) {
    const FlightNote& note = event.note;
    const KindRow& row = kKinds[static_cast<int>(note.kind)];
    fmt::format_to(std::back_inserter(json),
                   R"({}{{"us":{},"event":"{}","key":"{:016x}","peer":{},"layer":{})", comma,
                   (event.monotonic_ns + unix_ns) / 1000, row.name, note.key, note.peer,
                   note.layer);
    for (const auto& [name, value] : {std::pair{row.a, note.a}, std::pair{row.b, note.b}}) {
      if (*name != '\0') fmt::format_to(std::back_inserter(json), R"(,"{}":{})", name, value);
    }
    json += '}';
    comma = ",\n";
  }
  return json + "]}\n";
}

void FlightRecorder::Dump(int fd, size_t most) const {
  SafeWriter out(fd);
  const int64_t unix_ns = UnixMinusMonotonicNs();
  for (const Ring* ring : {&requests_, &steps_}) {
    out.Text(ring == &requests_ ? "== requests and members\n" : "== data path\n");
    const uint64_t end = ring->next.load(std::memory_order_acquire);
    const uint64_t first = std::max(ring->first(), end - std::min<uint64_t>(end, most));
    for (uint64_t at = first; at < end; ++at) {
      FlightEvent event;
      if (!ring->Read(at, &event)) continue;
      const KindRow& row = kKinds[static_cast<int>(event.note.kind)];
      out.Number(static_cast<uint64_t>((event.monotonic_ns + unix_ns) / 1000));
      out.Text(" ");
      out.Text(row.name);
      out.Field("key", event.note.key, 16);
      out.Field("peer", event.note.peer);
      out.Field("layer", event.note.layer);
      out.Field(row.a, event.note.a);
      out.Field(row.b, event.note.b);
      out.Text("\n");
    }
  }
}

}  // namespace bottega
