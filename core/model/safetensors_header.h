#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace bottega {

// Element types a safetensors file may name. Bottega computes with kBF16 and kF32 only; the others
// are parsed so that a file is judged whole and a refusal can name the type.
enum class StoredType {
  kBool,
  kU8,
  kI8,
  kF8,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kI64,
  kU64,
  kF64
};
std::string_view Name(StoredType type);
uint64_t SizeOf(StoredType type);

struct StoredTensor {
  std::string name;
  StoredType type = StoredType::kF32;
  std::vector<int64_t> shape;
  uint64_t offset = 0;  // in the file
  uint64_t bytes = 0;
};

// Parses the header of a safetensors file: 8 bytes little-endian length n, n bytes of JSON, data.
// `head` is the file's first min(file_size, SafetensorsHeadBytes()) bytes or more. A pure function;
// nothing of a size that the bytes claim is allocated before the claim is checked.
//
// Refused: a length that is 0, past the file or past the limit; JSON that is not exactly
// {name: {dtype, shape, data_offsets}, "__metadata__": {text: text}}; a name twice; more tensors or
// a higher rank than limits allow; a product of a shape that overflows or is not the byte range's
// size; ranges that overlap, leave a hole or do not end with the file. Tensors come back in file
// order.
absl::StatusOr<std::vector<StoredTensor>> ParseSafetensorsHeader(std::span<const std::byte> head,
                                                                 uint64_t file_size);

// How much of a file's beginning ParseSafetensorsHeader may need.
uint64_t SafetensorsHeadBytes();

}  // namespace bottega
