#include "core/model/reference_graph.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "core/base/check.h"
#include "core/base/status.h"
#include "core/model/refusal.h"
#include "core/model/tensor_set.h"

namespace bottega {
namespace {

using tensor_name::OfExpert;
using tensor_name::OfLayer;

// [rows, width], row-major.
struct Rows {
  Rows(size_t rows, size_t width) : width(width), values(rows * width) {}
  size_t count() const { return values.size() / width; }
  std::span<float> operator[](size_t row) { return std::span(values).subspan(row * width, width); }
  std::span<const float> operator[](size_t row) const {
    return std::span(values).subspan(row * width, width);
  }
  size_t width;
  std::vector<float> values;
};

class Graph {
 public:
  Graph(const Checkpoint& checkpoint, const ReferenceOptions& options)
      : checkpoint_(checkpoint),
        c_(checkpoint.config()),
        options_(options),
        rope_(MakeRopeTable(c_)) {}

  absl::StatusOr<ReferenceOutput> Run(std::span<const int32_t> ids) {
    ReferenceOutput out;
    ASSIGN_OR_RETURN(Rows x, Embed(ids));
    for (int layer = 0; layer < c_.num_layers; ++layer) {
      ASSIGN_OR_RETURN(Rows normed, Norm(OfLayer(layer, "input_layernorm"), x));
      ASSIGN_OR_RETURN(Rows attended, Attend(layer, normed));
      Add(attended, x);
      ASSIGN_OR_RETURN(normed, Norm(OfLayer(layer, "post_attention_layernorm"), x));
      out.choices.emplace_back();
      if (c_.is_moe_layer[static_cast<size_t>(layer)]) {
        ASSIGN_OR_RETURN(Rows mixed, Mixture(layer, normed, out.choices.back()));
        Add(mixed, x);
      } else {
        ASSIGN_OR_RETURN(Rows mlp,
                         GatedMlp(OfLayer(layer, "mlp.gate_proj"), OfLayer(layer, "mlp.up_proj"),
                                  OfLayer(layer, "mlp.down_proj"), normed));
        Add(mlp, x);
      }
    }
    ASSIGN_OR_RETURN(Rows last, Norm(tensor_name::kFinalNorm, x));
    ASSIGN_OR_RETURN(Rows logits,
                     Linear(c_.tied_head ? tensor_name::kEmbedding : tensor_name::kHead, last));
    out.logits = std::move(logits.values);
    return out;
  }

 private:
  absl::StatusOr<Rows> Embed(std::span<const int32_t> ids) {
    ASSIGN_OR_RETURN(std::vector<float> table, checkpoint_.ReadFloats(tensor_name::kEmbedding));
    Rows x(ids.size(), Hidden());
    for (size_t t = 0; t < ids.size(); ++t) {
      if (ids[t] < 0 || ids[t] >= c_.vocab_size) {
        return absl::InvalidArgumentError("token id past the vocabulary");
      }
      std::copy_n(table.begin() + static_cast<std::ptrdiff_t>(ids[t]) * c_.hidden_size, Hidden(),
                  x[t].begin());
    }
    return x;
  }

  // x * weight / sqrt(mean(x^2) + eps), over the whole row or over each run of the weight's length
  // (the heads of q and k).
  absl::StatusOr<Rows> Norm(const std::string& name, const Rows& x) {
    ASSIGN_OR_RETURN(std::vector<float> weight, checkpoint_.ReadFloats(name));
    Rows y(x.count(), x.width);
    const size_t n = weight.size();
    for (size_t at = 0; at < x.values.size(); at += n) {
      std::span<const float> in = std::span(x.values).subspan(at, n);
      float mean = Dot(in, in) / static_cast<float>(n);
      float scale = 1.0f / std::sqrt(mean + c_.rms_norm_eps);
      for (size_t i = 0; i < n; ++i) y.values[at + i] = in[i] * scale * weight[i];
    }
    return y;
  }

  // Product of x as the options round it.
  absl::StatusOr<Rows> Linear(const std::string& name, const Rows& x) {
    if (!options_.round_inputs) return Product(name, x);
    Rows rounded = x;
    for (size_t t = 0; t < x.count(); ++t) options_.round_inputs(rounded[t]);
    return Product(name, rounded);
  }

  // y = x W^T, W [out, in].
  absl::StatusOr<Rows> Product(const std::string& name, const Rows& x) {
    ASSIGN_OR_RETURN(std::vector<float> w, checkpoint_.ReadFloats(name));
    Rows y(x.count(), w.size() / x.width);
    for (size_t t = 0; t < x.count(); ++t) {
      for (size_t n = 0; n < y.width; ++n) {
        y[t][n] = Dot(x[t], std::span(w).subspan(n * x.width, x.width));
      }
    }
    return y;
  }

  absl::StatusOr<Rows> Attend(int layer, const Rows& x) {
    ASSIGN_OR_RETURN(Rows q, Linear(OfLayer(layer, "self_attn.q_proj"), x));
    ASSIGN_OR_RETURN(Rows k, Linear(OfLayer(layer, "self_attn.k_proj"), x));
    ASSIGN_OR_RETURN(Rows v, Linear(OfLayer(layer, "self_attn.v_proj"), x));
    ASSIGN_OR_RETURN(q, Norm(OfLayer(layer, "self_attn.q_norm"), q));
    ASSIGN_OR_RETURN(k, Norm(OfLayer(layer, "self_attn.k_norm"), k));
    Rotate(q);
    Rotate(k);
    const auto d = static_cast<size_t>(c_.head_dim);
    const auto group = static_cast<size_t>(c_.num_heads / c_.num_kv_heads);
    const float scale = 1.0f / std::sqrt(static_cast<float>(c_.head_dim));
    Rows heads(x.count(), q.width);
    for (size_t t = 0; t < x.count(); ++t) {
      for (size_t h = 0; h < static_cast<size_t>(c_.num_heads); ++h) {
        const size_t kv = h / group * d;  // where the head's K and V begin in a row
        std::vector<float> p(t + 1);      // causal: positions 0..t
        for (size_t s = 0; s <= t; ++s) {
          p[s] = scale * Dot(q[t].subspan(h * d, d), k[s].subspan(kv, d));
        }
        Softmax(p);
        for (size_t i = 0; i < d; ++i) {
          double sum = 0;
          for (size_t s = 0; s <= t; ++s) sum += static_cast<double>(p[s]) * v[s][kv + i];
          heads[t][h * d + i] = static_cast<float>(sum);
        }
      }
    }
    return Linear(OfLayer(layer, "self_attn.o_proj"), heads);
  }

  // Row t is position t. Pairs (i, i + head_dim/2) of each head turn by t * inv_freq[i].
  void Rotate(Rows& x) {
    const size_t half = rope_.inv_freq.size();
    for (size_t t = 0; t < x.count(); ++t) {
      for (size_t head = 0; head < x.width; head += 2 * half) {
        for (size_t i = 0; i < half; ++i) {
          const float angle = static_cast<float>(t) * rope_.inv_freq[i];
          const float cos = std::cos(angle) * rope_.attention_scaling;
          const float sin = std::sin(angle) * rope_.attention_scaling;
          float& a = x[t][head + i];
          float& b = x[t][head + i + half];
          const float turned = a * cos - b * sin;
          b = b * cos + a * sin;
          a = turned;
        }
      }
    }
  }

  absl::StatusOr<Rows> GatedMlp(const std::string& gate, const std::string& up,
                                const std::string& down, const Rows& x) {
    ASSIGN_OR_RETURN(Rows g, Linear(gate, x));
    ASSIGN_OR_RETURN(Rows u, Linear(up, x));
    for (size_t i = 0; i < g.values.size(); ++i) {
      const float silu = g.values[i] / (1.0f + std::exp(-g.values[i]));
      g.values[i] = silu * u.values[i];
    }
    return Linear(down, g);
  }

  // Per position: the experts_per_token largest router logits (ties to the lower id), softmax over
  // all, renormalised over the chosen if the model says so; sum of weight * expert(x), ascending
  // id.
  absl::StatusOr<Rows> Mixture(int layer, const Rows& x, std::vector<std::vector<int>>& choices) {
    ASSIGN_OR_RETURN(Rows p, Product(OfLayer(layer, "mlp.gate"), x));
    for (size_t t = 0; t < x.count(); ++t) {
      choices.push_back(options_.forced ? (*options_.forced)[static_cast<size_t>(layer)][t]
                                        : Choose(p[t]));
      Softmax(p[t]);
      if (!c_.norm_topk_prob) continue;
      float sum = 0;
      for (int expert : choices[t]) sum += p[t][static_cast<size_t>(expert)];
      for (float& value : p[t]) value /= sum;
    }
    Rows y(x.count(), x.width);
    for (int expert = 0; expert < c_.num_experts; ++expert) {
      std::vector<size_t> tokens;
      for (size_t t = 0; t < x.count(); ++t) {
        if (std::count(choices[t].begin(), choices[t].end(), expert)) tokens.push_back(t);
      }
      if (tokens.empty()) continue;
      Rows rows(tokens.size(), x.width);
      for (size_t i = 0; i < tokens.size(); ++i) std::ranges::copy(x[tokens[i]], rows[i].begin());
      ASSIGN_OR_RETURN(Rows result, GatedMlp(OfExpert(layer, expert, "gate_proj"),
                                             OfExpert(layer, expert, "up_proj"),
                                             OfExpert(layer, expert, "down_proj"), rows));
      for (size_t i = 0; i < tokens.size(); ++i) {
        const float weight = p[tokens[i]][static_cast<size_t>(expert)];
        for (size_t n = 0; n < y.width; ++n) y[tokens[i]][n] += weight * result[i][n];
      }
    }
    return y;
  }

  std::vector<int> Choose(std::span<const float> logits) const {
    std::vector<int> ids(logits.size());
    std::iota(ids.begin(), ids.end(), 0);
    std::stable_sort(ids.begin(), ids.end(), [&](int a, int b) {
      return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
    });
    ids.resize(static_cast<size_t>(c_.experts_per_token));
    std::sort(ids.begin(), ids.end());
    return ids;
  }

  static void Softmax(std::span<float> x) {
    const float max = *std::max_element(x.begin(), x.end());
    float sum = 0;
    for (float& value : x) sum += value = std::exp(value - max);
    for (float& value : x) value /= sum;
  }

  static void Add(const Rows& from, Rows& to) {
    for (size_t i = 0; i < to.values.size(); ++i) to.values[i] += from.values[i];
  }

  float Dot(std::span<const float> a, std::span<const float> b) const {
    if (options_.accumulate_in_double) {
      double sum = 0;
      for (size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * b[i];
      return static_cast<float>(sum);
    }
    float sum = 0;
    for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
    return sum;
  }

  size_t Hidden() const { return static_cast<size_t>(c_.hidden_size); }

  const Checkpoint& checkpoint_;
  const ModelConfig& c_;
  const ReferenceOptions& options_;
  const RopeTable rope_;
};

}  // namespace

absl::StatusOr<ReferenceOutput> RunReferenceGraph(const Checkpoint& checkpoint,
                                                  std::span<const int32_t> ids,
                                                  const ReferenceOptions& options) {
  const ModelConfig& config = checkpoint.config();
  if (options.forced) {
    CHECK_EQ(options.forced->size(), static_cast<size_t>(config.num_layers));
    for (size_t layer = 0; layer < options.forced->size(); ++layer) {
      CHECK(!config.is_moe_layer[layer] || (*options.forced)[layer].size() == ids.size());
    }
  }
  return Graph(checkpoint, options).Run(ids);
}

}  // namespace bottega
