#include "core/model/config.h"

#include <bit>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "core/base/reason.h"
#include "core/model/tensor_set.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/model/checkpoint_writer.h"

namespace bottega {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// config.json as enggpt2.md tells it: the published model.
json EngGpt2() {
  return json::parse(R"({
    "architectures": ["EngGPTMoeForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
    "auto_map": {"AutoConfig": "x.Y"}, "bos_token_id": 1, "decoder_sparse_step": 1,
    "dtype": "bfloat16", "eos_token_id": 131073, "head_dim": 128, "hidden_act": "silu",
    "hidden_size": 2880, "initializer_range": 0.02, "intermediate_size": 8640,
    "max_position_embeddings": 40960, "max_window_layers": 24, "mlp_only_layers": [],
    "model_type": "enggpt_moe", "moe_intermediate_size": 1080, "norm_topk_prob": true,
    "num_attention_heads": 32, "num_experts": 64, "num_experts_per_tok": 8,
    "num_hidden_layers": 24, "num_key_value_heads": 4, "out_proj_bias": null,
    "output_router_logits": false, "pad_token_id": 131083, "qkv_proj_bias": null,
    "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000.0,
    "router_aux_loss_coef": 0.001, "sliding_window": null, "tie_word_embeddings": false,
    "transformers_version": "4.57.0", "use_bias": false, "use_cache": false,
    "use_sliding_window": false, "vocab_size": 131084})");
}

ModelConfig Parse(const json& config, const std::string& generation = "") {
  auto parsed = ParseModelConfig(config.dump(), generation);
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  return parsed.ok() ? *parsed : ModelConfig{};
}

TEST(Config, ThePublishedModel) {
  ModelConfig c = Parse(EngGpt2(), R"({"eos_token_id": [131073, 2], "temperature": 0.6,
      "top_p": 0.95, "top_k": 20, "min_p": 0, "do_sample": true})");
  EXPECT_EQ(c.num_layers, 24);
  EXPECT_EQ(c.head_dim, 128);
  EXPECT_EQ(c.q_dim(), 4096);
  EXPECT_EQ(c.kv_dim(), 512);
  EXPECT_EQ(c.num_moe_layers(), 24);
  EXPECT_TRUE(c.norm_topk_prob);
  EXPECT_EQ(c.rope.kind, RopeConfig::Kind::kDefault);
  EXPECT_EQ(c.rope.theta, 1e6);
  EXPECT_EQ(c.max_positions, 40960);
  EXPECT_THAT(c.eos_ids, ElementsAre(2, 131073));
  EXPECT_EQ(c.bos_id, 1);
  EXPECT_EQ(c.pad_id, 131083);
  EXPECT_EQ(c.sampling.temperature, 0.6);
  EXPECT_EQ(c.sampling.top_k, 20);
  EXPECT_EQ(c.sampling.do_sample, true);
  EXPECT_THAT(c.unknown_fields, IsEmpty());
  EXPECT_EQ(ExpectedTensors(c).size(), 4827u);
  ParameterCounts counts = CountParameters(c);
  EXPECT_EQ(counts.total, 15'729'347'904);
  EXPECT_EQ(counts.experts, 14'332'723'200);
  EXPECT_EQ(counts.one_expert, 9'331'200);
  EXPECT_EQ(counts.active, 2'810'693'184);
}

TEST(Config, ParameterCountIsTheTensorSets) {
  json config = SmallConfig();
  config["num_hidden_layers"] = 4;
  config["mlp_only_layers"] = {1};
  config["intermediate_size"] = 56;
  for (bool tied : {false, true}) {
    config["tie_word_embeddings"] = tied;
    ModelConfig c = Parse(config);
    int64_t total = 0;
    for (const ExpectedTensor& tensor : ExpectedTensors(c)) {
      int64_t count = 1;
      for (int64_t extent : tensor.shape) count *= extent;
      total += count;
    }
    EXPECT_EQ(CountParameters(c).total, total);
  }
}

// What transformers 5 writes for the same model as 4.
TEST(Config, BothFormsOfTransformersAreEqual) {
  json four = EngGpt2();
  four.erase("dtype");
  four["torch_dtype"] = "bfloat16";
  json five = four;
  five.erase("num_experts");
  five["num_local_experts"] = 64;
  five.erase("rope_theta");
  five.erase("rope_scaling");
  five["rope_parameters"] = {{"rope_theta", 1e6}, {"rope_type", "default"}};
  five.erase("torch_dtype");
  five["dtype"] = "bfloat16";
  EXPECT_EQ(NormalisedConfigJson(Parse(four)), NormalisedConfigJson(Parse(five)));
  json yarn = {{"rope_type", "yarn"}, {"factor", 2.0}, {"original_max_position_embeddings", 32768}};
  four["rope_scaling"] = yarn;
  yarn["rope_theta"] = 1e6;
  five["rope_parameters"] = yarn;
  EXPECT_EQ(NormalisedConfigJson(Parse(four)), NormalisedConfigJson(Parse(five)));
  EXPECT_EQ(Parse(five).max_positions, 65536);
}

TEST(Config, DefaultsOfTheClass) {
  json config = EngGpt2();
  config["model_type"] = "qwen3_moe";
  for (const char* field : {"norm_topk_prob", "head_dim", "rope_theta", "rms_norm_eps",
                            "decoder_sparse_step", "mlp_only_layers", "hidden_act"}) {
    config.erase(field);
  }
  config["hidden_size"] = 2048;
  config["sliding_window"] = 4096;  // the class switches it off without use_sliding_window
  config.erase("use_sliding_window");
  config["num_key_value_heads"] = nullptr;
  ModelConfig c = Parse(config);
  EXPECT_FALSE(c.norm_topk_prob);
  EXPECT_EQ(c.head_dim, 64);
  EXPECT_EQ(c.rope.theta, 10000.0);
  EXPECT_EQ(c.rms_norm_eps, 1e-6f);
  EXPECT_EQ(c.num_kv_heads, 32);
  EXPECT_EQ(c.num_dense_layers(), 0);
}

TEST(Config, DenseLayers) {
  json config = SmallConfig();
  config["num_hidden_layers"] = 6;
  config["decoder_sparse_step"] = 2;
  config["mlp_only_layers"] = {3};
  config["intermediate_size"] = 56;
  EXPECT_THAT(Parse(config).is_moe_layer, ElementsAre(0, 1, 0, 0, 0, 1));
}

TEST(Config, NormalisedReadsBackToItself) {
  json config = SmallConfig();
  config["num_hidden_layers"] = 3;
  config["mlp_only_layers"] = {1};
  config["intermediate_size"] = 56;
  config["rms_norm_eps"] = 1.1e-5;
  config["rope_scaling"] = {
      {"type", "yarn"},   {"factor", 3.7}, {"original_max_position_embeddings", 64},
      {"beta_fast", 20},  {"mscale", 0.7}, {"mscale_all_dim", 1.1},
      {"truncate", false}};
  std::string generation = R"({"temperature": 0.61, "top_p": 0.9, "min_p": 0.05, "top_k": 7,
      "repetition_penalty": 1.1, "do_sample": false, "eos_token_id": [9, 8]})";
  ModelConfig first = Parse(config, generation);
  std::string config_text = NormalisedConfigJson(first);
  std::string generation_text = NormalisedGenerationJson(first);
  ModelConfig second = Parse(json::parse(config_text), generation_text);
  EXPECT_EQ(NormalisedConfigJson(second), config_text);
  EXPECT_EQ(NormalisedGenerationJson(second), generation_text);
  EXPECT_EQ(second.eos_ids, first.eos_ids);
  EXPECT_EQ(second.is_moe_layer, first.is_moe_layer);
  EXPECT_EQ(MakeRopeTable(second).inv_freq, MakeRopeTable(first).inv_freq);
  EXPECT_EQ(MakeRopeTable(second).attention_scaling, MakeRopeTable(first).attention_scaling);
}

TEST(Config, UnknownFieldsAreReportedIfSet) {
  json config = SmallConfig();
  config["brand_new_switch"] = true;
  config["another"] = false;
  config["third"] = nullptr;
  config["fourth"] = json::array();
  EXPECT_THAT(Parse(config).unknown_fields, ElementsAre("brand_new_switch = true"));
}

struct Refusal {
  std::string name;
  std::function<void(json&)> change;
  std::string message;  // a part of it
};

std::vector<Refusal> Refusals() {
  std::vector<Refusal> all;
  auto set = [&all](const std::string& field, json value, const std::string& message = "") {
    all.push_back({field + "=" + value.dump(),
                   [field, value](json& config) { config[field] = value; },
                   message.empty() ? field : message});
  };
  // Set, not implemented.
  set("model_type", "mixtral");
  set("model_type", nullptr);
  set("attention_bias", true);
  set("use_bias", true);
  set("qkv_proj_bias", true);
  set("out_proj_bias", true);
  set("mlp_bias", true);
  set("hidden_act", "gelu");
  set("quantization_config", {{"quant_method", "fp8"}});
  set("dtype", "float16");
  set("sliding_window", 4096);  // enggpt_moe: not said to be off
  set("layer_types", {"full_attention", "sliding_attention"});
  set("clip_qkv", 8);
  set("use_qk_norm", false);
  set("scoring_func", "sigmoid");
  set("routed_scaling_factor", 2.446);
  set("n_shared_experts", 2);
  set("shared_expert_intermediate_size", 512);
  set("first_k_dense_replace", 1);
  set("n_group", 8);
  set("partial_rotary_factor", 0.5);
  set("final_logit_softcapping", 30.0);
  set("kv_lora_rank", 512);
  set("attention_bias", "no");
  // Rope.
  for (const char* type : {"linear", "dynamic", "llama3", "longrope", "su", "mrope", ""}) {
    set("rope_scaling", {{"rope_type", type}, {"factor", 2.0}}, "rope_type");
  }
  set("rope_scaling", {{"type", "linear"}, {"factor", 2.0}}, "rope_type");
  set("rope_scaling", "yarn", "rope_scaling");
  set("rope_scaling", {{"rope_type", "yarn"}, {"factor", 0}}, "factor");
  set("rope_scaling", {{"rope_type", "yarn"}, {"factor", "2"}}, "factor");
  set("rope_scaling", {{"rope_type", "yarn"}, {"factor", 2}, {"beta_fast", -1}}, "beta_fast");
  set("rope_scaling", {{"rope_type", "yarn"}, {"factor", 2}, {"mrope_section", {1, 2}}},
      "mrope_section");
  set("rope_parameters", {{"full_attention", {{"rope_type", "default"}}}}, "full_attention");
  set("rope_parameters", {{"rope_type", "default"}, {"partial_rotary_factor", 0.25}},
      "partial_rotary_factor");
  set("rope_theta", 0);
  set("rope_theta", -1.0);
  set("rope_theta", "1e6");
  // Hostile sizes.
  for (const char* field :
       {"vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_experts",
        "num_experts_per_tok", "moe_intermediate_size", "max_position_embeddings"}) {
    for (const json& value : {json(0), json(-1), json(int64_t{1} << 31), json(UINT64_MAX),
                              json(1.5), json("5"), json(1e308), json(true), json::array()}) {
      set(field, value);
    }
    all.push_back({std::string("no ") + field, [field](json& c) { c.erase(field); },
                   std::string(field) == "num_experts" ? "num_local_experts" : field});
  }
  set("num_key_value_heads", 3);
  set("num_key_value_heads", 0);
  set("num_key_value_heads", 8);
  set("num_experts_per_tok", 7, "num_experts_per_tok");  // 6 experts
  set("num_local_experts", 5);                           // contradicts num_experts
  set("head_dim", 0);
  set("head_dim", 7);
  set("head_dim", 1 << 20);
  set("decoder_sparse_step", 0);
  set("decoder_sparse_step", 5, "no layer with experts");
  set("mlp_only_layers", {2});
  set("mlp_only_layers", {-1});
  set("mlp_only_layers", {0}, "intermediate_size");
  set("mlp_only_layers", {0, 1}, "no layer with experts");
  set("rms_norm_eps", -1e-6);
  set("rms_norm_eps", nullptr, "");  // null is the default: accepted, taken out below
  all.pop_back();
  set("eos_token_id", 37);
  set("eos_token_id", {3, -1});
  set("tie_word_embeddings", "false");
  set("norm_topk_prob", 1);
  all.push_back({"too many tensors",
                 [](json& c) {
                   c["num_experts"] = 4096;
                   c["num_hidden_layers"] = 1024;
                 },
                 "tensors"});
  return all;
}

TEST(Config, M12_RefusesByName) {
  ASSERT_TRUE(ParseModelConfig(SmallConfig().dump(), "").ok());
  for (const Refusal& refusal : Refusals()) {
    json config = SmallConfig();
    refusal.change(config);
    auto parsed = ParseModelConfig(config.dump(), "");
    ASSERT_FALSE(parsed.ok()) << refusal.name;
    EXPECT_EQ(ReasonOf(parsed.status()), Reason::kModelRefused) << refusal.name;
    EXPECT_THAT(std::string(parsed.status().message()), HasSubstr("config.json")) << refusal.name;
    EXPECT_THAT(std::string(parsed.status().message()), HasSubstr(refusal.message)) << refusal.name;
  }
}

TEST(Config, M12_RefusesHostileText) {
  std::string deep(100'000, '[');
  std::string deep_object;
  for (int i = 0; i < 100'000; ++i) deep_object += "{\"a\":";
  std::string twice = SmallConfig().dump();
  twice.insert(1, "\"hidden_size\": 8, ");
  std::string large = "{\"a\": \"" + std::string(2 << 20, 'x') + "\"}";
  for (const std::string& text :
       {std::string(), std::string("{"), std::string("null"), std::string("[]"),
        std::string("{\"a\": NaN}"), std::string("\xff\xfe"), std::string("{\"a\": \"\xff\"}"),
        std::string("{\"model_type\": 1e999}"), deep, deep_object, twice, large}) {
    auto parsed = ParseModelConfig(text, "");
    ASSERT_FALSE(parsed.ok()) << text.substr(0, 60);
    EXPECT_EQ(ReasonOf(parsed.status()), Reason::kModelRefused);
    EXPECT_THAT(std::string(parsed.status().message()), HasSubstr("config.json"));
    EXPECT_LT(parsed.status().message().size(), 300u);
  }
}

TEST(Config, RefusesBadGenerationConfig) {
  for (const char* text :
       {"{", "[1]", R"({"temperature": "hot"})", R"({"temperature": -1})", R"({"top_p": 1.5})",
        R"({"top_k": 1.5})", R"({"eos_token_id": 37})", R"({"do_sample": 1})"}) {
    auto parsed = ParseModelConfig(SmallConfig().dump(), text);
    ASSERT_FALSE(parsed.ok()) << text;
    EXPECT_THAT(std::string(parsed.status().message()), HasSubstr("generation_config.json"));
  }
}

// rope_golden.json: inv_freq and attention_scaling of transformers' Qwen3MoeRotaryEmbedding
// (README.md).
TEST(RopeTable, AsTransformers) {
  json cases = json::parse(std::ifstream("tests/core/model/rope_golden.json"));
  ASSERT_EQ(cases.size(), 7u);
  for (const json& golden : cases) {
    json config = SmallConfig();
    config.erase("rope_theta");
    config["max_position_embeddings"] = 32768;
    config.update(golden["config"]);
    RopeTable table = MakeRopeTable(Parse(config));
    EXPECT_EQ(table.attention_scaling, static_cast<float>(golden["scaling"].get<double>()));
    ASSERT_EQ(table.inv_freq.size(), golden["inv_freq_bits"].size());
    int differ = 0;
    for (size_t i = 0; i < table.inv_freq.size(); ++i) {
      int ulps = std::abs(std::bit_cast<int32_t>(table.inv_freq[i]) -
                          golden["inv_freq_bits"][i].get<int32_t>());
      EXPECT_LE(ulps, 2) << config.dump() << " " << i;
      differ += ulps != 0;
    }
    // torch's own pow is not correctly rounded: a few last bits differ, no more.
    EXPECT_LE(differ, 3) << config.dump();
  }
}

TEST(RopeTable, FactorIsInferredWhereAbsent) {
  json config = SmallConfig();
  config["rope_scaling"] = {
      {"rope_type", "yarn"}, {"factor", nullptr}, {"original_max_position_embeddings", 64}};
  ModelConfig c = Parse(config);
  EXPECT_EQ(c.rope.factor, 2.0);
  EXPECT_EQ(c.max_positions, 128);
}

}  // namespace
}  // namespace bottega
