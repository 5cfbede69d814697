#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "core/tensor/dtype.h"
#include "core/tensor/weight_format.h"

namespace bottega {

// Random weights of mean 0 and a given standard deviation, as they are stored. What comes is a
// function of (seed, stream, the calls before) on every machine: value i of a stream is a hash of
// its key and i, and all else is integers and single roundings. One thread each stream.
class RandomValues {
 public:
  RandomValues(uint64_t seed, std::string_view stream);

  // f32 or bf16 elements, uniform.
  void Uniform(DType dtype, double deviation, std::span<std::byte> out);
  // f32 elements, about normal: the sum of four uniform values.
  void Normal(double deviation, std::span<std::byte> out);
  // Integers of a quantised format with their zero point, uniform over all that the format has; and
  // bf16 scales for them, equal but for a random sign: [-8, 7] has the mean -1/2, a sum over groups
  // has not.
  void Integers(WeightFormat format, std::span<std::byte> out);
  void Scales(WeightFormat format, double deviation, std::span<std::byte> out);

 private:
  uint64_t Next();
  void Fill(std::span<std::byte> out);

  uint64_t key_;
  uint64_t at_ = 0;
};

}  // namespace bottega
