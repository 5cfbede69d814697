#include "expert-worker/background/self_test.h"

#include <fmt/format.h>

#include <cstring>
#include <vector>

#include "core/base/status.h"
#include "core/exchange/share.h"

namespace bottega {
namespace {

using namespace std::chrono_literals;
constexpr Duration kRetry = 5s;

// Finite numbers of both signs around one in either row type: sign and low exponent bits vary.
std::vector<std::byte> TestRow(const ExchangeShape& shape) {
  std::vector<std::byte> row(shape.row_bytes());
  const size_t width = SizeOf(shape.row_type);
  for (size_t i = 0; i < shape.hidden; ++i) {
    const auto upper = static_cast<uint16_t>((i % 2 == 0 ? 0x3f00 : 0xbf00) + i * 37 % 0x80);
    std::memcpy(&row[i * width + width - sizeof upper], &upper, sizeof upper);
  }
  return row;
}

}  // namespace

void SelfTest::Ask() {
  asked_ = true;
  wake_.Wake();
}

Task<void> SelfTest::Run() {
  ServiceContext& context = engine_.context();
  while (true) {
    if (!asked_) {
      (void)co_await wake_.Wait();
      continue;
    }
    asked_ = false;
    size_t failed = 0;
    for (uint32_t layer = 0; layer < engine_.held().layers(); ++layer) {
      for (uint32_t expert = 0; expert < engine_.held().experts(); ++expert) {
        const LayerId l{static_cast<uint16_t>(layer)};
        const ExpertId e{static_cast<uint16_t>(expert)};
        if (!engine_.held().Holds(l, e)) continue;
        absl::Status tested = TestOne(l, e);
        if (!tested.ok() && ++failed == 1) {
          context.log.Error(fmt::format("self-test: expert {} of layer {}: {}", expert, layer,
                                        std::string(tested.message())));
        }
        co_await context.loop.Sleep(Duration::zero());
      }
    }
    if (failed == 0) {
      ++passed_;
      context.log.Info("self-test passed");
      continue;
    }
    co_await context.loop.Sleep(kRetry);
    asked_ = true;
  }
}

absl::Status SelfTest::TestOne(LayerId layer, ExpertId expert) {
  ExpertCompute& compute = engine_.compute();
  RETURN_IF_ERROR(compute.Load(layer, expert));
  const ExchangeShape& shape = engine_.shape();
  const std::vector<std::byte> in = TestRow(shape);
  std::vector<std::byte> out[2] = {in, in};
  for (std::vector<std::byte>& result : out) {
    const std::byte* from = in.data();
    std::byte* to = result.data();
    const ExpertRows rows[] = {{expert, absl::MakeConstSpan(&from, 1), absl::MakeSpan(&to, 1)}};
    compute.Run(layer, rows);
    FAULT_CORRUPT(engine_.context().faults, "ew.compute", absl::MakeSpan(result));
  }
  std::vector<std::byte> copy(in.size());
  if (!CopyFiniteRow(out[0].data(), copy.data(), shape)) {
    return absl::DataLossError("a row is not finite");
  }
  if (out[0] != out[1]) return absl::DataLossError("the same row gives two results");
  return absl::OkStatus();
}

}  // namespace bottega
