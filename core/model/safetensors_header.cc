#include "core/model/safetensors_header.h"

#include <algorithm>
#include <unordered_set>

#include "core/base/limits.h"
#include "core/model/refusal.h"
#include "nlohmann/json.hpp"

namespace bottega {
namespace {

using nlohmann::json;

struct TypeRow {
  StoredType type;
  std::string_view name;
  uint64_t bytes;
};
constexpr TypeRow kTypes[] = {
    {StoredType::kBool, "BOOL", 1},  {StoredType::kU8, "U8", 1},
    {StoredType::kI8, "I8", 1},      {StoredType::kF8, "F8_E4M3", 1},
    {StoredType::kF8, "F8_E5M2", 1}, {StoredType::kI16, "I16", 2},
    {StoredType::kU16, "U16", 2},    {StoredType::kF16, "F16", 2},
    {StoredType::kBF16, "BF16", 2},  {StoredType::kI32, "I32", 4},
    {StoredType::kU32, "U32", 4},    {StoredType::kF32, "F32", 4},
    {StoredType::kI64, "I64", 8},    {StoredType::kU64, "U64", 8},
    {StoredType::kF64, "F64", 8},
};

const TypeRow& RowOf(StoredType type) {
  return *std::find_if(std::begin(kTypes), std::end(kTypes),
                       [type](const TypeRow& row) { return row.type == type; });
}

// Builds the tensor list while the parser walks the text; false ends the walk. The grammar has
// fixed depth, so a state says all: {  name: {  key: value | [ numbers ]  }  }.
class HeaderWalk : public nlohmann::json_sax<json> {
 public:
  std::vector<StoredTensor> tensors;
  std::string complaint;
  bool complete = false;

  bool start_object(size_t) override {
    switch (state_) {
      case State::kStart:
        return Go(State::kRoot);
      case State::kEntry:
        if (current_.name == "__metadata__") return Go(State::kMetadata);
        return Go(State::kTensor);
      default:
        return Unexpected("an object");
    }
  }

  bool key(string_t& name) override {
    switch (state_) {
      case State::kRoot:
        if (!names_.insert(name).second) return Complain("tensor \"" + name + "\" occurs twice");
        if (name != "__metadata__" && tensors.size() >= limits::kTensorsMax) {
          return Complain("more than " + std::to_string(limits::kTensorsMax) + " tensors");
        }
        current_ = StoredTensor{};
        current_.name = name;
        has_type_ = has_shape_ = has_range_ = false;
        return Go(State::kEntry);
      case State::kMetadata:
        return true;  // a repeated key in metadata changes nothing that is read
      case State::kTensor:
        if (name == "dtype") return Once(has_type_, State::kType);
        if (name == "shape") return Once(has_shape_, State::kShapeStart);
        if (name == "data_offsets") return Once(has_range_, State::kRangeStart);
        return Complain(Where() + " has an unknown key \"" + name + "\"");
      default:
        return Unexpected("a key");
    }
  }

  bool end_object() override {
    switch (state_) {
      case State::kMetadata:
        return Go(State::kRoot);
      case State::kTensor:
        if (!has_type_ || !has_shape_ || !has_range_) {
          return Complain(Where() + " lacks dtype, shape or data_offsets");
        }
        tensors.push_back(std::move(current_));
        return Go(State::kRoot);
      case State::kRoot:
        complete = true;
        return Go(State::kEnd);
      default:
        return Unexpected("}");
    }
  }

  bool start_array(size_t) override {
    if (state_ == State::kShapeStart) return Go(State::kShape);
    if (state_ == State::kRangeStart) return Go(State::kRange);
    return Unexpected("an array");
  }

  bool end_array() override {
    if (state_ == State::kRange && range_count_ != 2) {
      return Complain(Where() + ": data_offsets is not a pair");
    }
    if (state_ != State::kShape && state_ != State::kRange) return Unexpected("]");
    range_count_ = 0;
    return Go(State::kTensor);
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (state_ == State::kShape) {
      if (current_.shape.size() >= limits::kTensorRankMax) {
        return Complain(Where() + ": rank above " + std::to_string(limits::kTensorRankMax));
      }
      if (value > static_cast<uint64_t>(INT64_MAX)) return Complain(Where() + ": shape overflows");
      current_.shape.push_back(static_cast<int64_t>(value));
      return true;
    }
    if (state_ == State::kRange) {
      if (range_count_ == 0) current_.offset = value;
      if (range_count_ == 1) {
        if (value < current_.offset) return Complain(Where() + ": data_offsets run backwards");
        current_.bytes = value - current_.offset;
      }
      if (++range_count_ > 2) return Complain(Where() + ": data_offsets is not a pair");
      return true;
    }
    return Unexpected("a number");
  }

  bool string(string_t& value) override {
    if (state_ == State::kMetadata) return true;
    if (state_ != State::kType) return Unexpected("a string");
    for (const TypeRow& row : kTypes) {
      if (row.name == value) {
        current_.type = row.type;
        return Go(State::kTensor);
      }
    }
    return Complain(Where() + ": unknown dtype");
  }

  bool null() override { return Unexpected("null"); }
  bool boolean(bool) override { return Unexpected("a boolean"); }
  bool number_integer(number_integer_t) override { return Unexpected("a negative number"); }
  bool number_float(number_float_t, const string_t&) override { return Unexpected("a fraction"); }
  bool binary(binary_t&) override { return Unexpected("binary"); }
  bool parse_error(size_t position, const std::string&, const json::exception&) override {
    return Complain("header is not valid JSON at byte " + std::to_string(position));
  }

 private:
  enum class State {
    kStart,
    kRoot,
    kEntry,
    kMetadata,
    kTensor,
    kType,
    kShapeStart,
    kShape,
    kRangeStart,
    kRange,
    kEnd
  };

  bool Go(State next) {
    state_ = next;
    return true;
  }
  bool Once(bool& seen, State next) {
    if (seen) return Complain(Where() + " has a key twice");
    seen = true;
    return Go(next);
  }
  bool Complain(std::string what) {
    complaint = std::move(what);
    return false;
  }
  bool Unexpected(std::string_view what) {
    return Complain("header has " + std::string(what) + " where none belongs" +
                    (current_.name.empty() ? "" : ", at " + Where()));
  }
  std::string Where() const { return "tensor \"" + current_.name.substr(0, 200) + "\""; }

  State state_ = State::kStart;
  StoredTensor current_;
  bool has_type_ = false;
  bool has_shape_ = false;
  bool has_range_ = false;
  int range_count_ = 0;
  std::unordered_set<std::string> names_;
};

// Ranges are relative to the data section here; on success they are turned into file offsets.
absl::Status CheckRanges(std::vector<StoredTensor>& tensors, uint64_t data_begin,
                         uint64_t data_bytes) {
  for (const StoredTensor& tensor : tensors) {
    uint64_t bytes = SizeOf(tensor.type);
    for (int64_t extent : tensor.shape) {
      if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(extent), &bytes)) {
        return RefuseModel("tensor \"", tensor.name, "\": shape overflows");
      }
    }
    if (bytes != tensor.bytes) {
      return RefuseModel("tensor \"", tensor.name, "\": ", tensor.bytes,
                         " bytes of data, but its dtype and shape need ", bytes);
    }
  }
  // Empty tensors sort before the one that starts where they stand.
  std::sort(tensors.begin(), tensors.end(), [](const StoredTensor& a, const StoredTensor& b) {
    return std::pair(a.offset, a.bytes) < std::pair(b.offset, b.bytes);
  });
  uint64_t end = 0;
  for (StoredTensor& tensor : tensors) {
    if (tensor.offset != end) {
      return RefuseModel(
          "tensor \"", tensor.name, "\" ",
          tensor.offset < end ? "overlaps the one before it" : "leaves a hole before it");
    }
    end += tensor.bytes;  // no overflow: offset + bytes was one 64-bit number of the header
    tensor.offset += data_begin;
  }
  if (end != data_bytes) {
    return RefuseModel("tensors need ", end, " bytes of data, the file has ", data_bytes);
  }
  return absl::OkStatus();
}

}  // namespace

std::string_view Name(StoredType type) { return RowOf(type).name; }
uint64_t SizeOf(StoredType type) { return RowOf(type).bytes; }
uint64_t SafetensorsHeadBytes() { return 8 + limits::kSafetensorsHeaderBytesMax; }

absl::StatusOr<std::vector<StoredTensor>> ParseSafetensorsHeader(std::span<const std::byte> head,
                                                                 uint64_t file_size) {
  if (file_size < 8 || head.size() < 8) return RefuseModel("shorter than a safetensors header");
  uint64_t length = 0;
  for (size_t i = 0; i < 8; ++i) length |= std::to_integer<uint64_t>(head[i]) << (8 * i);
  if (length == 0) return RefuseModel("header length is 0");
  if (length > limits::kSafetensorsHeaderBytesMax) {
    return RefuseModel("header of ", length, " bytes; the limit is ",
                       limits::kSafetensorsHeaderBytesMax);
  }
  if (length > file_size - 8 || length > head.size() - 8) {
    return RefuseModel("header of ", length, " bytes in a file of ", file_size);
  }
  std::string_view text(reinterpret_cast<const char*>(head.data()) + 8, length);
  if (text.front() != '{') return RefuseModel("header does not begin with {");
  HeaderWalk walk;
  if (!json::sax_parse(text, &walk) || !walk.complete) return RefuseModel(walk.complaint);
  uint64_t data_begin = 8 + length;
  absl::Status ranges = CheckRanges(walk.tensors, data_begin, file_size - data_begin);
  if (!ranges.ok()) return ranges;
  return std::move(walk.tensors);
}

}  // namespace bottega
