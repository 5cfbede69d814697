#include "core/service/router_session.h"

#include <fmt/format.h>

#include <algorithm>

#include "bottega/internal/v1/membership.pb.h"
#include "core/base/reason.h"
#include "core/base/status.h"
#include "core/service/table_codec.h"

namespace bottega {
namespace {

namespace wire = internal::v1;
constexpr char kSessionMethod[] = "/bottega.internal.v1.Router/Session";
using SessionStream = MessageStream<wire::MemberMessage, wire::RouterMessage>;

constexpr Duration kExpertLoadInterval = std::chrono::seconds(2);
constexpr Duration kDrainLook = std::chrono::milliseconds(100);
constexpr Duration kNewsInterval = std::chrono::milliseconds(10);

// splitmix64 (Steele, Lea, Flood 2014); spreads reconnects, decides nothing else.
uint64_t NextRandom(uint64_t* state) {
  uint64_t z = (*state += 0x9e3779b97f4a7c15ull);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

}  // namespace

std::vector<std::string> RouterAddresses(const std::string& list) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= list.size();) {
    const size_t end = std::min(list.find(',', begin), list.size());
    if (end > begin) parts.push_back(list.substr(begin, end - begin));
    begin = end + 1;
  }
  if (parts.empty()) parts.push_back(list);  // Connect says what is wrong with it
  return parts;
}

struct RouterSession::State : std::enable_shared_from_this<RouterSession::State> {
  State(ServiceContext& context, MemberSelf self, RouterSessionOptions options, Callbacks callbacks)
      : context(context),
        loop(context.loop),
        self(std::move(self)),
        options(std::move(options)),
        addresses(RouterAddresses(this->options.router_address)),
        callbacks(std::move(callbacks)),
        random(context.incarnation.value),
        table_changed(loop),
        left_changed(loop) {}

  ServiceContext& context;
  Loop& loop;
  const MemberSelf self;
  const RouterSessionOptions options;
  const std::vector<std::string> addresses;
  const Callbacks callbacks;
  uint64_t random;

  bool stopped = false;
  std::optional<MemberId> id;
  size_t at = 0;  // in addresses: the one that wrote last, or is asked next
  TableSnapshot table;
  std::vector<ExpertRef> held;
  bool held_changed = false;
  Time next_expert_load{};
  std::optional<uint64_t> last_progress;  // at the last heartbeat
  bool drain_wanted = false, drain_sent = false, left = false;
  std::shared_ptr<SessionStream> stream;  // set while registered
  std::shared_ptr<Slot> news;             // of that stream: something to tell before the next beat
  Slot table_changed, left_changed;       // one waiter each: WaitForTable, Drain

  uint64_t Progress() const { return callbacks.progress ? callbacks.progress() : loop.turns(); }
  wire::MemberMessage RegisterMessage() const;
  // Until the next heartbeat.
  Duration Interval() const;
  absl::Status SendHeartbeat();
  absl::Status Handle(const wire::RouterMessage& message);
  absl::Status TakeTable(const wire::ClusterTable& wire_table);
  Duration NextBackoff(Duration backoff);

  static Task<void> Run(std::shared_ptr<State> state);
  static Task<absl::Status> OneStream(std::shared_ptr<State> state);
  static Task<absl::StatusOr<wire::RouterMessage>> Next(std::shared_ptr<State> state,
                                                        std::shared_ptr<SessionStream> stream);
  static Task<void> Heartbeats(std::shared_ptr<State> state, std::weak_ptr<SessionStream> stream,
                               std::shared_ptr<Slot> news);
  void Tell() {
    if (news != nullptr) news->Wake();
  }
};

wire::MemberMessage RouterSession::State::RegisterMessage() const {
  wire::MemberMessage message;
  wire::Register* reg = message.mutable_register_();
  *reg->mutable_member() = EncodeMember(self.member);
  reg->mutable_member()->set_id(id.value_or(MemberId{0}).value);
  reg->mutable_member()->set_incarnation(context.incarnation.value);
  reg->mutable_member()->set_name(context.name);
  reg->set_model_digest(self.model_digest);
  reg->set_layers(self.layers);
  reg->set_experts(self.experts);
  reg->set_expert_bytes(self.expert_bytes);
  reg->set_capacity_bytes(self.capacity_bytes);
  for (uint32_t layer = 0; layer < self.dense_layers.size(); ++layer) {
    if (self.dense_layers[layer]) reg->add_dense_layers(layer);
  }
  EncodeExperts(held, reg->mutable_held());
  if (table != nullptr) {
    reg->set_acked_term(table->term);
    reg->set_acked_epoch(table->epoch);
  }
  return message;
}

Duration RouterSession::State::Interval() const {
  const bool works = callbacks.load && callbacks.load() >= 1;
  return works ? options.heartbeat_interval : options.idle_interval;
}

absl::Status RouterSession::State::SendHeartbeat() {
  wire::MemberMessage message;
  wire::Heartbeat* heartbeat = message.mutable_heartbeat();
  heartbeat->set_incarnation(context.incarnation.value);
  heartbeat->set_progress(Progress());
  if (table != nullptr) {
    heartbeat->set_acked_term(table->term);
    heartbeat->set_acked_epoch(table->epoch);
  }
  heartbeat->set_next_ms(
      static_cast<uint32_t>(std::chrono::ceil<std::chrono::milliseconds>(Interval()).count()));
  if (callbacks.load) heartbeat->set_load(callbacks.load());
  if (callbacks.endpoints) {
    for (const auto& [kind, up] : callbacks.endpoints())
      (*heartbeat->mutable_endpoints())[kind] = up;
  }
  if (held_changed) {
    heartbeat->set_held_changed(true);
    EncodeExperts(held, heartbeat->mutable_held());
  }
  if (callbacks.expert_load && loop.Now() >= next_expert_load) {
    next_expert_load = loop.Now() + kExpertLoadInterval;
    for (float rows : callbacks.expert_load(held)) heartbeat->add_expert_load(rows);
  }
  if (callbacks.bad_workers) {
    for (const auto& [incarnation, fault] : callbacks.bad_workers()) {
      wire::BadWorker* bad = heartbeat->add_bad_workers();
      bad->set_incarnation(incarnation.value);
      bad->set_fault(fault);
    }
  }
  if (callbacks.self_tests_passed) {
    heartbeat->set_self_tests_passed(callbacks.self_tests_passed());
  }
  absl::Status sent = stream->Send(message);
  if (sent.ok()) held_changed = false;
  return sent;
}

// Each interval, from the loop itself: a wedged loop sends nothing, and neither does one whose
// progress counter stands. News goes out sooner, but never closer than kNewsInterval.
Task<void> RouterSession::State::Heartbeats(std::shared_ptr<State> state,
                                            std::weak_ptr<SessionStream> stream,
                                            std::shared_ptr<Slot> news) {
  bool first = true;
  while (!state->stopped && !stream.expired() && state->stream == stream.lock()) {
    const uint64_t progress = state->Progress();
    if (first || progress != state->last_progress) {
      first = false;
      state->last_progress = progress;
      if (!state->SendHeartbeat().ok()) co_return;
    }
    if (state->drain_wanted && !state->drain_sent) {
      wire::MemberMessage message;
      message.mutable_drain()->set_incarnation(state->context.incarnation.value);
      state->drain_sent = state->stream->Send(message).ok();
    }
    const Time sent = state->loop.Now();
    absl::Status woken = co_await news->Wait(sent + state->Interval());
    if (woken.ok()) {
      const Time soonest = std::max(state->loop.Now(), sent + kNewsInterval);
      co_await state->loop.SleepUntil(soonest);
    }
  }
}

absl::Status RouterSession::State::TakeTable(const wire::ClusterTable& wire_table) {
  absl::StatusOr<ClusterTable> decoded = DecodeTable(wire_table);
  if (!decoded.ok()) return decoded.status();
  // Only forward: a router of an older term, or a table overtaken on the way, changes nothing.
  if (table != nullptr &&
      std::pair(decoded->term, decoded->epoch) <= std::pair(table->term, table->epoch)) {
    return absl::OkStatus();
  }
  table = std::make_shared<const ClusterTable>(*std::move(decoded));
  context.log.SetEpoch(table->epoch);
  if (callbacks.on_table) callbacks.on_table(table);
  Tell();  // somebody's leave may wait for this reader
  table_changed.Wake();
  return absl::OkStatus();
}

absl::Status RouterSession::State::Handle(const wire::RouterMessage& message) {
  switch (message.kind_case()) {
    case wire::RouterMessage::kWelcome:
      if (table != nullptr && message.welcome().term() < table->term) {
        return absl::UnavailableError("a router of an earlier term");
      }
      id = MemberId{message.welcome().member_id()};
      return absl::OkStatus();
    case wire::RouterMessage::kTable:
      return TakeTable(message.table());
    case wire::RouterMessage::kAssignment: {
      absl::StatusOr<std::vector<ExpertRef>> experts =
          DecodeExperts(message.assignment().experts(), self.layers, self.experts);
      if (!experts.ok()) return experts.status();
      if (callbacks.on_assignment) callbacks.on_assignment(*std::move(experts));
      return absl::OkStatus();
    }
    case wire::RouterMessage::kLeave:
      left = true;
      left_changed.Wake();
      return absl::OkStatus();
    case wire::RouterMessage::kQuarantine:
      if (callbacks.on_quarantine) callbacks.on_quarantine();
      return absl::OkStatus();
    case wire::RouterMessage::kPulse:        // it came
    case wire::RouterMessage::KIND_NOT_SET:  // of a newer router
      return absl::OkStatus();
  }
  return absl::OkStatus();
}

// In two waits: this process may have stood still itself, and what came meanwhile is read in the
// second.
Task<absl::StatusOr<wire::RouterMessage>> RouterSession::State::Next(
    std::shared_ptr<State> state, std::shared_ptr<SessionStream> stream) {
  absl::StatusOr<wire::RouterMessage> message = absl::DeadlineExceededError("");
  for (int wait = 0; wait < 2 && absl::IsDeadlineExceeded(message.status()); ++wait) {
    const Time deadline = state->loop.Now() + state->options.silence_max / 2;
    message = co_await stream->Receive(deadline);
  }
  if (absl::IsDeadlineExceeded(message.status())) {
    co_return absl::DeadlineExceededError("it is silent");
  }
  co_return message;
}

// From connect to the end of one stream; says why it ended.
Task<absl::Status> RouterSession::State::OneStream(std::shared_ptr<State> state) {
  const Time deadline = state->loop.Now() + state->options.connect_timeout;
  absl::StatusOr<std::unique_ptr<ByteStream>> bytes = co_await state->context.network.Connect(
      state->context.node, state->addresses[state->at], kSessionMethod, deadline);
  if (!bytes.ok()) co_return bytes.status();
  if (state->stopped) co_return absl::OkStatus();  // from here on its owner may be gone
  auto stream = std::make_shared<SessionStream>(*std::move(bytes));
  CO_RETURN_IF_ERROR(stream->Send(state->RegisterMessage()));
  absl::StatusOr<wire::RouterMessage> welcome = co_await stream->Receive(deadline);
  if (!welcome.ok()) co_return welcome.status();
  if (state->stopped) co_return absl::OkStatus();
  CO_RETURN_IF_ERROR(state->Handle(*welcome));
  if (!welcome->has_welcome()) co_return absl::InternalError("the router did not say welcome");

  state->stream = stream;
  state->held_changed = true;  // what was held while away
  state->drain_sent = false;
  state->news = std::make_shared<Slot>(state->loop);
  state->loop.Spawn(state->context.node, Heartbeats(state, stream, state->news));
  while (!state->stopped) {
    absl::StatusOr<wire::RouterMessage> message = co_await Next(state, stream);
    if (!message.ok()) co_return message.status();
    if (state->stopped) break;
    CO_RETURN_IF_ERROR(state->Handle(*message));
  }
  co_return absl::OkStatus();
}

Duration RouterSession::State::NextBackoff(Duration backoff) {
  // Between half and all of it, so that the members of a cluster do not come back in step.
  const auto half = static_cast<uint64_t>(backoff.count()) / 2;
  return Duration(half + NextRandom(&random) % (half + 1));
}

Task<void> RouterSession::State::Run(std::shared_ptr<State> state) {
  Duration backoff = state->options.backoff_min;
  bool told = false;  // one line per absence
  size_t asked = 0;   // routers in this round
  while (!state->stopped) {
    absl::Status why = co_await OneStream(state);
    const bool was_registered = state->stream != nullptr;
    state->stream.reset();
    if (state->stopped) break;
    const Reason reason = ReasonOf(why);
    // AlreadyExists: a newer incarnation of this name took over.
    if (absl::IsAlreadyExists(why) ||
        (!was_registered && (reason == Reason::kModelRefused || reason == Reason::kInvalidValue))) {
      state->context.log.Error("the router refuses this member: " + std::string(why.message()));
      state->stopped = true;
      if (state->callbacks.on_refused) state->callbacks.on_refused(why);
      break;
    }
    if (was_registered) {
      backoff = state->options.backoff_min;
      told = false;
    }
    // It stays the first to be asked if only its stream broke.
    if (!was_registered || absl::IsDeadlineExceeded(why)) {
      state->at = (state->at + 1) % state->addresses.size();
    }
    asked = was_registered ? 0 : asked + 1;
    if (asked > 0 && asked < state->addresses.size()) continue;
    asked = 0;
    if (!told) {
      state->context.log.Warning(fmt::format("no router at {}: {}; going on with the last table",
                                             state->options.router_address,
                                             std::string(why.message())));
      told = true;
    }
    do {
      co_await state->loop.Sleep(state->NextBackoff(backoff));
      backoff = std::min(backoff * 2, state->options.backoff_max);
      // Buried for standing still: no use coming back before it moves.
    } while (!state->stopped && state->last_progress == state->Progress());
  }
}

RouterSession::RouterSession(ServiceContext& context, MemberSelf self, RouterSessionOptions options,
                             Callbacks callbacks)
    : state_(std::make_shared<State>(context, std::move(self), std::move(options),
                                     std::move(callbacks))) {}

RouterSession::~RouterSession() { state_->stopped = true; }

void RouterSession::Start() { state_->loop.Spawn(state_->context.node, State::Run(state_)); }

void RouterSession::Stop() {
  state_->stopped = true;
  if (state_->stream != nullptr) state_->stream->Close(absl::OkStatus());
}

void RouterSession::SetHeld(std::vector<ExpertRef> held) {
  std::sort(held.begin(), held.end());
  if (held == state_->held) return;
  state_->held = std::move(held);
  state_->held_changed = true;
  state_->Tell();
}

void RouterSession::Tell() { state_->Tell(); }

Task<absl::Status> RouterSession::Drain(Time deadline) {
  std::shared_ptr<State> state = state_;
  state->drain_wanted = true;
  state->Tell();
  Time alone_until = kNever;
  while (!state->left) {
    const Time now = state->loop.Now();
    const bool alone = state->stream == nullptr;
    alone_until = alone ? std::min(alone_until, now + state->options.drain_alone) : kNever;
    const Time end = std::min(deadline, alone_until);
    if (now >= end) {
      co_return absl::UnavailableError("the router did not let this member go in time");
    }
    const Time look = std::min(end, now + kDrainLook);
    (void)co_await state->left_changed.Wait(look);
  }
  co_return absl::OkStatus();
}

Task<absl::Status> RouterSession::WaitForTable(Time deadline) {
  std::shared_ptr<State> state = state_;
  while (state->table == nullptr) {
    absl::Status woken = co_await state->table_changed.Wait(deadline);
    if (!woken.ok() && state->table == nullptr) co_return woken;
  }
  co_return absl::OkStatus();
}

TableSnapshot RouterSession::table() const { return state_->table; }
std::optional<MemberId> RouterSession::id() const { return state_->id; }
bool RouterSession::connected() const { return state_->stream != nullptr; }

}  // namespace bottega
