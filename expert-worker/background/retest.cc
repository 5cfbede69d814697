#include "expert-worker/background/retest.h"

#include <fmt/format.h>

#include <chrono>

namespace bottega {
namespace {

using namespace std::chrono_literals;
constexpr Duration kRetry = 5s;

}  // namespace

void Retest::Ask() {
  asked_ = true;
  wake_.Wake();
}

Task<void> Retest::Run() {
  ServiceContext& context = engine_.context();
  while (true) {
    if (!asked_) {
      (void)co_await wake_.Wait();
      continue;
    }
    asked_ = false;
    if (co_await PassesAll()) {
      ++passed_;
      context.log.Info("self-test passed");
      continue;
    }
    co_await context.loop.Sleep(kRetry);
    asked_ = true;
  }
}

// The log hears of the first that fails: the others mostly fail alike.
Task<bool> Retest::PassesAll() {
  ServiceContext& context = engine_.context();
  bool all = true;
  for (uint32_t layer = 0; layer < engine_.held().layers(); ++layer) {
    for (uint32_t expert = 0; expert < engine_.held().experts(); ++expert) {
      const LayerId l{static_cast<uint16_t>(layer)};
      const ExpertId e{static_cast<uint16_t>(expert)};
      if (!engine_.held().Holds(l, e)) continue;
      absl::Status tested = engine_.compute().Retest(l, e);
      if (!tested.ok() && all) {
        context.log.Error(
            fmt::format("expert {} of layer {}: {}", expert, layer, tested.ToString()));
      }
      all &= tested.ok();
      co_await context.loop.Yield();  // a turn: rows are served meanwhile
    }
  }
  co_return all;
}

}  // namespace bottega
