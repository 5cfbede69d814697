#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace bottega {

// A parser of foreign bytes. `run` gets a mutated input in a heap block of exactly its size, so
// that a read past its end is seen; it returns whether the parser accepted, and aborts if the
// parser accepted something it should not have.
struct FuzzTarget {
  std::string_view name;
  std::vector<std::string> (*seeds)();  // good inputs
  bool (*run)(std::span<const std::byte> input);
};

// One line each in fuzz_main.cc's table.
FuzzTarget SafetensorsHeaderTarget();
FuzzTarget FrameTarget();
FuzzTarget ModelConfigTarget();
FuzzTarget ManifestTarget();
FuzzTarget ToolCallTarget();

}  // namespace bottega
