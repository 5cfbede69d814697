#pragma once

#include <cstdint>
#include <vector>

#include "core/kernels/attention.h"
#include "core/model/packed_model.h"
#include "core/tensor/aligned_buffer.h"

namespace bottega {

// The tokens of one step, of any mix of sequences; index `token` in all of them.
struct StepBatch {
  std::vector<int32_t> ids;          // [tokens]
  std::vector<int32_t> positions;    // [tokens]
  std::vector<KvSlot> slots;         // [tokens] where this token's K and V go
  std::vector<AttendToken> attends;  // [tokens] what it sees
  std::vector<int32_t> sampled;      // tokens whose logits are wanted, ascending

  int64_t tokens() const { return static_cast<int64_t>(ids.size()); }
  void Clear();
  // For a step that some leave: tokens `from`.. take the places `to`.., to <= from.
  void MoveTokens(int64_t from, int64_t to, int64_t count);
  // Without the tokens from `tokens` on.
  void Truncate(int64_t tokens);
};

// Consecutive tokens of a step.
struct TokenRange {
  int64_t first = 0;
  int64_t count = 0;
};

// The same, and the query heads of some kv heads.
struct AttendRange {
  int64_t first = 0;
  int64_t count = 0;
  int64_t first_kv_head = 0;
  int64_t kv_heads = 0;  // 0: all from the first on
};

// Working memory of a step, allocated once for `max_tokens`; every row belongs to one token.
struct StepScratch {
  StepScratch(const ModelConfig& config, WeightFormat weights, DType row_type, int64_t max_tokens,
              int64_t max_sampled);

  // As StepBatch's, of what lives on between two layers, and from Project to ProjectOut.
  void MoveTokens(int64_t from, int64_t to, int64_t count);

  int64_t max_tokens;
  int64_t max_sampled;
  int64_t hidden, head_dim, q_dim, qkv_width;  // of the model
  AlignedBuffer x;                             // [tokens, hidden] f32, the residual stream
  AlignedBuffer normed;                        // [tokens, hidden] f32
  AlignedBuffer qkv;                           // [tokens, (heads + 2 kv_heads) * head_dim] f32
  AlignedBuffer attended;                      // [tokens, heads * head_dim] f32
  AlignedBuffer cos, sin;                      // [tokens, head_dim / 2] f32
  AlignedBuffer rows;         // [tokens, hidden] of R: what the gate reads and the experts get
  AlignedBuffer gate_logits;  // [tokens, experts] f32
  AlignedBuffer expert_ids;   // [tokens, top_k] u16, ascending
  AlignedBuffer weights;      // [tokens, top_k] f32
  AlignedBuffer bad;          // [tokens] u8: the gate saw a NaN
  AlignedBuffer replies;      // [tokens, top_k, hidden] of R, from the experts
  AlignedBuffer dense;        // [tokens, gate_up outputs + dense_width] f32; dense layers only
  AlignedBuffer quantised;    // QuantisedRows of any matrix's input; quantised formats only
  AlignedBuffer
      quantised_dense;   // QuantisedRows [tokens, dense_width]; the same, dense layers only
  AlignedBuffer logits;  // [sampled, vocab] f32
  std::vector<const void*> reply_rows;  // [tokens, top_k]
  std::vector<int32_t> identity;        // [tokens] 0, 1, 2, ...
};

// What an attention worker computes itself: everything but the experts. The stages of a step, in
// their order; each result is a function of a token's own row and the KV it sees. `model` and
// `weights` outlive it.
class AttentionBlock {
 public:
  AttentionBlock(Cpu cpu, const PackedModel& model, const AttentionWeights& weights, DType row_type)
      : cpu_(cpu), model_(model), w_(weights), row_type_(row_type) {}

  // x = embedding[id]; the rotary angles of the step.
  void Embed(const StepBatch& batch, StepScratch& s) const;
  // x += o_proj(attend(rope(qk_norm(qkv(rms_norm(x)))))), in three parts, each for some tokens at a
  // time: Project ends with their K and V written, rounded; Attend, which follows when all have
  // been projected, reads them back, in any order of tokens and heads; ProjectOut follows when all
  // have attended.
  void Project(int layer, const StepBatch& batch, TokenRange range, const KvLayer& kv,
               StepScratch& s) const;
  void Attend(const StepBatch& batch, const KvLayer& kv, AttendRange range, StepScratch& s) const;
  void ProjectOut(int layer, TokenRange range, StepScratch& s) const;
  // rows = round_R(rms_norm(x)); experts and weights chosen from those rounded rows. Returns how
  // many tokens had a logit that is not a number (s.bad).
  int64_t Gate(int layer, int64_t tokens, StepScratch& s) const;
  // x += sum over ascending expert id of weight * reply.
  void Combine(int64_t tokens, StepScratch& s) const;
  // x += down(swiglu(gate_up(rms_norm(x)))), a layer without experts.
  void Dense(int layer, TokenRange range, StepScratch& s) const;
  // logits of batch.sampled; `range` is of these.
  void Logits(const StepBatch& batch, TokenRange range, StepScratch& s) const;

 private:
  const ModelConfig& config() const { return model_.config(); }
  // s.normed = rms_norm(x) of these tokens, from its first row on.
  void Norm(const float* weight, TokenRange range, StepScratch& s) const;

  struct Rows {  // f32 rows one after the other
    const float* x;
    int64_t count;
  };
  struct Output {
    float* y;
    int64_t stride;
    bool add = false;
  };
  // y = x W^T in the format of W.
  void Product(Rows x, const WeightMatrix& w, Output out, StepScratch& s) const;
  QuantisedRows QuantiseInput(Rows x, int64_t k, StepScratch& s) const;
  void DenseQuantised(const GatedMlpWeights& w, TokenRange range, StepScratch& s) const;

  Cpu cpu_;
  const PackedModel& model_;
  const AttentionWeights& w_;
  DType row_type_;
};

}  // namespace bottega
