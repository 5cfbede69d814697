// A decode step of the attention worker's engine, and a decode and a prefill step of the expert
// worker's, with the loop's waits and the frames of their coroutines, allocate nothing. Allocations
// of a whole cluster are counted, and told apart by their innermost function.
#include <absl/debugging/stacktrace.h>
#include <absl/debugging/symbolize.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <new>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include "observability/log.h"
#include "tests/fabric/cluster_world.h"

namespace {

constexpr int kFrames = 40;
struct Allocation {
  void* frames[kFrames];
  int depth = 0;
};
bool counting = false;
size_t allocations = 0;
Allocation recorded[1 << 14];  // the first ones

void* Allocate(size_t bytes) {
  if (counting) {
    counting = false;
    if (allocations < std::size(recorded)) {
      Allocation& allocation = recorded[allocations];
      allocation.depth = absl::GetStackTrace(allocation.frames, kFrames, 0);
    }
    ++allocations;
    counting = true;
  }
  void* const memory = std::malloc(bytes);
  if (memory == nullptr) std::abort();
  return memory;
}

// Not inlined: GCC would see free() of what it takes for the standard new's, and warn.
[[gnu::noinline]] void Free(void* memory) { std::free(memory); }

}  // namespace

void* operator new(size_t bytes) { return Allocate(bytes); }
void* operator new[](size_t bytes) { return Allocate(bytes); }
void* operator new(size_t bytes, const std::nothrow_t&) noexcept { return Allocate(bytes); }
void* operator new[](size_t bytes, const std::nothrow_t&) noexcept { return Allocate(bytes); }
void operator delete(void* memory) noexcept { Free(memory); }
void operator delete[](void* memory) noexcept { Free(memory); }
void operator delete(void* memory, size_t) noexcept { Free(memory); }
void operator delete[](void* memory, size_t) noexcept { Free(memory); }

namespace bottega::fabric {
namespace {

using namespace std::chrono_literals;

// The innermost function of ours.
std::string OwnerOf(const Allocation& allocation) {
  for (int i = 0; i < allocation.depth; ++i) {
    char name[1024];
    if (!absl::Symbolize(static_cast<char*>(allocation.frames[i]) - 1, name, sizeof name)) continue;
    const std::string_view function = name;
    // A coroutine's body is a clone, whose name absl leaves as it is.
    if (function.starts_with("bottega::") || function.starts_with("_ZN7bottega")) {
      return std::string(function.substr(0, function.find('(')));
    }
  }
  return "?";
}

// How often each function of ours allocated while `run` ran.
template <typename Run>
std::map<std::string, int> AllocationsOf(Run run) {
  allocations = 0;
  counting = true;
  run();
  counting = false;
  std::map<std::string, int> of;
  for (size_t i = 0; i < std::min(allocations, std::size(recorded)); ++i) {
    ++of[OwnerOf(recorded[i])];
  }
  return of;
}

// Nothing of a class or function that begins so allocated.
void ExpectNoneOf(const std::vector<std::string_view>& parts,
                  const std::map<std::string, int>& of) {
  for (const auto& [owner, count] : of) {
    for (const std::string_view part : parts) {
      const std::string_view name = part.substr(0, part.find(':'));
      const std::string coroutine = fmt::format("_ZN7bottega{}{}", name.size(), name);
      EXPECT_FALSE(owner.starts_with(fmt::format("bottega::{}", part)) ||
                   owner.starts_with(coroutine))
          << count << " in " << owner;
    }
  }
}

// An expert worker's engine: what arrives, work and maths. Not the frames that it is sent and
// answers with, which are the transport's (loopback here; UCX's and gRPC's own memory is theirs).
const std::vector<std::string_view> kExpertParts = {
    "ExpertEngine::", "Arrivals::", "PackedExperts::", "ExpertBlock::", "ExpertSet::"};

SequenceSpec SpecOf(uint64_t key, size_t prompt, uint32_t tokens) {
  SequenceSpec spec{.key = {.owner = 1'000'000, .request_key = key}};
  spec.prompt_ids.assign(prompt, static_cast<int32_t>(key % 500));
  spec.max_tokens = tokens;
  spec.ignore_eos = true;
  return spec;
}

TEST(StepAllocations, ADecodeStepHasNone) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "with AddressSanitizer every coroutine frame comes from the heap";
#endif
  OpenLogSink({.least = LogLevel::kError});
  ClusterWorld world({.seed = 1, .draft_tokens = 0});
  ASSERT_TRUE(world.BecomeReady());
  Engine& engine = world.attention(0).engine();
  for (uint64_t key : {1, 2, 3, 4}) {
    SequenceSpec spec = SpecOf(key, 10, 400);
    if (key % 2 == 0) {
      spec.rules = {.repetition_penalty = 1.1f, .presence_penalty = 0.5f, .bad_words = {{3, 4}}};
      spec.rules.allowed_ids.resize(100);  // all are seen, and counted, after a while
      std::iota(spec.rules.allowed_ids.begin(), spec.rules.allowed_ids.end(), 0);
      spec.rules.frequency_penalty = 2;
    }
    ASSERT_TRUE(engine.Submit(std::move(spec)).ok());
  }
  const auto generated = [&](uint32_t tokens) {
    return engine.scheduler().sequences().rbegin()->second->generated() >= tokens;
  };
  ASSERT_TRUE(world.RunUntil([&] { return generated(200); }, 10s));
  std::map<std::string, int> of =
      AllocationsOf([&] { ASSERT_TRUE(world.RunUntil([&] { return generated(300); }, 10s)); });
  // What is left: the dispatcher's frames in flight, the loopback transport and its hub, and
  // Publish, which Flush calls, with the gateway behind it.
  EXPECT_GT(of["bottega::Engine::Flush"], 0) << "nothing was counted";
  of.erase("bottega::Engine::Flush");
  ExpectNoneOf({"Engine::", "Scheduler::", "PrefixCache::", "AttentionBlock::",
                "AttentionMetrics::", "Sampler::", "TokenCounts::", "EditsOf", "TimeSlices::",
                "Slot::", "FramePool::", "loop_internal::", "Dispatcher::Impl::Dispatch",
                "Dispatcher::Impl::Begin", "Dispatcher::Impl::Fill"},
               of);
  ExpectNoneOf(kExpertParts, of);
}

TEST(StepAllocations, APrefillStepOfAnExpertWorkerHasNone) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "with AddressSanitizer every coroutine frame comes from the heap";
#endif
  OpenLogSink({.least = LogLevel::kError});
  ClusterWorld world({.seed = 1, .prefix_cache = false, .draft_tokens = 0});
  ASSERT_TRUE(world.BecomeReady());
  Engine& engine = world.attention(0).engine();
  uint64_t key = 0;
  const auto prompts = [&] {
    for (int i = 0; i < 6; ++i) ASSERT_TRUE(engine.Submit(SpecOf(++key, 80, 1)).ok());
    ASSERT_TRUE(world.RunUntil([&] { return engine.scheduler().sequences().empty(); }, 10s));
  };
  for (int warm = 0; warm < 4; ++warm) prompts();
  const auto prefilled = [&] { return world.expert(0).engine().stats().rows_prefill; };
  const uint64_t before = prefilled();
  std::map<std::string, int> of = AllocationsOf(prompts);
  EXPECT_GT(prefilled(), before);
  EXPECT_FALSE(of.empty()) << "nothing was counted";
  ExpectNoneOf(kExpertParts, of);
}

}  // namespace
}  // namespace bottega::fabric

int main(int argc, char** argv) {
  absl::InitializeSymbolizer(argv[0]);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
