#include "core/model/synthetic_shape.h"

#include "core/base/reason.h"
#include "core/model/config.h"
#include "core/model/tensor_set.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/model/checkpoint_writer.h"
#include "tests/core/model/temp_dir.h"

namespace bottega {
namespace {

using nlohmann::json;
using testing::HasSubstr;

ModelConfig ConfigOf(const std::string& shape, std::optional<int64_t> layers) {
  auto text = SyntheticShape(shape, layers);
  EXPECT_TRUE(text.ok()) << text.status();
  auto config = ParseModelConfig(text.ok() ? *text : "", "");
  EXPECT_TRUE(config.ok()) << config.status();
  return config.ok() ? *config : ModelConfig{};
}

// The sizes that the published models are named after.
TEST(SyntheticShape, NamesArePublishedModels) {
  const ModelConfig eng = ConfigOf("enggpt2", std::nullopt);
  EXPECT_EQ(CountParameters(eng).total, 15'729'347'904);
  EXPECT_EQ(CountParameters(eng).active, 2'810'693'184);
  EXPECT_TRUE(eng.unknown_fields.empty());
  const ModelConfig qwen = ConfigOf("qwen3-30b-a3b", std::nullopt);
  EXPECT_NEAR(static_cast<double>(CountParameters(qwen).total), 30.5e9, 0.1e9);
  EXPECT_TRUE(qwen.unknown_fields.empty());
}

TEST(SyntheticShape, IsCutToTheFirstLayers) {
  EXPECT_EQ(ConfigOf("enggpt2", 1).num_layers, 1);
  EXPECT_EQ(ConfigOf("enggpt2", 24).num_layers, 24);
  TempDir dir;
  json config = SmallConfig();
  config["num_hidden_layers"] = 4;
  config["mlp_only_layers"] = {1, 3};
  config["intermediate_size"] = 56;
  config["layer_types"] =
      json::array({"full_attention", "full_attention", "full_attention", "full_attention"});
  WriteFileBytes(dir / "some.json", config.dump());
  EXPECT_EQ(ConfigOf((dir / "some.json").string(), std::nullopt).num_dense_layers(), 2);
  const ModelConfig cut = ConfigOf((dir / "some.json").string(), 3);
  EXPECT_EQ(cut.is_moe_layer, (std::vector<uint8_t>{1, 0, 1}));
}

TEST(SyntheticShape, RefusalsSayWhatIsAllowed) {
  auto message = [](const std::string& shape, std::optional<int64_t> layers, Reason reason) {
    const absl::Status status = SyntheticShape(shape, layers).status();
    EXPECT_EQ(ReasonOf(status), reason) << status;
    return std::string(status.message());
  };
  EXPECT_THAT(message("llama", {}, Reason::kInvalidValue), HasSubstr("enggpt2, qwen3-30b-a3b"));
  EXPECT_THAT(message("enggpt2", 0, Reason::kInvalidValue), HasSubstr("1 to 24"));
  EXPECT_THAT(message("enggpt2", 25, Reason::kInvalidValue), HasSubstr("1 to 24"));
  EXPECT_THAT(message("qwen3-30b-a3b", -3, Reason::kInvalidValue), HasSubstr("1 to 48"));
  TempDir dir;
  message((dir / "absent.json").string(), {}, Reason::kModelRefused);
  WriteFileBytes(dir / "bad.json", "{");
  EXPECT_THAT(message((dir / "bad.json").string(), {}, Reason::kModelRefused),
              HasSubstr("bad.json"));
  json other = SmallConfig();
  other["model_type"] = "llama";
  WriteFileBytes(dir / "other.json", other.dump());
  EXPECT_THAT(message((dir / "other.json").string(), {}, Reason::kModelRefused),
              HasSubstr("model_type"));
}

}  // namespace
}  // namespace bottega
