#include "tests/fabric/cluster_history.h"

#include <fmt/format.h>

#include <algorithm>

namespace bottega::fabric {

using namespace std::chrono_literals;

namespace {

constexpr NodeId kHistoryNode{3};
constexpr uint32_t kAttentionWorkers = 2, kExpertWorkers = 4;
constexpr uint32_t kRequests = 20;
constexpr Duration kAskedWithin = 6s;
// A dispatch that lost an attempt is done with it, and everybody has found who is left.
constexpr Duration kRecovery = 400ms;
// A lost attention worker is known to the gateway and the router.
constexpr Duration kDeathSeen = 1500ms;
// After the faults end: queues of at most 10 s (expert_wait) and the answers themselves.
constexpr Duration kAnsweredWithin = 30s;
constexpr Duration kAtRestWithin = 20s;

ClusterOptions OptionsOf(uint64_t seed) {
  ClusterOptions options;
  options.seed = seed;
  options.attention_workers = kAttentionWorkers;
  options.expert_workers = kExpertWorkers;
  options.replication = 2;
  // Every third history has a pool in which a few sequences do not fit at once.
  if (seed % 3 == 0) options.kv_bytes = 200'000;
  return options;
}

}  // namespace

void ClusterHistory::Totals::Add(const Totals& other) {
  answers += other.answers;
  expert_deaths += other.expert_deaths;
  attention_deaths += other.attention_deaths;
  router_deaths += other.router_deaths;
  pauses += other.pauses;
  attention_pauses += other.attention_pauses;
  wrong_answers += other.wrong_answers;
  cuts += other.cuts;
  broken_streams += other.broken_streams;
  broken_endpoints += other.broken_endpoints;
  cached_tokens += other.cached_tokens;
  frames_lost += other.frames_lost;
  frames_copied += other.frames_copied;
  frames_changed += other.frames_changed;
  longest_calm = std::max(longest_calm, other.longest_calm);
}

ClusterHistory::ClusterHistory(uint64_t seed) : world_(OptionsOf(seed)) {
  // Each history has its own mixture, and a network of its own speed.
  const auto level = [&](double most) { return Chance(0.4) ? 0 : most * Below(1000) / 1000; };
  drop_ = level(0.02);
  copy_ = level(0.1);
  corrupt_ = level(0.02);
  slow_ = level(0.05);
  frame_delay_ = Between(50us, 2ms);
  world_.SetFrameFaults(
      [this](FrameFate* fate, absl::Span<const std::byte> frame) { SetFate(fate, frame); });
}

ClusterHistory::~ClusterHistory() { world_.loop().Kill(kHistoryNode); }

void ClusterHistory::SetFate(FrameFate* fate, absl::Span<const std::byte> frame) {
  fate->delay = Between(10us, frame_delay_);
  if (!faults_) return;
  fate->by_address = Chance(0.5);
  if (Chance(copy_)) {
    fate->copies = 2;
    ++totals.frames_copied;
  }
  if (std::exchange(break_endpoint_, false)) {
    fate->take_down = true;
    return;
  }
  if (UncheckedHeader(frame).attempt >= 2) return;
  if (Chance(slow_)) fate->delay = Between(1ms, 120ms);
  if (Chance(drop_)) {
    fate->drop = true;
    ++totals.frames_lost;
  }
  if (Chance(corrupt_)) {
    fate->corrupt = static_cast<int64_t>(Below(static_cast<uint32_t>(frame.size())));
    ++totals.frames_changed;
  }
}

Task<void> ClusterHistory::Client() {
  for (uint32_t i = 0; i < kRequests; ++i) {
    co_await world_.loop().Sleep(Between(0us, 2 * kAskedWithin / kRequests));
    Asked asked;
    asked.request = &KnownRequests()[Below(static_cast<uint32_t>(KnownRequests().size()))];
    asked.at = world_.loop().Now();
    asked.losses = hazards_;
    asked.answer = world_.Ask(asked.request->api, asked.request->body);
    asked_.push_back(std::move(asked));
  }
  asking_ = false;
}

Task<void> ClusterHistory::Chaos() {
  while (faults_) {
    const Duration pause = Between(1ms, 100ms);
    co_await world_.loop().Sleep(pause);
    if (!faults_) break;
    const Duration recovery = Blow();
    co_await world_.loop().Sleep(recovery);
  }
}

// One blow; how long nothing else may happen.
Duration ClusterHistory::Blow() {
  if (wrong_ && world_.ExpertsWhole()) wrong_ = false;
  switch (Below(12)) {
    case 0:
    case 1:
      return KillExpert();
    case 2:
      return CrashExpert();
    case 3:
      return KillAttention();
    case 4:
      return CrashAttention();
    case 5:
      return PauseAttention();
    case 6:
      return KillRouter();
    case 7:
      return BreakStream();
    case 8:
      return Cut();
    case 9:
      return AnswerWrongly();
    case 10: {
      if (wrong_) return 0ms;
      const Duration time = Between(1ms, 800ms);
      world_.PauseExpert(Below(kExpertWorkers), time);
      ++totals.pauses;
      return time + kRecovery;
    }
    default:
      break_endpoint_ = true;
      ++totals.broken_endpoints;
      return kRecovery;
  }
}

// A supervisor that is at once there, before frames for the dead have arrived; or one that is not.
Duration ClusterHistory::Absence() {
  return Chance(0.4) ? Between(0ms, 20ms) : Between(10ms, 2000ms);
}

Duration ClusterHistory::KillExpert() {
  const uint32_t index = Below(kExpertWorkers);
  if (wrong_ || !world_.expert_node(index) || !world_.CanDoWithout(index)) return 0ms;
  ++totals.expert_deaths;
  world_.KillExpert(index);
  world_.loop().Spawn(kHistoryNode, RestartExpert(index, Absence()));
  return kRecovery;
}

Duration ClusterHistory::KillAttention() {
  const uint32_t index = Below(kAttentionWorkers);
  if (!world_.attention_node(index) || !MayLoseAttention(kDeathSeen)) return 0ms;
  ++totals.attention_deaths;
  world_.KillAttention(index);
  world_.loop().Spawn(kHistoryNode, RestartAttention(index, Absence()));
  return kRecovery;
}

// At a place in the code instead of a moment: between two steps of the data path.
Duration ClusterHistory::CrashExpert() {
  const uint32_t index = Below(kExpertWorkers);
  if (wrong_ || !world_.expert_node(index) || !world_.CanDoWithout(index)) return 0ms;
  const std::string point = Chance(0.5) ? "ew.before_reply" : "ew.mid_recv";
  CHECK(world_.expert_faults(index).Arm(point + "=crash@1").ok());
  const Duration time = Between(1ms, 50ms);
  world_.loop().Spawn(kHistoryNode, DisarmLater(Role::kExpert, index, point, time));
  return time + kRecovery;
}

Duration ClusterHistory::CrashAttention() {
  const uint32_t index = Below(kAttentionWorkers);
  if (!world_.attention_node(index) || !MayLoseAttention(kDeathSeen)) return 0ms;
  const std::string point = "aw.before_emit";
  CHECK(world_.attention_faults(index).Arm(point + "=crash@1").ok());
  const Duration time = Between(1ms, 50ms);
  world_.loop().Spawn(kHistoryNode, DisarmLater(Role::kAttention, index, point, time));
  return time + kRecovery;
}

Task<void> ClusterHistory::DisarmLater(Role role, uint32_t index, std::string point,
                                       Duration after) {
  co_await world_.loop().Sleep(after);
  if (role == Role::kExpert && world_.expert_node(index)) {
    world_.expert_faults(index).Disarm(point);
  }
  if (role == Role::kAttention && world_.attention_node(index)) {
    world_.attention_faults(index).Disarm(point);
  }
}

// It is stopped, its requests go on elsewhere, and it wakes up.
Duration ClusterHistory::PauseAttention() {
  const uint32_t index = Below(kAttentionWorkers);
  const Duration time = Between(10ms, 3000ms);
  if (!world_.attention_node(index) || !MayLoseAttention(time + kDeathSeen)) return 0ms;
  ++totals.attention_pauses;
  world_.PauseAttention(index, time);
  return time + kRecovery;
}

// Rows that are not finite, or frames that answer nothing, for a while.
Duration ClusterHistory::AnswerWrongly() {
  const uint32_t index = Below(kExpertWorkers);
  if (wrong_ || !world_.ExpertsWhole() || !world_.CanDoWithout(index)) return 0ms;
  const bool header = Chance(0.5);
  const std::string point = header ? "ew.header" : "ew.compute";
  const std::string plan =
      fmt::format("{}={}@p0.5/{}", point, header ? "corrupt" : "corrupt:ones", world_.Below(1000));
  CHECK(world_.expert_faults(index).Arm(plan).ok());
  ++totals.wrong_answers;
  wrong_ = true;
  const Duration time = Between(10ms, 400ms);
  world_.loop().Spawn(kHistoryNode, DisarmLater(Role::kExpert, index, point, time));
  return time + kRecovery;
}

Duration ClusterHistory::KillRouter() {
  if (!world_.router_node()) return 0ms;
  ++totals.router_deaths;
  world_.KillRouter();
  world_.loop().Spawn(kHistoryNode, RestartRouter(Absence()));
  return 0ms;
}

Task<void> ClusterHistory::RestartRouter(Duration after) {
  co_await world_.loop().Sleep(after);
  if (!world_.router_node()) world_.StartRouter();
}
Task<void> ClusterHistory::RestartAttention(uint32_t index, Duration after) {
  co_await world_.loop().Sleep(after);
  if (!world_.attention_node(index)) world_.StartAttention(index);
}
Task<void> ClusterHistory::RestartExpert(uint32_t index, Duration after) {
  co_await world_.loop().Sleep(after);
  if (!world_.expert_node(index)) world_.StartExpert(index);
}

bool ClusterHistory::MayLoseAttention(Duration time) {
  // The other one serves: the gateway is connected to both.
  if (world_.gateway().workers().Workers().size() < kAttentionWorkers) return false;
  // A request that was lost with one worker and dies with the next at once would be taken for the
  // cause: rightly.
  for (uint32_t i = 0; i < kAttentionWorkers; ++i) {
    if (!world_.attention_node(i)) return false;
    for (const auto& [order, sequence] : world_.attention(i).engine().scheduler().sequences()) {
      if (sequence->trial != Trial::kNone) return false;
    }
  }
  const auto live = [](const Asked& asked) { return !asked.answer->done(); };
  for (const Asked& asked : asked_) {
    if (live(asked) && asked.losses >= limits::kMigrationsMax) return false;
  }
  if (hazards_ == limits::kMigrationsMax) return false;
  for (Asked& asked : asked_) asked.losses += live(asked);
  ++hazards_;
  world_.loop().Spawn(kHistoryNode, EndHazard(time));
  return true;
}

Task<void> ClusterHistory::EndHazard(Duration after) {
  co_await world_.loop().Sleep(after);
  --hazards_;
}

// Of a pair, of a gateway and its worker, or of a member and the router.
Duration ClusterHistory::BreakStream() {
  const std::optional<NodeId> attention = world_.attention_node(Below(kAttentionWorkers));
  const std::optional<NodeId> expert = world_.expert_node(Below(kExpertWorkers));
  const std::optional<NodeId> router = world_.router_node();
  const uint32_t which = Below(4);
  if (which == 0 && attention && MayLoseAttention(kDeathSeen)) {
    world_.BreakStream(world_.gateway_node(), *attention);
  } else if (which == 1 && attention && expert) {
    world_.BreakStream(*attention, *expert);
  } else if (which == 2 && expert && router) {
    world_.BreakStream(*expert, *router);
  } else if (which == 3 && router) {
    world_.BreakStream(world_.gateway_node(), *router);
  } else {
    return 0ms;
  }
  ++totals.broken_streams;
  return kRecovery;
}

// One way or both, between an attention worker and the gateway, the router or an expert worker.
Duration ClusterHistory::Cut() {
  const std::optional<NodeId> attention = world_.attention_node(Below(kAttentionWorkers));
  const std::optional<NodeId> expert = world_.expert_node(Below(kExpertWorkers));
  const std::optional<NodeId> router = world_.router_node();
  const std::optional<NodeId> others[] = {world_.gateway_node(), router, expert};
  const uint32_t which = Below(3);
  if (!attention || !others[which]) return 0ms;
  const Duration time = Between(10ms, 2500ms);
  if (which < 2 && !MayLoseAttention(time + kDeathSeen)) return 0ms;
  NodeId from = *attention, to = *others[which];
  if (Chance(0.5)) std::swap(from, to);
  std::vector<std::pair<NodeId, NodeId>> cuts = {{from, to}};
  if (Chance(0.3)) cuts.emplace_back(to, from);
  for (const auto& [source, sink] : cuts) world_.network().Cut(source, sink);
  world_.loop().Spawn(kHistoryNode, HealLater(std::move(cuts), time));
  ++totals.cuts;
  return time + kRecovery;
}

Task<void> ClusterHistory::HealLater(std::vector<std::pair<NodeId, NodeId>> cuts, Duration after) {
  co_await world_.loop().Sleep(after);
  for (const auto& [from, to] : cuts) world_.network().Heal(from, to);
}

std::vector<std::string> ClusterHistory::Run() {
  (void)KnownRequests();
  Loop& loop = world_.loop();
  if (!world_.BecomeReady()) return {"the cluster does not become ready"};
  const auto workers = world_.gateway().workers().Workers();
  for (const auto& worker : workers) blocks_ = std::max(blocks_, worker.free_blocks);
  loop.Spawn(kHistoryNode, Client());
  loop.Spawn(kHistoryNode, Chaos());
  const auto answered = [this] {
    return !asking_ && std::ranges::all_of(asked_, [](const Asked& a) { return a.answer->done(); });
  };
  world_.RunUntil(answered, 2 * kAskedWithin);
  faults_ = false;
  const Time calm = loop.Now();
  world_.RunFor(3s);  // cuts heal, the dead come back
  if (!world_.RunUntil(answered, kAnsweredWithin)) Complain("the answers do not end");
  if (!world_.RunUntil([this] { return NotAtRest().empty(); }, kAtRestWithin)) {
    Complain(NotAtRest());
  }
  totals.longest_calm = loop.Now() - calm;
  for (uint32_t i = 0; i < kAttentionWorkers; ++i) {
    if (!world_.attention_node(i)) continue;
    totals.cached_tokens += world_.attention(i).engine().scheduler().cache_hit_tokens();
  }
  totals.expert_deaths += world_.expert_crashes;
  totals.attention_deaths += world_.attention_crashes;
  CheckAnswers();
  return complaints_;
}

void ClusterHistory::CheckAnswers() {
  for (const Asked& asked : asked_) {
    if (!asked.answer->done()) continue;
    ++totals.answers;
    const std::string got = Comparable(*asked.answer);
    if (got == asked.request->answer) continue;
    const bool failed = asked.answer->status() != 200 || got.find("\"error\"") != std::string::npos;
    const auto first = std::ranges::mismatch(got, asked.request->answer).in1 - got.begin();
    const size_t from = static_cast<size_t>(std::max<ptrdiff_t>(0, first - 100));
    Complain(fmt::format("request at {} us {}, differs at {}: {}",
                         asked.at.time_since_epoch() / 1us,
                         failed ? "failed" : "got another answer", first, got.substr(from, 300)));
  }
}

// What is not as in a cluster without requests; empty: all is.
std::string ClusterHistory::NotAtRest() {
  const auto workers = world_.gateway().workers().Workers();
  if (world_.gateway().gate().inside() > 0) return "a request is left at the gateway";
  if (workers.size() != kAttentionWorkers) {
    return fmt::format("the gateway has {} workers", workers.size());
  }
  for (const auto& worker : workers) {
    if (worker.free_blocks != blocks_)
      return fmt::format("{} KV blocks are free", worker.free_blocks);
    if (worker.free_slots != limits::kRunningRequestsMax || worker.live != 0) {
      return fmt::format("{} slots are free, {} live", worker.free_slots, worker.live);
    }
  }
  for (uint32_t i = 0; i < kAttentionWorkers; ++i) {
    if (!world_.attention(i).ready()) return fmt::format("attention worker {} is not ready", i);
  }
  for (uint32_t i = 0; i < kExpertWorkers; ++i) {
    if (!world_.expert(i).ready()) return fmt::format("expert worker {} is not ready", i);
    if (!world_.expert(i).engine().idle()) return fmt::format("rows are queued at {}", i);
    if (world_.expert(i).engine().pairs() != kAttentionWorkers) {
      return fmt::format("expert worker {} has {} pairs", i, world_.expert(i).engine().pairs());
    }
  }
  if (!world_.ExpertsWhole()) return "an expert worker is not trusted";
  if (world_.frames_leased() > 0) return fmt::format("{} frames leased", world_.frames_leased());
  return "";
}

void ClusterHistory::Complain(const std::string& what) {
  complaints_.push_back(
      fmt::format("{} (at {} us)", what, world_.loop().Now().time_since_epoch() / 1us));
}

}  // namespace bottega::fabric
