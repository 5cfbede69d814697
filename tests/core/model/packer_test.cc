#include "core/model/packer.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <thread>

#include "core/base/reason.h"
#include "core/model/checkpoint_reader.h"
#include "core/model/packed_model.h"
#include "core/tensor/bf16.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/model/checkpoint_writer.h"
#include "tests/core/model/temp_dir.h"

namespace bottega {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::HasSubstr;

// Runs `body` in a child process; its exit code, or minus the signal that ended it.
int InChild(const std::function<int()>& body) {
  pid_t child = ::fork();
  if (child == 0) ::_exit(body());
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

std::string Bytes(const fs::path& dir) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(dir)) {
    files[entry.path().filename()] = ReadFileBytes(entry.path());
  }
  std::string all;
  for (const auto& [name, bytes] : files) all += name + "\n" + bytes;
  return all;
}

class Packer : public testing::Test {
 protected:
  Packer() {
    WriteCheckpoint(dir_ / "hf");
    EXPECT_TRUE(PackModel(dir_ / "hf", dir_ / "whole", {}).ok());
  }
  // What is in the directory besides the source and the reference.
  std::vector<std::string> Left() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(dir_.path())) {
      std::string name = entry.path().filename();
      if (name != "hf" && name != "whole") names.push_back(name);
    }
    std::sort(names.begin(), names.end());
    return names;
  }

  TempDir dir_;
};

// Killed after every number of regions; the next run keeps them, finishes, and the bytes are those
// of an undisturbed run.
TEST_F(Packer, M14_KilledAnywhereGoesOn) {
  const fs::path out = dir_ / "out";
  for (int kill_at : {1, 2, 7, 15, 17}) {
    int code = InChild([&] {
      PackOptions options;
      options.threads = 1;
      int calls = 0;
      options.progress = [&](uint64_t, uint64_t) {
        if (++calls == kill_at) std::raise(SIGKILL);
      };
      return PackModel(dir_ / "hf", out, options).ok() ? 0 : 1;
    });
    ASSERT_EQ(code, -SIGKILL);
    ASSERT_FALSE(fs::exists(out));
    // Call 1 is the source's hash, then one a region.
    int kept = 0;
    int calls = 0;
    PackOptions options;
    options.threads = 1;
    FaultPoints faults;  // only an armed point counts its hits
    ASSERT_TRUE(faults.Arm("pack.region=error:never@1000").ok());
    options.faults = &faults;
    options.progress = [&](uint64_t done, uint64_t total) {
      EXPECT_LE(done, total);
      ++calls;
    };
    ASSERT_TRUE(PackModel(dir_ / "hf", out, options).ok());
    kept = calls - 1 - static_cast<int>(faults.hits("pack.region"));
    EXPECT_EQ(kept, kill_at - 1);
    EXPECT_EQ(Bytes(out), Bytes(dir_ / "whole"));
    fs::remove_all(out);
  }
  EXPECT_THAT(Left(), testing::IsEmpty());
}

TEST_F(Packer, DamagedPartialRegionsArePackedAgain) {
  const fs::path out = dir_ / "out";
  auto stop_half_way = [&] {
    PackOptions options;
    options.threads = 1;
    FaultPoints faults;
    ASSERT_TRUE(faults.Arm("pack.region=error:stopped@9").ok());
    options.faults = &faults;
    absl::Status status = PackModel(dir_ / "hf", out, options);
    ASSERT_THAT(std::string(status.message()), HasSubstr("stopped"));
  };
  const std::function<void(const fs::path&)> damages[] = {
      [](const fs::path& p) {
        std::string bytes = ReadFileBytes(p / "attention.weights");
        bytes[100] ^= 1;
        WriteFileBytes(p / "attention.weights", bytes);
      },
      [](const fs::path& p) { fs::resize_file(p / "attention.weights", 5000); },
      [](const fs::path& p) { fs::remove(p / "experts.000.weights"); },
      [](const fs::path& p) { fs::resize_file(p / "journal", fs::file_size(p / "journal") - 20); },
      [](const fs::path& p) { WriteFileBytes(p / "journal", "garbage\n{}\n{\"name\":1}\n"); },
      [](const fs::path& p) {
        std::ofstream(p / "journal", std::ios::app)
            << "{\"name\":\"embedding\",\"crc32c\":-1,\"sha256\":2}\n[]\nx\n";
      },
      [](const fs::path& p) { fs::remove(p / "journal"); },
      [](const fs::path& p) { WriteFileBytes(p / "tokenizer.json", "half"); },
  };
  for (const auto& damage : damages) {
    stop_half_way();
    damage(out.string() + ".partial");
    ASSERT_TRUE(PackModel(dir_ / "hf", out, {}).ok());
    EXPECT_EQ(Bytes(out), Bytes(dir_ / "whole"));
    fs::remove_all(out);
  }
}

TEST_F(Packer, APartialOfAnotherSourceIsNotUsed) {
  const fs::path out = dir_ / "out";
  PackOptions options;
  options.threads = 1;
  FaultPoints faults;
  ASSERT_TRUE(faults.Arm("pack.region=error:stopped@9").ok());
  options.faults = &faults;
  ASSERT_FALSE(PackModel(dir_ / "hf", out, options).ok());
  WriteCheckpoint(dir_ / "hf", {.seed = 2});
  // The same size, and, to be sure of the clock's grain, another time.
  fs::last_write_time(dir_ / "hf/model.safetensors",
                      fs::file_time_type::clock::now() + std::chrono::seconds(9));
  ASSERT_TRUE(PackModel(dir_ / "hf", out, {}).ok());
  ASSERT_TRUE(PackModel(dir_ / "hf", dir_ / "clean", {}).ok());
  EXPECT_EQ(Bytes(out), Bytes(dir_ / "clean"));
  EXPECT_NE(Bytes(out), Bytes(dir_ / "whole"));
}

TEST_F(Packer, RefusesAnExistingTarget) {
  std::string before = Bytes(dir_ / "whole");
  absl::Status status = PackModel(dir_ / "hf", dir_ / "whole", {});
  EXPECT_THAT(std::string(status.message()), HasSubstr("exists"));
  EXPECT_NE(ReasonOf(status), Reason::kModelRefused);  // exit code 1, not 3
  EXPECT_EQ(Bytes(dir_ / "whole"), before);
}

TEST_F(Packer, TrailingSlashAndMissingParents) {
  ASSERT_TRUE(PackModel(dir_ / "hf", (dir_ / "a/b/c").string() + "/", {}).ok());
  EXPECT_EQ(Bytes(dir_ / "a/b/c"), Bytes(dir_ / "whole"));
}

TEST_F(Packer, ASecondPackerIsKeptOut) {
  const fs::path out = dir_ / "out";
  int fd = ::open((out.string() + ".lock").c_str(), O_CREAT | O_RDWR, 0644);
  ASSERT_EQ(::flock(fd, LOCK_EX), 0);
  EXPECT_THAT(std::string(PackModel(dir_ / "hf", out, {}).message()), HasSubstr("another process"));
  ::close(fd);
  EXPECT_TRUE(PackModel(dir_ / "hf", out, {}).ok());
  EXPECT_THAT(Left(), testing::ElementsAre("out"));
}

// What the system refuses in the middle: no cache is served, and the next one is whole.
TEST_F(Packer, M14_AFailureInTheMiddleLeavesNoCache) {
  struct Case {
    const char* plan;
    const char* file;
    const char* why;
  };
  const Case cases[] = {{"file.read=error@9", "model.safetensors", "Input/output error"},
                        {"file.read=error@40", "model.safetensors", "Input/output error"},
                        {"file.short=error@9", "model.safetensors", "ends at byte"},
                        {"file.short=error@40", "model.safetensors", "ends at byte"},
                        {"file.write=error@1", ".weights", "No space left on device"},
                        {"file.write=error@20", ".weights", "No space left on device"}};
  for (const Case& c : cases) {
    FaultPoints faults;
    ASSERT_TRUE(faults.Arm(c.plan).ok());
    CacheOptions options{.cache = dir_ / "cache", .faults = &faults};
    const absl::Status status = PackedFor(dir_ / "hf", options).status();
    EXPECT_THAT(std::string(status.message()), testing::AllOf(HasSubstr(c.file), HasSubstr(c.why)))
        << c.plan;
    for (const auto& entry : fs::directory_iterator(dir_ / "cache")) {
      EXPECT_EQ(entry.path().extension(), ".partial") << entry.path();
    }
    options.faults = nullptr;
    const auto whole = PackedFor(dir_ / "hf", options);
    ASSERT_TRUE(whole.ok()) << whole.status();
    EXPECT_EQ(Bytes(*whole), Bytes(dir_ / "whole")) << c.plan;
    fs::remove_all(dir_ / "cache");
  }
}

// A limit on the size of files, as a full disk shows itself.
TEST_F(Packer, M14_NoRoomIsACleanError) {
  const fs::path out = dir_ / "out";
  int code = InChild([&] {
    std::signal(SIGXFSZ, SIG_IGN);
    rlimit limit{8192, 8192};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    absl::Status status = PackModel(dir_ / "hf", out, {});
    return std::string(status.message()).find("cannot reserve") != std::string::npos ? 42 : 1;
  });
  EXPECT_EQ(code, 42);
  EXPECT_FALSE(fs::exists(out));
  EXPECT_TRUE(PackModel(dir_ / "hf", out, {}).ok());
  EXPECT_EQ(Bytes(out), Bytes(dir_ / "whole"));
}

TEST_F(Packer, AnUnwritableTargetIsACleanError) {
  EXPECT_FALSE(PackModel(dir_ / "hf", "/proc/no/such", {}).ok());
}

// One tensor of every kind of section.
constexpr const char* kMatrices[] = {"model.embed_tokens.weight",
                                     "model.layers.0.self_attn.k_proj.weight",
                                     "model.layers.0.self_attn.o_proj.weight",
                                     "model.layers.1.mlp.gate_proj.weight",
                                     "model.layers.1.mlp.down_proj.weight",
                                     "model.layers.0.mlp.experts.5.up_proj.weight",
                                     "model.layers.0.mlp.experts.5.down_proj.weight",
                                     "lm_head.weight"};
// These stay f32 whatever the format of the weights.
constexpr const char* kAlwaysF32[] = {
    "model.layers.0.mlp.gate.weight", "model.layers.0.input_layernorm.weight",
    "model.layers.0.self_attn.q_norm.weight", "model.norm.weight"};

// Packs a model whose tensor `name` ends in `value`.
class PackerValues : public testing::Test {
 protected:
  PackerValues() {
    json config = SmallConfig();
    config["mlp_only_layers"] = {1};
    config["intermediate_size"] = 24;
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      WriteCheckpoint(Source(dtype), {.config = config, .dtype = dtype});
    }
  }
  fs::path Source(DType dtype) const { return dir_ / std::string(Name(dtype)); }

  absl::Status Pack(const char* name, float value, DType from, WeightFormat to) {
    const fs::path file = Source(from) / "model.safetensors";
    const std::string before = ReadFileBytes(file);
    {
      const auto checkpoint = Checkpoint::Open(Source(from));
      const Checkpoint::Tensor& tensor = (*checkpoint)->Find(name);
      const BF16 rounded = RoundToBF16(value);
      const void* bytes = from == DType::kF32 ? static_cast<const void*>(&value) : &rounded;
      std::string changed = before;
      std::memcpy(&changed[tensor.offset + tensor.bytes - SizeOf(from)], bytes, SizeOf(from));
      WriteFileBytes(file, changed);
    }
    PackOptions options;
    options.weights = to;
    const absl::Status status = PackModel(Source(from), dir_ / "out", options);
    EXPECT_EQ(fs::exists(dir_ / "out"), status.ok());
    fs::remove_all(dir_ / "out");
    fs::remove_all(dir_ / "out.partial");
    WriteFileBytes(file, before);
    return status;
  }
  static void ExpectRefused(const absl::Status& status, const char* name) {
    EXPECT_EQ(ReasonOf(status), Reason::kModelRefused) << name;
    EXPECT_THAT(std::string(status.message()),
                testing::AllOf(HasSubstr("model.safetensors"), HasSubstr(name)));
  }

  TempDir dir_;
};

TEST_F(PackerValues, M8_WhatIsNotFiniteIsRefused) {
  const float inf = std::numeric_limits<float>::infinity();
  const std::pair<float, DType> values[] = {
      {std::nanf(""), DType::kF32}, {inf, DType::kF32}, {-inf, DType::kBF16}};
  for (const WeightFormat to : kEveryWeightFormat) {
    for (const auto& [value, from] : values) {
      for (const char* name : kMatrices) ExpectRefused(Pack(name, value, from, to), name);
      for (const char* name : kAlwaysF32) ExpectRefused(Pack(name, value, from, to), name);
    }
  }
}

// A value that becomes infinite in what is stored: rounded to bf16, or as an integer and a scale.
TEST_F(PackerValues, M8_WhatTheFormatCannotHoldIsRefused) {
  const float largest = std::numeric_limits<float>::max();
  struct Case {
    float value;
    WeightFormat to;
    bool refused;
  };
  const Case cases[] = {
      {largest, WeightFormat::kF32, false},   {largest, WeightFormat::kBF16, true},
      {-3.4e38f, WeightFormat::kBF16, true},  {3.38e38f, WeightFormat::kBF16, false},
      {1e-40f, WeightFormat::kBF16, false},   {largest, WeightFormat::kInt8, true},
      {-largest, WeightFormat::kInt8, true},  {0x1p+100f, WeightFormat::kInt8, true},
      {0x1p+99f, WeightFormat::kInt8, false}, {largest, WeightFormat::kInt4, true},
      {-3e38f, WeightFormat::kInt4, true},    {0x1p+100f, WeightFormat::kInt4, true},
      {0x1p+99f, WeightFormat::kInt4, false},
  };
  for (const Case& c : cases) {
    for (const char* name : kMatrices) {
      const absl::Status status = Pack(name, c.value, DType::kF32, c.to);
      EXPECT_EQ(!status.ok(), c.refused) << c.value << " " << name << status;
      if (!c.refused) continue;
      ExpectRefused(status, name);
      EXPECT_THAT(std::string(status.message()), HasSubstr(std::string(Name(c.to))));
    }
  }
  for (const char* name : kAlwaysF32) {
    EXPECT_TRUE(Pack(name, largest, DType::kF32, WeightFormat::kInt4).ok()) << name;
  }
}

TEST_F(Packer, CacheIsFilledOnceAndFollowsTheSource) {
  CacheOptions options;
  options.cache = dir_ / "cache";
  int notes = 0;
  options.note = [&](std::string_view) { ++notes; };
  auto first = PackedFor(dir_ / "hf", options);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(notes, 1);
  EXPECT_EQ(Bytes(*first), Bytes(dir_ / "whole"));
  auto second = PackedFor((dir_ / "hf").string() + "/", options);
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(*second, *first);
  EXPECT_EQ(notes, 1);
  options.weights = WeightFormat::kF32;
  auto f32 = PackedFor(dir_ / "hf", options);
  ASSERT_TRUE(f32.ok());
  EXPECT_NE(*f32, *first);
  // An edited file is another model.
  options.weights = std::nullopt;
  WriteFileBytes(dir_ / "hf/chat_template.jinja", "another template");
  auto edited = PackedFor(dir_ / "hf", options);
  ASSERT_TRUE(edited.ok());
  EXPECT_NE(*edited, *first);
}

TEST_F(Packer, APackedDirectoryIsServedAsItIs) {
  CacheOptions options;
  options.cache = dir_ / "cache";
  auto path = PackedFor(dir_ / "whole", options);
  ASSERT_TRUE(path.ok());
  EXPECT_EQ(*path, dir_ / "whole");
  EXPECT_FALSE(fs::exists(dir_ / "cache"));
  options.weights = WeightFormat::kF32;
  EXPECT_THAT(std::string(PackedFor(dir_ / "whole", options).status().message()),
              HasSubstr("packed as bf16"));
  EXPECT_FALSE(PackedFor(dir_ / "nowhere", options).ok());
  EXPECT_FALSE(fs::exists(dir_ / "cache"));
}

// Two processes want the same model: one packs, the other waits and takes the result.
TEST_F(Packer, CacheIsSharedByTwoAtOnce) {
  CacheOptions options;
  options.cache = dir_ / "cache";
  auto pack = [&] {
    auto path = PackedFor(dir_ / "hf", options);
    return path.ok() && Bytes(*path) == Bytes(dir_ / "whole") ? 0 : 1;
  };
  int other = 1;
  std::thread thread([&] { other = pack(); });
  EXPECT_EQ(pack(), 0);
  thread.join();
  EXPECT_EQ(other, 0);
  EXPECT_EQ(std::distance(fs::directory_iterator(dir_ / "cache"), fs::directory_iterator()), 1);
}

}  // namespace
}  // namespace bottega
