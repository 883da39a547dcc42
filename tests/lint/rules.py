"""The bans, each with its reason, over all files of the tree; and the ratchet.

usage: rules.py [--tighten]

A place that must break a rule says so on its line or the line above: `lint: allow RULE: reason`. What the tree has not
cleaned yet stands in ratchet.txt as `RULE FILE COUNT`; a count may fall (then --tighten writes the new one), never rise.
"""

import ast
import collections
import os
import re
import stat
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
RATCHET = os.path.join(HERE, "ratchet.txt")

COLUMNS_MAX = 100
FILE_LINES_MAX = 1000
FUNCTION_LINES_MAX = 100

TOP_LEVEL = {"common", "proto", "scheduler", "agent", "cli", "deploy", "simulations", "tests", "docs", ".ci"}
TEXT_ENDINGS = (".c", ".h", ".py", ".sh", ".cmake", ".md", ".txt", ".yaml", ".yml", ".json", ".proto", ".js", ".css",
                ".html", ".service", ".supp")
CODE_ENDINGS = (".c", ".h", ".py", ".sh", ".cmake", ".proto", ".js", ".css", ".html")

C_FILES = re.compile(r"\.[ch]$")
CORE = re.compile(r"^(scheduler|agent)/core/.*\.[ch]$")
TESTS = re.compile(r"^tests/.*\.[ch]$")
NO_C = re.compile(r"(?!)")
# Programs that tests run inside a cell or an instance: being slow is what they are for.
SUBJECTS = re.compile(r"^tests/(?:.*/)?(?:guest|function)s?(?:\.|/)")

# In words: rule, which files, which of them not, the pattern, and why. Patterns see C code without comments and strings.
Rule = collections.namedtuple("Rule", "name files exempt pattern reason")


def calls(*names):
    return re.compile(r"(?<![\w.>])(?:" + "|".join(names) + r")\s*\(")


def includes(*names):
    return re.compile(r'^\s*#\s*include\s*[<"](?:' + "|".join(names) + r')[^>"]*[>"]', re.M)


RULES = [
    Rule("unbounded-copy", C_FILES, NO_C, calls("strcpy", "stpcpy", "strcat", "sprintf", "vsprintf", "gets"),
         "writes past the end when the input is longer than thought: snprintf, memcpy with a checked size or a buffer"),
    Rule("truncating-copy", C_FILES, NO_C, calls("strncpy", "strncat"),
         "pads, or forgets the end: snprintf, or memcpy with a checked size"),
    Rule("number-without-errors", C_FILES, re.compile(r"^tests/"), calls("atoi", "atol", "atoll", "atof"),
         "cannot report a wrong number: strtoul with its end and errno looked at"),
    Rule("strtok", C_FILES, NO_C, calls("strtok"), "hidden state, shared by threads: strtok_r or strcspn"),
    Rule("malloc", C_FILES, re.compile(r"^(common/mem\.c|common/cleanup\.h|agent/runners/|tests/|docs/)"),
         calls("malloc", "calloc", "realloc", "reallocarray", "strdup", "strndup"),
         "common/mem.h allocates, so that tests can make each allocation fail"),
    Rule("sleep-in-test", TESTS, SUBJECTS, calls("sleep", "usleep", "nanosleep", "clock_nanosleep"),
         "a sleep is a race with the machine's load: wait for a condition with a deadline"),
    Rule("struct-typedef", C_FILES, re.compile(r"^docs/"), re.compile(r"\btypedef\s+(?:struct|union|enum)\b(?!\s+\w+\s*\**\s*\(\s*\*)"),
         "a struct is written as one: struct noun"),
    Rule("core-io", CORE, NO_C,
         includes(r"uv\.h", r"uv/", r"nng/", r"raft\.h", r"raft/", r"openssl/", r"time\.h", r"sys/time\.h", r"sys/socket\.h",
                  r"pthread\.h", r"fcntl\.h", r"sys/random\.h", r"common/net/(?!identity\.h)"),
         "the core is deterministic and does no I/O: time, randomness and messages come in as data"),
    Rule("core-ambient", CORE, NO_C,
         calls("time", "clock", "clock_gettime", "gettimeofday", "rand", "random", "srand", "srandom", "rand_r", "drand48",
               "getrandom", "arc4random", "getenv", "secure_getenv", "getpid", "fopen", "open", "read", "write"),
         "the core is deterministic and does no I/O: time, randomness and configuration come in as parameters"),
    Rule("raft-include", C_FILES, re.compile(r"^(scheduler/replica/|simulations/sim_|tests/)"), includes(r"raft\.h", r"raft/"),
         "only scheduler/replica knows libraft, so that another backend is possible"),
    Rule("nng-include", C_FILES, re.compile(r"^(common/net/|tests/)"), includes(r"nng/"),
         "only common/net knows nng, so that the transport can change"),
    Rule("protobuf-include", C_FILES, re.compile(r"^proto/"),
         re.compile(r'^\s*#\s*include\s*[<"][^>"]*(?:\.pb-c\.h|protobuf-c\.h)[>"]', re.M),
         "generated code is touched only by the codec beside proto/"),
    Rule("signal-unsafe", C_FILES, re.compile(r"^(tests/|docs/|agent/runners/)"),
         re.compile(r"(?<![\w.>])(?:(?:vfork|system|popen)\s*\(|signal\s*\((?![^()]*\bSIG_(?:IGN|DFL)\s*\)))"),
         "sigaction, posix_spawn: signal and vfork differ between systems, system and popen run a shell"),
]


def git_or_find():
    listing = subprocess.run([os.path.join(HERE, "files.sh"), "all"], stdout=subprocess.PIPE, text=True, check=True)
    return listing.stdout.splitlines()


C_TOKEN = re.compile(r"""/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'""", re.S)


def strip_c(text):
    """C without the contents of comments, strings and characters; lines and #include paths stay."""

    def blank(match):
        token = match.group(0)
        if token.startswith('"'):
            line_start = text.rfind("\n", 0, match.start()) + 1
            if re.match(r"\s*#\s*include\b", text[line_start : match.start()]):
                return token
            return '""' + " " * (len(token) - 2)
        return re.sub(r"[^\n]", " ", token)

    return C_TOKEN.sub(blank, text)


class Findings:
    def __init__(self):
        self.by_key = collections.defaultdict(list)

    def add(self, rule, path, line, text):
        self.by_key[(rule, path)].append(f"{path}:{line}: {rule}: {text}")


def allowed(lines, number, rule):
    """True when line `number` (from 1) or the comment that ends right above it excuses the rule, with a reason."""
    mark = re.compile(r"lint: allow " + re.escape(rule) + r": *[^\s*]")
    at = number - 1
    if mark.search(lines[at]):
        return True
    at -= 1
    while at >= 0 and re.match(r"\s*(/?\*|//)", lines[at]):
        if mark.search(lines[at]):
            return True
        at -= 1
    return False


def check_patterns(path, text, code, found):
    lines = text.split("\n")
    for rule in RULES:
        if not rule.files.search(path) or rule.exempt.search(path):
            continue
        for match in rule.pattern.finditer(code):
            start = match.start() + len(match.group(0)) - len(match.group(0).lstrip())
            number = code.count("\n", 0, start) + 1
            if not allowed(lines, number, rule.name):
                found.add(rule.name, path, number, f"{match.group(0).strip()} ({rule.reason})")


FUNCTION_HEAD = re.compile(r"^(?![#\s}])[^;={}#]*?\b([A-Za-z_]\w*)\s*\([^;{}]*\)[^;={}()]*$", re.S)


def check_functions(path, code, found):
    """Counts the lines of each function, from its name to its closing brace. A body starts at the outer level."""
    depth = 0
    head_start = 0
    body = None
    # Directives may hold one brace only; they are no part of the structure.
    code = re.sub(r"^[ \t]*#(?:\\\n|[^\n])*", lambda m: re.sub(r"[^\n]", " ", m.group(0)), code, flags=re.M)
    for match in re.finditer(r"[{};]", code):
        at = match.start()
        mark = match.group(0)
        if mark == "{":
            if depth == 0:
                head = FUNCTION_HEAD.match(code[head_start:at].lstrip())
                body = (head.group(1), at) if head else None
                first = head_start + len(code[head_start:at]) - len(code[head_start:at].lstrip())
            depth += 1
        elif mark == "}":
            depth = max(0, depth - 1)
            if depth == 0:
                if body is not None:
                    start = code.count("\n", 0, first) + 1
                    size = code.count("\n", first, at) + 1
                    if size > FUNCTION_LINES_MAX:
                        found.add("function-lines", path, start,
                                  f"{body[0]} has {size} lines, at most {FUNCTION_LINES_MAX}: split it")
                    body = None
                head_start = at + 1
        elif depth == 0:
            head_start = at + 1


def check_text(path, text, found):
    lines = text.split("\n")
    is_c = C_FILES.search(path) is not None
    if text and not text.endswith("\n"):
        found.add("final-newline", path, len(lines), "the last line does not end")
    for number, line in enumerate(lines, 1):
        if line != line.rstrip() and not path.endswith(".md"):
            found.add("trailing-space", path, number, "white space at the end of the line")
        if "\t" in line:
            found.add("tab", path, number, "a tab: indent by spaces")
        if is_c and len(line) > COLUMNS_MAX:
            found.add("columns", path, number, f"{len(line)} columns, at most {COLUMNS_MAX}")
        if path.endswith(CODE_ENDINGS) and not path.startswith("tests/lint/") and UNFINISHED.search(line):
            found.add("unfinished", path, number, f"{line.strip()[:60]} (finish it, or open an issue)")
    if is_c and text.count("\n") > FILE_LINES_MAX:
        found.add("file-lines", path, 1, f"{text.count(chr(10))} lines, at most {FILE_LINES_MAX}: split it by job")


UNFINISHED = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b")


def check_c(path, text, found):
    code = strip_c(text)
    check_patterns(path, text, code, found)
    check_functions(path, code, found)
    if path.endswith(".h") and not re.search(r"^#ifndef (\w+_H)\n#define \1$", text, re.M) and "#pragma once" not in text:
        found.add("include-guard", path, 1, "no #ifndef NAME_H, #define NAME_H")


def python_sleeps(path, text):
    """The lines that call time.sleep."""
    for node in ast.walk(ast.parse(text, path)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "time.sleep":
            yield node.lineno


def check_python(path, text, found):
    if not path.startswith("tests/") or path.startswith(("tests/lib/", "tests/lint/")) or SUBJECTS.search(path):
        return
    lines = text.split("\n")
    for number in python_sleeps(path, text):
        if not python_allows(lines, number):
            found.add("sleep-in-test", path, number, "time.sleep( (wait for a condition with a deadline: a helper of tests/lib)")


def python_allows(lines, number):
    near = lines[max(0, number - 2) : number]
    return any(re.search(r"lint: allow sleep-in-test: *\w", line) for line in near)


def check_tree(paths, found):
    known = set(paths)
    lists = "\n".join(read(path) for path in paths if path.endswith("CMakeLists.txt") or path.endswith(".cmake"))
    for path in paths:
        top = path.split("/", 1)[0]
        if "/" in path and top not in TOP_LEVEL:
            found.add("top-level", path, 1, f"the top level has no folder {top}: {' '.join(sorted(TOP_LEVEL))}")
        if path.endswith(".c") and not path.startswith("docs/"):
            # A foreach may name it without its ending, or by its last words.
            words = os.path.basename(path)[:-2].split("_")
            stems = "|".join(re.escape("_".join(words[i:])) for i in range(len(words)))
            if not re.search(r"(?<![\w-])(?:" + stems + r")(?!\w)", lists):
                found.add("not-built", path, 1, "no CMakeLists.txt names it")
        if path.endswith((".sh",)) or path == ".ci/run":
            if read(path).startswith("#!") and not os.stat(path).st_mode & stat.S_IXUSR:
                found.add("not-executable", path, 1, "has a #! line and may not be executed")
    for required in ("LICENSE", "README.md", "ARCHITECTURE.md", "SECURITY.md", "CMakePresets.json"):
        if required not in known:
            found.add("top-level", required, 1, "is missing")


def read(path):
    with open(path, encoding="utf-8", errors="replace") as f:
        return f.read()


def read_ratchet():
    counts = {}
    with open(RATCHET, encoding="utf-8") as f:
        for number, line in enumerate(f, 1):
            fields = line.split()
            if not fields or fields[0].startswith("#"):
                continue
            if len(fields) != 3 or not fields[2].isdigit():
                sys.exit(f"{RATCHET}:{number}: not of the form RULE FILE COUNT")
            counts[(fields[0], fields[1])] = int(fields[2])
    return counts


def write_ratchet(counts):
    with open(RATCHET, encoding="utf-8") as f:
        head = [line for line in f if line.startswith("#")]
    with open(RATCHET, "w", encoding="utf-8") as f:
        f.writelines(head)
        for (rule, path), count in sorted(counts.items()):
            f.write(f"{rule} {path} {count}\n")


def compare(found, ratchet, tighten):
    """Prints what is worse than the ratchet, and what is better and not written down yet; True when there is nothing."""
    clean = True
    for key, places in sorted(found.by_key.items()):
        if len(places) > ratchet.get(key, 0):
            print("\n".join(places))
            if key in ratchet:
                print(f"  ({len(places)} places; ratchet.txt has {ratchet[key]})")
            clean = False
    lower = {key: len(found.by_key.get(key, [])) for key in ratchet if len(found.by_key.get(key, [])) < ratchet[key]}
    if lower and tighten:
        kept = {key: lower.get(key, count) for key, count in ratchet.items()}
        write_ratchet({key: count for key, count in kept.items() if count > 0})
    elif lower:
        for (rule, path), count in sorted(lower.items()):
            print(f"ratchet.txt: {rule} {path} is down to {count}: run tests/lint/lint.sh --tighten")
        clean = False
    return clean


# What tests feed to programs is as it is.
SAMPLES = re.compile(r"/(corpus|golden|traces)/|^tests/.*\.(yaml|yml|json|txt)$(?<!CMakeLists\.txt)")


def main():
    options = sys.argv[1:]
    if options not in ([], ["--tighten"]):
        sys.exit("usage: rules.py [--tighten]")
    os.chdir(os.path.join(HERE, "..", ".."))
    paths = git_or_find()
    found = Findings()
    check_tree(paths, found)
    for path in paths:
        name = os.path.basename(path)
        if not (path.endswith(TEXT_ENDINGS) or name == "run"):
            continue
        text = read(path)
        if not SAMPLES.search(path):
            check_text(path, text, found)
        if C_FILES.search(path):
            check_c(path, text, found)
        elif path.endswith(".py"):
            check_python(path, text, found)
    sys.exit(0 if compare(found, read_ratchet(), bool(options)) else 1)


if __name__ == "__main__":
    main()
