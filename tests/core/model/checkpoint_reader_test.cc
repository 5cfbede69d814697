#include "core/model/checkpoint_reader.h"

#include <sys/stat.h>

#include <algorithm>
#include <functional>

#include "core/base/reason.h"
#include "core/model/tensor_set.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/model/checkpoint_writer.h"
#include "tests/core/model/temp_dir.h"

namespace bottega {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::HasSubstr;

void ExpectSameTensors(const Checkpoint& checkpoint, const std::vector<TensorToWrite>& tensors) {
  for (const TensorToWrite& tensor : tensors) {
    const Checkpoint::Tensor& found = checkpoint.Find(tensor.name);
    EXPECT_EQ(found.shape, tensor.shape);
    std::string bytes(tensor.bytes.size(), '\0');
    ASSERT_TRUE(checkpoint.Read(found, 0, std::as_writable_bytes(std::span(bytes))).ok());
    EXPECT_EQ(bytes, tensor.bytes) << tensor.name;
  }
}

TEST(Checkpoint, SingleAndSharded) {
  for (int shards : {1, 3}) {
    for (DType dtype : {DType::kF32, DType::kBF16}) {
      TempDir dir;
      WriteCheckpoint(dir.path(), {.dtype = dtype, .shards = shards, .seed = 5});
      auto checkpoint = Checkpoint::Open(dir.path());
      ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
      EXPECT_EQ((*checkpoint)->files().size(), static_cast<size_t>(shards));
      EXPECT_EQ((*checkpoint)->config().eos_ids, (std::vector<int32_t>{3, 4}));
      ExpectSameTensors(**checkpoint, RandomTensors(SmallConfig(), dtype, 5));
    }
  }
}

TEST(Checkpoint, ReadsPartsAndFloats) {
  TempDir dir;
  WriteCheckpoint(dir.path(), {.dtype = DType::kF32});
  auto checkpoint = Checkpoint::Open(dir.path());
  ASSERT_TRUE(checkpoint.ok());
  const auto& tensor = (*checkpoint)->Find("model.embed_tokens.weight");
  auto floats = (*checkpoint)->ReadFloats("model.embed_tokens.weight");
  ASSERT_TRUE(floats.ok());
  float part[3];
  ASSERT_TRUE((*checkpoint)->Read(tensor, 41, std::as_writable_bytes(std::span(part))).ok());
  EXPECT_EQ(part[2], (*floats)[43]);
}

// snapshots/REV/file -> ../../blobs/HASH, as the hub's cache lays a model out.
TEST(Checkpoint, HubCacheLinks) {
  TempDir cache;
  const fs::path snapshot = cache / "models--x--y/snapshots/0123";
  const fs::path blobs = cache / "models--x--y/blobs";
  TempDir plain;
  WriteCheckpoint(plain.path(), {.shards = 2});
  fs::create_directories(snapshot);
  fs::create_directories(blobs);
  int blob = 0;
  for (const auto& entry : fs::directory_iterator(plain.path())) {
    std::string hash = "blob" + std::to_string(blob++);
    fs::copy_file(entry.path(), blobs / hash);
    fs::create_symlink("../../blobs/" + hash, snapshot / entry.path().filename());
  }
  auto checkpoint = Checkpoint::Open(snapshot);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  ExpectSameTensors(**checkpoint, RandomTensors(SmallConfig(), DType::kBF16, 1));
  // The snapshot itself may be reached by a link.
  fs::create_directory_symlink(snapshot, cache / "current");
  EXPECT_TRUE(Checkpoint::Open(cache / "current").ok());
}

struct Refusal {
  std::string name;
  std::function<void(const fs::path&)> change;
  std::string message;
};

// M13 and its kin: `change` damages a sharded checkpoint.
std::vector<Refusal> FileRefusals() {
  static constexpr char kShard[] = "model-00002-of-00002.safetensors";
  auto redirect = [](const std::string& target) {
    return [target](const fs::path& dir) {
      json index = json::parse(ReadFileBytes(dir / "model.safetensors.index.json"));
      for (auto& [tensor, file] : index["weight_map"].items()) {
        if (file == "model-00002-of-00002.safetensors") file = target;
      }
      WriteFileBytes(dir / "model.safetensors.index.json", index.dump());
    };
  };
  auto replace = [](std::function<void(const fs::path&)> make) {
    return [make](const fs::path& dir) {
      fs::remove(dir / kShard);
      make(dir / kShard);
    };
  };
  return {
      {"parent", redirect("../model-00002-of-00002.safetensors"), "plain file name"},
      {"absolute", redirect("/etc/passwd"), "plain file name"},
      {"device", redirect("/dev/zero"), "plain file name"},
      {"subdirectory", redirect("a/b.safetensors"), "plain file name"},
      {"dots", redirect(".."), "plain file name"},
      {"empty name", redirect(""), "plain file name"},
      {"zero byte", redirect(std::string("a\0b", 3)), "plain file name"},
      {"a tensor elsewhere", redirect("model-00001-of-00002.safetensors"), "is not in"},
      {"no such shard", [](const fs::path& dir) { fs::remove(dir / kShard); }, "no such file"},
      {"FIFO", replace([](const fs::path& p) { ASSERT_EQ(::mkfifo(p.c_str(), 0600), 0); }),
       "not a regular file"},
      {"directory", replace([](const fs::path& p) { fs::create_directory(p); }),
       "not a regular file"},
      {"link to a device", replace([](const fs::path& p) { fs::create_symlink("/dev/zero", p); }),
       "outside"},
      {"link out", replace([](const fs::path& p) { fs::create_symlink("/etc/hostname", p); }),
       "outside"},
      {"link to nothing", replace([](const fs::path& p) { fs::create_symlink("gone", p); }),
       "nowhere"},
      {"link to itself", replace([](const fs::path& p) { fs::create_symlink(p.filename(), p); }),
       "nowhere"},
      {"empty shard", replace([](const fs::path& p) { WriteFileBytes(p, ""); }), "shorter"},
      {"cut shard",
       [](const fs::path& dir) { fs::resize_file(dir / kShard, fs::file_size(dir / kShard) - 1); },
       "bytes of data"},
      {"index no JSON",
       [](const fs::path& dir) { WriteFileBytes(dir / "model.safetensors.index.json", "{"); },
       "JSON"},
      {"index without map",
       [](const fs::path& dir) { WriteFileBytes(dir / "model.safetensors.index.json", "{}"); },
       "weight_map"},
      {"index of numbers",
       [](const fs::path& dir) {
         WriteFileBytes(dir / "model.safetensors.index.json", R"({"weight_map":{"a":1}})");
       },
       "not in a file"},
      {"no weights", [](const fs::path& dir) { fs::remove(dir / "model.safetensors.index.json"); },
       "neither"},
      {"no config", [](const fs::path& dir) { fs::remove(dir / "config.json"); }, "config.json"},
      {"config is a FIFO",
       [](const fs::path& dir) {
         fs::remove(dir / "config.json");
         ASSERT_EQ(::mkfifo((dir / "config.json").c_str(), 0600), 0);
       },
       "not a regular file"},
      {"config linked out",
       [](const fs::path& dir) {
         fs::remove(dir / "config.json");
         fs::create_symlink("/etc/hostname", dir / "config.json");
       },
       "outside"},
  };
}

TEST(Checkpoint, RefusesFiles) {
  for (const Refusal& refusal : FileRefusals()) {
    TempDir dir;
    WriteCheckpoint(dir.path(), {.shards = 2});
    ASSERT_TRUE(Checkpoint::Open(dir.path()).ok());
    refusal.change(dir.path());
    auto checkpoint = Checkpoint::Open(dir.path());
    ASSERT_FALSE(checkpoint.ok()) << refusal.name;
    EXPECT_EQ(ReasonOf(checkpoint.status()), Reason::kModelRefused) << refusal.name;
    EXPECT_THAT(std::string(checkpoint.status().message()), HasSubstr(refusal.message))
        << refusal.name;
  }
}

TEST(Checkpoint, RefusesAMissingDirectory) {
  auto checkpoint = Checkpoint::Open("/nonexistent/model");
  EXPECT_THAT(std::string(checkpoint.status().message()), HasSubstr("no such directory"));
}

using Tensors = std::vector<TensorToWrite>;

// The tensor set must be exactly the config's; the message names file and tensor.
TEST(Checkpoint, RefusesTensorSets) {
  struct Case {
    std::string name;
    std::function<void(Tensors&)> change;
    std::string message;
  };
  auto find = [](Tensors& tensors, const std::string& name) {
    return std::find_if(tensors.begin(), tensors.end(),
                        [&](const TensorToWrite& t) { return t.name == name; });
  };
  const std::string up = "model.layers.1.mlp.experts.5.up_proj.weight";
  const Case cases[] = {
      {"missing", [&](Tensors& t) { t.erase(find(t, up)); }, up},
      {"renamed", [&](Tensors& t) { find(t, up)->name += "s"; }, up},
      {"extra",
       [](Tensors& t) {
         t.push_back({"model.layers.0.self_attn.q_proj.bias", "BF16", {1}, "xx"});
       },
       "q_proj.bias"},
      {"extra expert",
       [&](Tensors& t) {
         TensorToWrite copy = *find(t, up);
         copy.name = "model.layers.1.mlp.experts.6.up_proj.weight";
         t.push_back(copy);
       },
       "experts.6"},
      {"transposed", [&](Tensors& t) { std::swap(find(t, up)->shape[0], find(t, up)->shape[1]); },
       "[40, 24]"},
      {"rank", [&](Tensors& t) { find(t, up)->shape.push_back(1); }, "[24, 40, 1]"},
      {"half", [&](Tensors& t) { find(t, up)->dtype = "F16"; }, "F16"},
      {"integers", [&](Tensors& t) { find(t, up)->dtype = "I16"; }, "I16"},
  };
  for (const Case& c : cases) {
    for (int shards : {1, 2}) {
      TempDir dir;
      WriteCheckpoint(dir.path());
      fs::remove(dir / "model.safetensors");
      Tensors tensors = RandomTensors(SmallConfig(), DType::kBF16, 1);
      c.change(tensors);
      WriteWeights(dir.path(), tensors, shards);
      auto checkpoint = Checkpoint::Open(dir.path());
      ASSERT_FALSE(checkpoint.ok()) << c.name;
      EXPECT_EQ(ReasonOf(checkpoint.status()), Reason::kModelRefused);
      EXPECT_THAT(std::string(checkpoint.status().message()), HasSubstr(c.message));
      EXPECT_THAT(std::string(checkpoint.status().message()), HasSubstr("safetensors"));
    }
  }
}

TEST(Checkpoint, TiedHeadMayBeStoredIfItIsTheEmbedding) {
  json config = SmallConfig();
  config["tie_word_embeddings"] = true;
  Tensors tensors = RandomTensors(config, DType::kF32, 1);
  TensorToWrite head = tensors[0];
  ASSERT_EQ(head.name, "model.embed_tokens.weight");
  head.name = "lm_head.weight";
  for (bool same : {true, false}) {
    TempDir dir;
    WriteCheckpoint(dir.path(), {.config = config, .dtype = DType::kF32});
    if (!same) head.bytes.back() ^= 1;
    Tensors all = tensors;
    all.push_back(head);
    WriteWeights(dir.path(), all, 1);
    EXPECT_EQ(Checkpoint::Open(dir.path()).ok(), same);
  }
}

// The file shrinks after it was opened; a read says so, no signal.
TEST(Checkpoint, M9_M14_ShortReadIsAnError) {
  TempDir dir;
  WriteCheckpoint(dir.path());
  auto checkpoint = Checkpoint::Open(dir.path());
  ASSERT_TRUE(checkpoint.ok());
  fs::resize_file(dir / "model.safetensors", fs::file_size(dir / "model.safetensors") / 2);
  auto floats = (*checkpoint)->ReadFloats("lm_head.weight");
  ASSERT_FALSE(floats.ok());
  EXPECT_THAT(std::string(floats.status().message()), HasSubstr("model.safetensors: ends at byte"));
}

// Every read of a file of weights, the header's too, may fail.
TEST(Checkpoint, M14_EioIsAnErrorThatNamesTheFile) {
  TempDir dir;
  WriteCheckpoint(dir.path());
  for (const char* hit : {"1", "2", "3"}) {
    FaultPoints faults;
    ASSERT_TRUE(faults.Arm(std::string("file.read=error@") + hit).ok());
    auto checkpoint = Checkpoint::Open(dir.path(), &faults);
    absl::Status status = checkpoint.status();
    if (status.ok()) status = (*checkpoint)->ReadFloats("lm_head.weight").status();
    EXPECT_EQ(ReasonOf(status), Reason::kModelRefused) << hit;
    EXPECT_THAT(std::string(status.message()),
                testing::AllOf(HasSubstr("model.safetensors: read error at byte"),
                               HasSubstr("Input/output error")));
  }
}

}  // namespace
}  // namespace bottega
