#include "gateway/json_scanner.h"

#include "absl/strings/ascii.h"
#include "core/base/limits.h"

namespace bottega::gateway {

bool IsJsonWhitespace(char byte) {
  return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r';
}

JsonScanner::Step JsonScanner::Push(char byte) {
  switch (state_) {
    case State::kString:
      return PushString(byte);
    case State::kEscape:
      return PushEscape(byte);
    case State::kHex:
      return PushHex(byte);
    case State::kLiteral:
      return PushLiteral(byte);
    case State::kMinus:
    case State::kZero:
    case State::kInteger:
    case State::kPoint:
    case State::kFraction:
    case State::kExponent:
    case State::kExponentSign:
    case State::kExponentDigits:
      return PushNumber(byte);
    default:
      return IsJsonWhitespace(byte) ? Step::kInside : PushBetween(byte);
  }
}

JsonScanner::Step JsonScanner::PushBetween(char byte) {
  switch (state_) {
    case State::kFirstItem:
      return byte == ']' ? Close(byte) : BeginValue(byte);
    case State::kFirstKey:
      if (byte == '}') return Close(byte);
      [[fallthrough]];
    case State::kKey:
      return byte == '"' ? BeginString(true) : Step::kBroken;
    case State::kColon:
      return byte == ':' ? Go(State::kValue) : Step::kBroken;
    case State::kNext:
      if (byte == ',') return Go(open_.back() == '{' ? State::kKey : State::kValue);
      return Close(byte);
    default:
      return BeginValue(byte);
  }
}

JsonScanner::Step JsonScanner::BeginValue(char byte) {
  switch (byte) {
    case '{':
    case '[':
      return Open(byte);
    case '"':
      return BeginString(false);
    case 't':
      literal_ = "rue";
      return Go(State::kLiteral);
    case 'f':
      literal_ = "alse";
      return Go(State::kLiteral);
    case 'n':
      literal_ = "ull";
      return Go(State::kLiteral);
    case '-':
      return Go(State::kMinus);
    case '0':
      return Go(State::kZero);
    default:
      return absl::ascii_isdigit(static_cast<unsigned char>(byte)) ? Go(State::kInteger)
                                                                   : Step::kBroken;
  }
}

JsonScanner::Step JsonScanner::BeginString(bool key) {
  in_key_ = key;
  return Go(State::kString);
}

JsonScanner::Step JsonScanner::PushString(char byte) {
  if (byte == '"') return in_key_ ? Go(State::kColon) : EndValue();
  if (byte == '\\') return Go(State::kEscape);
  if (static_cast<unsigned char>(byte) < 0x20) clean_ = false;
  return Step::kInside;
}

JsonScanner::Step JsonScanner::PushEscape(char byte) {
  constexpr std::string_view kEscapes = "\"\\/bfnrt";
  if (byte == 'u') {
    hex_left_ = 4;
    return Go(State::kHex);
  }
  if (kEscapes.find(byte) == std::string_view::npos) clean_ = false;
  return Go(State::kString);
}

JsonScanner::Step JsonScanner::PushHex(char byte) {
  if (absl::ascii_isxdigit(static_cast<unsigned char>(byte))) {
    return --hex_left_ > 0 ? Step::kInside : Go(State::kString);
  }
  clean_ = false;
  state_ = State::kString;
  return PushString(byte);
}

JsonScanner::Step JsonScanner::PushLiteral(char byte) {
  if (byte != literal_.front()) return Step::kBroken;
  literal_.remove_prefix(1);
  return literal_.empty() ? EndValue() : Step::kInside;
}

JsonScanner::Step JsonScanner::PushNumber(char byte) {
  const bool digit = absl::ascii_isdigit(static_cast<unsigned char>(byte));
  const bool exponent = byte == 'e' || byte == 'E';
  switch (state_) {
    case State::kMinus:
      return digit ? Go(byte == '0' ? State::kZero : State::kInteger) : Step::kBroken;
    case State::kPoint:
      return digit ? Go(State::kFraction) : Step::kBroken;
    case State::kExponent:
      if (byte == '+' || byte == '-') return Go(State::kExponentSign);
      [[fallthrough]];
    case State::kExponentSign:
      return digit ? Go(State::kExponentDigits) : Step::kBroken;
    case State::kZero:
    case State::kInteger:
      if (byte == '.') return Go(State::kPoint);
      if (exponent) return Go(State::kExponent);
      if (digit) return state_ == State::kZero ? Step::kBroken : Step::kInside;
      break;
    case State::kFraction:
      if (exponent) return Go(State::kExponent);
      [[fallthrough]];
    default:  // digits of an exponent
      if (digit) return Step::kInside;
      break;
  }
  // A number ends where something else begins.
  if (open_.empty()) return Step::kPast;
  state_ = State::kNext;
  return Push(byte);
}

JsonScanner::Step JsonScanner::Go(State state) {
  state_ = state;
  return Step::kInside;
}

JsonScanner::Step JsonScanner::Open(char bracket) {
  if (open_.size() == limits::kJsonDepthMax) return Step::kBroken;
  open_ += bracket;
  return Go(bracket == '{' ? State::kFirstKey : State::kFirstItem);
}

JsonScanner::Step JsonScanner::Close(char bracket) {
  if (bracket != (open_.back() == '{' ? '}' : ']')) return Step::kBroken;
  open_.pop_back();
  return EndValue();
}

JsonScanner::Step JsonScanner::EndValue() { return open_.empty() ? Step::kLast : Go(State::kNext); }

}  // namespace bottega::gateway
