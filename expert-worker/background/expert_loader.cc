#include "expert-worker/background/expert_loader.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "core/base/load_progress.h"

namespace bottega {
namespace {

using namespace std::chrono_literals;
constexpr Duration kRetry = 1s;
// Tell the router of this many at once: while a worker loads, others wait for what is ready.
constexpr size_t kBatch = 64;

}  // namespace

ExpertLoader::ExpertLoader(ExpertEngine& engine, const Sizes& sizes,
                           std::function<void(std::vector<ExpertRef>)> on_changed)
    : engine_(engine),
      sizes_(sizes),
      on_changed_(std::move(on_changed)),
      wake_(engine.context().loop) {
  TellExpected();
}

// What is held and what is missing, for the process' load progress.
void ExpertLoader::TellExpected() {
  LoadProgress* const load = engine_.context().load;
  if (load == nullptr) return;
  const uint64_t bytes = assigned_once_ ? sizes_.expert_bytes * (engine_.held().size() + missing())
                                        : sizes_.expected_bytes;
  load->Expect(static_cast<int64_t>(bytes) -
               static_cast<int64_t>(std::exchange(told_bytes_, bytes)));
}

void ExpertLoader::SetAssignment(std::vector<ExpertRef> assigned) {
  assigned_once_ = true;
  wanted_.clear();
  for (const ExpertRef& ref : assigned) {
    if (ref.layer.value < engine_.shape().layers && ref.expert.value < engine_.shape().experts) {
      wanted_.insert(ref);
    }
  }
  failed_.clear();
  TellExpected();
  if (!loading_since_ && NextMissing()) loading_since_ = engine_.context().loop.Now();
  wake_.Wake();
}

void ExpertLoader::SetTable(const TableSnapshot& table, std::optional<MemberId> self) {
  listed_.clear();
  for (uint32_t i = 0; self.has_value() && i < table->replicas.size(); ++i) {
    const auto& replicas = table->replicas[i];
    if (std::find(replicas.begin(), replicas.end(), *self) == replicas.end()) continue;
    listed_.insert({LayerId{static_cast<uint16_t>(i / table->experts)},
                    ExpertId{static_cast<uint16_t>(i % table->experts)}});
  }
  engine_.set_epoch(table->epoch);
  wake_.Wake();
}

Task<void> ExpertLoader::Run() {
  Loop& loop = engine_.context().loop;
  size_t batch = 0;
  while (true) {
    const std::optional<ExpertRef> next = NextMissing();
    if (next.has_value()) {
      absl::Status loaded = engine_.compute().Load(next->layer, next->expert);
      if (loaded.ok()) {
        engine_.Hold(next->layer, next->expert);
        ++batch;
      } else {
        ++engine_.stats().load_failures;
        failed_.insert(*next);
        if (told_.insert(*next).second) {
          engine_.context().log.Error(fmt::format("expert {} of layer {} is not served: {}",
                                                  next->expert.value, next->layer.value,
                                                  loaded.ToString()));
        }
      }
      co_await loop.Yield();  // a turn: rows are served while experts are loaded
    }
    const bool more = NextMissing().has_value();
    if (!more && loading_since_) {
      const Duration took = loop.Now() - *std::exchange(loading_since_, std::nullopt);
      engine_.stats().load.Observe(Seconds(took));
    }
    const bool retired = !more && RetireUnwanted();
    if (batch > 0 && (batch >= kBatch || !more)) {
      batch = 0;
      on_changed_(Held());
    } else if (retired) {
      on_changed_(Held());
    }
    if (more) continue;
    const Time retry = failed_.empty() ? kNever : loop.Now() + kRetry;
    absl::Status woken = co_await wake_.Wait(retry);
    if (!woken.ok()) failed_.clear();
  }
}

std::optional<ExpertRef> ExpertLoader::NextMissing() const {
  for (const ExpertRef& ref : wanted_) {
    if (!engine_.held().Holds(ref.layer, ref.expert) && !failed_.contains(ref)) return ref;
  }
  return std::nullopt;
}

bool ExpertLoader::RetireUnwanted() {
  if (!assigned_once_) return false;
  bool any = false;
  for (const ExpertRef& ref : Held()) {
    if (wanted_.contains(ref) || listed_.contains(ref)) continue;
    engine_.Retire(ref.layer, ref.expert);
    any = true;
  }
  if (any) TellExpected();
  return any;
}

std::vector<ExpertRef> ExpertLoader::Held() const {
  std::vector<ExpertRef> refs;
  const ExpertSet& held = engine_.held();
  for (uint32_t layer = 0; layer < held.layers(); ++layer) {
    for (uint32_t expert = 0; expert < held.experts(); ++expert) {
      const ExpertRef ref{LayerId{static_cast<uint16_t>(layer)},
                          ExpertId{static_cast<uint16_t>(expert)}};
      if (held.Holds(ref.layer, ref.expert)) refs.push_back(ref);
    }
  }
  return refs;
}

size_t ExpertLoader::missing() const {
  size_t missing = 0;
  for (const ExpertRef& ref : wanted_) {
    if (!engine_.held().Holds(ref.layer, ref.expert)) ++missing;
  }
  return missing;
}

}  // namespace bottega
