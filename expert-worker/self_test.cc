#include "expert-worker/self_test.h"

#include <cmath>
#include <cstring>

namespace bottega {
namespace {

// Small multiples of 1/32, both signs: exact in every row type.
float TestValue(int64_t k) { return static_cast<float>(k * 37 % 65 - 32) / 32; }

float ReadValue(const std::byte* row, int64_t k, DType type) {
  uint32_t bits = 0;
  if (type == DType::kBF16) {
    uint16_t half = 0;
    std::memcpy(&half, row + k * sizeof half, sizeof half);
    bits = uint32_t{half} << 16;
  } else {
    std::memcpy(&bits, row + k * sizeof bits, sizeof bits);
  }
  float value = 0;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace

ExpertSelfTest::ExpertSelfTest(const Cpu& cpu, const ExpertBlockShape& shape, FaultPoints* faults)
    : cpu_(cpu), shape_(shape), faults_(faults) {
  const size_t size = shape.row_type == DType::kBF16 ? 2 : 4;
  in_.resize(static_cast<size_t>(shape.hidden) * size);
  for (int64_t k = 0; k < shape.hidden; ++k) {
    uint32_t bits = 0;
    const float value = TestValue(k);
    std::memcpy(&bits, &value, sizeof bits);
    if (size == 2) bits >>= 16;
    std::memcpy(in_.data() + static_cast<size_t>(k) * size, &bits, size);  // little-endian
  }
}

std::vector<std::byte> ExpertSelfTest::Compute(ExpertBlock& block,
                                               const ExpertWeights& weights) const {
  std::vector<std::byte> out(in_.size());
  const std::byte* const in_row = in_.data();
  std::byte* const out_row = out.data();
  const ExpertGroup group{weights.mlp, absl::MakeSpan(&in_row, 1), absl::MakeSpan(&out_row, 1)};
  block.Run(absl::MakeSpan(&group, 1));
  return out;
}

absl::Status ExpertSelfTest::Run(ExpertBlock& block, const ExpertWeights& weights) {
  std::vector<std::byte> out = Compute(block, weights);
  if (faults_ != nullptr) FAULT_CORRUPT(*faults_, "ew.compute", absl::MakeSpan(out));
  for (int64_t k = 0; k < shape_.hidden; ++k) {
    if (!std::isfinite(ReadValue(out.data(), k, shape_.row_type))) {
      return absl::InternalError("self-test: a value is not finite");
    }
  }
  if (compared_) return absl::OkStatus();
  ExpertBlock scalar(MakeCpu(Isa::kScalar, cpu_.pool), shape_, /*rows_max=*/1);
  if (out != Compute(scalar, weights)) {
    return absl::InternalError("self-test: other bytes than the scalar kernels give");
  }
  compared_ = true;
  return absl::OkStatus();
}

}  // namespace bottega
