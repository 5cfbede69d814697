#include "tests/golden/packed_graph.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <string>

#include "core/model/packer.h"
#include "gtest/gtest.h"

namespace bottega {
namespace {

AttentionWeights MapOrDie(const PackedModel& model) {
  auto weights = model.MapAttention();
  EXPECT_TRUE(weights.ok()) << weights.status();
  return *std::move(weights);
}

KvCache CacheOrDie(const ModelConfig& config, DType row_type, int32_t blocks) {
  auto cache = KvCache::Create(config, row_type, blocks);
  EXPECT_TRUE(cache.ok()) << cache.status();
  return *std::move(cache);
}

}  // namespace

PackedGraph::PackedGraph(std::shared_ptr<const PackedModel> model, Options options)
    : model_(std::move(model)),
      pool_(options.threads),
      cpu_(MakeCpu(options.isa, &pool_)),
      row_type_(options.row_type),
      weights_(MapOrDie(*model_)),
      block_(cpu_, *model_, weights_, row_type_),
      expert_block_(cpu_,
                    {.hidden = model_->config().hidden_size,
                     .width = model_->config().expert_width,
                     .row_type = row_type_,
                     .weights = model_->weights()},
                    kTokensMax * model_->config().experts_per_token),
      kv_(CacheOrDie(model_->config(), row_type_, kBlocks)),
      blocks_(kBlocks),
      scratch_(model_->config(), model_->weights(), row_type_, kTokensMax, kTokensMax) {
  const ModelConfig& config = model_->config();
  experts_.resize(config.num_layers);
  for (int layer = 0; layer < config.num_layers; ++layer) {
    for (int expert = 0; config.is_moe_layer[layer] && expert < config.num_experts; ++expert) {
      auto mapped = model_->MapExpert(LayerId{static_cast<uint16_t>(layer)},
                                      ExpertId{static_cast<uint16_t>(expert)});
      EXPECT_TRUE(mapped.ok()) << mapped.status();
      experts_[layer].push_back(*std::move(mapped));
    }
  }
}

std::vector<float> PackedGraph::Step(const std::vector<Piece>& pieces) {
  const ModelConfig& config = model_->config();
  StepBatch batch;
  for (const Piece& piece : pieces) {
    if (fed_.size() <= static_cast<size_t>(piece.sequence)) fed_.resize(piece.sequence + 1);
    Fed& fed = fed_[piece.sequence];
    const int32_t end = fed.length + static_cast<int32_t>(piece.ids.size());
    while (static_cast<int32_t>(fed.blocks.size()) * kKvBlockPositions < end) {
      fed.blocks.push_back(blocks_.Take().value());
    }
  }
  for (const Piece& piece : pieces) {
    Fed& fed = fed_[piece.sequence];
    for (int32_t id : piece.ids) {
      const int32_t position = fed.length++;
      batch.ids.push_back(id);
      batch.positions.push_back(position);
      batch.slots.push_back({.block = fed.blocks[position / kKvBlockPositions],
                             .offset = position % kKvBlockPositions});
      batch.attends.push_back({.position = position, .blocks = fed.blocks.data()});
      batch.sampled.push_back(static_cast<int32_t>(batch.tokens()) - 1);
    }
  }
  const TokenRange all{.count = batch.tokens()};
  block_.Embed(batch, scratch_);
  for (int layer = 0; layer < config.num_layers; ++layer) {
    block_.Project(layer, batch, all, kv_.layer(layer), scratch_);
    block_.Attend(batch, kv_.layer(layer), {.first = 0, .count = batch.tokens()}, scratch_);
    block_.ProjectOut(layer, all, scratch_);
    if (!config.is_moe_layer[layer]) {
      block_.Dense(layer, all, scratch_);
      continue;
    }
    EXPECT_EQ(block_.Gate(layer, batch.tokens(), scratch_), 0);
    Force(layer, pieces);
    Experts(layer, batch.tokens());
    block_.Combine(batch.tokens(), scratch_);
  }
  block_.Logits(batch, all, scratch_);
  const auto logits = scratch_.logits.As<float>();
  return {logits.begin(), logits.begin() + batch.tokens() * config.vocab_size};
}

void PackedGraph::Force(int layer, const std::vector<Piece>& pieces) {
  const ModelConfig& config = model_->config();
  const int64_t k = config.experts_per_token;
  int64_t token = 0;
  for (const Piece& piece : pieces) {
    for (size_t i = 0; i < piece.ids.size(); ++i, ++token) {
      if (piece.forced == nullptr) continue;
      const float* logits = scratch_.gate_logits.As<float>().data() + token * config.num_experts;
      const std::vector<int>& chosen = (*piece.forced)[layer][i];
      const float top = *std::max_element(logits, logits + config.num_experts);
      double chosen_sum = 0;
      double sum = 0;
      for (int expert : chosen) chosen_sum += std::exp(double{logits[expert]} - top);
      for (int e = 0; e < config.num_experts; ++e) sum += std::exp(double{logits[e]} - top);
      for (int64_t j = 0; j < k; ++j) {
        scratch_.expert_ids.As<uint16_t>()[token * k + j] = static_cast<uint16_t>(chosen[j]);
        scratch_.weights.As<float>()[token * k + j] = static_cast<float>(
            std::exp(double{logits[chosen[j]]} - top) / (config.norm_topk_prob ? chosen_sum : sum));
      }
    }
  }
}

void PackedGraph::Experts(int layer, int64_t tokens) {
  const ModelConfig& config = model_->config();
  const size_t row_bytes = config.hidden_size * SizeOf(row_type_);
  std::vector<std::vector<const std::byte*>> in(config.num_experts);
  std::vector<std::vector<std::byte*>> out(config.num_experts);
  for (int64_t i = 0; i < tokens * config.experts_per_token; ++i) {
    const uint16_t expert = scratch_.expert_ids.As<uint16_t>()[i];
    in[expert].push_back(scratch_.rows.data() + i / config.experts_per_token * row_bytes);
    out[expert].push_back(scratch_.replies.data() + i * row_bytes);
  }
  const auto chosen = scratch_.expert_ids.As<uint16_t>();
  last_experts_.assign(chosen.begin(), chosen.begin() + tokens * config.experts_per_token);
  std::vector<ExpertGroup> groups;
  for (int expert = 0; expert < config.num_experts; ++expert) {
    if (in[expert].empty()) continue;
    groups.push_back({.mlp = experts_[layer][expert].mlp, .in = in[expert], .out = out[expert]});
  }
  expert_block_.Run(groups);
}

std::vector<float> PackedGraph::Feed(int sequence, const std::vector<int32_t>& ids, size_t chunk) {
  std::vector<float> logits;
  for (size_t i = 0; i < ids.size(); i += chunk) {
    const size_t end = std::min(ids.size(), i + chunk);
    Piece piece{.sequence = sequence, .ids = {ids.begin() + i, ids.begin() + end}};
    const std::vector<float> step = Step({piece});
    logits.insert(logits.end(), step.begin(), step.end());
  }
  return logits;
}

std::shared_ptr<const PackedModel> PackedForTest(const std::string& dir, WeightFormat weights) {
  static std::map<std::pair<std::string, WeightFormat>, std::shared_ptr<const PackedModel>> packed;
  auto& model = packed[{dir, weights}];
  if (model != nullptr) return model;
  const std::filesystem::path out =
      std::filesystem::path(testing::TempDir()) /
      ("packed-" + std::to_string(getpid()) + "-" + std::filesystem::path(dir).filename().string() +
       "-" + std::string(Name(weights)));
  std::filesystem::remove_all(out);
  const absl::Status done = PackModel(dir, out, {.weights = weights});
  EXPECT_TRUE(done.ok()) << done;
  auto opened = PackedModel::Open(out);
  EXPECT_TRUE(opened.ok()) << opened.status();
  model = *opened;
  return model;
}

}  // namespace bottega
