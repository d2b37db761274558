#include "part.hpp"

int main(int, char** argv) { return run_header_only(argv[1]); }
