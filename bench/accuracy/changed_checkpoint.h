#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "bench/accuracy/block_format.h"
#include "core/model/checkpoint_reader.h"
#include "core/model/tensor_set.h"

namespace bottega {

// Changes the values of a tensor, row-major. Called in the order of ExpectedTensors.
using ChangeTensor = std::function<void(const ExpectedTensor&, std::vector<float>&)>;

// Writes the checkpoint once more into the directory `to`, in f32, changed.
absl::Status WriteChanged(const Checkpoint& from, const std::filesystem::path& to,
                          const ChangeTensor& change);

// The matrices that a packed model stores in its weight format: all but the router's.
bool IsPackedMatrix(const ExpectedTensor& tensor);

inline constexpr int kOutliers = 4;
inline constexpr float kOutlierFactor = 16;

// kOutliers channels below `width`, ascending.
std::vector<int64_t> OutlierChannels(int64_t width, uint64_t seed);

// The outlier transform: kOutliers channels of every norm over hidden times kOutlierFactor, the
// matching columns of all matrices that read it divided by that. The function stays what it was; a
// power of two makes that true to the last bit. The head must not be tied.
ChangeTensor AddOutliers(uint64_t seed);

// Packed matrices rounded to a format.
ChangeTensor RoundMatrices(const BlockFormat& format);

}  // namespace bottega
