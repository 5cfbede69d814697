#include "tests/fabric/exchange_world.h"

#include <fmt/format.h>
#include <prometheus/registry.h>

#include <algorithm>
#include <cstring>

#include "bottega/internal/v1/expert.pb.h"
#include "core/exchange/exchange_reference.h"
#include "tests/core/exchange/pure_expert.h"

namespace bottega::fabric {

using namespace std::chrono_literals;

namespace {

constexpr NodeId kHubNode{1}, kWorldNode{2};
constexpr uint32_t kExperts = 4, kDrivers = 2;
constexpr uint32_t kJobs = 20;  // of each driver, in bad weather
constexpr int kCalmJobsMax = 200;
constexpr char kDigest[] = "digest", kNumerics[] = "numerics";

class PureExperts : public ExpertCompute {
 public:
  PureExperts(const ExchangeShape& shape, Duration row) : shape_(shape), row_(row) {}
  absl::Status Load(LayerId layer, ExpertId expert) override {
    loaded_.insert({layer.value, expert.value});
    return absl::OkStatus();
  }
  void Unload(LayerId layer, ExpertId expert) override {
    loaded_.erase({layer.value, expert.value});
  }
  void Run(LayerId layer, absl::Span<const ExpertRows> rows) override {
    for (const ExpertRows& group : rows) {
      CHECK(loaded_.contains({layer.value, group.expert.value}));
      for (size_t i = 0; i < group.in.size(); ++i) {
        PureExpert(shape_, layer, group.expert, group.in[i], group.out[i]);
      }
    }
  }
  Duration VirtualTime(size_t rows) const override { return 20us + row_ * rows; }

 private:
  const ExchangeShape shape_;
  const Duration row_;
  std::set<std::pair<uint32_t, uint32_t>> loaded_;
};

// One life of one process.
struct Process {
  Process(Loop& loop, Network& network, Role role, const std::string& name, uint64_t life)
      : context{loop,
                NodeId{static_cast<uint32_t>(100 + life)},
                network,
                registry,
                faults,
                role,
                Incarnation{1'000'000 + life},
                name,
                Logger("fabric", name)} {}
  prometheus::Registry registry;
  FaultPoints faults;
  ServiceContext context;
};

}  // namespace

struct ExchangeWorld::Expert {
  std::unique_ptr<Process> process;
  std::unique_ptr<LoopbackTransport> transport;
  std::unique_ptr<ExpertServer> server;
};

struct ExchangeWorld::Driver {
  uint32_t index = 0;
  uint64_t life = 0;
  std::unique_ptr<Process> process;
  std::unique_ptr<LoopbackTransport> transport;
  std::unique_ptr<Dispatcher> dispatcher;
  std::unique_ptr<ExpertLinks> links;
  uint32_t next_job = 0;  // shapes depend on it, so that lives resemble each other
  std::vector<std::byte> rows, replies, expected, kept;
  std::vector<uint16_t> experts;
};

ExchangeWorld::ExchangeWorld(uint64_t seed, Weather weather)
    : seed_(seed), weather_(weather), loop_(Loop::Simulated(seed)) {
  SeededFaultsOptions control;
  control.reset_probability = weather == Weather::kWild ? 0.002 : 0;
  control.death_delay_max = 5ms;
  network_ = std::make_unique<LocalNetwork>(*loop_, SeededFaults(*loop_, control));
  hub_ = std::make_unique<LoopbackHub>(*loop_, kHubNode);
  hub_->set_poison(true);
  hub_->set_down_delay(Between(0us, 2ms));
  hub_->SetFaults([this](const std::string& from, const std::string& to, auto frame) {
    return FateOf(from, to, frame);
  });
  shape_ = {.layers = 2,
            .experts = 8,
            .top_k = 2,
            .hidden = 16,
            .row_type = Chance(0.5) ? DType::kBF16 : DType::kF32};
  // Each history has its own mixture.
  auto level = [&](double most) { return Chance(0.4) ? 0 : most * double(Below(1000)) / 1000; };
  const bool frames = weather != Weather::kDeaths;
  drop_ = frames ? level(0.05) : 0;
  copy_ = level(0.1);
  corrupt_ = frames ? level(0.05) : 0;
  down_ = frames ? level(0.02) : 0;
  slow_ = level(0.1);
  // Attention workers that die young, on a network that is late and does not know connections: a
  // new life asks the same questions under the same numbers, and answers to the last one come in.
  reborn_ = weather == Weather::kDeaths && Chance(0.5);
  if (reborn_) slow_ = 0.4;

  placement_.resize(shape_.layers * shape_.experts);
  for (uint32_t i = 0; i < placement_.size(); ++i) {
    placement_[i] = {i % kExperts, (i + 1 + i / shape_.experts) % kExperts};
  }
  experts_.resize(kExperts);
  drivers_.resize(kDrivers);
  for (uint32_t i = 0; i < kExperts; ++i) {
    experts_[i] = std::make_unique<Expert>();
    StartExpert(i);
  }
  for (uint32_t i = 0; i < kDrivers; ++i) {
    drivers_[i] = std::make_unique<Driver>();
    drivers_[i]->index = i;
    StartDriver(i);
  }
}

ExchangeWorld::~ExchangeWorld() {
  for (uint32_t i = 0; i < kDrivers; ++i) StopDriver(i);
  for (uint32_t i = 0; i < kExperts; ++i) StopExpert(i);
  loop_->Kill(kWorldNode);
}

FrameFate ExchangeWorld::FateOf(const std::string&, const std::string&,
                                absl::Span<const std::byte> frame) {
  FrameFate fate;
  fate.delay = Between(10us, 200us);
  if (!faults_) return fate;
  // In the gentle kinds a third attempt gets through, so that nothing may be missing: faults of
  // frames spare it (and, where endpoints break or processes die, the second too: those take one).
  // Late is lost, too: a probe may overtake what it asks about.
  const FrameHeader header = UncheckedHeader(frame);
  const bool also_second = weather_ == Weather::kDeaths || down_ > 0;
  const bool spare = weather_ != Weather::kWild && header.attempt >= (also_second ? 2 : 3);
  if (!spare && Chance(slow_)) fate.delay = Between(1ms, reborn_ ? 30ms : 120ms);
  if (Chance(copy_)) fate.copies = 2;
  fate.by_address = weather_ != Weather::kFrames && Chance(0.5);
  if (spare) return fate;
  if (Chance(drop_)) fate.drop = true;
  if (Chance(corrupt_)) fate.corrupt = static_cast<int64_t>(Below(frame.size()));
  if (Chance(down_) && (weather_ == Weather::kWild || loop_->Now() - last_down_ > 2s)) {
    fate.take_down = true;
    last_down_ = loop_->Now();
  }
  return fate;
}

void ExchangeWorld::StartExpert(uint32_t index) {
  Expert& expert = *experts_[index];
  const std::string name = fmt::format("expert-{}", index);
  expert.process = std::make_unique<Process>(*loop_, *network_, Role::kExpert, name, ++lives_);
  expert.transport = hub_->Open(name);
  ExpertConfig config;
  config.listen = name;
  config.row_type = shape_.row_type;
  config.credits = 24;
  config.item_time = 200us;
  ExpertModel model;
  model.digest = kDigest;
  model.numerics_id = kNumerics;
  model.shape = shape_;
  const Duration row = Chance(0.1) ? 1ms : 10us;
  expert.server =
      std::make_unique<ExpertServer>(expert.process->context, config, model,
                                     std::make_unique<PureExperts>(shape_, row), *expert.transport);
  CHECK(expert.server->Start().ok());
  expert.server->Assign(AssignmentOf(index));
}

void ExchangeWorld::StopExpert(uint32_t index) {
  Expert& expert = *experts_[index];
  if (expert.process == nullptr) return;
  network_->Kill(expert.process->context.node);
  expert.server.reset();
  expert.transport.reset();
  expert.process.reset();
}

void ExchangeWorld::StartDriver(uint32_t index) {
  Driver& driver = *drivers_[index];
  const std::string name = fmt::format("attention-{}", index);
  driver.life = ++lives_;
  driver.process = std::make_unique<Process>(*loop_, *network_, Role::kAttention, name, lives_);
  driver.transport = hub_->Open(name);
  DispatcherOptions options;
  options.shape = shape_;
  options.on_peer_lost = [&driver](MemberId member, const absl::Status&) {
    driver.links->PeerLost(member);
  };
  ServiceContext& context = driver.process->context;
  driver.dispatcher = std::make_unique<Dispatcher>(*loop_, *driver.transport, context.incarnation,
                                                   std::move(options));
  internal::v1::PairHello hello;
  hello.set_incarnation(context.incarnation.value);
  hello.set_name(name);
  hello.set_protocol(1);
  hello.set_model_digest(kDigest);
  hello.set_numerics_id(kNumerics);
  hello.mutable_offer()->add_kinds("loopback");
  driver.links =
      std::make_unique<ExpertLinks>(context, *driver.dispatcher, *driver.transport, hello);
  driver.next_job = 0;
  driver.kept.clear();
  loop_->Spawn(context.node, Drive(&driver));
}

void ExchangeWorld::StopDriver(uint32_t index) {
  Driver& driver = *drivers_[index];
  if (driver.process == nullptr) return;
  const DispatcherStats& stats = driver.dispatcher->stats();
  totals.dispatches += stats.dispatches;
  totals.missing += stats.dispatches_missing;
  totals.resends += stats.resends();
  totals.hedges += stats.hedges;
  totals.rows += stats.rows_received;
  totals.dropped += stats.dropped_malformed + stats.dropped_incarnation + stats.dropped_stranger +
                    stats.dropped_corrupt + stats.dropped_unknown + stats.dropped_mismatch;
  network_->Kill(driver.process->context.node);
  driver.links.reset();
  driver.dispatcher.reset();
  driver.transport.reset();
  driver.process.reset();
}

std::vector<ExpertRef> ExchangeWorld::AssignmentOf(uint32_t expert_worker) const {
  std::vector<ExpertRef> refs;
  for (uint32_t i = 0; i < placement_.size(); ++i) {
    if (!placement_[i].contains(expert_worker)) continue;
    refs.push_back({LayerId{static_cast<uint16_t>(i / shape_.experts)},
                    ExpertId{static_cast<uint16_t>(i % shape_.experts)}});
  }
  return refs;
}

// What the router would say now: who lives, and holds what it should. Each driver hears of it at
// its own time.
void ExchangeWorld::Publish() {
  auto table = std::make_shared<ClusterTable>();
  table->term = 1;
  table->epoch = ++epoch_;
  table->model_digest = kDigest;
  table->layers = shape_.layers;
  table->experts = shape_.experts;
  for (uint32_t i = 0; i < kExperts; ++i) {
    if (experts_[i]->process == nullptr) continue;
    Member member;
    member.id = MemberId{i + 1};
    member.incarnation = experts_[i]->process->context.incarnation;
    member.role = Role::kExpert;
    member.name = experts_[i]->process->context.name;
    member.control_address = experts_[i]->server->address();
    member.state = MemberState::kActive;
    member.numerics_id = kNumerics;
    table->members.push_back(member);
  }
  for (const std::set<uint32_t>& replicas : placement_) {
    std::vector<MemberId> ids;
    for (uint32_t worker : replicas) {
      if (experts_[worker]->process != nullptr) ids.push_back(MemberId{worker + 1});
    }
    table->replicas.push_back(ids);
  }
  for (uint32_t d = 0; d < kDrivers; ++d) {
    if (drivers_[d]->process == nullptr) continue;
    loop_->Spawn(kWorldNode, DeliverTable(d, drivers_[d]->life, table, Between(100us, 5ms)));
  }
}

Task<void> ExchangeWorld::PublishLater(Duration delay) {
  co_await loop_->Sleep(delay);
  Publish();
}

Task<void> ExchangeWorld::DeliverTable(uint32_t index, uint64_t life, TableSnapshot table,
                                       Duration delay) {
  co_await loop_->Sleep(delay);
  Driver& driver = *drivers_[index];
  if (driver.process == nullptr || driver.life != life) co_return;
  driver.dispatcher->UpdateTable(table);
  // The links hear of tables in order; the dispatcher sorts them itself.
  if (driver.dispatcher->table_epoch() == table->epoch) driver.links->UpdateTable(table);
}

// One expert of one layer changes its place: the new holder loads, the table says so, the old one
// lets go. Sometimes too early, so that somebody asks who no longer holds it.
void ExchangeWorld::Move() {
  std::set<uint32_t>& replicas = placement_[Below(placement_.size())];
  const uint32_t from = *std::next(replicas.begin(), static_cast<long>(Below(replicas.size())));
  const uint32_t to = static_cast<uint32_t>(Below(kExperts));
  if (replicas.contains(to)) return;
  replicas.insert(to);
  if (experts_[to]->process != nullptr) experts_[to]->server->Assign(AssignmentOf(to));
  replicas.erase(from);
  if (experts_[from]->process != nullptr && Chance(0.5)) {
    experts_[from]->server->Assign(AssignmentOf(from));
  }
  loop_->Spawn(kWorldNode, PublishLater(Between(0us, 3ms)));
  ++totals.moves;
}

Task<void> ExchangeWorld::Chaos() {
  Publish();
  const bool deaths = weather_ != Weather::kFrames;
  while (jobs_left_ > 0) {
    co_await loop_->Sleep(Between(1ms, 60ms));
    if (jobs_left_ == 0) break;
    if (weather_ == Weather::kWild && Chance(0.3)) Move();
    if (!deaths) continue;
    ++totals.kills;
    if (reborn_ || Chance(0.4)) {
      const uint32_t d = static_cast<uint32_t>(Below(kDrivers));
      StopDriver(d);
      co_await loop_->Sleep(Between(0us, reborn_ ? 2ms : 30ms));
      StartDriver(d);
      Publish();
      if (!reborn_ && weather_ == Weather::kDeaths) co_await loop_->Sleep(100ms);
      continue;
    }
    const uint32_t e = static_cast<uint32_t>(Below(kExperts));
    StopExpert(e);
    co_await loop_->Sleep(Between(1ms, 50ms));  // the router notices
    Publish();
    co_await loop_->Sleep(Between(1ms, 300ms));
    StartExpert(e);
    co_await loop_->Sleep(Between(1ms, 5ms));  // it loads and registers
    Publish();
    // The gentle kind lets everybody find it before the next blow.
    if (weather_ == Weather::kDeaths) co_await loop_->Sleep(400ms);
  }
}

// A job: its shape comes from the driver's number and the job's, its rows from everything.
Task<void> ExchangeWorld::RunJob(Driver* driver, bool calm) {
  const uint32_t job = driver->next_job++;
  if (!driver->kept.empty() && driver->kept != driver->replies) {
    Complain("a row changed after its dispatch had ended");
  }
  uint64_t shape_seed = seed_ * 1000 + driver->index * 100 + job;
  auto next = [&shape_seed] {
    shape_seed = shape_seed * 6364136223846793005ull + 1442695040888963407ull;
    return shape_seed >> 33;
  };
  const int32_t tokens = static_cast<int32_t>(next() % 4 == 0 ? 1 + next() % 40 : 1 + next() % 4);
  const size_t entries = static_cast<size_t>(tokens) * shape_.top_k;
  driver->experts.clear();
  for (int32_t t = 0; t < tokens; ++t) {
    const uint16_t a = static_cast<uint16_t>(next() % shape_.experts);
    const uint16_t b =
        static_cast<uint16_t>((a + 1 + next() % (shape_.experts - 1)) % shape_.experts);
    driver->experts.push_back(std::min(a, b));
    driver->experts.push_back(std::max(a, b));
  }
  driver->rows.resize(static_cast<size_t>(tokens) * shape_.row_bytes());
  for (std::byte& b : driver->rows) b = std::byte(loop_->SimRandom());
  driver->replies.assign(entries * shape_.row_bytes(), std::byte{0});
  driver->expected.assign(entries * shape_.row_bytes(), std::byte{0});
  const DispatchRequest request{.request_key = job + 1,
                                .layer = LayerId{static_cast<uint16_t>(next() % shape_.layers)},
                                .phase = tokens > 8 ? FramePhase::kPrefill : FramePhase::kDecode,
                                .tokens = tokens,
                                .rows = driver->rows.data(),
                                .experts = driver->experts.data()};
  ReferenceDispatch(
      shape_, request,
      [this](LayerId layer, ExpertId expert, const std::byte* row, std::byte* out) {
        PureExpert(shape_, layer, expert, row, out);
      },
      driver->expected.data());

  const Time start = loop_->Now();
  absl::StatusOr<DispatchResult> result =
      co_await driver->dispatcher->Dispatch(request, driver->replies.data());
  const Duration took = loop_->Now() - start;
  driver->kept = driver->replies;
  loop_->MixTrace(static_cast<uint64_t>(took.count()));
  if (!result.ok()) {
    Complain(fmt::format("job {}: {}", job, result.status().ToString()));
    co_return;
  }
  const bool may_miss = weather_ == Weather::kWild && !calm;
  if (!result->missing.empty() && !may_miss) {
    Complain(fmt::format("job {} of {} misses expert {} after {} us", job, driver->index,
                         result->missing.front().value, took / 1us));
  }
  if (took > 10s + 1ms) Complain(fmt::format("job {} took {} ms", job, took / 1ms));
  for (int32_t t = 0; t < tokens; ++t) {
    const auto& failed = result->failed_tokens;
    if (std::binary_search(failed.begin(), failed.end(), t)) continue;
    const size_t at = static_cast<size_t>(t) * shape_.top_k * shape_.row_bytes();
    if (std::memcmp(&driver->replies[at], &driver->expected[at],
                    shape_.top_k * shape_.row_bytes()) != 0) {
      Complain(fmt::format("job {} of {}: token {} is wrong", job, driver->index, t));
    }
  }
}

Task<void> ExchangeWorld::Drive(Driver* driver) {
  while (jobs_left_ > 0) {
    co_await RunJob(driver, false);
    if (jobs_left_ > 0) --jobs_left_;
    co_await loop_->Sleep(Between(0us, 20ms));
  }
  // Calm: nothing is missing, and what was in flight is accounted for.
  while (faults_) co_await loop_->Sleep(1ms);
  for (int i = 0; i < kCalmJobsMax; ++i) {
    if (i >= 3 && driver->dispatcher->credits_in_use() == 0) break;
    co_await RunJob(driver, true);
    co_await loop_->Sleep(5ms);
  }
}

std::vector<std::string> ExchangeWorld::Run() {
  jobs_left_ = kJobs * kDrivers;
  loop_->Spawn(kWorldNode, Chaos());
  // Bad weather until the jobs are done; it cannot last longer than all of them waiting in turn.
  const Time latest = loop_->Now() + 12s * kJobs * kDrivers;
  while (jobs_left_ > 0 && loop_->Now() < latest) loop_->RunUntil(loop_->Now() + 100ms);
  if (jobs_left_ > 0) Complain("the jobs do not end");
  jobs_left_ = 0;
  loop_->RunUntil(loop_->Now() + 12s);  // every dispatch under way ends
  for (uint32_t i = 0; i < kExperts; ++i) {
    if (experts_[i]->process == nullptr) StartExpert(i);
    experts_[i]->server->Assign(AssignmentOf(i));
  }
  loop_->RunUntil(loop_->Now() + 500ms);
  Publish();
  loop_->RunUntil(loop_->Now() + 3s);  // everybody is linked again
  faults_ = false;
  loop_->RunUntil(loop_->Now() + 20s);
  CheckAtRest();
  for (uint32_t i = 0; i < kDrivers; ++i) StopDriver(i);
  return complaints_;
}

void ExchangeWorld::CheckAtRest() {
  for (const auto& driver : drivers_) {
    if (loop_->tasks(driver->process->context.node) == 0) Complain("a driver has no links");
    if (driver->dispatcher->credits_in_use() > 0) {
      Complain(fmt::format("{} rows are in flight at rest", driver->dispatcher->credits_in_use()));
    }
    if (driver->dispatcher->peers() != kExperts) Complain("a peer is missing at rest");
    if (driver->transport->leased() > 0) Complain("frame memory is leased at rest");
  }
  for (const auto& expert : experts_) {
    if (!expert->server->engine().idle()) Complain("rows are queued at rest");
    if (expert->server->engine().pairs() != kDrivers) Complain("pairs are left over at rest");
    if (expert->transport->leased() > 0) Complain("frame memory is leased at rest");
  }
}

void ExchangeWorld::Complain(const std::string& what) {
  complaints_.push_back(fmt::format("{} (at {} us)", what, loop_->Now().time_since_epoch() / 1us));
}

}  // namespace bottega::fabric
