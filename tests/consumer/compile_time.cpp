// Fails when a file that includes quern/quern.hpp takes a second of processor time more than an empty one.
//   compile_time WORK COMPILER ARGUMENTS...
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

static void write_file(const std::string& path, const char* text) {
    if (std::FILE* f = std::fopen(path.c_str(), "w")) std::fputs(text, f), std::fclose(f);
}

/// Processor seconds of the best of five, or -1.
static double best_time(std::vector<std::string> args, const std::string& file) {
    args.insert(args.end(), {"-c", file, "-o", "/dev/null"});
    std::vector<char*> argv;
    for (auto& a : args) argv.push_back(a.data());
    argv.push_back(nullptr);
    double best = 1e9;
    for (int i = 0; i < 5; ++i) {
        pid_t child = fork();
        if (child == 0) execvp(argv[0], argv.data()), _exit(127);
        int status = 0;
        rusage use{};
        if (wait4(child, &status, 0, &use) != child || status != 0) return -1;
        auto s = [](timeval t) { return double(t.tv_sec) + double(t.tv_usec) * 1e-6; };
        best = std::min(best, s(use.ru_utime) + s(use.ru_stime));
    }
    return best;
}

int main(int argc, char** argv) {
    if (argc < 3) return 64;
    std::string work = argv[1];
    std::vector<std::string> args(argv + 2, argv + argc);
    write_file(work + "/empty.cpp", "int x;\n");
    write_file(work + "/header.cpp", "#include <quern/quern.hpp>\nint x;\n");
    double empty = best_time(args, work + "/empty.cpp"), header = best_time(args, work + "/header.cpp");
    std::printf("empty file %.3f s, with quern/quern.hpp %.3f s: %.3f s more\n", empty, header, header - empty);
    return empty >= 0 && header >= 0 && header - empty < 1.0 ? 0 : 1;
}
