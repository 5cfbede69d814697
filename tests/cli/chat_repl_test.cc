// The conversation of `bottega chat` at a pseudo-terminal, with a server that follows a script.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "cli/chat.h"
#include "cli/interrupt.h"
#include "tests/cli/fake_server.h"
#include "tests/cli/pseudo_terminal.h"

namespace bottega {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// stdin and stdout of this process at a terminal while it lives.
class AtTerminal {
 public:
  explicit AtTerminal(int terminal) {
    std::fflush(stdout);
    for (int fd : {STDIN_FILENO, STDOUT_FILENO}) {
      before_.push_back(dup(fd));
      dup2(terminal, fd);
    }
  }
  ~AtTerminal() {
    std::fflush(stdout);
    for (int fd : {STDIN_FILENO, STDOUT_FILENO}) {
      dup2(before_[static_cast<size_t>(fd)], fd);
      close(before_[static_cast<size_t>(fd)]);
    }
  }

 private:
  std::vector<int> before_;
};

class ChatReplTest : public ::testing::Test {
 protected:
  // Runs the chat while `person` sits at the terminal; its exit code. The terminal hangs up when
  // the person is done.
  template <typename Person>
  int Run(const FakeServer& server, Person person) {
    const std::string url = server.url();
    const char* argv[] = {"chat", "--url", url.c_str()};
    std::thread thread([&] {
      person();
      pty_.WaitFor("\n");
      pty_.HangUp();
    });
    int code = 0;
    {
      AtTerminal at(pty_.terminal());
      code = RunChat(3, argv);
      std::fputs("\n", stdout);
    }
    thread.join();
    return code;
  }
  // Types a line once the prompt stands; what had been shown until then.
  std::string Line(const std::string& text) {
    std::string shown = pty_.WaitForPrompt(">>> ");
    pty_.Type(text + "\r");
    shown += pty_.WaitFor("\n");
    return shown;
  }
  static nlohmann::json Messages(const std::string& request) {
    return nlohmann::json::parse(request.substr(request.find("\r\n\r\n") + 4))["messages"];
  }

  Interrupt interrupt_;  // before any thread starts; the chat's own nests in it
  PseudoTerminal pty_;
};

const FakeServer::Reply kModels = WholeReply(200, R"({"data": [{"id": "tiny"}]})");

TEST_F(ChatReplTest, AConversation) {
  unsetenv("NO_COLOR");
  FakeServer server({kModels,
                     EventReply({DeltaEvent("reasoning", "Hm."), DeltaEvent("content", "Four."),
                                 FinishEvent("stop"), kDone}),
                     WholeReply(503, R"({"error": {"message": "all busy"}})"),
                     EventReply({DeltaEvent("content", "Yes."), FinishEvent("stop"), kDone}),
                     EventReply({DeltaEvent("content", "Who?"), FinishEvent("stop"), kDone})});
  const int code = Run(server, [this] {
    EXPECT_THAT(Line("2 + 2?"), HasSubstr("tiny at http://127.0.0.1:"));
    EXPECT_THAT(Line("Busy?"), HasSubstr("\x1b[2mHm.\x1b[0m\r\n\r\nFour.\r\n"));
    Line("Sure?");
    EXPECT_THAT(Line("/clear"), HasSubstr("Yes."));
    Line("Me?");
    Line("/bye");
  });
  EXPECT_EQ(code, 0);
  const std::vector<std::string>& requests = server.Requests();
  ASSERT_EQ(requests.size(), 5u);
  EXPECT_EQ(Messages(requests[1]), nlohmann::json::parse(R"([
    {"role": "user", "content": "2 + 2?"}])"));
  // What was refused is not part of the conversation; reasoning never is.
  EXPECT_EQ(Messages(requests[3]), nlohmann::json::parse(R"([
    {"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "Four."},
    {"role": "user", "content": "Sure?"}])"));
  EXPECT_EQ(Messages(requests[4]), nlohmann::json::parse(R"([
    {"role": "user", "content": "Me?"}])"));
}

TEST_F(ChatReplTest, InterruptStopsTheAnswerOnly) {
  FakeServer::Reply endless = EventReply({DeltaEvent("content", "It goes on")}, false);
  endless.hold = true;
  FakeServer server({kModels, endless,
                     EventReply({DeltaEvent("content", "Right."), FinishEvent("stop"), kDone})});
  const int code = Run(server, [this] {
    Line("Tell me.");
    pty_.WaitFor("It goes on");
    kill(getpid(), SIGINT);
    Line("Stop?");
    EXPECT_THAT(pty_.WaitForPrompt(">>> "), HasSubstr("Right."));
    kill(getpid(), SIGINT);
    EXPECT_THAT(pty_.WaitForPrompt(">>> "), HasSubstr("Ctrl-C once more"));
    kill(getpid(), SIGINT);
  });
  EXPECT_EQ(code, 0);
  EXPECT_EQ(Messages(server.Requests().at(2)), nlohmann::json::parse(R"([
    {"role": "user", "content": "Tell me."}, {"role": "assistant", "content": "It goes on"},
    {"role": "user", "content": "Stop?"}])"));
}

TEST_F(ChatReplTest, WithoutColour) {
  setenv("NO_COLOR", "1", 1);
  FakeServer server({kModels, EventReply({DeltaEvent("reasoning", "Hm."),
                                          DeltaEvent("content", "Fo\x1b[31mur."), kDone})});
  std::string shown;
  const int code = Run(server, [&] {
    Line("2 + 2?");
    shown = pty_.WaitForPrompt(">>> ");
    pty_.Type("\x04");
  });
  unsetenv("NO_COLOR");
  EXPECT_EQ(code, 0);
  EXPECT_THAT(shown, HasSubstr("Thinking:\r\nHm.\r\n\r\nAnswer:\r\nFo[31mur.\r\n"));
  EXPECT_THAT(shown, Not(HasSubstr("\x1b[2m")));
}

TEST_F(ChatReplTest, NoServer) {
  FakeServer server({WholeReply(503, R"({"error": {"message": "loading"}})")});
  testing::internal::CaptureStderr();
  const int code = Run(server, [] {});
  EXPECT_EQ(code, 1);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "error: loading (HTTP 503)\n");
}

}  // namespace
}  // namespace bottega
