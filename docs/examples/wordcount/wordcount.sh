#!/bin/sh
# Counts words: text on standard input, the totals and the ten most frequent words on standard output.
set -eu
export LC_ALL=C

tr '[:upper:]' '[:lower:]' | awk '
{
    lines++
    gsub(/[^a-z'"'"']+/, " ")
    count = split($0, words, " ")
    for (i = 1; i <= count; i++) {
        seen[words[i]]++
        total++
    }
}
END {
    if (total == 0) {
        print "no words in the input" > "/dev/stderr"
        exit 1
    }
    for (word in seen) {
        distinct++
        print seen[word], word | "sort -k1,1nr -k2,2 | head -n 10"
    }
    close("sort -k1,1nr -k2,2 | head -n 10")
    print "lines", lines
    print "words", total
    print "distinct", distinct
}'
