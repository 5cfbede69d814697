#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/answer.h"
#include "gateway/json_scanner.h"

namespace bottega::gateway {

inline constexpr std::string_view kToolCallOpen = "<tool_call>";
inline constexpr std::string_view kToolCallClose = "</tool_call>";

// Splits an answer's content, piece by piece, into text and tool calls of the Hermes form,
//   <tool_call>{"name": …, "arguments": {…}}</tool_call>
// What it gives, added up, does not depend on how the text was cut.
//
// - Content is the text before the first call, without the white space next to its tag; what stands
//   between calls and after them is dropped. Text that may begin a tag, and white space that may
//   stand before one, are held back.
// - A call begins once its name is complete and is never taken back. Until then it may turn out to
//   be no call (broken JSON, no name): then its text is content, tags included.
// - Arguments are the model's own bytes, whatever value they are, without white space round it: a
//   JSON string stays one, quotes and all, as with vLLM's parser. They leave as they come, those
//   that stand before the name once it is known. A call without any has `{}`.
// - Where a call with a name breaks, the text from there to `</tool_call>` goes on as its
//   arguments, without the call's own brace: what a client's lenient parser may still make sense
//   of. If they were complete, they stay as they are.
// - A call ends with its object, so the closing tag may be missing. The end of the answer in it is
//   no other break: without a name it is content, with one its arguments are what there is of them.
class ToolCallParser {
 public:
  struct Options {
    std::vector<std::string> tools;  // names in the request
    std::string id_prefix;           // ids of calls: this and the call's index
    bool parallel = true;            // false: one call at most
  };
  struct Piece {
    std::string content;
    std::vector<ToolCallDelta> calls;
  };

  explicit ToolCallParser(Options options);

  Piece Push(std::string_view text);
  // The end of the text. `cut`: by a limit or a stop of the client, so that a call that is not
  // complete is no error of the model.
  Piece Finish(bool cut);

  int calls() const { return calls_; }
  // The one call that was allowed is complete: nothing of what may follow is shown.
  bool finished() const { return state_ == State::kFinished; }
  // Calls with broken JSON so far.
  int errors() const { return errors_; }

 private:
  enum class State : uint8_t {
    kText,  // outside calls
    // Inside a call, before …
    kObject,       // its `{`
    kFirstMember,  // a key or `}`
    kMember,       // a key
    kColon,
    kValueBegin,
    kNext,  // `,` or `}`
    // … and inside a part of it.
    kKey,
    kValue,
    kRaw,       // it broke: up to the closing tag
    kFinished,  // no more calls are wanted
  };
  enum class Member : uint8_t { kName, kArguments, kOther };

  void Run(bool at_end, Piece& piece);
  bool RunState(bool at_end, Piece& piece);
  bool FindCall(bool at_end, Piece& piece);
  bool ReadCall(Piece& piece);
  bool TakeByte(char byte, Piece& piece);
  bool TakeStructure(char byte, Piece& piece);
  bool TakeScanned(char byte, Piece& piece);
  bool EndKey();
  bool EndValue(Piece& piece);
  bool BeginCall(Piece& piece);
  bool EndCall(Piece& piece);
  void EndInCall(Piece& piece);
  bool ReadRaw(bool at_end, Piece& piece);
  void Break(Piece& piece);
  void GiveBack(Piece& piece);
  void LeaveCall();
  void ShowArguments(std::string arguments, Piece& piece);
  std::string ToolNamed(std::string written) const;

  const Options options_;
  State state_ = State::kText;
  // Every byte is read once, unless what looked like a call was none: space without end costs no
  // more than other text.
  std::string held_;
  size_t begin_ = 0;  // of what is not decided: of a call without a name, the space before its tag
  size_t at_ = 0;     // of what is not read
  size_t opening_ = 0;  // of a call: from begin_ to the end of its tag
  size_t brace_ = 0;    // of kRaw: from begin_ to the end of what may be the call's brace; 0: none
  int calls_ = 0;
  int errors_ = 0;
  bool cut_ = false;

  // Of the call being read.
  JsonScanner scanner_;
  std::string scanned_;  // of a key, a name, or arguments not shown yet
  Member member_ = Member::kOther;
  std::string arguments_;  // complete, but the name is not known yet
  bool named_ = false;
  bool has_arguments_ = false;  // complete
  bool clean_ = true;           // so far
};

// The same in every process that serves the request or goes on with it. The prompt counts, since
// the turns of one conversation may bear one request id, and 40 characters are the most that OpenAI
// takes back.
std::string CallIdPrefix(std::string_view request_id, std::span<const int32_t> prompt, int choice);

}  // namespace bottega::gateway
