#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace bottega {

// What transformers answered (tests/golden/README.md).
struct GoldenSequence {
  std::vector<int32_t> ids;
  std::vector<float> top2_gap;                         // [positions]
  size_t first_row = 0;                                // of LogitsGolden::logits
  std::vector<std::vector<std::vector<int>>> experts;  // [layer][position] ascending; dense: empty
};

struct LogitsGolden {
  std::string model;  // the checkpoint's directory
  size_t vocab = 0;
  std::vector<GoldenSequence> sequences;
  std::vector<float> logits;  // [rows, vocab]
};

LogitsGolden LoadLogitsGolden(const std::string& name);
bool HasLogitsGolden(const std::string& name);

// |ours - theirs| / |theirs|, Euclidean over `count` values.
double RelativeError(const float* ours, const float* theirs, size_t count);

// Nats lost by reading the distribution of `ours` for that of `theirs`.
double Divergence(const float* theirs, const float* ours, size_t count);

// Positions of a conversation with bottega-tiny whose next token the assistant writes: after
// `<|im_start|>assistant` until `<|im_end|>`. The others are the user's words, which the model was
// never taught to guess.
std::vector<bool> AssistantWrites(const std::vector<int32_t>& ids);

}  // namespace bottega
