#!/usr/bin/env python3
"""Every rule of tools/tidy must fire on a bad sample, and stay silent on the good one beside it."""

import importlib.util
import json
import os
import pathlib
import sys
import tempfile
import unittest
import unittest.mock

ROOT = pathlib.Path(__file__).resolve().parents[2]


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


tidy = load(ROOT / "tools/tidy/tidy.py")
count_tests = load(ROOT / "tools/count_tests.py")


class RuleTest(unittest.TestCase):
    tried = set()

    def expect(self, rule, lines, path, text):
        """`rule` complains about exactly these lines of the sample."""
        RuleTest.tried.add(rule)
        self.assertEqual([line for line, _ in rule(tidy.Source(path, text))], lines, f"{path}:\n{text}")

    def test_include_direction(self):
        rule = tidy.include_direction
        bad = {"cache/page.h": "fs/inode.h", "cache/flusher.cc": "src/log.h", "fs/dir.cc": "src/fuse.h",
               "cache/sync/native.h": "cache/page.h", "cache/device/file_device.cc": "cache/page.h",
               "cache/base/check.h": "cache/page.h", "src/main.cc": "tools/stress/plan.h", "fs/mkfs.cc": "tools/x.h",
               "tools/stress/plan.cc": "src/log.h", "tools/mkfs/main.cc": "src/control_protocol.h"}
        for path, name in bad.items():
            self.expect(rule, [2], path, f'// x\n#include "{name}"\n')
        self.expect(rule, [1], "fs/dir.cc", '#include "dir.h"\n')
        good = {"cache/page.h": "cache/sync/sync.h", "fs/dir.cc": "cache/filemap.h", "src/main.cc": "fs/volume.h",
                "tools/ctl/main.cc": "src/control_protocol.h", "tests/fs/dir_test.cc": "src/log.h",
                "cache/device/pool_engine.cc": "cache/base/result.h", "cache/filemap.cc": "cache/device/block_device.h"}
        for path, name in good.items():
            self.expect(rule, [], path, f'#include "{name}"\n')

    def test_foreign_headers(self):
        rule = tidy.foreign_headers
        for path, name in (("fs/dir.cc", "fuse3/fuse_lowlevel.h"), ("cache/page.cc", "fuse_lowlevel.h"),
                           ("tools/stress/main.cc", "linux/fuse.h"), ("fs/dir.cc", "boost/asio.hpp"),
                           ("cache/page.cc", "boost/asio/io_context.hpp"), ("fs/volume.cc", "liburing.h")):
            self.expect(rule, [1], path, f"#include <{name}>\n")
        for path, name in (("src/fuse.cc", "fuse3/fuse_lowlevel.h"), ("cache/device/file_device.cc", "boost/asio.hpp"),
                           ("src/main.cc", "boost/asio.hpp"), ("fs/dir.cc", "boost/system/result.hpp")):
            self.expect(rule, [], path, f"#include <{name}>\n")

    def test_names_of_upper_rooms(self):
        rule = tidy.names_of_upper_rooms
        self.expect(rule, [1], "cache/page.cc", "int fat_cluster = 0;\n")
        self.expect(rule, [1], "cache/page.cc", "using namespace vfat;\n")
        self.expect(rule, [1], "fs/inode.cc", "fuse_ino_t ino;\n")
        self.expect(rule, [], "cache/page.cc", "// As fat_cont_expand does for FUSE.\nint fatal = 0;\n")
        self.expect(rule, [], "cache/page.cc", 'const char* text = "FAT";\n')
        self.expect(rule, [], "fs/inode.cc", "int fat_cluster = 0;  // replies to FUSE\n")
        self.expect(rule, [], "src/fuse.cc", "fuse_ino_t ino;\n")

    def test_std_concurrency(self):
        rule = tidy.std_concurrency
        for text in ("#include <atomic>\n", "#include <mutex>\n", "std::atomic<int> a;\n", "std::thread t;\n",
                     "thread_local int x;\n", "std::lock_guard l(m);\n", "std::condition_variable_any c;\n",
                     "pthread_mutex_t m;\n", "__atomic_load_n(p, 0);\n", "std::shared_mutex m;\n",
                     "std::this_thread::yield();\n", "std::counting_semaphore<1> s(0);\n"):
            for path in ("cache/page.cc", "fs/inode.h", "cache/device/file_device.cc"):
                self.expect(rule, [1], path, text)
        for path, text in (("cache/sync/native.h", "#include <atomic>\nstd::atomic<int> a;\n"),
                           ("cache/page.cc", "word.load(std::memory_order_relaxed);\n"),
                           ("cache/page.cc", "// a std::mutex would not do\n"),
                           ("src/main.cc", "std::thread t;\n")):
            self.expect(rule, [], path, text)

    def test_path_around_sync(self):
        rule = tidy.path_around_sync
        for text in ("volatile int ready;\n", "_Atomic int a;\n", "static __thread int x;\n", "asm(\"pause\");\n",
                     "__asm__ __volatile__(\"mfence\");\n", "_mm_pause();\n", "auto t = __rdtsc();\n",
                     "__builtin_ia32_pause();\n", "std::weak_ptr<Page> p;\n", "if (p.use_count() == 1) {}\n",
                     "syscall(SYS_futex, &word);\n", "futex_wait(&word, 1);\n", "sem_wait(&s);\n", "usleep(10);\n",
                     "nanosleep(&t, nullptr);\n", "sleep (1);\n", "sched_yield();\n", "signal(SIGUSR1, f);\n",
                     "fork();\n", "int fd = eventfd(0, 0);\n", "int r = rand();\n",
                     "auto seed = std::random_device()();\n", "auto n = std::chrono::steady_clock::now();\n",
                     "using C = std::chrono::high_resolution_clock;\n", "clock_gettime(CLOCK_MONOTONIC, &t);\n",
                     "auto n = std::chrono::system_clock::now();\n", "time(nullptr);\n", "gettimeofday(&t, nullptr);\n",
                     "std::atomic_thread_fence(order);\n", "    static int calls = 0;\n", "    static Table table;\n",
                     "    static std::vector<int> v{1};\n"):
            for path in ("cache/page.cc", "fs/inode.h", "cache/device/file_device.cc"):
                self.expect(rule, [1], path, text)
        self.expect(rule, [1], "fs/volume.cc", "clock_gettime(CLOCK_MONOTONIC, &t);\n")
        for path, text in (("cache/sync/native.cc", "syscall(SYS_futex, &word);\n"),
                           ("fs/volume.cc", "clock_gettime(CLOCK_REALTIME, &t);\n"),
                           ("cache/page.cc", "// not volatile: usleep(1) would not do\n"),
                           ("cache/page.cc", "sync::sleep_for(pause);\nint time = 1;\nfs_time(now);\nx.time = 2;\n"),
                           ("cache/page.cc", "    static constexpr int kA = 1;\n    static const Table kTable = make();\n"),
                           ("cache/page.h", "    static int nth(int n);\n    static Table make() {\n"),
                           ("fs/dir.cc", "std::shared_ptr<Run> run;\n"), ("src/main.cc", "usleep(10);\n")):
            self.expect(rule, [], path, text)

    def test_purpose_comment(self):
        rule = tidy.purpose_comment
        for path, text in (("cache/page.h", "#pragma once\n"), ("fs/dir.cc", ""), ("fs/dir.cc", "// dir.\n"),
                           ("tools/a.py", "import os\n"), ("tools/test", "#!/bin/bash\nset -e\n")):
            self.expect(rule, [1], path, text)
        for path, text in (("cache/page.h", "// One page and its states.\n"), ("tools/a.py", '#!/x\n"""Counts."""\n'),
                           ("tools/test", "#!/bin/bash\n# Runs every test.\n"), ("README.md", "# x\n")):
            self.expect(rule, [], path, text)

    def test_pragma_once(self):
        rule = tidy.pragma_once
        self.expect(rule, [1], "cache/page.h", "// x\n#ifndef PAGE_H\n#define PAGE_H\n#endif\n")
        self.expect(rule, [1], "cache/page.h", "#pragma once\n#pragma once\n")
        self.expect(rule, [], "cache/page.h", "// x\n#pragma once\n")
        self.expect(rule, [], "cache/page.cc", "// x\n")

    def test_file_size(self):
        rule = tidy.file_size
        self.expect(rule, [tidy.MAX_FILE_LINES], "fs/dir.cc", "\n" * (tidy.MAX_FILE_LINES + 1))
        self.expect(rule, [], "fs/dir.cc", "\n" * tidy.MAX_FILE_LINES)
        self.expect(rule, [], "LICENSE", "\n" * 2000)

    def test_function_size(self):
        rule = tidy.function_size
        body = "    x();\n" * (tidy.MAX_FUNCTION_LINES - 2)
        signatures = ("void f() {", "int C::f(int a,\n         int b) const {", "    void g() REQUIRES(lock) {",
                      "C::C(int a)\n    : a_(a) {", "TEST(PageTest, Waits) {")
        for signature in signatures:
            first = signature.count("\n") + 2
            self.expect(rule, [], "fs/a.cc", f"namespace x {{\n{signature}\n{body}}}\n}}\n")
            self.expect(rule, [first], "fs/a.cc", f"namespace x {{\n{signature}\n{body}    x();\n}}\n}}\n")
        # Neither braces in literals and comments nor types and namespaces count.
        self.expect(rule, [], "fs/a.cc", f'void f() {{ g("{{"); }} // {{\nstruct S {{\n    int x;\n{body}}};\n')
        self.expect(rule, [], "fs/a.cc", f"namespace a::inline b {{\n{body * 3}}}\n")

    def test_banned_words(self):
        rule = tidy.banned_words
        for text in ("// FIXME later", "// TODO: more", "// TODO(me): more", "// XXX", "see /work/main/fs",
                     "# a prompt", "see /home/user/x"):
            self.expect(rule, [1], "fs/dir.cc", text + "\n")
        for text in ("// TODO(#12): more", "the network/work is done", "a prompter", "hackneyed"):
            self.expect(rule, [], "fs/dir.cc", text + "\n")

    def test_reasoned_escape(self):
        rule = tidy.reasoned_escape
        self.expect(rule, [2], "cache/a.h", "int x;\nvoid f() NO_THREAD_SAFETY_ANALYSIS;\n")
        self.expect(rule, [], "cache/a.h", "// A batch.\nvoid f() NO_THREAD_SAFETY_ANALYSIS;\n")
        self.expect(rule, [], "cache/a.h", "int x;\nvoid f() NO_THREAD_SAFETY_ANALYSIS;  // a batch\n")
        self.expect(rule, [], "cache/a.h", "// A batch.\nvoid f(int a,\n        int b)\n        NO_THREAD_SAFETY_ANALYSIS;\n")
        escaped_lambda = "int x;\nconst auto f = [&page]() NO_THREAD_SAFETY_ANALYSIS { unlock_page(page); };\n"
        self.expect(rule, [], "tests/cache/a_test.cc", escaped_lambda)
        self.expect(rule, [2], "cache/a.cc", escaped_lambda)
        self.expect(rule, [2], "tests/cache/a_test.cc", "int x;\nvoid f() NO_THREAD_SAFETY_ANALYSIS;\n")
        self.expect(rule, [], "cache/base/thread_annotations.h", "#define NO_THREAD_SAFETY_ANALYSIS x\n")

    def test_zz_every_rule_was_tried(self):
        self.assertEqual(RuleTest.tried, set(tidy.RULES))


class TreeTest(unittest.TestCase):
    def test_unbuilt_sources(self):
        meson = tidy.Source("fs/meson.build", "library('fs', 'dir.cc', 'sub/names.cc')\nforeach t : ['time', 'date_test']\n")
        good = [tidy.Source(path, "") for path in ("fs/dir.cc", "fs/sub/names.cc", "tests/fs/time_test.cc",
                                                   "tests/fs/date_test.cc", "fs/dir.h")]
        self.assertEqual(list(tidy.unbuilt_sources([meson, *good])), [])
        dead = tidy.Source("fs/ir.cc", "")
        self.assertEqual(len(list(tidy.unbuilt_sources([meson, dead]))), 0, "a suffix of a named file is not seen")
        dead = tidy.Source("fs/truncate.cc", "")
        self.assertEqual(len(list(tidy.unbuilt_sources([meson, *good, dead]))), 1)

    def test_the_tree_is_read(self):
        paths = {source.path for source in tidy.tree()}
        self.assertIn("tools/tidy/tidy.py", paths)
        self.assertIn("cache/page.h", paths)
        self.assertFalse([path for path in paths if path.startswith((".git/", "build"))])

    def test_escapes_are_counted_in_code_only(self):
        text = "// NO_THREAD_SAFETY_ANALYSIS\nvoid f() NO_THREAD_SAFETY_ANALYSIS;\n"
        self.assertEqual(tidy.escapes(tidy.Source("cache/a.h", text)), [2])

    def test_clang_command(self):
        entry = {"command": "ccache c++ -Ia -I../b -fsanitize=thread -MD -MQ a.o -MF a.d -o a.o -c ../a.cc"}
        command = tidy.clang_command(entry)
        self.assertEqual(command[:4], ["clang++", "-Ia", "-I../b", "../a.cc"])
        self.assertIn("-Wthread-safety", command)
        precompiled = {"command": "c++ -Ib.p -fpch-preprocess -include library.hh -Winvalid-pch -O2 -o a.o -c ../a.cc"}
        self.assertEqual(tidy.clang_command(precompiled)[:5], ["clang++", "-Ib.p", "-Winvalid-pch", "-O2", "../a.cc"])

    def test_leading_headers(self):
        def sources(text):
            return [tidy.Source("fs/a.h", "#pragma once\n"), tidy.Source("fs/a.cc", text)]
        self.assertEqual(tidy.leading_headers(sources('// a\n#include "fs/a.h"\n\n#include <string>\n')), {"fs/a.h"})
        for text in ('#include <string>\n\n#include "fs/a.h"\n', '#include "fs/b.h"\n#include "fs/a.h"\n',
                     '// #include "fs/a.h"\n', ""):
            self.assertEqual(tidy.leading_headers(sources(text)), set(), text)


class CheckerTest(unittest.TestCase):
    """The checks that start a foreign program, on samples of their own."""

    def run_on(self, run, name, text):
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, name).write_text(text, encoding="utf-8")
            (pathlib.Path(folder) / ".clang-format").write_text((ROOT / ".clang-format").read_text())
            saved, tidy.ROOT = tidy.ROOT, pathlib.Path(folder)
            try:
                return run([tidy.Source(name, text)])
            finally:
                tidy.ROOT = saved

    def test_headers_compile_alone(self):
        self.assertEqual(self.run_on(tidy.run_headers, "a.h", "#pragma once\n#include <string>\nstd::string f();\n"), [])
        self.assertTrue(self.run_on(tidy.run_headers, "a.h", "#pragma once\nstd::string f();\n"))
        self.assertTrue(self.run_on(tidy.run_headers, "a.h", "struct S {};\n"), "no guard: the second time fails")

    def test_format(self):
        self.assertEqual(self.run_on(tidy.run_format, "a.cc", "// A file of one line.\nint a = 0;\n"), [])
        self.assertTrue(self.run_on(tidy.run_format, "a.cc", "// A file of one line.\nint  a=0;\n"))

    def test_shell(self):
        self.assertEqual(self.run_on(tidy.run_shell, "a.sh", '#!/bin/bash\necho "$1"\n'), [])
        self.assertTrue(self.run_on(tidy.run_shell, "a.sh", "#!/bin/bash\nrm -rf $1/*\n"))

    def complaints_of_build(self, run, sources, text, arguments=("",)):
        """Of a source that is compiled as often as there are arguments."""
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, "a.cc").write_text(text, encoding="utf-8")
            pathlib.Path(folder, "library.hh").write_text("#include <string>\n", encoding="utf-8")
            (pathlib.Path(folder) / ".clang-tidy").write_text((ROOT / ".clang-tidy").read_text())
            entries = [{"directory": folder, "command": f"c++ -std=c++20 {words} -c a.cc", "file": "a.cc"}
                       for words in arguments]
            pathlib.Path(folder, "compile_commands.json").write_text(json.dumps(entries), encoding="utf-8")
            with unittest.mock.patch.dict(os.environ, MESON_BUILD_ROOT=folder), \
                    unittest.mock.patch.object(tidy, "ROOT", pathlib.Path(folder)):
                return run(sources)

    def fails_under_clang(self, text, arguments=""):
        return bool(self.complaints_of_build(tidy.run_clang, [], text, [arguments]))

    def test_clang_tidy_reads_the_sources_it_is_given_each_once(self):
        source = tidy.Source("a.cc", "")
        good, bad = "int f(int* p) {\n    return *p;\n}\n", "int f(int* p) {\n    return p == 0 ? 0 : *p;\n}\n"
        self.assertEqual(self.complaints_of_build(tidy.run_clang_tidy, [source], good), [])
        complaint, = self.complaints_of_build(tidy.run_clang_tidy, [source], bad, ["", "-DOTHER"])
        self.assertIn("modernize-use-nullptr", complaint)
        self.assertEqual(self.complaints_of_build(tidy.run_clang_tidy, [], bad), [])
        self.assertEqual(self.complaints_of_build(tidy.run_clang_tidy, [source], "int a = WANTED;\n", ["-DWANTED=1"]), [])

    def test_clang_sees_what_is_included_by_a_precompiled_header_only(self):
        precompiled = "-fpch-preprocess -include library.hh"
        self.assertFalse(self.fails_under_clang("#include <string>\nstd::string f();\n", precompiled))
        self.assertTrue(self.fails_under_clang("std::string f();\n", precompiled))

    def test_clang_sees_a_lock_that_is_not_held(self):
        annotations = (ROOT / "cache/base/thread_annotations.h").read_text(encoding="utf-8")
        good = annotations.replace("#pragma once", "") + """
class CAPABILITY("lock") Lock {
public:
    void lock() ACQUIRE();
    void unlock() RELEASE();
};
struct Guarded {
    Lock lock;
    int value GUARDED_BY(lock) = 0;
};
int read(Guarded& g);
int read(Guarded& g) {
    g.lock.lock();
    const int value = g.value;
    g.lock.unlock();
    return value;
}
"""
        self.assertFalse(self.fails_under_clang(good))
        self.assertTrue(self.fails_under_clang(good.replace("    g.lock.lock();\n", "")))


class CountTest(unittest.TestCase):
    """The last line of tools/test must not lie."""

    JUNIT = """<testsuites>
        <testsuite name="wbfat.wbfat:fs / names.NamesTest"><testcase name="One" status="run"/>
            <testcase name="Two" status="run"><failure/></testcase><testcase name="Three"><skipped/></testcase>
            <testcase name="DISABLED_Four" status="notrun"/></testsuite>
        <testsuite name="wbfat.wbfat:fs / crashes.OldTest"><testcase name="FromAnEarlierRun" status="run"/></testsuite>
        <testsuite name="wbfat"><testcase name="wbfat:tidy / tidy"/><testcase name="wbfat:mount / hangs"/>
            <testcase name="wbfat:mount / none"><skipped/></testcase></testsuite></testsuites>"""
    RESULTS = {"wbfat:fs / names": "FAIL", "wbfat:fs / crashes": "ERROR", "wbfat:tidy / tidy": "OK",
               "wbfat:mount / hangs": "TIMEOUT", "wbfat:mount / none": "SKIP"}

    def count(self, allowed=(), strict=False, logged=True):
        with tempfile.TemporaryDirectory() as folder:
            logs = pathlib.Path(folder, "default/meson-logs")
            logs.mkdir(parents=True)
            if logged:
                (logs / "testlog.junit.xml").write_text(self.JUNIT)
                lines = [json.dumps({"name": name, "result": result}) for name, result in self.RESULTS.items()]
                (logs / "testlog.json").write_text("\n".join(lines) + "\n")
            count = count_tests.count_builds([logs.parent], allowed, strict)
            return count

    def numbers(self, **arguments):
        count = self.count(**arguments)
        return count.passed, len(count.failed), len(count.skipped)

    def test_counts_cases_and_believes_meson_about_crashes_and_timeouts(self):
        self.assertEqual(self.numbers(), (3, 3, 3))
        self.assertEqual(self.count().failed, ["default: wbfat.wbfat:fs / names.NamesTest.Two",
                                               "default: wbfat:fs / crashes: ERROR",
                                               "default: wbfat:mount / hangs: TIMEOUT"])

    def test_a_forbidden_skip_is_a_failure(self):
        self.assertEqual(self.numbers(strict=True), (3, 6, 0))
        self.assertEqual(self.numbers(allowed=[("default", "mount / none")], strict=True), (3, 5, 1))
        self.assertEqual(self.numbers(allowed=[("asan", "mount / none")], strict=True), (3, 6, 0))

    def test_a_build_without_log_is_a_failure(self):
        self.assertEqual(self.numbers(logged=False), (0, 1, 0))


if __name__ == "__main__":
    unittest.main()
