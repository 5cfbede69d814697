#include "router/router_program.h"

int main(int argc, char** argv) { return bottega::RunRouter(argc, argv); }
