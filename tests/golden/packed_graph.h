#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "attention-worker/block_allocator.h"
#include "attention-worker/kv_cache.h"
#include "core/kernels/cpu/threads.h"
#include "core/model/attention_block.h"
#include "core/model/expert_block.h"
#include "core/model/packed_model.h"

namespace bottega {

// The engine's arithmetic without scheduler and exchange: the blocks of core/model over a packed
// model, several sequences fed in any pieces. For comparing logits.
class PackedGraph {
 public:
  struct Options {
    DType row_type = DType::kF32;
    Isa isa = BestIsa();
    int threads = 1;
  };
  PackedGraph(std::shared_ptr<const PackedModel> model, Options options);

  // A piece of a sequence: `ids` follow what was fed of it before.
  struct Piece {
    int sequence;
    std::vector<int32_t> ids;
    // [layer][token of the piece]: use these experts, weighted from our own router logits.
    const std::vector<std::vector<std::vector<int>>>* forced = nullptr;
  };
  // One step; logits of every token, [tokens, vocab], in the order of the pieces.
  std::vector<float> Step(const std::vector<Piece>& pieces);

  // [tokens, top_k] of the last step: what the last layer with experts chose.
  absl::Span<const uint16_t> last_experts() const { return last_experts_; }

  // The whole sequence in pieces of `chunk` tokens.
  std::vector<float> Feed(int sequence, const std::vector<int32_t>& ids, size_t chunk);

 private:
  void Experts(int layer, int64_t tokens);
  void Force(int layer, const std::vector<Piece>& pieces);

  static constexpr int64_t kTokensMax = 256;
  static constexpr int32_t kBlocks = 512;
  std::shared_ptr<const PackedModel> model_;
  ThreadPool pool_;
  Cpu cpu_;
  DType row_type_;
  AttentionWeights weights_;
  std::vector<std::vector<ExpertWeights>> experts_;  // [layer][expert]
  AttentionBlock block_;
  ExpertBlock expert_block_;
  KvCache kv_;
  BlockAllocator blocks_;
  StepScratch scratch_;
  std::vector<uint16_t> last_experts_;
  struct Fed {
    int32_t length = 0;
    std::vector<int32_t> blocks;
  };
  std::vector<Fed> fed_;  // by sequence
};

// Packs `dir` into a temporary folder once per (dir, weights) of the process and opens it.
std::shared_ptr<const PackedModel> PackedForTest(const std::string& dir, WeightFormat weights);

}  // namespace bottega
