#include "cli/command.h"

int main(int argc, char** argv) { return bottega::RunBottega(argc, argv); }
