#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// The C ABI of the Rust crate in this folder; only core/text/*.cc include it. Contract of every
// entry: spans are borrowed for the call; what is written to `out` (status kOk) or `message` (any
// other status) is owned by the caller until it goes to the matching free function; a panic inside
// becomes kPanic. Handles may be shared between threads: all entries but the frees read only.
#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
  BOTTEGA_TEXT_OK = 0,
  BOTTEGA_TEXT_REFUSED = 1,  // the file is not understood or damaged
  BOTTEGA_TEXT_INVALID = 2,  // the call's input is wrong: text, ids, messages
  BOTTEGA_TEXT_LIMIT = 3,    // a named limit was reached
  BOTTEGA_TEXT_PANIC = 4,
} bottega_text_status;

typedef struct {
  const char* data;
  size_t size;
} bottega_text_span;

typedef struct {
  char* data;
  size_t size;
} bottega_text_bytes;

typedef struct {
  int32_t* data;
  size_t size;
} bottega_text_ids;

void bottega_text_free_bytes(bottega_text_bytes bytes);
void bottega_text_free_ids(bottega_text_ids ids);

// Tokenizer.
typedef struct bottega_text_tokenizer bottega_text_tokenizer;

enum { BOTTEGA_TEXT_TOKEN_ADDED = 1, BOTTEGA_TEXT_TOKEN_SPECIAL = 2 };

// Views of the tokenizer's tables; they live as long as it does. Token i is
// texts[text_ends[i-1] .. text_ends[i]] (0 before the first), likewise bytes.
typedef struct {
  size_t size;                // ids are 0 .. size-1
  const char* texts;          // vocabulary spelling
  const uint32_t* text_ends;  // [size]
  const char* bytes;          // what the token adds to the text
  const uint32_t* byte_ends;  // [size]
  const uint8_t* flags;       // [size], BOTTEGA_TEXT_TOKEN_*
  bool bytes_concatenate;     // decoding is exactly the tokens' bytes, one after the other
} bottega_text_vocabulary;

bottega_text_status bottega_text_tokenizer_load(bottega_text_span json,
                                                bottega_text_tokenizer** out,
                                                bottega_text_bytes* message);
void bottega_text_tokenizer_free(bottega_text_tokenizer* tokenizer);
void bottega_text_tokenizer_vocabulary(const bottega_text_tokenizer* tokenizer,
                                       bottega_text_vocabulary* out);
// -1: no such token.
bottega_text_status bottega_text_tokenizer_id_of(const bottega_text_tokenizer* tokenizer,
                                                 bottega_text_span token, int32_t* out,
                                                 bottega_text_bytes* message);
bottega_text_status bottega_text_tokenizer_encode(const bottega_text_tokenizer* tokenizer,
                                                  bottega_text_span text, bool add_special,
                                                  bool parse_special, bottega_text_ids* out,
                                                  bottega_text_bytes* message);
bottega_text_status bottega_text_tokenizer_decode(const bottega_text_tokenizer* tokenizer,
                                                  const int32_t* ids, size_t count,
                                                  bool skip_special, bottega_text_bytes* out,
                                                  bottega_text_bytes* message);

// Chat template.
typedef struct bottega_text_template bottega_text_template;

typedef struct {
  uint64_t fuel;              // instructions
  uint64_t recursion;         // macros and recursive loops, nesting of values
  uint64_t output_bytes_max;  // of the rendered text
  uint64_t work_bytes_max;    // read and made by all operations of one rendering
} bottega_text_template_limits;

// `defaults_json` is an object: what the context of a rendering has where it says nothing else.
bottega_text_status bottega_text_template_compile(bottega_text_span source,
                                                  bottega_text_span defaults_json,
                                                  bottega_text_template_limits limits,
                                                  bottega_text_template** out,
                                                  bottega_text_bytes* message);
void bottega_text_template_free(bottega_text_template* chat_template);
bottega_text_status bottega_text_template_render(const bottega_text_template* chat_template,
                                                 bottega_text_span context_json, int64_t now_s,
                                                 bottega_text_bytes* out,
                                                 bottega_text_bytes* message);
// The names that the template reads and nothing in it sets, one per line.
bottega_text_status bottega_text_template_variables(const bottega_text_template* chat_template,
                                                    bottega_text_bytes* out,
                                                    bottega_text_bytes* message);

// For the test that a panic stays behind this ABI.
bottega_text_status bottega_text_panic_for_test(bottega_text_bytes* message);

#ifdef __cplusplus
}
#endif
