// The line editor behind a pseudo-terminal.
#include "cli/line_reader.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <signal.h>
#include <termios.h>
#include <unistd.h>

#include <cstdlib>
#include <optional>
#include <string>
#include <thread>

namespace bottega {
namespace {

class LineReaderTest : public ::testing::Test {
 protected:
  LineReaderTest() {
    setenv("TERM", "xterm", 1);
    int terminal = -1;
    EXPECT_EQ(openpty(&keyboard_, &terminal, nullptr, nullptr, nullptr), 0);
    in_ = fdopen(terminal, "r");
    out_ = fdopen(dup(terminal), "w");
    reader_.emplace(in_, out_, interrupt_);
  }
  ~LineReaderTest() override {
    reader_.reset();
    std::fclose(in_);
    std::fclose(out_);
    if (keyboard_ >= 0) close(keyboard_);
  }

  void Type(const std::string& keys) {
    ASSERT_EQ(write(keyboard_, keys.data(), keys.size()), static_cast<ssize_t>(keys.size()));
  }
  // Reads what the terminal shows until `text` is there.
  void WaitFor(const std::string& text) {
    std::string shown;
    char byte;
    while (shown.find(text) == std::string::npos && read(keyboard_, &byte, 1) == 1) shown += byte;
  }
  // The prompt comes a moment earlier than the editor; until then the kernel echoes what is typed.
  void WaitForRawMode() {
    termios mode;
    while (tcgetattr(keyboard_, &mode) == 0 && (mode.c_lflag & ICANON)) std::this_thread::yield();
  }
  // A line that `typist` types once the prompt stands. Each has a prompt of its own: an earlier one
  // may still be on its way to us.
  template <typename Typist>
  LineReader::Got Read(Typist typist) {
    const std::string prompt = ">" + std::to_string(++reads_) + "> ";
    std::thread thread([&] {
      WaitFor(prompt);
      WaitForRawMode();
      typist();
    });
    const LineReader::Got got = reader_->Read(prompt, &line_);
    thread.join();
    return got;
  }

  Interrupt interrupt_;
  int keyboard_ = -1;
  std::FILE *in_ = nullptr, *out_ = nullptr;
  std::optional<LineReader> reader_;
  std::string line_;
  int reads_ = 0;
};

using Got = LineReader::Got;

TEST_F(LineReaderTest, LinesEditingAndHistory) {
  EXPECT_EQ(Read([this] { Type("perch\xc3\xa9 no\xf0\x9f\x98\x80\r"); }), Got::kLine);
  EXPECT_EQ(line_, "perch\xc3\xa9 no\xf0\x9f\x98\x80");
  EXPECT_EQ(Read([this] {
              Type(
                  "abX\x7f"
                  "c\r");
            }),
            Got::kLine);
  EXPECT_EQ(line_, "abc");
  EXPECT_EQ(Read([this] { Type("\x10\x10\r"); }), Got::kLine);  // up, twice
  EXPECT_EQ(line_, "perch\xc3\xa9 no\xf0\x9f\x98\x80");
  EXPECT_EQ(Read([this] { Type("\r"); }), Got::kLine);
  EXPECT_EQ(line_, "");
}

TEST_F(LineReaderTest, InterruptGivesBackWhatWasTyped) {
  const auto press = [] { kill(getpid(), SIGINT); };
  EXPECT_EQ(Read(press), Got::kInterrupted);
  EXPECT_EQ(line_, "");
  EXPECT_EQ(Read([&] {
              Type("half");
              WaitFor("half");
              press();
            }),
            Got::kInterrupted);
  EXPECT_EQ(line_, "half");
  EXPECT_EQ(Read([this] { Type("whole\r"); }), Got::kLine);
  EXPECT_EQ(line_, "whole");
}

TEST_F(LineReaderTest, EndOfInput) {
  EXPECT_EQ(Read([this] { Type("\x04"); }), Got::kEnd);
  EXPECT_EQ(Read([this] {
              close(keyboard_);
              keyboard_ = -1;
            }),
            Got::kEnd);
}

TEST_F(LineReaderTest, TheTerminalIsNormalBetweenLines) {
  termios before, after;
  ASSERT_EQ(tcgetattr(fileno(in_), &before), 0);
  EXPECT_EQ(Read([this] { Type("x\r"); }), Got::kLine);
  ASSERT_EQ(tcgetattr(fileno(in_), &after), 0);
  EXPECT_EQ(before.c_lflag, after.c_lflag);
  EXPECT_EQ(Read([] { kill(getpid(), SIGINT); }), Got::kInterrupted);
  ASSERT_EQ(tcgetattr(fileno(in_), &after), 0);
  EXPECT_EQ(before.c_lflag, after.c_lflag);
}

}  // namespace
}  // namespace bottega
