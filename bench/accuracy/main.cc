// accuracy [--write FILE]: prints the page, or writes it.
#include <cstdio>
#include <fstream>
#include <iostream>
#include <string>

#include "bench/accuracy/report.h"
#include "gtest/gtest.h"

int main(int argc, char** argv) {
  const bool write = argc == 3 && std::string(argv[1]) == "--write";
  if (argc != 1 && !write) {
    std::fprintf(stderr, "usage: accuracy [--write FILE]\n");
    return 2;
  }
  GTEST_FLAG_SET(throw_on_failure, true);  // what loads golden files says so by an expectation
  const auto report = bottega::AccuracyReport();
  if (!report.ok()) {
    std::cerr << report.status() << "\n";
    return 1;
  }
  if (!write) std::cout << *report;
  if (write && !(std::ofstream(argv[2]) << *report).flush()) return 1;
  return 0;
}
