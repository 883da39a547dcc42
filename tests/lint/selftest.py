"""A check is trusted once it has been seen to fail: each rule of lint and each guard of tests/run.sh, on a small sample.

Run by lint.sh; standard library only.
"""

import os
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(ROOT, "tests", "lib")]
sys.dont_write_bytecode = True

import rules  # noqa: E402
import run_skips  # noqa: E402
import wrap_comments  # noqa: E402


def findings(path, text):
    """The names of the rules that a file with this text at this path breaks."""
    found = rules.Findings()
    rules.check_text(path, text, found)
    if path.endswith((".c", ".h")):
        rules.check_c(path, text, found)
    else:
        rules.check_python(path, text, found)
    return sorted({rule for rule, _ in found.by_key})


class Bans(unittest.TestCase):
    def test_each_call_is_found(self):
        cases = {
            "unbounded-copy": "strcpy(a, b);",
            "truncating-copy": "strncpy(a, b, 3);",
            "number-without-errors": "n = atoi(text);",
            "strtok": "p = strtok(text, s);",
            "malloc": "p = strdup(text);",
            "signal-unsafe": "system(text);",
        }
        for rule, line in cases.items():
            with self.subTest(rule=rule):
                self.assertEqual(findings("cli/a.c", f"{line}\n"), [rule])

    def test_names_that_only_contain_a_banned_one_pass(self):
        self.assertEqual(findings("cli/a.c", "mem_strdup(p);\nstrtok_r(a, b, c);\nops->malloc(p);\nraft_malloc(3);\n"), [])

    def test_comments_and_strings_are_not_code(self):
        self.assertEqual(findings("cli/a.c", '/* strcpy(a, b) */\nchar *s = "malloc(p)";\n// gets(a)\n'), [])

    def test_an_excuse_needs_a_reason(self):
        self.assertEqual(findings("cli/a.c", "p = malloc(3); /* lint: allow malloc: jansson's */\n"), [])
        self.assertEqual(findings("cli/a.c", "/* lint: allow malloc: jansson's */\np = malloc(3);\n"), [])
        self.assertEqual(findings("cli/a.c", "p = malloc(3); /* lint: allow malloc: */\n"), ["malloc"])
        self.assertEqual(findings("cli/a.c", "p = malloc(3); /* lint: allow strtok: why */\n"), ["malloc"])

    def test_allocation_is_free_in_mem_c_and_tests(self):
        self.assertEqual(findings("common/mem.c", "p = malloc(3);\n"), [])
        self.assertEqual(findings("tests/unit/a.c", "p = malloc(3);\n"), [])

    def test_sleeping_tests(self):
        self.assertEqual(findings("tests/unit/a.c", "usleep(5);\n"), ["sleep-in-test"])
        self.assertEqual(findings("agent/a.c", "usleep(5);\n"), [])
        self.assertEqual(findings("tests/integration/a.py", "time.sleep(1)\n"), ["sleep-in-test"])
        self.assertEqual(findings("tests/lib/a.py", "time.sleep(1)\n"), [])
        self.assertEqual(findings("tests/integration/a.py", 'code = """\ntime.sleep(1)\n"""\n'), [])
        self.assertEqual(findings("tests/component/cell/guest.c", "sleep(1);\n"), [])

    def test_core_has_no_world(self):
        for line in ("#include <uv.h>", "#include <time.h>", '#include "common/net/link.h"', "#include <openssl/evp.h>"):
            with self.subTest(line=line):
                self.assertEqual(findings("scheduler/core/a.c", line + "\n"), ["core-io"])
        self.assertEqual(findings("agent/core/a.c", "x = getenv(y);\n"), ["core-ambient"])
        self.assertEqual(findings("cli/a.c", "#include <uv.h>\n#include <time.h>\n"), [])

    def test_seams(self):
        self.assertEqual(findings("scheduler/api/a.c", "#include <raft.h>\n"), ["raft-include"])
        self.assertEqual(findings("scheduler/replica/a.c", "#include <raft.h>\n"), [])
        self.assertEqual(findings("agent/a.c", "#include <nng/nng.h>\n"), ["nng-include"])
        self.assertEqual(findings("agent/a.c", '#include "proto/skep.pb-c.h"\n'), ["protobuf-include"])
        self.assertEqual(findings("proto/a.c", '#include "proto/skep.pb-c.h"\n'), [])

    def test_struct_typedef(self):
        self.assertEqual(findings("cli/a.c", "typedef struct a b;\n"), ["struct-typedef"])
        self.assertEqual(findings("cli/a.c", "typedef int (*compare_fn)(int);\n"), [])
        self.assertEqual(findings("cli/a.c", "typedef struct status (*read_fn)(int);\n"), [])

    def test_ignoring_a_signal_is_no_handler(self):
        self.assertEqual(findings("cli/a.c", "(void)signal(SIGPIPE, SIG_IGN);\n"), [])
        self.assertEqual(findings("cli/a.c", "signal(SIGTERM, on_term);\n"), ["signal-unsafe"])


class Text(unittest.TestCase):
    def test_layout(self):
        self.assertEqual(findings("cli/a.c", "int a; \n"), ["trailing-space"])
        self.assertEqual(findings("cli/a.c", "\tint a;\n"), ["tab"])
        self.assertEqual(findings("cli/a.c", "int a;"), ["final-newline"])
        self.assertEqual(findings("cli/a.c", "/* " + "a" * 94 + " */\n"), [])
        self.assertEqual(findings("cli/a.c", "/* " + "a" * 95 + " */\n"), ["columns"])

    def test_unfinished(self):
        self.assertEqual(findings("cli/a.c", "/* TO" "DO: more */\n"), ["unfinished"])
        self.assertEqual(findings("cli/a.c", 'char *s = "/tmp/a-XXXXXX";\n'), [])

    def test_long_files(self):
        self.assertEqual(findings("cli/a.c", "int a;\n" * 1000), [])
        self.assertEqual(findings("cli/a.c", "int a;\n" * 1001), ["file-lines"])

    def test_include_guard(self):
        self.assertEqual(findings("cli/a.h", "int a;\n"), ["include-guard"])
        self.assertEqual(findings("cli/a.h", "#ifndef CLI_A_H\n#define CLI_A_H\n#endif\n"), [])


class Functions(unittest.TestCase):
    def test_the_hundredth_line_is_the_last(self):
        def function(lines):
            return "int f(int a)\n{\n" + "    a++;\n" * (lines - 3) + "}\n"

        self.assertEqual(findings("cli/a.c", function(100)), [])
        self.assertEqual(findings("cli/a.c", function(101)), ["function-lines"])

    def test_heads_on_several_lines(self):
        head = "static __attribute__((cold)) struct status thing_do(struct thing *t,\n    int (*f)(int), const char *s)\n{\n"
        self.assertEqual(findings("cli/a.c", head + "    s++;\n" * 99 + "}\n"), ["function-lines"])

    def test_tables_are_no_functions(self):
        self.assertEqual(findings("cli/a.c", "static const int a[] = {\n" + "    1,\n" * 150 + "};\n"), [])

    def test_macros_do_not_confuse_the_count(self):
        text = "#define BEGIN(x) \\\n    do {  \\\n    x\n" + "int f(void)\n{\n}\n" * 40
        self.assertEqual(findings("cli/a.c", text), [])


class Wrap(unittest.TestCase):
    def test_prose_flows_into_the_next_line(self):
        text = "/* " + "word " * 22 + "end\n * next line. */\n"
        self.assertEqual(wrap_comments.wrap_file(text), "/* " + ("word " * 19).strip() + "\n * " + "word " * 3 + "end next line. */\n")

    def test_tables_keep_their_rows(self):
        row = " *     NAME    " + "word " * 20
        text = "/* Head.\n" + row.rstrip() + "\n *     OTHER   x\n */\n"
        wrapped = wrap_comments.wrap_file(text)
        self.assertIn("\n *     OTHER   x\n", wrapped)
        self.assertLessEqual(max(map(len, wrapped.split("\n"))), 100)

    def test_a_comment_behind_code_moves_above(self):
        text = "struct a {\n    int b; /* " + "word " * 20 + "*/\n    int c; /* " + "word " * 17 + "and\n              more */\n};\n"
        wrapped = wrap_comments.wrap_file(text)
        self.assertIn("\n    int b;\n", wrapped)
        self.assertIn("\n    int c;\n", wrapped)
        self.assertLessEqual(max(map(len, wrapped.split("\n"))), 100)

    def test_what_fits_is_left_alone(self):
        text = "/* a\n * b */\nint c; /* d */\n"
        self.assertEqual(wrap_comments.wrap_file(text), text)


class Guards(unittest.TestCase):
    LOG = [
        "1/3 Test: cells_test\n", "[  SKIPPED ] needs_kvm\n", "[  SKIPPED ] 1 test(s), listed below:\n", "[  SKIPPED ] needs_kvm\n",
        "2/3 Test: cluster_test\n", "test_failover (cluster.Failover.test_failover) ... skipped 'no root'\n", "OK (skipped=1)\n",
        "3/3 Test: quiet_test\n", "OK (skipped=2)\n",
    ]

    def test_skips_are_seen(self):
        self.assertEqual(run_skips.skipped_cases(self.LOG), ["cells_test:needs_kvm", "cluster_test:test_failover", "quiet_test:*"])

    def run_skips(self, rows, cases='<testcase name="cells_test" status="run"/>'):
        with tempfile.TemporaryDirectory() as folder:
            log, junit, skips = (os.path.join(folder, name) for name in ("log", "junit", "skips"))
            with open(log, "w", encoding="utf-8") as f:
                f.writelines(self.LOG[:4])
            with open(junit, "w", encoding="utf-8") as f:
                f.write(f'<testsuite>{cases}</testsuite>')
            with open(skips, "w", encoding="utf-8") as f:
                f.write(rows)
            command = [sys.executable, os.path.join(ROOT, "tests/lib/run_skips.py"), log, junit, skips]
            return subprocess.run(command, capture_output=True, check=False).returncode

    def test_a_skip_needs_a_reason_that_holds_here(self):
        self.assertEqual(self.run_skips(""), 1)
        self.assertEqual(self.run_skips("cells_test:needs_* | true | no virtualisation\n"), 0)
        self.assertEqual(self.run_skips("cells_test:needs_* | false | no virtualisation\n"), 1)
        self.assertEqual(self.run_skips("cells_test:needs_*\n"), 1)

    def test_a_test_that_does_not_run_is_a_skip(self):
        row, case = "cells_test:* | true | no virtualisation\n", '<testcase name="{}" status="{}"/>'
        self.assertEqual(self.run_skips(row, case.format("other_test", "notrun")), 1)
        self.assertEqual(self.run_skips(row, case.format("other_test", "disabled")), 1)
        self.assertEqual(self.run_skips(row, case.format("cells_test", "notrun")), 0)

    def run_contained(self, script):
        command = [sys.executable, os.path.join(ROOT, "tests/lib/run_contained.py"), "bash", "-c", script]
        env = {**os.environ, "SKEP_SETTLE_SECONDS": "0.2"}
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)

    def test_clean_commands_pass_and_keep_their_status(self):
        self.assertEqual(self.run_contained("true").returncode, 0)
        self.assertEqual(self.run_contained("exit 7").returncode, 7)

    def test_leftovers_are_named(self):
        done = self.run_contained("touch $TMPDIR/forgotten")
        self.assertEqual(done.returncode, 1)
        self.assertIn("forgotten", done.stderr)
        done = self.run_contained("(setsid sleep 1000 >/dev/null 2>&1 </dev/null &)")
        self.assertEqual(done.returncode, 1)
        self.assertIn("sleep 1000", done.stderr)

    def test_other_systems_are_refused(self):
        with tempfile.NamedTemporaryFile("w", suffix=".release", encoding="utf-8") as f:
            f.write('ID=ubuntu\nVERSION_ID="24.04"\n')
            f.flush()
            done = subprocess.run([os.path.join(ROOT, "deploy/install-deps.sh")], env={**os.environ, "SKEP_OS_RELEASE": f.name},
                                  capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("this is ubuntu 24.04", done.stderr)


if __name__ == "__main__":
    unittest.main()
