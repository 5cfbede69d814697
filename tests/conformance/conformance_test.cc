#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <mutex>

#include "tests/gateway/gateway_harness.h"

namespace bottega::gateway {
namespace {

const std::filesystem::path kFolder = "tests/conformance";

std::vector<std::string> CaseFiles() {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(kFolder)) {
    if (entry.path().extension() == ".cases") files.push_back(entry.path().stem());
  }
  std::ranges::sort(files);
  return files;
}

// The value at a path like choices.0.text; null pointer: there is none.
const Json* At(const Json& json, const std::string& path) {
  const Json* at = &json;
  size_t begin = 0;
  while (begin <= path.size()) {
    const size_t end = std::min(path.find('.', begin), path.size());
    const std::string step = path.substr(begin, end - begin);
    if (at->is_array()) {
      const size_t index = std::stoul(step);
      if (index >= at->size()) return nullptr;
      at = &(*at)[index];
    } else {
      auto found = at->find(step);
      if (found == at->end()) return nullptr;
      at = &*found;
    }
    begin = end + 1;
  }
  return at;
}

std::string Unescape(std::string text) {
  for (size_t at; (at = text.find("\\n")) != std::string::npos;) text.replace(at, 2, "\n");
  return text;
}

// One file: runs line by line, the request when its first expectation is met.
class Runner {
 public:
  explicit Runner(GatewayHarness& harness, std::string* says, std::mutex* says_mutex)
      : h_(harness), says_(says), says_mutex_(says_mutex) {}

  void Line(const std::string& line) {
    if (line.starts_with("#") || line.empty()) return;
    if (line.starts_with("== ")) {
      title_ = line.substr(3);
    } else if (line.starts_with("says ")) {
      std::lock_guard lock(*says_mutex_);
      *says_ = Unescape(line.substr(5));
    } else if (line.starts_with("> ")) {
      RequestLine(line.substr(2));
    } else if (line.starts_with("< ")) {
      if (!answered_) Send();
      SCOPED_TRACE(title_ + ": " + line);
      Expect(line.substr(2));
      ++checks_;
    } else {
      body_ += line + "\n";
    }
  }
  int checks() const { return checks_; }

 private:
  void RequestLine(const std::string& text) {
    const bool header = !answered_ && !method_.empty();
    if (header) {
      headers_ += text + "\r\n";
      return;
    }
    method_ = text.substr(0, text.find(' '));
    path_ = text.substr(text.find(' ') + 1);
    headers_.clear();
    body_.clear();
    answered_ = false;
  }

  void Send() {
    response_ = h_.Call(method_, path_, body_, headers_);
    json_ = response_.json();
    if (response_.Header("Content-Type") == "text/event-stream") {
      json_ = {{"events", Json::array()}};
      for (const std::string& event : response_.Events()) {
        const Json parsed = Json::parse(event, nullptr, false);
        json_["events"].push_back(parsed.is_discarded() || event == "[DONE]" ? Json(event)
                                                                             : parsed);
      }
    }
    answered_ = true;
  }

  void Expect(const std::string& text) {
    if (text.find_first_not_of("0123456789") == std::string::npos) {
      EXPECT_EQ(response_.status, std::stoi(text)) << response_.body;
    } else if (text.starts_with("body has ")) {
      EXPECT_NE(response_.body.find(text.substr(9)), std::string::npos) << response_.body;
    } else if (text.starts_with("header ")) {
      const size_t equals = text.find(" = ");
      EXPECT_EQ(response_.Header(text.substr(7, equals - 7)), text.substr(equals + 3));
    } else if (text.ends_with(" absent")) {
      EXPECT_EQ(At(json_, text.substr(0, text.size() - 7)), nullptr) << response_.body;
    } else {
      const size_t equals = text.find(" = ");
      ASSERT_NE(equals, std::string::npos) << "not understood";
      const Json* value = At(json_, text.substr(0, equals));
      ASSERT_NE(value, nullptr) << response_.body;
      EXPECT_EQ(*value, Json::parse(text.substr(equals + 3))) << response_.body;
    }
  }

  GatewayHarness& h_;
  std::string* says_;
  std::mutex* says_mutex_;
  std::string title_, method_, path_, headers_, body_;
  HttpClient::Response response_;
  Json json_;
  bool answered_ = true;
  int checks_ = 0;
};

class ConformanceTest : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Files, ConformanceTest, testing::ValuesIn(CaseFiles()),
                         [](const auto& info) { return info.param; });

TEST_P(ConformanceTest, EveryCaseHolds) {
  std::string says = "ok";
  std::mutex says_mutex;
  GatewayHarness h;
  h.AddWorker([&](const internal::v1::Submit& submit, uint32_t index) {
    std::lock_guard lock(says_mutex);
    return Saying(says)(submit, index);
  });
  h.Start();
  Runner runner(h, &says, &says_mutex);
  std::ifstream file(kFolder / (GetParam() + ".cases"));
  for (std::string line; std::getline(file, line);) runner.Line(line);
  EXPECT_GT(runner.checks(), 10);
}

}  // namespace
}  // namespace bottega::gateway
