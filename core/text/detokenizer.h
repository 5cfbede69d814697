#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/text/tokenizer.h"

namespace bottega {

// Token ids to text as they come. What it has returned is whole code points, never changes later,
// and with Flush() it is what Decode makes of all the ids at once. Bytes that can become no
// character are U+FFFD, as in Decode. One request's, one thread's; the tokenizer must outlive it.
//
// Byte-level tokenizers: exact for any ids. Others (SentencePiece, WordPiece): exact but for a run
// of byte tokens with a broken one in it, which Decode replaces whole, also the characters before.
class StreamDecoder {
 public:
  StreamDecoder(const Tokenizer& tokenizer, bool skip_special)
      : tokenizer_(&tokenizer), skip_special_(skip_special) {}

  // The text that is certain now and was not before; often empty. An id that does not exist adds
  // nothing: ids are checked where they enter.
  std::string Push(int32_t id);
  // What is left at the end of the request. The decoder is then as new.
  std::string Flush();

  // Bytes of text decoded so far over bytes returned, for the test that a token costs O(1).
  size_t decoded_bytes() const { return decoded_bytes_; }

 private:
  std::string PushBytes(std::string_view bytes);
  std::string PushWindow(int32_t id);
  std::string DecodeTail(size_t pending_count);

  const Tokenizer* tokenizer_;
  bool skip_special_;
  // Byte-level: the start of a character, at most 3 bytes.
  std::string partial_;
  // Others: tokens whose text is out, needed because it shapes what follows (a leading space, a
  // suffix), and tokens whose text is not out yet.
  std::vector<int32_t> context_;
  std::vector<int32_t> pending_;
  size_t decoded_bytes_ = 0;
};

}  // namespace bottega
