#include "expert-worker/engine.h"

#include <fmt/format.h>

#include <random>

#include "core/base/status.h"

namespace bottega {
namespace {
// An item during which the process was stopped says little about the next, and who asks sees how
// late replies are (docs/decisions/0028). One that has become ten times slower still shows it
// within ten items.
constexpr double kOutlierTimes = 4;
}  // namespace

ExpertEngine::ExpertEngine(ServiceContext& context, Transport& transport, ExpertCompute& compute,
                           ExpertEngineOptions options)
    : context_(context),
      transport_(transport),
      compute_(compute),
      options_(std::move(options)),
      held_(options_.shape.layers, options_.shape.experts),
      arrivals_(context.loop),
      expert_rows_(size_t{options_.shape.layers} * options_.shape.experts) {
  for (Work& work : work_) work.rows.reserve(limits::kMergedRowsMax);
  in_.reserve(limits::kItemRowsMax);
  out_.reserve(limits::kItemRowsMax);
  groups_.reserve(limits::kItemRowsMax);
  Transport::Events events;
  events.on_frame = [this](FrameBuffer frame) { OnFrame(std::move(frame)); };
  events.on_down = [this](EndpointId endpoint, absl::Status) { OnDown(endpoint); };
  transport_.SetEvents(std::move(events));
}

ExpertEngine::~ExpertEngine() { transport_.SetEvents({}); }

absl::StatusOr<EndpointId> ExpertEngine::OpenFirst(const std::vector<std::string>& kinds,
                                                   std::string* opened) {
  absl::Status why = absl::InvalidArgumentError("no kind of transport to open");
  for (const std::string& kind : kinds) {
    absl::StatusOr<EndpointId> endpoint = transport_.Open(kind);
    if (endpoint.ok()) {
      *opened = kind;
      return endpoint;
    }
    why = endpoint.status();
    context_.log.Warning(fmt::format("no endpoint over {}: {}", kind, why.ToString()));
  }
  return why;
}

absl::StatusOr<std::shared_ptr<Pair>> ExpertEngine::AddPair(Incarnation attention,
                                                            const std::string& name,
                                                            const std::vector<std::string>& kinds) {
  if (auto old = pairs_.find(attention); old != pairs_.end()) {
    const std::shared_ptr<Pair> replaced = old->second;
    RemovePair(replaced);  // the same worker pairs again: frames of the old session are strangers'
  }
  auto pair = std::make_shared<Pair>();
  pair->attention = attention;
  pair->name = name;
  pair->credits = options_.credits;
  if (context_.loop.simulated()) {
    pair->session_key = context_.loop.SimRandom();
  } else {
    std::random_device random;
    pair->session_key = uint64_t{random()} << 32 | random();
  }
  ASSIGN_OR_RETURN(pair->endpoint, OpenFirst(kinds, &pair->transport));
  pairs_[attention] = pair;
  return pair;
}

absl::Status ExpertEngine::ConnectPair(const Pair& pair, const std::string& peer_address) {
  return transport_.Connect(pair.endpoint, peer_address);
}

void ExpertEngine::RemovePair(const std::shared_ptr<Pair>& pair) {
  if (std::exchange(pair->gone, true)) return;
  arrivals_.Drop(*pair);
  OfferTrial();
  transport_.Close(pair->endpoint);
  auto it = pairs_.find(pair->attention);
  if (it != pairs_.end() && it->second == pair) pairs_.erase(it);
  if (pair->on_gone) pair->on_gone();
}

void ExpertEngine::OnDown(EndpointId endpoint) {
  for (const auto& [attention, pair] : pairs_) {
    if (pair->endpoint != endpoint) continue;
    const std::shared_ptr<Pair> lost = pair;
    RemovePair(lost);
    return;
  }
}

void ExpertEngine::Retire(LayerId layer, ExpertId expert) {
  held_.Remove(layer, expert);
  retired_.emplace_back(layer, expert);
  arrivals_.slot().Wake();
}

void ExpertEngine::UnloadRetired() {
  for (const auto& [layer, expert] : retired_) {
    if (!held_.Holds(layer, expert)) compute_.Unload(layer, expert);  // else loaded again meanwhile
  }
  retired_.clear();
}

void ExpertEngine::Learn(FramePhase phase, size_t rows, Duration took) {
  stats_.busy += took;
  const double row_us =
      std::max(0.1, Microseconds(took) / static_cast<double>(std::max<size_t>(1, rows)));
  for (double* smoothed : {&row_us_, &phase_row_us(phase)}) {
    *smoothed += 0.1 * (std::min(row_us, kOutlierTimes * *smoothed) - *smoothed);
  }
}

PeerCost ExpertEngine::CostFor(const Pair& pair) const {
  return {.base_us = base_us_, .row_us = row_us_, .queued_rows = arrivals_.rows() - pair.rows};
}

}  // namespace bottega
