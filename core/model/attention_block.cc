#include "core/model/attention_block.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/base/check.h"
#include "core/kernels/combine.h"
#include "core/kernels/moe_gate.h"
#include "core/kernels/permute.h"
#include "core/kernels/quantised.h"
#include "core/kernels/rms_norm.h"
#include "core/kernels/rope.h"
#include "core/kernels/swiglu.h"

namespace bottega {
namespace {

float* F32(AlignedBuffer& buffer) { return buffer.As<float>().data(); }

int64_t QkvWidth(const ModelConfig& c) { return c.q_dim() + 2 * c.kv_dim(); }

AlignedBuffer Floats(int64_t count) { return AlignedBuffer(static_cast<size_t>(count) * 4); }

// Floats a token.
int64_t DenseFloats(const ModelConfig& c, WeightFormat weights) {
  if (c.num_dense_layers() == 0 || IsQuantised(weights)) return 0;
  return GateUpOutputs(c.dense_width) + c.dense_width;
}

// Of the widest input of a matrix but dense layers' second one.
AlignedBuffer QuantisedInput(const ModelConfig& c, WeightFormat weights, int64_t tokens) {
  if (!IsQuantised(weights)) return AlignedBuffer(0);
  return AlignedBuffer(std::max(QuantisedRows::Bytes(weights, tokens, c.hidden_size),
                                QuantisedRows::Bytes(weights, tokens, c.q_dim())));
}
AlignedBuffer QuantisedDense(const ModelConfig& c, WeightFormat weights, int64_t tokens) {
  if (c.num_dense_layers() == 0 || !IsQuantised(weights)) return AlignedBuffer(0);
  return AlignedBuffer(QuantisedRows::Bytes(weights, tokens, c.dense_width));
}

}  // namespace

void StepBatch::Clear() {
  ids.clear();
  positions.clear();
  slots.clear();
  attends.clear();
  sampled.clear();
}

void StepBatch::MoveTokens(int64_t from, int64_t to, int64_t count) {
  CHECK_LE(to, from);
  const auto move = [&](auto& values) {
    std::copy_n(values.begin() + from, count, values.begin() + to);
  };
  move(ids);
  move(positions);
  move(slots);
  move(attends);
}

void StepBatch::Truncate(int64_t tokens) {
  const auto cut = [&](auto& values) { values.erase(values.begin() + tokens, values.end()); };
  cut(ids);
  cut(positions);
  cut(slots);
  cut(attends);
}

StepScratch::StepScratch(const ModelConfig& c, WeightFormat format, DType row_type,
                         int64_t tokens_max, int64_t sampled_max)
    : max_tokens(tokens_max),
      max_sampled(sampled_max),
      hidden(c.hidden_size),
      head_dim(c.head_dim),
      q_dim(c.q_dim()),
      qkv_width(QkvWidth(c)),
      x(Floats(max_tokens * c.hidden_size)),
      normed(Floats(max_tokens * c.hidden_size)),
      qkv(Floats(max_tokens * QkvWidth(c))),
      attended(Floats(max_tokens * c.q_dim())),
      cos(Floats(max_tokens * c.head_dim / 2)),
      sin(Floats(max_tokens * c.head_dim / 2)),
      rows(static_cast<size_t>(max_tokens * c.hidden_size) * SizeOf(row_type)),
      gate_logits(Floats(max_tokens * c.num_experts)),
      expert_ids(static_cast<size_t>(max_tokens * c.experts_per_token) * sizeof(uint16_t)),
      weights(Floats(max_tokens * c.experts_per_token)),
      bad(static_cast<size_t>(max_tokens)),
      replies(static_cast<size_t>(max_tokens * c.experts_per_token * c.hidden_size) *
              SizeOf(row_type)),
      dense(Floats(max_tokens * DenseFloats(c, format))),
      quantised(QuantisedInput(c, format, max_tokens)),
      quantised_dense(QuantisedDense(c, format, max_tokens)),
      logits(Floats(max_sampled * c.vocab_size)),
      reply_rows(static_cast<size_t>(max_tokens * c.experts_per_token)),
      identity(static_cast<size_t>(max_tokens)) {
  std::iota(identity.begin(), identity.end(), 0);
  // Replies arrive at fixed places: one row per (token, chosen expert in ascending id).
  for (size_t i = 0; i < reply_rows.size(); ++i) {
    reply_rows[i] = replies.data() + i * static_cast<size_t>(c.hidden_size) * SizeOf(row_type);
  }
}

void StepScratch::MoveTokens(int64_t from, int64_t to, int64_t count) {
  CHECK_LE(to, from);
  const auto move = [&](AlignedBuffer& buffer, int64_t width) {
    std::copy_n(F32(buffer) + from * width, count * width, F32(buffer) + to * width);
  };
  move(x, hidden);
  move(qkv, qkv_width);
  move(attended, q_dim);
  move(cos, head_dim / 2);
  move(sin, head_dim / 2);
}

void AttentionBlock::Embed(const StepBatch& batch, StepScratch& s) const {
  CHECK_LE(batch.tokens(), s.max_tokens);
  if (IsQuantised(model_.weights())) {
    GatherTable(cpu_, {.table = w_.embedding,
                       .format = model_.weights(),
                       .index = batch.ids,
                       .width = config().hidden_size,
                       .dst = F32(s.x)});
  } else {
    GatherRows(cpu_, {.src = w_.embedding,
                      .dtype = ElementOf(model_.weights()),
                      .src_stride = config().hidden_size,
                      .index = batch.ids,
                      .width = config().hidden_size,
                      .dst = F32(s.x),
                      .dst_stride = config().hidden_size});
  }
  RopeAngles(model_.rope().inv_freq, model_.rope().attention_scaling, batch.positions, F32(s.cos),
             F32(s.sin));
}

void AttentionBlock::Norm(const float* weight, TokenRange range, StepScratch& s) const {
  RmsNorm(cpu_, {.x = F32(s.x) + range.first * config().hidden_size,
                 .x_stride = config().hidden_size,
                 .rows = range.count,
                 .width = config().hidden_size,
                 .weight = weight,
                 .eps = config().rms_norm_eps,
                 .y = F32(s.normed),
                 .y_stride = config().hidden_size});
}

QuantisedRows AttentionBlock::QuantiseInput(Rows x, int64_t k, StepScratch& s) const {
  const auto rows = QuantisedRows::In(s.quantised.data(), model_.weights(), x.count, k);
  Quantise(cpu_, {.x = x.x, .x_stride = k, .rows = x.count, .to = rows});
  return rows;
}

void AttentionBlock::Product(Rows x, const WeightMatrix& w, Output out, StepScratch& s) const {
  if (IsQuantised(w.format)) {
    const QuantisedMatMulArgs product = {.x = QuantiseInput(x, w.k, s),
                                         .m = x.count,
                                         .w = w.quantised(),
                                         .y = out.y,
                                         .y_stride = out.stride,
                                         .add = out.add};
    QuantisedMatMulGroup(cpu_, {&product, 1});
    return;
  }
  MatMul(cpu_, {.x = x.x,
                .x_stride = w.k,
                .m = x.count,
                .w = w.plain(),
                .y = out.y,
                .y_stride = out.stride,
                .add = out.add});
}

void AttentionBlock::Project(int layer, const StepBatch& batch, TokenRange range, const KvLayer& kv,
                             StepScratch& s) const {
  const LayerWeights& w = w_.layers[layer];
  const ModelConfig& c = config();
  const int64_t stride = QkvWidth(c);
  const int64_t first_angle = range.first * c.head_dim / 2;
  float* const q = F32(s.qkv) + range.first * stride;
  float* const k = q + c.q_dim();
  float* const v = k + c.kv_dim();

  Norm(w.input_norm, range, s);
  Product({F32(s.normed), range.count}, w.qkv, {q, stride}, s);
  const struct {
    float* heads;
    int64_t count;
    const float* norm;
  } parts[] = {{q, c.num_heads, w.q_norm}, {k, c.num_kv_heads, w.k_norm}};
  for (const auto& part : parts) {
    RmsNorm(cpu_, {.x = part.heads,
                   .x_stride = stride,
                   .rows = range.count,
                   .groups = part.count,
                   .width = c.head_dim,
                   .weight = part.norm,
                   .eps = c.rms_norm_eps,
                   .y = part.heads,
                   .y_stride = stride});
    Rope(cpu_, {.x = part.heads,
                .x_stride = stride,
                .rows = range.count,
                .heads = part.count,
                .head_dim = c.head_dim,
                .cos = F32(s.cos) + first_angle,
                .sin = F32(s.sin) + first_angle});
  }
  WriteKv(cpu_, {.k = k,
                 .v = v,
                 .stride = stride,
                 .slots = absl::MakeConstSpan(batch.slots).subspan(range.first, range.count),
                 .layer = kv});
}

void AttentionBlock::Attend(const StepBatch& batch, const KvLayer& kv, AttendRange range,
                            StepScratch& s) const {
  const ModelConfig& c = config();
  const int64_t stride = QkvWidth(c);
  bottega::Attend(cpu_,
                  {.q = F32(s.qkv) + range.first * stride,
                   .q_stride = stride,
                   .heads = c.num_heads,
                   .scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim)),
                   .tokens = absl::MakeConstSpan(batch.attends).subspan(range.first, range.count),
                   .first_kv_head = range.first_kv_head,
                   .kv_heads = range.kv_heads,
                   .layer = kv,
                   .out = F32(s.attended) + range.first * c.q_dim(),
                   .out_stride = c.q_dim()});
}

void AttentionBlock::ProjectOut(int layer, TokenRange range, StepScratch& s) const {
  const ModelConfig& c = config();
  Product({F32(s.attended) + range.first * c.q_dim(), range.count}, w_.layers[layer].o,
          {F32(s.x) + range.first * c.hidden_size, c.hidden_size, /*add=*/true}, s);
}

int64_t AttentionBlock::Gate(int layer, int64_t tokens, StepScratch& s) const {
  const LayerWeights& w = w_.layers[layer];
  const ModelConfig& c = config();
  RmsNorm(cpu_, {.x = F32(s.x),
                 .x_stride = c.hidden_size,
                 .rows = tokens,
                 .width = c.hidden_size,
                 .weight = w.post_attention_norm,
                 .eps = c.rms_norm_eps,
                 .y = s.rows.data(),
                 .y_stride = c.hidden_size,
                 .y_dtype = row_type_});
  const float* gate_input = F32(s.rows);
  if (row_type_ != DType::kF32) {  // widened again: the gate sees the row that the experts see
    GatherRows(cpu_, {.src = s.rows.data(),
                      .dtype = row_type_,
                      .src_stride = c.hidden_size,
                      .index = absl::MakeConstSpan(s.identity).first(tokens),
                      .width = c.hidden_size,
                      .dst = F32(s.normed),
                      .dst_stride = c.hidden_size});
    gate_input = F32(s.normed);
  }
  MatMul(cpu_, {.x = gate_input,
                .x_stride = c.hidden_size,
                .m = tokens,
                .w = w.gate,
                .y = F32(s.gate_logits),
                .y_stride = c.num_experts});
  return MoeGate(cpu_, {.logits = F32(s.gate_logits),
                        .tokens = tokens,
                        .experts = c.num_experts,
                        .top_k = c.experts_per_token,
                        .renormalise = c.norm_topk_prob,
                        .ids = s.expert_ids.As<uint16_t>().data(),
                        .weights = F32(s.weights),
                        .bad = s.bad.As<uint8_t>().data()});
}

void AttentionBlock::Combine(int64_t tokens, StepScratch& s) const {
  const ModelConfig& c = config();
  bottega::Combine(cpu_, {.rows = s.reply_rows.data(),
                          .weights = F32(s.weights),
                          .row_dtype = row_type_,
                          .tokens = tokens,
                          .top_k = c.experts_per_token,
                          .width = c.hidden_size,
                          .residual = F32(s.x),
                          .residual_stride = c.hidden_size});
}

void AttentionBlock::Dense(int layer, TokenRange range, StepScratch& s) const {
  const LayerWeights& w = w_.layers[layer];
  const ModelConfig& c = config();
  const int64_t tokens = range.count;
  const int64_t gate_up_width = GateUpOutputs(c.dense_width);
  Norm(w.post_attention_norm, range, s);
  if (IsQuantised(model_.weights())) return DenseQuantised(w.dense, range, s);
  float* const gate_up = F32(s.dense);                    // [tokens, gate_up_width]
  float* const inner = gate_up + tokens * gate_up_width;  // [tokens, dense_width]
  Product({F32(s.normed), tokens}, w.dense.gate_up, {gate_up, gate_up_width}, s);
  SwiGlu(cpu_, {.gate_up = gate_up,
                .gate_up_stride = gate_up_width,
                .rows = tokens,
                .width = c.dense_width,
                .out = inner,
                .out_stride = c.dense_width});
  Product({inner, tokens}, w.dense.down,
          {F32(s.x) + range.first * c.hidden_size, c.hidden_size, /*add=*/true}, s);
}

void AttentionBlock::DenseQuantised(const GatedMlpWeights& w, TokenRange range,
                                    StepScratch& s) const {
  const int64_t tokens = range.count;
  const QuantisedGateUpArgs gate_up = {
      .x = QuantiseInput({F32(s.normed), tokens}, w.gate_up.k, s),
      .m = tokens,
      .w = w.quantised_gate_up(),
      .out = QuantisedRows::In(s.quantised_dense.data(), w.down.format, tokens, w.width)};
  QuantisedGateUpGroup(cpu_, {&gate_up, 1});
  const QuantisedMatMulArgs down = {.x = gate_up.out,
                                    .m = tokens,
                                    .w = w.down.quantised(),
                                    .y = F32(s.x) + range.first * config().hidden_size,
                                    .y_stride = config().hidden_size,
                                    .add = true};
  QuantisedMatMulGroup(cpu_, {&down, 1});
}

void AttentionBlock::Logits(const StepBatch& batch, TokenRange range, StepScratch& s) const {
  const ModelConfig& c = config();
  CHECK_LE(range.first + range.count, s.max_sampled);
  // Gathered first, so that norm and head see only the rows that sample.
  float* const rows = F32(s.normed);
  GatherRows(cpu_, {.src = F32(s.x),
                    .dtype = DType::kF32,
                    .src_stride = c.hidden_size,
                    .index = absl::MakeConstSpan(batch.sampled).subspan(range.first, range.count),
                    .width = c.hidden_size,
                    .dst = rows,
                    .dst_stride = c.hidden_size});
  RmsNorm(cpu_, {.x = rows,
                 .x_stride = c.hidden_size,
                 .rows = range.count,
                 .width = c.hidden_size,
                 .weight = w_.final_norm,
                 .eps = c.rms_norm_eps,
                 .y = rows,
                 .y_stride = c.hidden_size});
  Product({rows, range.count}, w_.lm_head,
          {F32(s.logits) + range.first * c.vocab_size, c.vocab_size}, s);
}

}  // namespace bottega
