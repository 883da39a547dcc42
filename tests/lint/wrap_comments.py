"""Wraps C comment lines of more than 100 columns, in place. Only lines that are too long are touched: the overflow
goes in front of the next line where that continues the same paragraph, else onto a line of its own, so that tables and
drawings keep their shape.

usage: wrap_comments.py FILE...
"""

import re
import sys

COLUMNS_MAX = 100
START = re.compile(r"^(\s*)/\*")
CONTINUATION = re.compile(r"^(\s*) \*(?!/)( *)")
# A line of prose: neither empty, nor an item, nor the row of a table or a drawing.
PROSE = re.compile(r"^\s* \* [A-Za-z0-9`\"'(<]((?!   ).)*$")


def split_line(line):
    """The part that fits and the words that do not, or None where no space allows a cut."""
    at = line.rfind(" ", 0, COLUMNS_MAX + 1)
    head = line[:at].rstrip()
    if at <= 0 or len(head) < 20:
        return None
    return head, line[at:].strip()


def wrap_block(lines):
    """Wraps the lines of one block comment that starts its first line."""
    indent = START.match(lines[0]).group(1)
    out = []
    queue = list(lines)
    while queue:
        line = queue.pop(0)
        parts = split_line(line) if len(line) > COLUMNS_MAX else None
        if parts is None:
            out.append(line)
            continue
        head, rest = parts
        out.append(head)
        if rest == "*/":
            # The closing mark alone: the last word goes with it.
            head, word = out.pop().rsplit(" ", 1)
            out.append(head)
            rest = f"{word} */"
        match = CONTINUATION.match(line)
        pad = match.group(2) if match else " "
        following = queue[0] if queue else ""
        same = CONTINUATION.match(following)
        if not rest.endswith("*/") and PROSE.match(following) and same and same.group(2) == pad:
            queue[0] = f"{indent} *{pad}{rest} {following[same.end():]}"
        else:
            queue.insert(0, f"{indent} *{pad}{rest}")
    return out


def wrap_line_comment(line):
    """A comment behind code moves above it when it does not fit."""
    match = re.match(r"^(\s*)(\S.*?)\s+(/\*.*\*/)\s*$", line)
    if len(line) <= COLUMNS_MAX or match is None or match.group(2).startswith("#"):
        return [line]
    indent, code, comment = match.groups()
    return wrap_block([indent + comment]) + [indent + code]


TRAILING = re.compile(r"^(\s*)([^\s/#][^\"]*?)\s+(/\*((?!\*/).)*)$")


def wrap_trailing(lines):
    """A comment that starts behind code and goes on below moves above the code when it does not fit."""
    match = TRAILING.match(lines[0])
    if match is None or max(map(len, lines)) <= COLUMNS_MAX or not lines[-1].rstrip().endswith("*/"):
        return lines
    indent, code, comment = match.group(1, 2, 3)
    words = [comment.strip()] + [re.sub(r"^\s*\*?(?!/)\s*", "", line) for line in lines[1:]]
    return wrap_block([indent + " ".join(words).rstrip()]) + [indent + code]


def end_of_comment(lines, start):
    end = start
    while end < len(lines) - 1 and "*/" not in lines[end]:
        end += 1
    return end


def wrap_file(text):
    lines = text.split("\n")
    out = []
    i = 0
    while i < len(lines):
        if not START.match(lines[i]):
            if TRAILING.match(lines[i]):
                end = end_of_comment(lines, i)
                out += wrap_trailing(lines[i : end + 1])
                i = end + 1
                continue
            out += wrap_line_comment(lines[i])
            i += 1
            continue
        end = end_of_comment(lines, i)
        if lines[end].rstrip().endswith("*/"):
            out += wrap_block(lines[i : end + 1])
        else:
            out += lines[i : end + 1]
        i = end + 1
    return "\n".join(out)


def main():
    for path in sys.argv[1:]:
        with open(path, encoding="utf-8") as f:
            text = f.read()
        wrapped = wrap_file(text)
        if wrapped != text:
            with open(path, "w", encoding="utf-8") as f:
                f.write(wrapped)


if __name__ == "__main__":
    main()
