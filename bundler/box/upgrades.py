"""Which modules `fwconsole ma upgradeall` would upgrade from a list.

usage: python - LIST.xml EDGE  with lines "NAME VERSION" of installed modules on descriptor 3; prints "NAME OLD NEW".
EDGE: 1 where the box takes edge builds. Versions are ordered as FreePBX does: PHP's version_compare over small letters.
"""
import os
import re
import sys
from xml.etree import ElementTree

# Words of a version, a beginning is enough; any other word is lower than all. NUMBER stands for a number, or for the end.
WORDS = (("dev", 0), ("alpha", 1), ("a", 1), ("beta", 2), ("b", 2), ("rc", 3), ("#", 4), ("pl", 5), ("p", 5))
NUMBER = "#N#"
HIGHEST = 2 ** 63 - 1


def main(path, edge):
    offered = {}
    root = ElementTree.parse(path).getroot()
    for module in root.findall("module"):
        offered.setdefault(text(module, "rawname"), text(module, "version"))
    section = root.find("edge")
    for module in section if edge == "1" and section is not None else []:
        name, version = text(module, "rawname"), text(module, "version")
        if compare(version, offered.get(name, "")) > 0:
            offered[name] = version
    for line in os.fdopen(3):
        name, version = line.split()
        if name in offered and compare(offered[name], version) > 0:
            print("%s %s %s" % (name, version, offered[name]))


def text(element, name):
    return (element.findtext(name) or "").strip()


def compare(one, other):
    """Negative, 0 or positive."""
    if not one or not other:
        return (one != "") - (other != "")
    mine, theirs = parted(one.lower()), parted(other.lower())
    while mine and theirs:
        first, second = mine.split(".")[0], theirs.split(".")[0]
        order = rank(first, second) - rank(second, first)
        if order:
            return order
        mine, theirs = rest(mine, first), rest(theirs, second)
    if mine is not None:
        return 1 if mine[:1].isdigit() else compare(mine, NUMBER)
    if theirs is not None:
        return -1 if theirs[:1].isdigit() else compare(NUMBER, theirs)
    return 0


def rest(version, part):
    """What comes behind a part's dot; None where there is none."""
    return None if version == part else version[len(part) + 1:]


def rank(part, other):
    """Of a part beside another: two numbers by their value, else by words."""
    if part[:1].isdigit() and other[:1].isdigit():
        return min(int(re.match("[0-9]+", part).group(0)), HIGHEST)
    word = NUMBER if part[:1].isdigit() else part
    return ([order for name, order in WORDS if word.startswith(name)] or [-1])[0]


def parted(version):
    """With a dot between numbers and words, and in place of everything else; the first character stays."""
    if version.startswith("#"):
        return version
    parts = version[:1]
    for before, one in zip(version, version[1:]):
        turns = one not in "-_+" and (is_word(before) if one.isdigit() else before.isdigit() and is_word(one))
        kept = turns or re.match("[0-9a-z]", one)
        if (turns or not kept) and not parts.endswith("."):
            parts += "."
        if kept:
            parts += one
    return parts


def is_word(character):
    return character != "." and not character.isdigit()


if __name__ == "__main__":
    main(*sys.argv[1:3])
