#pragma once

#include <cstdint>
#include <string>

#include "core/base/limits.h"
#include "core/base/time.h"
#include "core/tensor/dtype.h"

namespace bottega {

// Without --kv-cache: enough for a few long conversations, and little beside the weights.
inline constexpr uint64_t kDefaultKvBytes = uint64_t{1} << 30;

// What an attention worker is told; attention-worker/main.cc and `bottega serve` fill it.
struct AttentionConfig {
  std::string listen = "127.0.0.1:0";  // of its gRPC server
  std::string admin_address;           // what the table shows of it
  DType row_type = DType::kBF16;       // R: exchanged rows and KV cache
  uint64_t kv_bytes = 0;               // size of the KV pool; 0: kDefaultKvBytes
  int64_t max_model_len = 0;           // 0: what the model offers and the pool holds
  int64_t max_num_seqs = limits::kRunningRequestsMax;
  int64_t prefill_tokens = limits::kPrefillChunkTokens;
  Duration step_budget{};  // of prefill between two decode steps; 0: by what those take
  // Every so-many-th dispatch to the experts is executed twice and compared; 0: none.
  uint32_t verify_every = 1000;
  bool prefix_cache = true;
  int64_t draft_tokens = 0;  // of one sequence in a step, at most; 0: no speculation
  uint64_t prefix_hash_mask = ~uint64_t{0};  // fewer bits, more collisions (tests)
  bool spoil_freed = false;                  // freed KV blocks are overwritten with NaN (tests)
  std::string hash_trace;                    // file; empty: none
  bool detailed_metrics = false;             // --moe-metrics=detailed: by expert worker
};

}  // namespace bottega
