// wbfatctl MOUNTPOINT COMMAND: see and change a live mount.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <exception>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include <boost/json.hpp>

#include "src/control_protocol.h"

#include "tools/ctl/connection.h"
#include "tools/ctl/text.h"
#include <CLI/CLI.hpp>

namespace wbfat::tools {

namespace {

enum ExitCode : int { kExitOk = 0, kExitRefused = 1, kExitUsage = 2, kExitUnreachable = 3 };

struct Arguments {
    std::string path;
    std::string socket_path;
    std::string command;
    std::vector<std::string> words;
    bool json = false;
    bool watch = false;
    double interval_seconds = 1;
    unsigned count = 0;  // of looks with --watch; 0: until interrupted
};

void add_commands(CLI::App& app, Arguments& arguments) {
    for (const control::CommandHelp& command : control::command_table()) {
        CLI::App* const sub =
            app.add_subcommand(std::string(command.name), std::string(command.help));
        sub->fallthrough();
        sub->callback([&arguments, name = command.name] { arguments.command = name; });
        if (!command.words.empty()) {
            sub->add_option("WORDS", arguments.words, std::string(command.words));
        }
    }
    CLI::App* const status = app.get_subcommand("status");
    status->add_flag("-w,--watch", arguments.watch, "look again and again");
    status->add_option("-n,--interval", arguments.interval_seconds, "seconds between two looks")
        ->check(CLI::Range(0.05, 3600.0))
        ->capture_default_str();
    status->add_option("-c,--count", arguments.count, "with --watch: end after so many looks");
}

// One look. With --watch on a terminal each look takes the place of the last.
void print(const Arguments& arguments, const boost::json::value& result) {
    const std::string said =
        arguments.json ? boost::json::serialize(result) + "\n" : to_text(arguments.command, result);
    const bool redraw = arguments.watch && !arguments.json && ::isatty(STDOUT_FILENO) == 1;
    fmt::print("{}{}", redraw ? "\x1b[H\x1b[2J" : "", said);
    std::fflush(stdout);
}

// trace save FILE: the daemon tells the trace, the file is written here.
void save_trace(const Arguments& arguments) {
    const std::string& path = arguments.words[1];
    const std::string words[] = {"save"};
    const boost::json::value told =
        Connection(arguments.path, arguments.socket_path).ask("trace", words);
    std::ofstream file(path, std::ios::binary);
    file << std::string_view(told.at("trace").as_string());
    file.close();
    if (!file) {
        throw Refused(fmt::format("'{}' cannot be written", path));
    }
    fmt::print("{} events saved; open '{}' in Perfetto or chrome://tracing\n",
               told.at("nr_events").to_number<std::uint64_t>(), path);
}

// What the kernel gathers in front of the daemon (cache=writeback) is dirty too. Root may not even
// look at somebody else's mount: then only the daemon's part is done.
void write_back_from_kernel(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        static_cast<void>(::syncfs(fd));
        ::close(fd);
    }
}

void run_command(const Arguments& arguments) {
    if (arguments.command == "sync") {
        write_back_from_kernel(arguments.path);
    }
    if (arguments.command == "trace" && arguments.words.size() == 2 &&
        arguments.words[0] == "save") {
        save_trace(arguments);
        return;
    }
    for (unsigned look = 1;; ++look) {
        // Anew each time: the daemon does not keep places for the silent.
        Connection connection(arguments.path, arguments.socket_path);
        print(arguments, connection.ask(arguments.command, arguments.words));
        if (!arguments.watch || look == arguments.count) {
            return;
        }
        std::this_thread::sleep_for(std::chrono::duration<double>(arguments.interval_seconds));
    }
}

int complain(int exit_code, const char* sentence) {
    std::fputs("wbfatctl: ", stderr);
    std::fputs(sentence, stderr);
    std::fputs("\n", stderr);
    return exit_code;
}

// What is wrong with a command line, and what would be right.
std::string what_is_wrong(const CLI::App& app, const Arguments& arguments,
                          const CLI::ParseError& error) {
    const bool lacks_command = dynamic_cast<const CLI::RequiredError*>(&error) != nullptr &&
                               !arguments.path.empty() && app.get_subcommands().empty();
    if (!lacks_command) {
        return error.what();
    }
    std::string right;
    for (const control::CommandHelp& command : control::command_table()) {
        right += (right.empty() ? "" : ", ") + std::string(command.name);
    }
    const std::vector<std::string> left = app.remaining();
    if (left.empty()) {
        return fmt::format("no command is given; give one of {}", right);
    }
    const char* const kind = left.front().starts_with('-') ? "option" : "command";
    return fmt::format("'{}' is no {}; the commands are {}", left.front(), kind, right);
}

int run(int argc, char** argv) {
    Arguments arguments;
    CLI::App app{"See and change a live mount of wbfat.", "wbfatctl"};
    app.set_help_all_flag("--help-all", "print the usage of every command");
    app.set_version_flag("-V,--version", "wbfatctl " WBFAT_VERSION);
    app.add_option("MOUNTPOINT", arguments.path, "the mount point, or any path on the mount")
        ->required();
    app.add_option("--socket", arguments.socket_path,
                   "the control socket, where it is not found by itself");
    app.add_flag("-j,--json", arguments.json, "print the daemon's reply as JSON");
    app.require_subcommand(1);
    add_commands(app, arguments);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        if (error.get_exit_code() == 0) {
            return app.exit(error);
        }
        return complain(kExitUsage, fmt::format("{} (wbfatctl --help shows the usage)",
                                                what_is_wrong(app, arguments, error))
                                        .c_str());
    }
    try {
        run_command(arguments);
    } catch (const Refused& error) {
        return complain(kExitRefused, error.what());
    } catch (const Unreachable& error) {
        return complain(kExitUnreachable, error.what());
    }
    return kExitOk;
}

}  // namespace

}  // namespace wbfat::tools

int main(int argc, char** argv) {
    try {
        return wbfat::tools::run(argc, argv);
    } catch (const std::exception& error) {
        return wbfat::tools::complain(wbfat::tools::kExitUnreachable, error.what());
    }
}
