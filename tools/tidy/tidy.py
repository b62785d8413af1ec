#!/usr/bin/env python3
"""Proves the rules of the house on every run: doors between folders, sizes, words, headers, format.

    tidy.py             the rules below, on the text of the tree (a second)
    tidy.py --format    clang-format has nothing to change
    tidy.py --shell     shellcheck has nothing to say
    tidy.py --headers   every header compiles alone, but for those that a source of theirs includes first
    tidy.py --clang     every source of the build in the current directory compiles under clang with its
                        thread-safety analysis (needs compile_commands.json; produces no objects). It takes nothing
                        precompiled: a missing include is found here, and in the headers that come first
    tidy.py --clang-tidy [FILE ..]   the same with clang-tidy and the tree's .clang-tidy, headers with the sources that
                        include them: 10 s a source, no part of the tests

A rule is a function of one Source that yields (line, message); tests/tools/tidy_test.py breaks each on purpose.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property

ROOT = pathlib.Path(__file__).resolve().parents[2]

MAX_FILE_LINES = 1000
MAX_FUNCTION_LINES = 70

# Folder -> folders whose headers it may include. The longest matching prefix counts.
DOORS = {
    "cache/base": ("cache/base", "cache/sync"),
    "cache/sync": ("cache/sync", "cache/base"),
    "cache/device": ("cache/device", "cache/base", "cache/sync"),
    "cache": ("cache",),
    "fs": ("fs", "cache"),
    "src": ("src", "fs", "cache"),
    "tools": ("tools", "fs", "cache"),
    "tools/ctl": ("tools", "fs", "cache", "src/control_protocol.h"),
    "tests": ("tests", "tools", "src", "fs", "cache"),
}

# Foreign headers -> the only folders that may include them.
FOREIGN = {
    r"(fuse3?|linux/fuse)\b.*": ("src", "tests"),
    r"fuse[a-z_0-9]*\.h": ("src", "tests"),
    r"boost/asio(/|\.).*": ("src", "cache/device", "tests"),
    r"liburing.*": ("cache/device", "tests"),
}

STD_CONCURRENCY_HEADERS = {
    "atomic", "barrier", "condition_variable", "future", "latch", "linux/futex.h", "mutex", "pthread.h", "sched.h",
    "semaphore", "semaphore.h", "shared_mutex", "signal.h", "csignal", "stdatomic.h", "stop_token", "sys/eventfd.h",
    "sys/timerfd.h", "thread", "threads.h", "x86intrin.h", "immintrin.h"}
STD_CONCURRENCY_NAMES = re.compile(
    r"\bstd::(atomic\w*|mutex|\w+_mutex|lock_guard|unique_lock|scoped_lock|shared_lock|j?thread|this_thread|"
    r"condition_variable\w*|barrier|latch|\w+_semaphore|future|promise|async|call_once|once_flag|stop_\w+)\b"
    r"|\bthread_local\b|\bpthread_\w+|\b__(atomic|sync)_\w+")
# The rest of what one thread could see of another, or of time passing, behind the explorer's back.
INVISIBLE_TO_THE_MODEL = re.compile(
    r"\bvolatile\b|\b_Atomic\b|\b_Thread_local\b|\b__thread\b|\b__c11_atomic_\w+|\batomic_(thread|signal)_fence\b"
    r"|\b(asm|__asm__|__asm)\b|\b_mm_(pause|[lms]fence)\b|\b__builtin_ia32_\w+|\b__rdtscp?\b|\b_?rdtscp?\b"
    r"|\bweak_ptr\b|\buse_count\b|\bSYS_futex\b|\bfutex\w*(?=\s*\()|\b(sem|mtx|cnd|thrd|tss)_[a-z]+(?=\s*\()"
    r"|\b(u?sleep|nanosleep|clock_nanosleep|sched_yield|sigaction|signal|raise|v?fork|clone3?|membarrier)(?=\s*\()"
    r"|\b(eventfd|timerfd_\w+)(?=\s*\()|\b(rand|random_device|getrandom|gettid)(?=\s*\()"
    r"|\b(steady|high_resolution)_clock\b|\bCLOCK_(MONOTONIC|BOOTTIME|\w+_CPUTIME)\w*")
# A local variable that is made once and changes: its making takes a lock nobody sees.
LOCAL_STATIC = re.compile(r"\s+static\s+(?!const|constexpr|constinit|auto\* const)[\w:<>,\s*&]+?\s\w+\s*(=|;|\{)")
# What the date is, and nothing else: only where it is written down.
CALENDAR = re.compile(r"\bsystem_clock\b|\b(clock_gettime|gettimeofday|clock|time|times)(?=\s*\()")
ASKS_FOR_THE_DATE = ("fs/volume.cc", "cache/oops.cc", "cache/oops.h")

# Words with no place in the tree -> what to do instead.
BANNED_WORDS = {
    r"\bFIXME\b": "fix it, or open an issue and write TODO(#n)",
    r"\bXXX\b": "fix it, or open an issue and write TODO(#n)",
    r"\bHACK\b": "say what it does and why",
    r"\bTODO\b(?!\(#(\d+|n)\))": "a TODO names its issue: TODO(#n)",
    r"(?<![\w.])/(work|home)/\w+": "no path of one machine",
    r"\b(prompts?|agents?|assistant)\b": "speak of the program, not of how it was made",
    r"https?://[^\s/]*(debian\.org/debian|pypi\.|proxy\.|artifactory|nexus)": "no package hosts",
}
# Files that quote the rules they enforce.
QUOTES_RULES = ("tools/tidy/", "tests/tools/tidy_test.py", "LICENSE")


@dataclass
class Source:
    """A text file of the tree; `path` is relative to the root, with slashes."""
    path: str
    text: str

    @property
    def lines(self):
        return self.text.splitlines()

    @property
    def is_cpp(self):
        return self.path.endswith((".h", ".cc"))

    @property
    def is_script(self):
        return self.path.endswith(".py") or self.text.startswith("#!")

    @cached_property
    def code(self):
        """The C++ without comments and literals, same line structure."""
        return blank_comments_and_literals(self.text)

    def includes(self):
        """(line, name, is_quoted) of each include."""
        for number, line in enumerate(self.lines, 1):
            match = re.match(r'\s*#\s*include\s*(["<])([^">]+)[">]', line)
            if match:
                yield number, match[2], match[1] == '"'

    def is_in(self, *folders):
        return self.path.startswith(tuple(folder + "/" for folder in folders))


TOKEN = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"(?P<tag>[^(\s]*)\(.*?\)(?P=tag)"|"(?:\\.|[^"\\\n])*"|(?<![0-9A-Fa-f])\'(?:\\.|[^\'\\\n])+\'',
    re.DOTALL)


def blank_comments_and_literals(text):
    return TOKEN.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)


# The rules.


def include_direction(source):
    """House: src -> fs -> cache -> cache/sync, cache/device; tools -> fs, cache; tests -> anything."""
    folder = max((name for name in DOORS if source.is_in(name)), key=len, default=None)
    if not source.is_cpp or folder is None:
        return
    for line, name, quoted in source.includes():
        if not quoted:
            continue
        if "/" not in name:
            yield line, f'"{name}": include by the path from the root'
        elif not any(name == door or name.startswith(door + "/") for door in DOORS[folder]):
            yield line, f'"{name}": {folder} has no door to it (open: {", ".join(DOORS[folder])})'


def foreign_headers(source):
    """Only src knows libfuse; only src and cache/device know Boost.Asio."""
    if not source.is_cpp:
        return
    for line, name, quoted in source.includes():
        for pattern, folders in FOREIGN.items():
            if not quoted and re.fullmatch(pattern, name) and not source.is_in(*folders):
                yield line, f"<{name}>: only {' and '.join(folders)} may include it"


def names_of_upper_rooms(source):
    """cache never names FAT or FUSE, fs never names FUSE: in code; a comment may explain."""
    if not source.is_cpp or not source.is_in("cache", "fs"):
        return
    word = r"(?i)(?<![a-z0-9])(v?fat(12|16|32)?|fuse)(?![a-z0-9])" if source.is_in("cache") else r"(?i)\bfuse\w*"
    for line, text in enumerate(source.code.splitlines(), 1):
        match = re.search(word, text)
        if match:
            yield line, f"`{match[0]}`: {source.path.split('/')[0]} does not know it"


def std_concurrency(source):
    """Inside cache and fs only cache/sync touches std concurrency; std::memory_order_* is free."""
    if not source.is_cpp or not source.is_in("cache", "fs") or source.is_in("cache/sync"):
        return
    for line, name, _ in source.includes():
        if name in STD_CONCURRENCY_HEADERS:
            yield line, f"<{name}>: use cache/sync"
    for line, text in enumerate(source.code.splitlines(), 1):
        match = STD_CONCURRENCY_NAMES.search(text)
        if match:
            yield line, f"{match[0]}: use cache/sync"


def path_around_sync(source):
    """Inside cache and fs nothing passes between threads, and no time, that the explorer would not see."""
    if not source.is_cpp or not source.is_in("cache", "fs") or source.is_in("cache/sync"):
        return
    for line, text in enumerate(source.code.splitlines(), 1):
        match = INVISIBLE_TO_THE_MODEL.search(text)
        if match is None and source.path not in ASKS_FOR_THE_DATE:
            match = CALENDAR.search(text)
        if match:
            yield line, f"{match[0]}: the explorer cannot see it, use cache/sync"
        elif LOCAL_STATIC.match(text):
            yield line, "a variable that outlives a run of the explorer: sync::Global puts it back"


def purpose_comment(source):
    """Every source file opens with a line that says what it is for."""
    lines = source.lines
    if source.is_cpp:
        if not lines or not re.match(r"// \S.{7,}", lines[0]):
            yield 1, "open with a `// ` line that says what this file is for"
    elif source.path.endswith(".py"):
        if not any(line.startswith('"""') for line in lines[:2]):
            yield 1, "open with a docstring that says what this file is for"
    elif source.is_script:
        if len(lines) < 2 or not lines[1].startswith("# "):
            yield 1, "open with a comment that says what this script is for"


def pragma_once(source):
    """Headers are guarded by #pragma once, by nothing else."""
    if source.path.endswith(".h") and len(re.findall(r"^#pragma once$", source.text, re.MULTILINE)) != 1:
        yield 1, "a header has `#pragma once`, once"


def file_size(source):
    """A file is read in one sitting."""
    if (source.is_cpp or source.is_script) and len(source.lines) > MAX_FILE_LINES:
        yield MAX_FILE_LINES, f"{len(source.lines)} lines: more than {MAX_FILE_LINES}, divide it"


NOT_A_FUNCTION = re.compile(
    r"^\s*(if|else|for|while|switch|do|try|catch|namespace|class|struct|enum|union|extern|case|default)\b|=\s*$|^\s*$")


def function_size(source):
    """A function fits on a screen."""
    if not source.is_cpp:
        return
    code = re.sub(r"^\s*#(.*\\\n)*.*$", lambda m: re.sub(r"[^\n]", " ", m[0]), source.code, flags=re.MULTILINE)
    line, head, stack = 1, "", []
    for char in code:
        if char == "{":
            is_function = "(" in head and not NOT_A_FUNCTION.search(head)
            stack.append((line, is_function, " ".join(head.split())))
        elif char == "}" and stack:
            begin, is_function, name = stack.pop()
            if is_function and line - begin + 1 > MAX_FUNCTION_LINES:
                yield begin, f"{line - begin + 1} lines: more than {MAX_FUNCTION_LINES}: {name[-60:]}"
        if char in "{};":
            head = ""
        else:
            head += char
        line += char == "\n"


def banned_words(source):
    """No unfinished business without an issue, and nothing about the place where it was written."""
    if source.path.startswith(QUOTES_RULES):
        return
    for line, text in enumerate(source.lines, 1):
        for pattern, advice in BANNED_WORDS.items():
            match = re.search(pattern, text, 0 if pattern.isupper() or "TODO" in pattern else re.IGNORECASE)
            if match:
                yield line, f"`{match[0]}`: {advice}"


def reasoned_escape(source):
    """NO_THREAD_SAFETY_ANALYSIS carries its reason, on its line or in the comment above.

    A lambda of a test needs none: breaking the lock rules there is what the test is for.
    """
    if not source.is_cpp or source.path == "cache/base/thread_annotations.h":
        return
    lines = source.lines
    for line in escapes(source):
        if source.is_in("tests") and re.search(r"\]\s*(\([^()]*\))?\s*NO_THREAD_SAFETY_ANALYSIS", lines[line - 1]):
            continue
        declaration = line - 1
        while declaration > 0 and re.match(r"\s{8,}\S", lines[declaration]):
            declaration -= 1
        above = lines[declaration - 1].strip() if declaration > 0 else ""
        if "//" not in lines[line - 1] and not above.startswith("//"):
            yield line, "NO_THREAD_SAFETY_ANALYSIS without its reason in a comment"


RULES = (include_direction, foreign_headers, names_of_upper_rooms, std_concurrency, path_around_sync, purpose_comment,
         pragma_once, file_size, function_size, banned_words, reasoned_escape)


def escapes(source):
    """Lines on which the thread-safety analysis is switched off."""
    if not source.is_cpp or source.path == "cache/base/thread_annotations.h":
        return []
    return [number for number, line in enumerate(source.code.splitlines(), 1) if "NO_THREAD_SAFETY_ANALYSIS" in line]


def check_source(source):
    """Every complaint about one file, as text."""
    return [f"{source.path}:{line}: {rule.__name__}: {message}" for rule in RULES for line, message in rule(source)]


def unbuilt_sources(sources):
    """Rule on the tree as a whole: a .cc that no meson.build names is dead, or was forgotten."""
    named = " ".join(source.text for source in sources if source.path.endswith("meson.build"))
    for source in sources:
        name = source.path.rsplit("/", 1)[-1]
        # Preloaded by a test, which compiles it itself.
        if source.path.endswith(".cc") and f"{name}'" not in named and source.path != "tests/tools/broken_fs.cc":
            stem = name.removesuffix(".cc")
            if not any(f"'{known}'" in named for known in (stem, stem.removesuffix("_test"))):
                yield f"{source.path}:1: unbuilt_sources: no meson.build names it"


# The tree.


def tree():
    """Every text file, sorted; build directories and what git keeps for itself are left out."""
    sources = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if not name.startswith(("build", ".git", ".cache", "__pycache__"))]
        for name in set(files) - {".git"}:  # a file where the tree is a worktree of another
            path = pathlib.Path(folder, name)
            data = path.read_bytes()
            if b"\0" not in data and len(data) < 4 << 20:
                text = data.decode("utf-8", errors="replace")
                sources.append(Source(path.relative_to(ROOT).as_posix(), text))
    return sorted(sources, key=lambda source: source.path)


def run_rules(sources):
    complaints = [text for source in sources for text in check_source(source)] + list(unbuilt_sources(sources))
    print(f"{len(sources)} files, {len(RULES) + 1} rules, "
          f"{sum(len(escapes(source)) for source in sources)} NO_THREAD_SAFETY_ANALYSIS")
    return complaints


def run_all(commands):
    """Runs {label: (argv, stdin)} with as many processes as there are processors; returns complaints."""
    def run(item):
        label, (argv, stdin) = item
        result = subprocess.run(argv, input=stdin, capture_output=True, text=True, cwd=ROOT, check=False)
        return "" if result.returncode == 0 else f"{label}:\n{result.stdout}{result.stderr}"

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        complaints = [text for text in pool.map(run, commands.items()) if text]
    print(f"{len(commands)} files")
    return complaints


def run_format(sources):
    # Not --dry-run: clang-format 14 reports the end of every nested inline namespace there, and then changes nothing.
    compare = 'clang-format "$1" | diff -u --label "$1" --label formatted "$1" -'
    return run_all({s.path: (["sh", "-c", compare, "sh", s.path], None) for s in sources if s.is_cpp})


def run_shell(sources):
    scripts = [s for s in sources if re.match(r"#!.*\b(ba)?sh\b", s.text) or s.path.endswith(".sh")]
    return run_all({s.path: (["shellcheck", "-x", s.path], None) for s in scripts})


WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Wno-sign-conversion",
            "-Wimplicit-fallthrough", "-Werror"]
THREAD_SAFETY = ["-Wthread-safety", "-Wthread-safety-beta"]


# Headers of the second build of the cache, on fibers: alone they mean something only there.
MODEL_HEADERS = re.compile(r"cache/sync/(model|scheduler|world)\.h|tools/explore/")
MODEL_FLAGS = ["-DWBFAT_MODEL", "-DWBFAT_RT=model"]


def leading_headers(sources):
    """Headers that a source of the same name includes before all others: the compiler has seen those alone."""
    first = {s.path: next((name for _, name, _ in s.includes()), None) for s in sources if s.path.endswith(".cc")}
    return {name for path, name in first.items() if name == path.removesuffix(".cc") + ".h"}


def run_headers(sources):
    flags = subprocess.run(["pkg-config", "--cflags", "fuse3", "libxxhash", "fmt"], capture_output=True, text=True,
                           check=True).stdout.split()
    # Twice: that the guard works is part of it.
    command = ["g++", "-std=c++20", "-D_FILE_OFFSET_BITS=64", "-I.", *flags, *WARNINGS, "-fsyntax-only"]

    def command_for(path):
        return [*command, *(MODEL_FLAGS if MODEL_HEADERS.match(path) else []), "-x", "c++", "-"]
    seen_alone = leading_headers(sources)
    return run_all({s.path: (command_for(s.path), f'#include "{s.path}"\n#include "{s.path}"\n')
                    for s in sources if s.path.endswith(".h") and s.path not in seen_alone})


def clang_command(entry):
    """The compile command of one source, for clang, without output and without what gcc has precompiled."""
    argv = shlex.split(entry["command"])
    while argv and not re.search(r"(g\+\+|clang\+\+|c\+\+)(-\d+)?$", argv[0]):
        argv.pop(0)  # a compiler cache
    kept, skip = [], False
    for word in argv[1:]:
        if skip:
            skip = False
        elif word in ("-o", "-MF", "-MQ", "-MT", "-include"):
            skip = True
        # clang 14 wants to be asked twice for zeroed locals.
        elif (word not in ("-c", "-MD", "-MMD", "-fpch-preprocess", "-ftrivial-auto-var-init=zero")
              and not word.startswith("-fsanitize")):
            kept.append(word)
    return ["clang++", *kept, *WARNINGS, *THREAD_SAFETY, "-Wno-unknown-warning-option", "-fsyntax-only"]


def compile_commands():
    build = pathlib.Path(os.environ.get("MESON_BUILD_ROOT", "."))
    return json.loads((build / "compile_commands.json").read_text(encoding="utf-8"))


def run_clang(_):
    return run_all({entry["file"]: (["env", "-C", entry["directory"], *clang_command(entry)], None)
                    for entry in compile_commands()})


def run_clang_tidy(sources):
    """Each source once, though several libraries have it: as the first of them compiles it."""
    wanted = {str(ROOT / source.path) for source in sources}
    commands = {}
    for entry in compile_commands():
        path = os.path.normpath(os.path.join(entry["directory"], entry["file"]))
        if path in wanted and path not in commands:
            argv = ["clang-tidy", "--quiet", path, "--", *clang_command(entry)[1:]]
            commands[path] = (["env", "-C", entry["directory"], *argv], None)
    return run_all(commands)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    for name, run in (("format", run_format), ("shell", run_shell), ("headers", run_headers), ("clang", run_clang),
                      ("clang-tidy", run_clang_tidy)):
        what.add_argument(f"--{name}", dest="run", action="store_const", const=run)
    parser.add_argument("files", nargs="*", metavar="FILE", help="with --clang-tidy: only these, from the root")
    parser.set_defaults(run=run_rules)
    arguments = parser.parse_args()
    if arguments.files and arguments.run is not run_clang_tidy:
        parser.error("only --clang-tidy takes files")
    sources = tree()
    unknown = set(arguments.files) - {source.path for source in sources}
    if unknown:
        parser.error(f"not in the tree: {' '.join(sorted(unknown))}")
    complaints = arguments.run([source for source in sources if not arguments.files or source.path in arguments.files])
    print("\n".join(complaints) if complaints else "tidy")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
