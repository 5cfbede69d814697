#include <cstdio>
#include <cstdlib>

#include "core/model/safetensors_header.h"
#include "tests/fuzz/fuzz_target.h"

namespace bottega {
namespace {

std::string File(const std::string& header, size_t data_bytes) {
  std::string file;
  for (int i = 0; i < 8; ++i) file.push_back(static_cast<char>(header.size() >> (8 * i)));
  return file + header + std::string(data_bytes, 'x');
}

std::vector<std::string> Seeds() {
  std::string many = "{\"__metadata__\":{\"format\":\"pt\"}";
  for (int i = 0; i < 60; ++i) {
    many += ",\"model.layers." + std::to_string(i) +
            ".mlp.gate.weight\":{\"dtype\":\"BF16\",\"shape\":[4,8],\"data_offsets\":[" +
            std::to_string(64 * i) + "," + std::to_string(64 * (i + 1)) + "]}";
  }
  return {
      File(R"({"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
           R"("b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]}}   )",
           32),
      File(R"({"__metadata__":{"k":"v"},"s":{"dtype":"U8","shape":[],"data_offsets":[0,1]}})", 1),
      File(R"({"e":{"dtype":"F64","shape":[0,9,9,9,9,9,9,9],"data_offsets":[0,0]}})", 0),
      File("{}", 0), File(many + "}", 60 * 64)};
}

void Require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "accepted a header whose %s\n", what);
  std::abort();
}

bool Run(std::span<const std::byte> input) {
  // The same bytes as the beginning of a longer file.
  (void)ParseSafetensorsHeader(input, input.size() + (uint64_t{1} << 40));
  auto tensors = ParseSafetensorsHeader(input, input.size());
  if (!tensors.ok()) return false;
  uint64_t end = 0;
  for (const StoredTensor& tensor : *tensors) {
    Require(tensor.offset <= input.size() && tensor.bytes <= input.size() - tensor.offset,
            "tensor lies past the file");
    Require(end == 0 || tensor.offset == end, "tensors do not follow each other");
    end = tensor.offset + tensor.bytes;
    unsigned __int128 bytes = SizeOf(tensor.type);
    for (int64_t extent : tensor.shape) bytes *= static_cast<uint64_t>(extent);
    Require(bytes == tensor.bytes, "shape is not its size");
  }
  Require(tensors->empty() || end == input.size(), "data do not end with the file");
  return true;
}

}  // namespace

FuzzTarget SafetensorsHeaderTarget() { return {"safetensors_header", Seeds, Run}; }

}  // namespace bottega
