#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace bottega::gateway {

// Finds where one JSON value ends, byte by byte, in text that arrives in pieces. Its structure is
// RFC 8259, nested at most limits::kJsonDepthMax deep. Within a string every byte is taken, for
// where it ends is certain whatever is wrong in it (a raw newline, an escape JSON has not): clean()
// tells.
class JsonScanner {
 public:
  enum class Step : uint8_t {
    kInside,  // of the value, which goes on
    kLast,    // of the value, and ends it
    kPast,    // the value, a number, ended before this byte
    kBroken,  // no value goes on like this
  };
  // After kLast, kPast and kBroken there is no next byte.
  Step Push(char byte);

  bool clean() const { return clean_; }

 private:
  enum class State : uint8_t {
    // Between tokens; white space may stand here.
    kValue,      // a value
    kFirstItem,  // a value or the end of its array
    kFirstKey,   // a key or the end of its object
    kKey,        // a key
    kColon,
    kNext,  // a comma or the end of the container
    // Inside a token.
    kString,
    kEscape,
    kHex,
    kLiteral,  // true, false, null
    kMinus,
    kZero,
    kInteger,
    kPoint,
    kFraction,
    kExponent,
    kExponentSign,
    kExponentDigits,
  };

  Step PushBetween(char byte);
  Step PushString(char byte);
  Step PushEscape(char byte);
  Step PushHex(char byte);
  Step PushLiteral(char byte);
  Step PushNumber(char byte);
  Step BeginValue(char byte);
  Step BeginString(bool key);
  Step Go(State state);
  Step Open(char bracket);
  Step Close(char bracket);
  Step EndValue();

  State state_ = State::kValue;
  std::string open_;          // brackets, outermost first
  bool in_key_ = false;       // the string is a key
  int hex_left_ = 0;          // digits of \uXXXX to come
  std::string_view literal_;  // what is left of it
  bool clean_ = true;
};

bool IsJsonWhitespace(char byte);

}  // namespace bottega::gateway
