#include "core/service/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>

namespace bottega {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;

struct Config {
  std::string host = "127.0.0.1";
  int64_t port = 8000;
  int64_t max_model_len = 40960;
  double share = 0.5;
  bool web = true;
  bool verbose = false;
  std::string weights = "bf16";
  std::vector<std::string> api_key;
  Duration timeout = 300ms;
  ByteCount cache{1 << 30};
};

struct OptionsTest : testing::Test {
  OptionsTest() {
    table.Add("host", &config.host, "address to listen on")
        .Add("port", &config.port, "port")
        .Range(0, 65535)
        .Add("max-model-len", &config.max_model_len, "context")
        .Add("share", &config.share, "share")
        .Range(0, 1)
        .Add("web", &config.web, "web page")
        .Add("verbose", &config.verbose, "say more")
        .Add("weights", &config.weights, "format")
        .OneOf({"f32", "bf16"})
        .Add("api-key", &config.api_key, "keys")
        .Add("timeout", &config.timeout, "patience")
        .Add("cache", &config.cache, "bytes")
        .Positional("DIR", 0, 1);
  }
  ~OptionsTest() override {
    if (!yaml_path.empty()) unlink(yaml_path.c_str());
  }
  std::string Yaml(const std::string& text) {
    char path[] = "/tmp/bottega_options_XXXXXX";
    const int fd = mkstemp(path);
    EXPECT_EQ(write(fd, text.data(), text.size()), static_cast<ssize_t>(text.size()));
    close(fd);
    yaml_path = path;
    return yaml_path;
  }
  std::string Error(std::vector<std::string> arguments, std::vector<std::string> environment = {}) {
    return std::string(table.Parse(arguments, environment).status().message());
  }

  Config config;
  OptionTable table{"bottega-gateway", "The door."};
  std::string yaml_path;
};

TEST_F(OptionsTest, FlagBeatsEnvironmentBeatsYamlBeatsDefault) {
  const std::string yaml = Yaml("host: yaml\nport: 1\nshare: 0.25\nverbose: true\n");
  auto outcome = table.Parse({"--config", yaml, "--host", "flag", "DIR"},
                             {"BOTTEGA_HOST=environment", "BOTTEGA_PORT=2", "PORT=3"});
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_EQ(config.host, "flag");
  EXPECT_EQ(config.port, 2);
  EXPECT_EQ(config.share, 0.25);
  EXPECT_EQ(config.max_model_len, 40960);
  EXPECT_TRUE(config.verbose);
  EXPECT_EQ(table.Source("host"), "flag");
  EXPECT_EQ(table.Source("port"), "environment");
  EXPECT_EQ(table.Source("share"), "yaml");
  EXPECT_EQ(table.Source("max-model-len"), "default");
  EXPECT_THAT(outcome->positional, ElementsAre("DIR"));
}

TEST_F(OptionsTest, EveryFormOfAFlag) {
  auto outcome = table.Parse({"--port=0", "--no-web", "--verbose", "--max_model_len", "32K",
                              "--timeout", "2m", "--cache=24GiB", "--api-key", "a", "--api-key",
                              "b", "--host", "x", "--host", "y", "--", "--dir"},
                             {"BOTTEGA_API_KEY=c,d"});
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_EQ(config.port, 0);
  EXPECT_FALSE(config.web);
  EXPECT_TRUE(config.verbose);
  EXPECT_EQ(config.max_model_len, 32768);
  EXPECT_EQ(config.timeout, Duration(2min));
  EXPECT_EQ(config.cache.value, 24ull << 30);
  EXPECT_THAT(config.api_key, ElementsAre("a", "b"));
  EXPECT_EQ(config.host, "y");
  EXPECT_THAT(outcome->positional, ElementsAre("--dir"));
}

TEST_F(OptionsTest, ListsComeFromEveryPlace) {
  ASSERT_TRUE(table.Parse({"--config", Yaml("api-key: [x, y]\n")}, {}).ok());
  EXPECT_THAT(config.api_key, ElementsAre("x", "y"));
  ASSERT_TRUE(table.Parse({}, {"BOTTEGA_API_KEY=c,d"}).ok());
  EXPECT_THAT(config.api_key, ElementsAre("c", "d"));
}

TEST_F(OptionsTest, ASectionIsForItsProgramOnly) {
  const std::string yaml =
      Yaml("port: 1\ngateway:\n  port: 2\nexpert:\n  unknown-here: 3\nrouter: {port: 4}\n");
  ASSERT_TRUE(table.Parse({"--config", yaml}, {}).ok());
  EXPECT_EQ(config.port, 2);
}

TEST_F(OptionsTest, ErrorsNameTheOptionItsPlaceAndTheNearest) {
  EXPECT_EQ(Error({"--prot", "1"}), "unknown option \"prot\"; did you mean \"port\"?");
  EXPECT_EQ(Error({"--entirely-different", "1"}), "unknown option \"entirely-different\"");
  EXPECT_EQ(Error({"--port"}), "--port: needs a value");
  EXPECT_THAT(Error({"--port", "x"}), HasSubstr("--port: \"x\" is no whole number"));
  EXPECT_THAT(Error({"--port", "70000"}), HasSubstr("not in 0 .. 65535"));
  EXPECT_THAT(Error({"--port", "9223372036854775807K"}), HasSubstr("no whole number"));
  EXPECT_THAT(Error({"--share", "nan"}), HasSubstr("--share"));
  EXPECT_THAT(Error({"--weights", "int9"}), HasSubstr("none of f32, bf16"));
  EXPECT_THAT(Error({}, {"BOTTEGA_TIMEOUT=soon"}),
              HasSubstr("BOTTEGA_TIMEOUT: \"soon\" is no time"));
  EXPECT_THAT(Error({"--web=maybe"}), HasSubstr("neither true nor false"));
  EXPECT_THAT(Error({"a", "b"}), HasSubstr("unexpected argument \"b\""));
  EXPECT_THAT(Error({"-p"}), HasSubstr("unknown option"));
}

TEST_F(OptionsTest, YamlErrorsNameTheLine) {
  EXPECT_THAT(Error({"--config", Yaml("host: x\nprot: 1\n")}),
              testing::AllOf(HasSubstr("line 2"), HasSubstr("did you mean \"port\"?")));
}

TEST_F(OptionsTest, BrokenYamlIsAnError) {
  EXPECT_THAT(Error({"--config", Yaml("host: [x\n")}), HasSubstr("--config"));
  EXPECT_THAT(Error({"--config", "/no/such/file"}), HasSubstr("cannot read /no/such/file"));
  EXPECT_THAT(Error({"--config", "/dev/zero"}), HasSubstr("cannot read"));
}

TEST_F(OptionsTest, APrintedConfigReadsBack) {
  auto printed = table.Parse({"--port=5", "--timeout=1500us", "--api-key", "a b\"c", "--api-key",
                              "d", "--host", "", "--cache=1000", "--print-config"},
                             {});
  ASSERT_TRUE(printed.ok());
  EXPECT_THAT(printed->print_and_exit, HasSubstr("port: 5  # flag"));
  EXPECT_THAT(printed->print_and_exit, HasSubstr("share: 0.5  # default"));
  const std::string yaml = Yaml(printed->print_and_exit);
  config = Config();
  ASSERT_TRUE(table.Parse({"--config", yaml}, {}).ok());
  EXPECT_EQ(config.port, 5);
  EXPECT_EQ(config.timeout, 1500us);
  EXPECT_EQ(config.host, "");
  EXPECT_EQ(config.cache.value, 1000u);
  EXPECT_THAT(config.api_key, ElementsAre("a b\"c", "d"));
}

TEST_F(OptionsTest, HelpShowsEveryOption) {
  auto outcome = table.Parse({"--help", "--nonsense"}, {});
  ASSERT_TRUE(outcome.ok());
  EXPECT_THAT(outcome->print_and_exit,
              testing::AllOf(HasSubstr("usage: bottega-gateway [options] DIR"),
                             HasSubstr("--max-model-len N"), HasSubstr("(default 300ms)"),
                             HasSubstr("f32, bf16"), HasSubstr("BOTTEGA_MAX_MODEL_LEN")));
}

TEST(ParseByteCount, UnitsAndErrors) {
  EXPECT_EQ(ParseByteCount("1.5GiB")->value, 3ull << 29);
  EXPECT_EQ(ParseByteCount("512 MB")->value, 512'000'000u);
  EXPECT_EQ(ParseByteCount("0")->value, 0u);
  for (const char* bad : {"", "GiB", "-1", "1XB", "1e3", "99999999TiB", "nan", "1 2"}) {
    EXPECT_FALSE(ParseByteCount(bad).ok()) << bad;
  }
}

}  // namespace
}  // namespace bottega
