#include "attention-worker/attention_program.h"

int main(int argc, char** argv) { return bottega::RunAttentionProgram(argc, argv); }
