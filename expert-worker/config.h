#pragma once

#include <cstdint>
#include <string>

#include "core/base/limits.h"
#include "core/base/time.h"
#include "core/tensor/dtype.h"

namespace bottega {

// What an expert worker is told; expert_program.cc and `bottega serve` fill it.
struct ExpertConfig {
  std::string listen = "127.0.0.1:0";  // of its gRPC server
  std::string admin_address;           // what the table shows of it
  DType row_type = DType::kBF16;       // R: of exchanged rows
  uint64_t capacity_bytes = 0;         // for experts; 0: all of the model's fit
  uint64_t expected_bytes = 0;         // of the experts that it will get; 0: not known
  uint32_t credits = limits::kCreditRows;
  bool detailed_metrics = false;  // --moe-metrics=detailed: by layer and expert
  // Longest stretch of computing between two looks at the network.
  Duration item_time = std::chrono::milliseconds(5);
};

}  // namespace bottega
