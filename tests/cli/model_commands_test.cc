// `bottega inspect`, `bottega pack` and `bottega synth`: exit codes and what is printed.

#include <algorithm>
#include <cstdio>
#include <vector>

#include "cli/inspect.h"
#include "cli/model_report.h"
#include "cli/pack.h"
#include "cli/synth.h"
#include "core/service/progress_bar.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/model/checkpoint_writer.h"
#include "tests/core/model/temp_dir.h"

namespace bottega {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

struct Result {
  int code;
  std::string out;
  std::string err;
};

Result Call(int (*command)(int, const char* const*), const std::vector<std::string>& arguments) {
  std::vector<const char*> argv;
  for (const std::string& argument : arguments) argv.push_back(argument.c_str());
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  Result result;
  result.code = command(static_cast<int>(argv.size()), argv.data());
  result.out = testing::internal::GetCapturedStdout();
  result.err = testing::internal::GetCapturedStderr();
  return result;
}

class ModelCommands : public testing::Test {
 protected:
  ModelCommands() { WriteCheckpoint(dir_ / "hf", {.shards = 2}); }
  std::string Path(const std::string& name) { return (dir_ / name).string(); }
  TempDir dir_;
};

TEST_F(ModelCommands, InspectTellsWhatItIs) {
  Result result = Call(RunInspect, {"inspect", Path("hf")});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.out,
              AllOf(HasSubstr("enggpt_moe, Hugging Face directory, 2 files"),
                    HasSubstr("6 a layer, 2 per token, width 24"),
                    HasSubstr("<|im_end|> 3 (special)"), HasSubstr("not found: <|im_start|>"),
                    HasSubstr("end 3 4"), HasSubstr("temperature 0.6, top_k 20"),
                    HasSubstr("chat_template.jinja"), HasSubstr("384 bytes a token in bf16")));
}

TEST_F(ModelCommands, PackThenInspectAndVerify) {
  Result packed =
      Call(RunPack, {"pack", Path("hf"), Path("out"), "--weights", "f32", "--threads", "1"});
  ASSERT_EQ(packed.code, 0) << packed.err;
  EXPECT_THAT(packed.out, HasSubstr("digest"));
  EXPECT_THAT(packed.err, AllOf(HasSubstr("packing 100 %"), Not(HasSubstr("\r"))));  // no terminal
  Result inspected = Call(RunInspect, {"inspect", "--verify", Path("out")});
  EXPECT_EQ(inspected.code, 0) << inspected.err;
  EXPECT_THAT(inspected.out, AllOf(HasSubstr("packed as f32"), HasSubstr("verified")));

  std::string bytes = ReadFileBytes(dir_ / "out/experts.000.weights");
  bytes[17] ^= 4;
  WriteFileBytes(dir_ / "out/experts.000.weights", bytes);
  EXPECT_EQ(Call(RunInspect, {"inspect", Path("out")}).code, 0);  // headers only
  Result damaged = Call(RunInspect, {"inspect", "--verify", Path("out")});
  EXPECT_EQ(damaged.code, 3);
  EXPECT_THAT(damaged.err, HasSubstr("layer.0.expert.0 is damaged"));
}

TEST_F(ModelCommands, SynthThenInspectAndVerify) {
  nlohmann::json config = SmallConfig();
  config["vocab_size"] = 300;
  WriteFileBytes(dir_ / "shape.json", config.dump());
  Result made = Call(RunSynth, {"synth", Path("out"), "--shape", Path("shape.json"), "--layers",
                                "1", "--weights", "int8", "--seed", "7", "--threads", "2"});
  ASSERT_EQ(made.code, 0) << made.err;
  EXPECT_THAT(made.out, AllOf(HasSubstr("weights  int8"), HasSubstr("digest")));
  EXPECT_THAT(made.err, HasSubstr("writing 100 %"));
  Result inspected = Call(RunInspect, {"inspect", "--verify", Path("out")});
  EXPECT_EQ(inspected.code, 0) << inspected.err;
  EXPECT_THAT(inspected.out, AllOf(HasSubstr("packed as int8"), HasSubstr("layers       1"),
                                   HasSubstr("<|im_end|>"), HasSubstr("verified")));
}

TEST_F(ModelCommands, SynthSaysWhatIsAllowed) {
  auto expect = [this](std::vector<std::string> flags, int code, const std::string& message) {
    flags.insert(flags.begin(), {"synth", Path("out")});
    const Result result = Call(RunSynth, flags);
    EXPECT_EQ(result.code, code) << message;
    EXPECT_THAT(result.err, HasSubstr(message));
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
    EXPECT_EQ(result.out, "");
    EXPECT_FALSE(std::filesystem::exists(dir_ / "out"));
  };
  expect({"--shape", "gpt"}, 2, "no shape \"gpt\"; there are enggpt2, qwen3-30b-a3b");
  expect({"--layers", "0"}, 2, "layers is 0; of the shape enggpt2 it can be 1 to 24");
  expect({"--layers", "49", "--shape", "qwen3-30b-a3b"}, 2, "can be 1 to 48");
  expect({"--layers", "-1"}, 2, "layers is");
  expect({"--layers", "many"}, 2, "expected a whole number or \"all\"");
  expect({"--weights", "int3"}, 2, "int4");
  expect({"--shape", Path("nowhere.json")}, 3, "nowhere.json");
  WriteFileBytes(dir_ / "shape.json", SmallConfig().dump());
  expect({"--shape", Path("shape.json")}, 3, "vocab_size is 37");
  EXPECT_EQ(Call(RunSynth, {"synth"}).code, 2);
  EXPECT_EQ(Call(RunSynth, {"synth", "--help"}).code, 0);
  const Result exists = Call(RunSynth, {"synth", Path("hf"), "--layers", "1"});
  EXPECT_EQ(exists.code, 1);
  EXPECT_THAT(exists.err, HasSubstr("exists"));
}

TEST_F(ModelCommands, ExitCodes) {
  EXPECT_EQ(Call(RunInspect, {"inspect"}).code, 2);
  EXPECT_EQ(Call(RunInspect, {"inspect", "a", "b"}).code, 2);
  EXPECT_EQ(Call(RunInspect, {"inspect", "--no-such", Path("hf")}).code, 2);
  EXPECT_EQ(Call(RunInspect, {"inspect", "--verify", Path("hf")}).code, 2);
  EXPECT_EQ(Call(RunInspect, {"inspect", "--help"}).code, 0);
  EXPECT_EQ(Call(RunInspect, {"inspect", Path("nowhere")}).code, 3);
  EXPECT_EQ(Call(RunPack, {"pack", Path("hf")}).code, 2);
  EXPECT_EQ(Call(RunPack, {"pack", Path("hf"), Path("out"), "--weights", "int3"}).code, 2);
  EXPECT_EQ(Call(RunPack, {"pack", Path("hf"), Path("out"), "--threads", "1025"}).code, 2);
  EXPECT_EQ(Call(RunPack, {"pack", Path("nowhere"), Path("out")}).code, 3);
  EXPECT_EQ(Call(RunPack, {"pack", Path("hf"), Path("hf")}).code, 1);  // exists
  nlohmann::json config = SmallConfig();
  config["sliding_window"] = 64;
  WriteFileBytes(dir_ / "hf/config.json", config.dump());
  Result refused = Call(RunInspect, {"inspect", Path("hf")});
  EXPECT_EQ(refused.code, 3);
  EXPECT_THAT(refused.err, HasSubstr("config.json: sliding_window is 64"));
  EXPECT_EQ(refused.out, "");
}

TEST(ModelReport, SaysWhetherItFits) {
  nlohmann::json config = SmallConfig();
  config.update({{"hidden_size", 2880},
                 {"num_hidden_layers", 24},
                 {"num_attention_heads", 32},
                 {"num_key_value_heads", 4},
                 {"head_dim", 128},
                 {"num_experts", 64},
                 {"num_experts_per_tok", 8},
                 {"moe_intermediate_size", 1080},
                 {"vocab_size", 131084},
                 {"some_new_field", 7}});
  ModelReport report;
  report.config = *ParseModelConfig(config.dump(), "");
  report.memory = {
      .bytes = uint64_t{24} << 30, .machine_bytes = uint64_t{64} << 30, .from_cgroup = true};
  std::string text = report.Text();
  EXPECT_THAT(
      text, AllOf(HasSubstr("15.73 billion, 2.81 billion read per token; one expert 9.33 million"),
                  HasSubstr("49152 bytes a token in bf16"),
                  HasSubstr("24.00 GiB, the limit of this control group"),
                  HasSubstr("some_new_field = 7"), HasSubstr("no tokenizer.json")));
  EXPECT_THAT(text,
              testing::ContainsRegex("bf16 +[0-9.]+ GiB  does not fit: [0-9.]+ GiB too much"));
  EXPECT_THAT(text,
              testing::ContainsRegex("int8 +[0-9.]+ GiB  fits; leaves room for [0-9]+ tokens"));
}

TEST(ProgressBar, ALinePerTenPercentWithoutATerminal) {
  std::FILE* file = std::tmpfile();
  {
    ProgressBar bar("work", file);
    for (uint64_t done = 0; done <= 1000; ++done) bar.Update(done, 1000);
    bar.Update(0, 0);
  }
  std::rewind(file);
  std::string text(1000, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file));
  std::fclose(file);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 11);
  EXPECT_THAT(text, testing::StartsWith("work 0 %\nwork 10 %\n"));
}

}  // namespace
}  // namespace bottega
