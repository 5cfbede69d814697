#include "gateway/attention_client.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>

namespace bottega::gateway {
namespace {

using internal::v1::AttentionMessage;
using internal::v1::GatewayMessage;
using internal::v1::Grants;
using internal::v1::StepOutput;
using namespace std::chrono_literals;

constexpr char kMethod[] = "/bottega.internal.v1.Attention/Serve";
constexpr Duration kConnectTimeout = 2s;
constexpr Duration kHelloTimeout = 5s;
constexpr Duration kBackoffLeast = 20ms;
constexpr Duration kBackoffMost = 2s;
constexpr Duration kRest = 20ms;
constexpr Duration kSilenceLook = 50ms;
constexpr Duration kFateMax = 3s;

bool Serves(const Member& member) {
  return member.role == Role::kAttention &&
         (member.state == MemberState::kActive || member.state == MemberState::kSuspect ||
          member.state == MemberState::kDraining);
}

// One sequence less.
void Spend(Grants& grants, uint32_t blocks) {
  grants.set_free_slots(grants.free_slots() - std::min(1u, grants.free_slots()));
  grants.set_free_kv_blocks(grants.free_kv_blocks() - std::min(blocks, grants.free_kv_blocks()));
}

}  // namespace

struct AttentionClients::Worker {
  Worker(Loop& loop, Member m) : member(std::move(m)), changed(loop) {}

  Member member;
  bool wanted = true;              // in the table, with this incarnation
  Slot changed;                    // wakes the backoff
  std::unique_ptr<Stream> stream;  // while connected
  bool greeted = false;            // its hello came
  AnswerIdentity identity;
  WorkerFeatures features;
  uint32_t max_model_len = 0;
  Grants grants;                // the last ones, less what was sent since
  uint64_t submits_seen = 0;    // by the worker, of this stream
  std::deque<uint32_t> unseen;  // KV blocks of each submit that it had not seen then
  uint32_t blocks_most = 0;     // most free blocks ever seen: its pool
  size_t live = 0;
  Time heard{};  // last, or when it was first given something to say
  Time rest_until{};
};

AttentionClients::AttentionClients(const ServiceContext& context, Duration silence_max,
                                   std::function<void()> on_change)
    : context_(context),
      on_change_(std::move(on_change)),
      silence_max_(silence_max),
      alone_since_(context.loop.Now()) {}

AttentionClients::~AttentionClients() = default;

void AttentionClients::UpdateTable(const TableSnapshot& table) {
  if (closed_) return;
  std::map<MemberId, std::shared_ptr<Worker>> next;
  for (const Member& member : table->members) {
    if (!Serves(member)) continue;
    auto known = workers_.find(member.id);
    if (known != workers_.end() && known->second->member.incarnation == member.incarnation &&
        known->second->member.control_address == member.control_address) {
      known->second->member = member;
      next.insert(workers_.extract(known));
      continue;
    }
    auto worker = std::make_shared<Worker>(context_.loop, member);
    next.emplace(member.id, worker);
    context_.loop.Spawn(context_.node, Run(this, worker));
  }
  for (auto& [id, worker] : workers_) {  // those that left
    worker->wanted = false;
    worker->changed.Wake();
    if (worker->stream != nullptr) worker->stream->Close(absl::CancelledError("left the table"));
  }
  workers_ = std::move(next);
  std::vector<Incarnation> gone;
  for (const auto& [key, fate] : fates_) {
    const bool listed =
        std::any_of(table->members.begin(), table->members.end(),
                    [&](const Member& member) { return member.incarnation == fate.incarnation; });
    if (!listed) gone.push_back(fate.incarnation);
  }
  for (Incarnation incarnation : gone) TellFates(incarnation, true);
  on_change_();
}

// One worker for as long as it is in the table: connect, serve, lose, wait, again.
Task<void> AttentionClients::Run(AttentionClients* self, std::shared_ptr<Worker> worker) {
  Loop& loop = self->context_.loop;
  Duration backoff = kBackoffLeast;
  while (worker->wanted) {
    absl::Status ended = co_await Session(self, worker);
    if (worker->greeted) backoff = kBackoffLeast;
    self->Lose(worker, ended);
    if (!worker->wanted) break;
    self->context_.log.Info(fmt::format("attention worker {} ({}): {}", worker->member.name,
                                        worker->member.control_address,
                                        std::string(ended.message())));
    const Time wake = loop.Now() + backoff;
    backoff = std::min(2 * backoff, kBackoffMost);
    while (worker->wanted && loop.Now() < wake) {
      absl::Status woken = co_await worker->changed.Wait(wake);
      if (!woken.ok()) break;
    }
  }
}

// One life of the stream, until it ends with the status returned.
Task<absl::Status> AttentionClients::Session(AttentionClients* self,
                                             std::shared_ptr<Worker> worker) {
  Loop& loop = self->context_.loop;
  const Time connect_by = loop.Now() + kConnectTimeout;
  std::string address = worker->member.control_address;
  std::string method = kMethod;
  absl::StatusOr<std::unique_ptr<ByteStream>> opened =
      co_await self->context_.network.Connect(self->context_.node, address, method, connect_by);
  if (!opened.ok()) co_return opened.status();
  if (!worker->wanted) co_return absl::CancelledError("left the table");
  worker->stream = std::make_unique<Stream>(*std::move(opened));

  GatewayMessage hello;
  hello.mutable_hello()->set_incarnation(self->context_.incarnation.value);
  hello.mutable_hello()->set_name(self->context_.name);
  absl::Status sent = worker->stream->Send(hello);
  if (!sent.ok()) co_return sent;
  Time deadline = loop.Now() + kHelloTimeout;
  while (true) {
    const Time look = std::min(deadline, self->NextLook(*worker));
    absl::StatusOr<AttentionMessage> message = co_await worker->stream->Receive(look);
    if (absl::IsDeadlineExceeded(message.status()) && look < deadline) {
      absl::Status silence = self->Silence(*worker);
      if (!silence.ok()) co_return silence;
      continue;
    }
    if (!message.ok()) co_return message.status();
    worker->heard = loop.Now();
    if (message->has_hello() && !worker->greeted) {
      const internal::v1::AttentionHello& greeting = message->hello();
      if (greeting.incarnation() != worker->member.incarnation.value) {
        self->TellFates(worker->member.incarnation, true);
        co_return absl::UnavailableError("another incarnation answered");
      }
      self->TellFates(worker->member.incarnation, false);
      worker->greeted = true;
      worker->identity = {greeting.model_digest(), greeting.numerics_id()};
      worker->features = {.edits_logits = greeting.edits_logits(),
                          .limits_thinking = greeting.limits_thinking()};
      worker->max_model_len = greeting.max_model_len();
      ++self->connected_;
      self->alone_since_ = kNever;
      deadline = kNever;
      self->TakeGrants(*worker, greeting.grants());
    } else if (message->has_step() && worker->greeted) {
      self->Deliver(*worker, message->step());
    } else if (message->has_trial() && worker->greeted) {
      RequestEvent event{.kind = RequestEvent::Kind::kTrial};
      self->DeliverTo(*worker, message->trial().request_key(), message->trial().owner_epoch(),
                      std::move(event), false);
    } else {
      co_return absl::InvalidArgumentError("unexpected message of an attention worker");
    }
    self->on_change_();
  }
}

void AttentionClients::Deliver(Worker& worker, const StepOutput& step) {
  for (const auto& token : step.tokens()) {
    RequestEvent event{.kind = RequestEvent::Kind::kToken};
    event.token = token;
    const bool last = token.finish() != internal::v1::FINISH_REASON_UNSPECIFIED;
    DeliverTo(worker, token.request_key(), token.owner_epoch(), std::move(event), last);
  }
  for (const auto& ended : step.ended()) {
    RequestEvent event{.kind = RequestEvent::Kind::kEnded};
    event.ended = ended;
    DeliverTo(worker, ended.request_key(), ended.owner_epoch(), std::move(event), true);
  }
  if (step.has_grants()) TakeGrants(worker, step.grants());
}

// Events of unknown keys, of former workers and of old owners are dropped here: a cancel races with
// the end, and a worker that was given up may wake.
void AttentionClients::DeliverTo(const Worker& worker, uint64_t key, uint32_t owner_epoch,
                                 RequestEvent event, bool last) {
  auto found = live_.find(key);
  if (found == live_.end()) return;
  Live& live = found->second;
  if (live.worker.get() != &worker || live.owner_epoch != owner_epoch) return;
  event.sequence = live.sequence;
  event.worker = worker.member.id;
  RequestEvents* events = live.events;
  if (last) {
    --live.worker->live;
    live_.erase(found);
  }
  // A full queue means that its coroutine does not run; the request is given up as lost.
  if (!events->Push(std::move(event))) events->Close(absl::InternalError("events not read"));
}

void AttentionClients::Lose(const std::shared_ptr<Worker>& worker, const absl::Status& why) {
  worker->stream.reset();
  if (!worker->greeted) return;
  worker->greeted = false;
  worker->grants.Clear();
  worker->submits_seen = 0;
  worker->unseen.clear();
  if (--connected_ == 0) alone_since_ = context_.loop.Now();
  std::vector<Live> lost;
  for (auto it = live_.begin(); it != live_.end();) {
    if (it->second.worker == worker) {
      lost.push_back(it->second);
      it = live_.erase(it);
    } else {
      ++it;
    }
  }
  worker->live = 0;
  for (const Live& live : lost) {
    RequestEvent event{.kind = RequestEvent::Kind::kLost};
    event.sequence = live.sequence;
    event.worker = worker->member.id;
    event.status = why;
    event.drained = worker->member.state == MemberState::kDraining;  // also if it left since
    if (!live.events->Push(std::move(event))) {
      live.events->Close(absl::InternalError("events not read"));
    }
  }
  on_change_();
}

void AttentionClients::TakeGrants(Worker& worker, const Grants& grants) {
  worker.grants = grants;
  worker.blocks_most = std::max(worker.blocks_most, grants.free_kv_blocks());
  for (; worker.submits_seen < grants.submits_seen() && !worker.unseen.empty();
       ++worker.submits_seen) {
    worker.unseen.pop_front();
  }
  for (const uint32_t blocks : worker.unseen) Spend(worker.grants, blocks);
}

std::vector<WorkerView> AttentionClients::Workers() const {
  std::vector<WorkerView> views;
  for (const auto& [id, worker] : workers_) {
    if (!worker->greeted) continue;
    views.push_back({.id = id,
                     .identity = worker->identity,
                     .features = worker->features,
                     .free_slots = worker->grants.free_slots(),
                     .free_blocks = worker->grants.free_kv_blocks(),
                     .block_tokens = std::max(1u, worker->grants.kv_block_tokens()),
                     .live = worker->live,
                     .resting = context_.loop.Now() < worker->rest_until,
                     .draining = worker->member.state != MemberState::kActive});
  }
  return views;
}

uint32_t AttentionClients::max_model_len() const {
  uint32_t least = 0;
  for (const auto& [id, worker] : workers_) {
    if (!worker->greeted || worker->max_model_len == 0) continue;
    least = least == 0 ? worker->max_model_len : std::min(least, worker->max_model_len);
  }
  return least;
}

std::optional<AnswerIdentity> AttentionClients::IdentityOf(MemberId worker) const {
  auto found = workers_.find(worker);
  if (found == workers_.end() || !found->second->greeted) return std::nullopt;
  return found->second->identity;
}

double AttentionClients::kv_usage_ratio() const {
  double all = 0, free = 0;
  for (const auto& [id, worker] : workers_) {
    if (!worker->greeted) continue;
    all += worker->blocks_most;
    free += worker->grants.free_kv_blocks();
  }
  return all > 0 ? 1 - free / all : 0;
}

absl::Status AttentionClients::Submit(MemberId id, const internal::v1::Submit& submit,
                                      RequestEvents* events, int sequence) {
  auto found = workers_.find(id);
  if (found == workers_.end() || !found->second->greeted) {
    return absl::UnavailableError("the attention worker left");
  }
  const std::shared_ptr<Worker>& worker = found->second;
  GatewayMessage message;
  *message.mutable_submit() = submit;
  absl::Status sent = worker->stream->Send(message);
  if (!sent.ok()) return sent;
  live_.insert_or_assign(submit.request_key(),
                         Live{worker, submit.owner_epoch(), events, sequence});
  if (worker->live++ == 0) worker->heard = context_.loop.Now();
  const uint32_t block = std::max(1u, worker->grants.kv_block_tokens());
  const uint32_t blocks =
      static_cast<uint32_t>(submit.prompt_ids_size() + submit.resume_tokens_size()) / block + 1;
  worker->unseen.push_back(blocks);
  Spend(worker->grants, blocks);
  return absl::OkStatus();
}

bool AttentionClients::StartTrial(uint64_t request_key) {
  auto found = live_.find(request_key);
  if (found == live_.end() || found->second.worker->stream == nullptr) return false;
  GatewayMessage message;
  message.mutable_start_trial()->set_request_key(request_key);
  return found->second.worker->stream->Send(message).ok();
}

std::optional<Incarnation> AttentionClients::IncarnationOf(MemberId worker) const {
  auto found = workers_.find(worker);
  if (found == workers_.end()) return std::nullopt;
  return found->second->member.incarnation;
}

// Not before a silence that began now, or with the next submit, could count.
Time AttentionClients::NextLook(const Worker& worker) const {
  const Time now = context_.loop.Now();
  const Time heard = worker.live == 0 ? now : worker.heard;
  return std::max(now + kSilenceLook, heard + silence_max_ / 2);
}

absl::Status AttentionClients::Silence(const Worker& worker) const {
  if (worker.live == 0) return absl::OkStatus();
  // The router's suspicion is a second witness.
  const Duration most =
      worker.member.state == MemberState::kSuspect ? silence_max_ / 2 : silence_max_;
  const Duration silent = context_.loop.Now() - worker.heard;
  if (silent < most) return absl::OkStatus();
  return absl::UnavailableError(
      fmt::format("silent for {} ms with requests running",
                  std::chrono::duration_cast<std::chrono::milliseconds>(silent).count()));
}

void AttentionClients::AskFate(MemberId worker, Incarnation incarnation, uint64_t request_key,
                               RequestEvents* events, int sequence) {
  if (fates_.empty()) context_.loop.Spawn(context_.node, ExpireFates());
  fates_[request_key] = {worker, incarnation, events, sequence, context_.loop.Now() + kFateMax};
  auto found = workers_.find(worker);
  const bool listed = found != workers_.end() && found->second->member.incarnation == incarnation;
  if (!listed) return TellFates(incarnation, true);
  if (found->second->greeted) TellFates(incarnation, false);
}

void AttentionClients::TellFates(Incarnation incarnation, bool died) {
  for (auto it = fates_.begin(); it != fates_.end();) {
    const Fate& fate = it->second;
    if (fate.incarnation != incarnation) {
      ++it;
      continue;
    }
    RequestEvent event{.kind = RequestEvent::Kind::kFate};
    event.sequence = fate.sequence;
    event.worker = fate.worker;
    event.died = died;
    if (!fate.events->Push(std::move(event))) {
      fate.events->Close(absl::InternalError("events not read"));
    }
    it = fates_.erase(it);
  }
}

Task<void> AttentionClients::ExpireFates() {
  while (!fates_.empty()) {
    std::vector<Incarnation> unknown;
    Time next = kNever;
    for (const auto& [key, fate] : fates_) {
      if (fate.until <= context_.loop.Now()) unknown.push_back(fate.incarnation);
      next = std::min(next, fate.until);
    }
    for (Incarnation incarnation : unknown) TellFates(incarnation, false);
    if (unknown.empty()) co_await context_.loop.SleepUntil(next);
  }
}

void AttentionClients::Forget(uint64_t request_key, bool cancel) {
  fates_.erase(request_key);
  auto found = live_.find(request_key);
  if (found == live_.end()) return;
  const std::shared_ptr<Worker> worker = found->second.worker;
  live_.erase(found);
  --worker->live;
  if (!cancel || worker->stream == nullptr) return;
  GatewayMessage message;
  message.mutable_cancel()->set_request_key(request_key);
  // A worker that does not even take a cancel has stopped reading; its stream ends by itself.
  absl::Status sent = worker->stream->Send(message);
  if (!sent.ok()) context_.log.Warning("a cancel could not be sent");
}

void AttentionClients::Rest(MemberId worker) {
  auto found = workers_.find(worker);
  if (found == workers_.end()) return;
  found->second->rest_until = context_.loop.Now() + kRest;
}

void AttentionClients::Close() {
  closed_ = true;
  for (auto& [id, worker] : workers_) {
    worker->wanted = false;
    worker->changed.Wake();
    if (worker->stream != nullptr) worker->stream->Close(absl::CancelledError("gateway stops"));
  }
}

std::optional<MemberId> ChooseWorker(const std::vector<WorkerView>& workers,
                                     const WorkerNeed& need) {
  const WorkerView* best = nullptr;
  for (const WorkerView& worker : workers) {
    if (worker.draining || worker.resting) continue;
    if (!worker.Suits(need)) continue;
    const bool room =
        worker.free_slots > 0 && worker.free_blocks >= need.tokens / worker.block_tokens + 1;
    if (!room && worker.live > 0) continue;
    const bool better =
        best == nullptr || worker.live < best->live ||
        (worker.live == best->live && worker.free_blocks > best->free_blocks);  // ids ascend
    if (better) best = &worker;
  }
  if (best == nullptr) return std::nullopt;
  return best->id;
}

}  // namespace bottega::gateway
