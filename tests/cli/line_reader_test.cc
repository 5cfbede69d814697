// The line editor behind a pseudo-terminal.
#include "cli/line_reader.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <termios.h>
#include <unistd.h>

#include <string>
#include <thread>

#include "tests/cli/pseudo_terminal.h"

// The terminal library under libedit keeps what it has read of a terminal's description for good.
extern "C" const char* __lsan_default_suppressions() { return "leak:libtinfo.so\n"; }

namespace bottega {
namespace {

using Got = LineReader::Got;

class LineReaderTest : public ::testing::Test {
 protected:
  ~LineReaderTest() override {
    std::fclose(in_);
    std::fclose(out_);
  }

  // A line that `typist` types once the prompt stands. Each has a prompt of its own: an earlier one
  // may still be on its way to us.
  template <typename Typist>
  Got Read(Typist typist) {
    const std::string prompt = ">" + std::to_string(++reads_) + "> ";
    std::thread thread([&] {
      pty_.WaitForPrompt(prompt);
      typist();
    });
    const Got got = reader_.Read(prompt, &line_);
    thread.join();
    return got;
  }
  tcflag_t Mode() {
    termios mode;
    EXPECT_EQ(tcgetattr(pty_.terminal(), &mode), 0);
    return mode.c_lflag;
  }

  Interrupt interrupt_;
  PseudoTerminal pty_;
  std::FILE* const in_ = fdopen(dup(pty_.terminal()), "r");
  std::FILE* const out_ = fdopen(dup(pty_.terminal()), "w");
  LineReader reader_{in_, out_, interrupt_};
  std::string line_;
  int reads_ = 0;
};

TEST_F(LineReaderTest, LinesEditingAndHistory) {
  EXPECT_EQ(Read([this] { pty_.Type("perch\xc3\xa9 no\xf0\x9f\x98\x80\r"); }), Got::kLine);
  EXPECT_EQ(line_, "perch\xc3\xa9 no\xf0\x9f\x98\x80");
  EXPECT_EQ(Read([this] { pty_.Type("abX\x7f\x63\r"); }), Got::kLine);  // backspace, c
  EXPECT_EQ(line_, "abc");
  EXPECT_EQ(Read([this] { pty_.Type("\x10\x10\r"); }), Got::kLine);  // up, twice
  EXPECT_EQ(line_, "perch\xc3\xa9 no\xf0\x9f\x98\x80");
  EXPECT_EQ(Read([this] { pty_.Type("\r"); }), Got::kLine);
  EXPECT_EQ(line_, "");
}

TEST_F(LineReaderTest, InterruptGivesBackWhatWasTyped) {
  const auto press = [] { kill(getpid(), SIGINT); };
  EXPECT_EQ(Read(press), Got::kInterrupted);
  EXPECT_EQ(line_, "");
  EXPECT_EQ(Read([&] {
              pty_.Type("half");
              pty_.WaitFor("half");
              press();
            }),
            Got::kInterrupted);
  EXPECT_EQ(line_, "half");
  EXPECT_EQ(Read([this] { pty_.Type("whole\r"); }), Got::kLine);
  EXPECT_EQ(line_, "whole");
}

TEST_F(LineReaderTest, EndOfInput) {
  EXPECT_EQ(Read([this] { pty_.Type("\x04"); }), Got::kEnd);
  EXPECT_EQ(Read([this] { pty_.HangUp(); }), Got::kEnd);
}

TEST_F(LineReaderTest, TheTerminalIsNormalBetweenLines) {
  const tcflag_t before = Mode();
  EXPECT_EQ(Read([this] { pty_.Type("x\r"); }), Got::kLine);
  EXPECT_EQ(Mode(), before);
  EXPECT_EQ(Read([] { kill(getpid(), SIGINT); }), Got::kInterrupted);
  EXPECT_EQ(Mode(), before);
}

}  // namespace
}  // namespace bottega
