// Seeded mutations against every parser of foreign bytes, under AddressSanitizer in every preset.
//
//   fuzz_parsers_test [COUNT [FIRST_SEED [TARGET]]]
//
// Input i of a target is a function of (target, FIRST_SEED + i) alone: the seed that is printed
// when a run dies repeats it.

#include <sanitizer/common_interface_defs.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>

#include "tests/fuzz/fuzz_target.h"

#if !defined(__SANITIZE_ADDRESS__)
#error "this binary proves something only under AddressSanitizer"
#endif

namespace bottega {
namespace {

const FuzzTarget kTargets[] = {
    SafetensorsHeaderTarget(), FrameTarget(),    ModelConfigTarget(),
    ManifestTarget(),          ToolCallTarget(),
};

// Edges of the integers that headers hold, as text and as bytes.
constexpr uint64_t kEdges[] = {
    0,          1,          7,           8,          255,           256,       0x7fffffff,
    0x80000000, 0xffffffff, 0x100000000, 1ull << 62, 1ull << 63,    ~0ull - 7, ~0ull - 8,
    ~0ull,      16u << 20,  200'001,     1u << 30,   (1u << 24) + 1};

class Mutator {
 public:
  explicit Mutator(uint64_t seed) : random_(seed) {}

  std::string Mutate(std::string input, const std::vector<std::string>& seeds) {
    const size_t steps = 1 + Below(4);
    for (size_t i = 0; i < steps; ++i) Step(input, seeds);
    return input;
  }
  size_t Below(size_t n) { return n == 0 ? 0 : random_() % n; }

 private:
  void Step(std::string& s, const std::vector<std::string>& seeds) {
    const size_t at = Below(s.size());
    const size_t run = 1 + Below(16);
    switch (Below(11)) {
      case 0:
        if (!s.empty()) s[at] = static_cast<char>(s[at] ^ (1 << Below(8)));
        break;
      case 1:
        if (!s.empty()) s[at] = static_cast<char>(random_());
        break;
      case 2:
        s.resize(at);
        break;
      case 3:
        s.erase(at, run);
        break;
      case 4:
        s.insert(at, s.substr(Below(s.size()), run));
        break;
      case 5:
        s.insert(at, run, static_cast<char>(random_()));
        break;
      case 6:
        SetInteger(s, at, kEdges[Below(std::size(kEdges))]);
        break;
      case 7:  // the first bytes are lengths and magics
        SetInteger(s, Below(3) * 4, kEdges[Below(std::size(kEdges))]);
        break;
      case 8:
        ReplaceNumber(s, at);
        break;
      case 9: {
        const std::string& other = seeds[Below(seeds.size())];
        s = s.substr(0, at) + other.substr(Below(other.size()));
        break;
      }
      case 10: {
        constexpr const char* kTokens[] = {"{",    "}",  "[",   "]",       "\"",      ":", ",",
                                           "null", "-1", "1e9", "\\u0000", "{\"a\":", "[["};
        s.insert(at, kTokens[Below(std::size(kTokens))]);
        break;
      }
    }
    RepairLength(s);
  }

  void SetInteger(std::string& s, size_t at, uint64_t value) {
    const size_t bytes = std::min<size_t>(size_t{1} << Below(4), s.size() - std::min(at, s.size()));
    std::memcpy(s.data() + std::min(at, s.size()), &value, bytes);
  }

  // A run of digits becomes another number.
  void ReplaceNumber(std::string& s, size_t at) {
    const size_t begin = s.find_first_of("0123456789", at);
    if (begin == std::string::npos) return;
    size_t end = s.find_first_not_of("0123456789", begin);
    if (end == std::string::npos) end = s.size();
    s.replace(begin, end - begin, std::to_string(kEdges[Below(std::size(kEdges))]));
  }

  // Half of the time a leading 64-bit text length is made to fit again, or hardly any mutation
  // would get past it.
  void RepairLength(std::string& s) {
    const size_t close = s.rfind('}');
    if (s.size() < 9 || s[8] != '{' || close == std::string::npos || Below(2) == 0) return;
    const uint64_t length = close + 1 - 8;
    std::memcpy(s.data(), &length, sizeof(length));
  }

  std::mt19937_64 random_;
};

// What a sanitizer's report is followed by.
const char* current_target = "";
uint64_t current_seed = 0;
void PrintSeed() {
  std::fprintf(stderr, "fuzz target %s, seed %llu\n", current_target,
               static_cast<unsigned long long>(current_seed));
}

void RunTarget(const FuzzTarget& target, uint64_t count, uint64_t first_seed) {
  const std::vector<std::string> seeds = target.seeds();
  uint64_t accepted = 0;
  current_target = target.name.data();
  auto run = [&](const std::string& input) {
    auto block = std::make_unique<std::byte[]>(input.size());
    std::memcpy(block.get(), input.data(), input.size());
    return target.run(std::span<const std::byte>(block.get(), input.size()));
  };
  for (const std::string& seed : seeds) {
    if (run(seed)) continue;
    std::fprintf(stderr, "%s refused one of its own seeds\n", target.name.data());
    std::exit(1);
  }
  for (uint64_t i = 0; i < count; ++i) {
    current_seed = first_seed + i;
    Mutator mutator(first_seed + i);
    const std::string& base = seeds[mutator.Below(seeds.size())];
    accepted += run(mutator.Mutate(base, seeds));
  }
  std::printf("%s: %llu mutated inputs, %llu accepted, no crash\n", target.name.data(),
              static_cast<unsigned long long>(count), static_cast<unsigned long long>(accepted));
}

}  // namespace
}  // namespace bottega

int main(int argc, char** argv) {
  __sanitizer_set_death_callback(bottega::PrintSeed);
  const uint64_t count = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 5000;
  const uint64_t first_seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1;
  for (const bottega::FuzzTarget& target : bottega::kTargets) {
    if (argc > 3 && target.name != argv[3]) continue;
    bottega::RunTarget(target, count, first_seed);
  }
  return 0;
}
