"""Which modules `fwconsole ma upgradeall` would upgrade from a list.

usage: python - LIST.xml EDGE  with lines "NAME VERSION" of installed modules on descriptor 3; prints "NAME OLD NEW".
EDGE: 1 where the box takes edge builds. Versions are ordered as FreePBX does: PHP's version_compare over small letters.
"""
import os
import re
import sys
from xml.etree import ElementTree

# Words of a version, a beginning is enough; any other word is lower than all. A number, or the end, has the order of "#".
WORDS = (("dev", 0), ("alpha", 1), ("a", 1), ("beta", 2), ("b", 2), ("rc", 3), ("#", 4), ("pl", 5), ("p", 5))
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
    mine, theirs = parts(one), parts(other)
    for first, second in zip(mine, theirs):
        order = rank(first, second) - rank(second, first)
        if order:
            return order
    rest = mine[len(theirs):] or theirs[len(mine):]
    if not rest:
        return 0
    order = 1 if rest[0][:1].isdigit() else rank(rest[0], "#") - 4
    return order if len(mine) > len(theirs) else -order


def rank(part, other):
    """Of a part beside another: two numbers by their value, else by words."""
    if part[:1].isdigit() and other[:1].isdigit():
        return min(int(part), HIGHEST)
    if part[:1].isdigit():
        return 4
    return ([order for word, order in WORDS if part.startswith(word)] or [-1])[0]


def parts(version):
    """Split where numbers meet words, and at everything that is neither."""
    return re.findall(r"[0-9]+|[a-z#]+", version.lower()) or [version]


if __name__ == "__main__":
    main(*sys.argv[1:3])
