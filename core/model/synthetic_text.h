#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/model/config.h"

namespace bottega {

struct TextFile {
  std::string name;
  std::string content;
};

// What a gateway needs beside the weights of a model that nobody trained: tokenizer.json,
// chat_template.jinja, generation_config.json.
//
// The tokenizer has exactly config.vocab_size tokens: <unk> <s> </s>, the 256 bytes, the control
// tokens of a chat, and for the rest made-up words. It has no merges: a text is encoded as its
// bytes, while a model may answer in all of its vocabulary. The control tokens are the 12 after one
// another in which <|im_end|> is the config's end token, or else the last 12 of the vocabulary.
// Refused (kModelRefused) is a vocabulary too small for all that.
absl::StatusOr<std::vector<TextFile>> SyntheticText(const ModelConfig& config);

}  // namespace bottega
