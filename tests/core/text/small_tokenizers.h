#pragma once

#include <string>
#include <vector>

#include "nlohmann/json.hpp"

// Tokenizers of each family, small enough to see through.
namespace bottega {

// GPT-2's printable character for a byte.
std::string PrintableByte(unsigned byte);

// Byte-level BPE: ids 0..255 are the bytes, 256.. a few merges, then the added tokens
// `<|im_start|>` `<|im_end|>` (special), `<think>` `</think>` `/turbo` (not special).
nlohmann::ordered_json ByteLevelTokenizer();

// As Llama-2's: '▁' for spaces, byte tokens for what is not in the vocabulary, a leading space
// stripped. `<s>`, `</s>` special.
nlohmann::ordered_json ByteFallbackTokenizer();

// As BERT's: '##' continues a word, a space before every other token.
nlohmann::ordered_json WordPieceTokenizer();

// As T5's: a unigram model, '▁' for spaces by the Metaspace decoder.
nlohmann::ordered_json UnigramTokenizer();

}  // namespace bottega
