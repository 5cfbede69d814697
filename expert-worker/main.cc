#include "expert-worker/expert_program.h"

int main(int argc, char** argv) { return bottega::RunExpertProgram(argc, argv); }
