#pragma once
/// One run in the header-only form; 0 where the answer is right.
int run_header_only(const char* model);
