#include "gateway/admission.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "core/base/reason.h"

namespace bottega::gateway {
namespace {

// How often a waiting queue is looked at even if nothing changed: ages and resting workers.
constexpr Duration kLook = std::chrono::milliseconds(20);

absl::Status NoWorker() {
  return MakeError(Reason::kNoWorker, "no attention worker is connected; try again later");
}

bool AnySuits(const std::vector<WorkerView>& workers, const WorkerNeed& need) {
  return std::ranges::any_of(workers, [&need](const WorkerView& view) { return view.Suits(need); });
}

}  // namespace

Admission::Admission(const ServiceContext& context, const GatewayConfig& config,
                     AttentionClients& workers)
    : context_(context),
      config_(config),
      workers_(workers),
      changed_(context.loop),
      drain_rate_(context.loop.Now()) {}

void Admission::Joined() {
  drain_rate_.Observe(context_.loop.Now(), waiting_);
  ++waiting_;
}

void Admission::Left() {
  drain_rate_.Observe(context_.loop.Now(), waiting_);
  drain_rate_.CountLeft();
  --waiting_;
}

absl::Status Admission::QueueFull(std::string_view why) const {
  return WithRetryAfter(MakeError(Reason::kQueueFull, why), drain_rate_.TimeToDrain(waiting_));
}

absl::StatusOr<Admission::Entry> Admission::Enter() {
  if (!workers_.any_connected() &&
      context_.loop.Now() - workers_.alone_since() >= config_.no_worker_wait) {
    return NoWorker();
  }
  if (waiting_ >= config_.queued_requests_max) {
    drain_rate_.Observe(context_.loop.Now(), waiting_);
    return QueueFull(fmt::format("{} requests are waiting already", config_.queued_requests_max));
  }
  return Entry(this);
}

Admission::Place Admission::Ask(Wish wish, bool at_head) {
  Place place;
  place.admission_ = this;
  place.id_ = next_id_++;
  const auto goes_before = [&](const Queued& other) {
    if (at_head || other.at_head) return at_head;
    return wish.priority < other.wish.priority;
  };
  const auto next = std::ranges::find_if(queue_, goes_before);
  queue_.insert(next, Queued{place.id_, at_head, std::move(wish)});
  Wake();
  return place;
}

void Admission::Place::Leave() {
  if (admission_ == nullptr) return;
  std::erase_if(std::exchange(admission_, nullptr)->queue_,
                [this](const Queued& queued) { return queued.id == id_; });
}

Task<void> Admission::Run() {
  Time look = kNever;
  while (true) {
    // Workers' messages may come faster than the looks: those are due all the same.
    if (queue_.empty()) {
      look = kNever;
    } else if (look == kNever) {
      look = context_.loop.Now() + kLook;
    }
    (void)co_await changed_.Wait(look);
    if (context_.loop.Now() >= look) {
      RefuseOld();
      look = kNever;
    }
    while (PlaceOne()) {
    }
  }
}

// Strictly from the head, so that a long prompt is not passed for ever by short ones. A sequence
// that suits no worker now, for the bytes it is pinned to, say, does not hold up the others.
bool Admission::PlaceOne() {
  const std::vector<WorkerView> workers = workers_.Workers();
  for (auto queued = queue_.begin(); queued != queue_.end(); ++queued) {
    const Wish& wish = queued->wish;
    const std::optional<MemberId> worker = ChooseWorker(workers, wish.need);
    if (worker) {
      const std::function<void(MemberId)> place = std::move(queued->wish.place);
      queue_.erase(queued);
      place(*worker);
      return true;
    }
    if (AnySuits(workers, wish.need)) return false;
  }
  return false;
}

void Admission::RefuseOld() {
  const Time now = context_.loop.Now();
  const std::vector<WorkerView> workers = workers_.Workers();
  std::vector<std::pair<std::function<void(absl::Status)>, absl::Status>> refused;
  for (auto queued = queue_.begin(); queued != queue_.end();) {
    const Time since = queued->wish.since;
    absl::Status why;
    const bool aged = now - since >= config_.queue_age_max;
    const bool known = AnySuits(workers, {.features = queued->wish.need.features});
    if (aged && !workers.empty() && !known) {
      why = MakeError(Reason::kNoWorker,
                      "every attention worker that is connected is of a version that does not know "
                      "all fields of this request");
    } else if (aged) {
      why = QueueFull(fmt::format(
          "no room for this request within {} s",
          std::chrono::duration_cast<std::chrono::seconds>(config_.queue_age_max).count()));
    } else if (!workers_.any_connected() &&
               now - std::max(since, workers_.alone_since()) >= config_.no_worker_wait) {
      why = NoWorker();
    }
    if (why.ok()) {
      ++queued;
      continue;
    }
    refused.emplace_back(std::move(queued->wish.refuse), why);
    queued = queue_.erase(queued);
  }
  for (auto& [refuse, why] : refused) refuse(why);
}

}  // namespace bottega::gateway
