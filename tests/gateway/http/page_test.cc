#include "gateway/page_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <sstream>

#include "tests/gateway/gateway_harness.h"

namespace bottega::gateway {
namespace {

using testing::HasSubstr;
using testing::Not;

std::string ReadWhole(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream bytes;
  bytes << file.rdbuf();
  return bytes.str();
}

// What follows `mark` in `text`, up to the next quote; each time.
std::set<std::string> QuotedAfter(const std::string& text, const std::string& mark) {
  std::set<std::string> found;
  for (size_t at = 0; (at = text.find(mark, at)) != std::string::npos;) {
    at += mark.size();
    found.insert(text.substr(at, text.find('"', at) - at));
  }
  return found;
}

class PageTest : public testing::Test {
 protected:
  GatewayHarness h;
};

TEST_F(PageTest, TheFilesAreThoseOfTheFolder) {
  for (const PageFile& file : PageFiles()) {
    const std::string name = file.path == "/" ? "index.html" : std::string(file.path.substr(6));
    EXPECT_TRUE(file.bytes == ReadWhole("gateway/page/" + name))
        << name << " was built into it earlier";
  }
}

TEST_F(PageTest, WhatAFileImportsIsThereAndNothingComesFromElsewhere) {
  std::set<std::string> wanted;
  for (const PageFile& file : PageFiles()) {
    const std::string text(file.bytes);
    for (const char* mark : {"from \"./", "import \"./", "href=\"page/", "src=\"page/"}) {
      for (const std::string& name : QuotedAfter(text, mark)) wanted.insert("/page/" + name);
    }
    // What would load from elsewhere, or make markup or code of text.
    for (const char* never : {"href=\"http", "href=\"//", "src=\"http", "src=\"//", "url(",
                              "@import", "import(", "innerHTML", "outerHTML", "insertAdjacentHTML",
                              "document.write", "eval(", "new Function", "srcdoc"}) {
      EXPECT_THAT(text, Not(HasSubstr(never))) << file.path;
    }
  }
  for (const std::string& path : wanted) EXPECT_NE(FindPageFile(path), nullptr) << path;
  EXPECT_EQ(wanted.size() + 1, PageFiles().size()) << "a file that nobody asks for";
}

TEST_F(PageTest, ItIsServedToWhoHasNoKey) {
  h.config.api_keys = {"secret"};
  h.Start();
  for (const PageFile& file : PageFiles()) {
    const HttpClient::Response response = h.Call("GET", std::string(file.path));
    EXPECT_EQ(response.status, 200) << file.path;
    EXPECT_EQ(response.body, file.bytes);
    EXPECT_EQ(response.Header("Content-Type"), std::string(file.type));
    EXPECT_EQ(response.Header("X-Content-Type-Options"), "nosniff");
    EXPECT_EQ(response.Header("Referrer-Policy"), "no-referrer");
    EXPECT_EQ(response.Header("Cache-Control"), "no-cache");
    const std::string policy = response.Header("Content-Security-Policy");
    for (const char* part : {"default-src 'none';", "script-src 'self';", "style-src 'self';",
                             "connect-src 'self';", "base-uri 'none';", "form-action 'none';",
                             "frame-ancestors 'none';", "require-trusted-types-for 'script'"}) {
      EXPECT_THAT(policy, HasSubstr(part));
    }
    EXPECT_THAT(policy, Not(HasSubstr("unsafe")));
  }
  for (const char* path : {"/page/", "/page/../main.js", "/page/nothing.js", "/index.html"}) {
    EXPECT_EQ(h.Call("GET", path).status, 401) << path << ": a stranger learns nothing";
    EXPECT_EQ(h.Call("GET", path, "", "x-api-key: secret\r\n").status, 404) << path;
  }
}

TEST_F(PageTest, WhatTheClientHasIsNotSentAgain) {
  h.Start();
  HttpClient client(h.port);
  client.Send("GET", "/");
  const std::string etag = client.Read().Header("ETag");
  for (const std::string& known : {etag, "W/" + etag, "\"other\", " + etag, std::string("*")}) {
    client.Send("GET", "/", "", "If-None-Match: " + known + "\r\n");
    const HttpClient::Response response = client.Read();
    EXPECT_EQ(response.status, 304) << known;
    EXPECT_EQ(response.body, "");
    EXPECT_EQ(response.Header("ETag"), etag);
    EXPECT_EQ(response.headers.count("Content-Length"), 0u);
    EXPECT_EQ(response.headers.count("Transfer-Encoding"), 0u);
  }
  client.Send("GET", "/", "", "If-None-Match: \"other\"\r\n");
  EXPECT_EQ(client.Read().status, 200);
  std::set<std::string_view> etags;
  for (const PageFile& file : PageFiles()) etags.insert(file.etag);
  EXPECT_EQ(etags.size(), PageFiles().size());
}

TEST_F(PageTest, HeadLeavesTheBodyOutAndTheConnectionUsable) {
  h.Start();
  HttpClient client(h.port);
  for (const char* path : {"/", "/v1/models", "/live"}) {
    client.Send("GET", path);
    const HttpClient::Response whole = client.Read();
    client.Send("HEAD", path);
    const HttpClient::Response head = client.Read(/*to_head=*/true);
    EXPECT_EQ(head.status, 200) << path;
    EXPECT_EQ(head.body, "");
    EXPECT_EQ(head.Header("Content-Length"), std::to_string(whole.body.size()));
    EXPECT_EQ(head.Header("ETag"), whole.Header("ETag"));
  }
  client.Send("HEAD", "/v1/chat/completions");
  EXPECT_EQ(client.Read(/*to_head=*/true).status, 405);
}

TEST_F(PageTest, OtherMethodsAreRefused) {
  h.Start();
  for (const char* method : {"POST", "PUT", "DELETE"}) {
    EXPECT_EQ(h.Call(method, "/", "{}").status, 405) << method;
    EXPECT_EQ(h.Call(method, "/page/main.js", "{}").status, 405) << method;
  }
}

TEST_F(PageTest, NoWebMeansNoPage) {
  h.config.web = false;
  h.Start();
  EXPECT_EQ(h.Call("GET", "/").status, 404);
  EXPECT_EQ(h.Call("GET", "/page/main.js").status, 404);
  EXPECT_EQ(h.Call("GET", "/v1/models").status, 200);
}

}  // namespace
}  // namespace bottega::gateway
