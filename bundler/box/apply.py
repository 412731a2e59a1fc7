"""Brings a bundle from a stick to this box: believes it as a mirror's import does, stages its blobs, unpacks the tree of one
group and makes it the one that is served.

usage: python - roots|apply name=value... (source of verify.py on descriptor 3). Prints lines "name value": of roots which root
is pinned, or which ones the stick offers; of apply what is served now.
Python 2.7 and 3. Everything lies below <root>/var/lib/gapferry, what is believed below <root>/etc/gapferry.

What holds at every moment, also after a power cut: `origin` leads to one whole tree, the old one or the new one. A blob has
its name after its bytes are on the disk; state.json follows the blobs; a tree gets its name when all of it is linked; one
rename switches `origin`. What an ended run left is swept by the next.
"""
from __future__ import print_function

import base64
import calendar
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import sys
import tempfile
import time
import types

verify = types.ModuleType("verify")
exec(compile(os.fdopen(3, "rb").read(), "verify.py", "exec"), verify.__dict__)

# No clock in the field may be behind the release of this program.
BUILT = calendar.timegm((2026, 11, 22, 0, 0, 0))
DAY = 86400
MAX_AHEAD = 180 * DAY
MAX_EXPIRED = 400 * DAY
# Room that must stay free: a full disk stops more than this program.
RESERVE = 64 * 1024 * 1024
MAX_STATE = 4 * 1024 * 1024
MAX_NAMES = 100000
NAMED = 10
ROLES = ("timestamp", "snapshot", "targets")
LITTER = re.compile(r"[.]|~[$]")


class Stop(Exception):
    """Why nothing is done, or not all of it: a code of FORMAT.md, its exit status, and what to do next."""

    def __init__(self, status, code, message, hint):
        Exception.__init__(self, message)
        self.status, self.code, self.hint = status, code, hint


def main(arguments):
    options = dict(argument.split("=", 1) for argument in arguments[1:])
    home = Home(options["root"])
    try:
        for name, value in (roots if arguments[0] == "roots" else apply)(home, options):
            print(name, value)
        return 0
    except Stop as stop:
        return tell(stop.status, "%s [%s]" % (stop, stop.code), stop.hint)
    except verify.Refused as error:
        hint = "this stick is damaged, or not what it says; on the laptop: gapferry verify FILE, then gapferry pack --repair"
        return tell(3, "REFUSED: %s" % error, hint)
    except EnvironmentError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return tell(5, "%s [SPACE_SHORT]" % error, "make room on this disk, then run it again")
        return tell(1, "%s [FILE_FAILED]" % error, "see that this disk and the stick are sound, then run it again")
    finally:
        home.sweep()


def tell(status, message, hint):
    print("gapferry-box: apply: %s\n  next: %s" % (verify.show(message), verify.show(hint)), file=sys.stderr)
    return status


def apply(home, options):
    home.make()
    memory = Memory(home)
    folder = Stick(options["dir"], options.get("site") or memory.site)
    root = pin(memory, folder, options.get("pin"))
    work = tempfile.mkdtemp(dir=home.staging)
    trust = Believer(root, work, memory, late="reason" in options)
    stager = Stager(home, trust, memory, options)
    bundles = {}
    for path in folder.parts:
        print("gapferry-box: reading %s" % verify.show(os.path.basename(path)), file=sys.stderr)
        stager.part_bytes = os.path.getsize(path)
        verify.check_part(path, trust, bundles, stager)
        stager.adopt()
    bundle = bundles[max(bundles)]
    check_whole(home, bundle, stager, folder)
    keep_licenses(home, stager.licenses)
    tree = unpack(home, bundle.number, stager)
    return about(bundle, stager, tree) + [("folder", folder.base), ("below", folder.below)]


def about(bundle, stager, tree):
    """What the rest of apply has to know of it."""
    current = stager.tree["entries"]
    answer = [("site", bundle.site), ("number", bundle.number), ("group", stager.group), ("origin", stager.origin)]
    answer += [("created", bundle.created), ("expires", bundle.expires), ("tree", tree)]
    answer += [("yum", one["id"]) for one in stager.facts["groups"][stager.group]["yum"]]
    answer += [("modules", path) for path in sorted(current) if re.match(r"all-[0-9]+\.0\.xml\Z", path)]
    answer += [("key", path) for path in sorted(current) if path.startswith("keys/")]
    return answer


class Home(object):
    """The places on the box."""

    def __init__(self, root):
        self.data, self.settings = root + "/var/lib/gapferry", root + "/etc/gapferry"
        self.blobs, self.trees, self.staging = (self.data + "/" + name for name in ("blobs", "trees", "staging"))
        self.origin, self.previous, self.licenses = (self.data + "/" + name for name in ("origin", "previous", "licenses"))

    def make(self):
        for path, mode in ((self.settings, 0o700), (self.data, 0o755), (self.trees, 0o755), (self.blobs, 0o700)):
            if not os.path.isdir(path):
                os.makedirs(path)
            os.chmod(path, mode)  # licenses and keep may have made it before, for root alone
        self.sweep()
        os.mkdir(self.staging, 0o700)

    def sweep(self):
        """What a run that was ended has left, or this one."""
        shutil.rmtree(self.staging, ignore_errors=True)
        for name in os.listdir(self.trees) if os.path.isdir(self.trees) else []:
            if name.startswith("."):
                shutil.rmtree(os.path.join(self.trees, name), ignore_errors=True)

    def blob(self, digest):
        return os.path.join(self.blobs, digest)

    def has(self, digest, length):
        path = self.blob(digest)
        return os.path.isfile(path) and os.path.getsize(path) == length

    def is_sound(self, digest, length):
        """Reads it: what rotted is brought again."""
        if not self.has(digest, length):
            return False
        found = hashlib.sha256()
        with open(self.blob(digest), "rb") as file:
            for chunk in iter(lambda: file.read(verify.CHUNK), b""):
                found.update(chunk)
        return found.hexdigest() == digest


class Memory(object):
    """root.json, the root that a person pinned, and state.json: the roots after it and the newest bundle believed."""

    def __init__(self, home):
        self.home, self.roots, self.files, self.site = home, [], {}, None
        pinned = read(home.settings + "/root.json", verify.MAX_ROOT)
        self.is_pinned = pinned is not None
        self.recall(read(home.settings + "/state.json", MAX_STATE))
        if self.is_pinned and self.roots and self.roots[0] != pinned:
            raise self.other("root.json")
        if self.is_pinned and not self.roots:
            self.roots = [pinned]
        if self.roots:
            self.site = site_of(self.roots[0])

    def recall(self, data):
        if data is None:
            return
        try:
            digest, text = data.split(b"\n", 1)
            doc = json.loads(text.decode("ascii"))
            if verify.sha256(text).encode("ascii") != digest or doc["format"] != 1:
                raise ValueError("its digest is not the one in its first line")
            self.roots = [base64.b64decode(one) for one in doc["roots"]]
            self.files = dict((role, base64.b64decode(doc["files"][role])) for role in ROLES)
        except verify.MALFORMED as error:
            hint = "restore /etc/gapferry/state.json; without it an older bundle could be taken, so remove it only on purpose"
            raise Stop(1, "STORE_DAMAGED", "/etc/gapferry/state.json: cannot be read: %s" % error, hint)

    def other(self, what):
        hint = "is it another site's? Else this box was set up for that site: remove /etc/gapferry/root.json and state.json"
        return Stop(2, "ROOT_PINNED", "%s: another root is pinned on this box" % what, hint)

    def keep(self, roots, files):
        text = lambda data: base64.b64encode(data).decode("ascii")
        doc = {"_type": "gapferry-box-state", "format": 1, "roots": [text(one) for one in roots]}
        doc["files"] = dict((role, text(files[role])) for role in ROLES)
        body = (json.dumps(doc, sort_keys=True) + "\n").encode("ascii")
        if not self.is_pinned:
            write(self.home.settings + "/root.json", roots[0])
        write(self.home.settings + "/state.json", verify.sha256(body).encode("ascii") + b"\n" + body)
        self.is_pinned, self.roots, self.files = True, list(roots), dict(files)


class Stick(object):
    """The parts of the newest bundle of a site in a folder, or one file. Names only choose what is read."""

    def __init__(self, path, site):
        self.base, self.below, self.folder, self.parts, self.site = path, "", path, [path], site
        if os.path.isfile(path):
            self.base = self.folder = os.path.dirname(path) or "."
            return
        if not os.path.isdir(path):
            raise Stop(4, "BUNDLE_NOT_FOUND", "%s: there is no such file or folder" % path, "is the stick mounted?")
        self.site = site or self.only_site(path)
        for self.below in ("gapferry/" + self.site, self.site, ""):
            place = os.path.join(path, self.below)
            found = list(self.named(place, self.site))
            if found:
                break
        else:
            raise self.nothing(path)
        newest = max(number for number, _, _, _ in found)
        mine = sorted(one[1:] for one in found if one[0] == newest)
        self.folder, self.parts = place, [os.path.join(place, name) for _, _, name in mine]

    def named(self, place, site):
        pattern = re.compile(r"%s-([1-9][0-9]{0,12})(?:-([1-9][0-9]{0,2})of([1-9][0-9]{0,2}))?\.tar\Z" % re.escape(site))
        for name in names(place):
            match = pattern.match(name)
            if match and stat.S_ISREG(os.lstat(os.path.join(place, name)).st_mode):
                yield int(match.group(1)), int(match.group(3) or 1), int(match.group(2) or 1), name

    def only_site(self, path):
        """Whose bundles are there, where nobody said whose are meant."""
        inside = os.path.join(path, "gapferry")
        sites = set(name for name in names(inside) if os.path.isdir(os.path.join(inside, name)))
        match = [re.match(r"(%s)-[1-9][0-9]*(?:-[0-9]+of[0-9]+)?\.tar\Z" % verify.NAME_PATTERN, name) for name in names(path)]
        sites.update(one.group(1) for one in match if one)
        if len(sites) == 1 and verify.NAME.pattern.match(list(sites)[0]):
            return sites.pop()
        if not sites:
            raise self.nothing(path)
        raise Stop(2, "USAGE_INVALID", "%s: bundles of %s are here" % (path, listed(sites)), "add --site NAME")

    def nothing(self, path):
        others = [name for name in names(os.path.join(path, "gapferry"))]
        there = "; there are bundles of %s" % listed(others) if others else ""
        message = "%s: no bundle%s here%s" % (path, " of site " + self.site if self.site else "", there)
        return Stop(4, "BUNDLE_NOT_FOUND", message, "name the folder that holds gapferry/<site>/, or a file")

    def roots(self):
        """What offers itself as a root: the file beside the parts, and those in the first part."""
        beside = os.path.join(self.folder, "root.json")
        if os.path.isfile(beside) and not os.path.islink(beside):
            yield read(beside, verify.MAX_ROOT)
        with verify.open_now(self.parts[0]) as file:
            part = verify.Part(file)
            for _ in part.run("timestamp", "snapshot", "targets"):
                part.body()
            for _ in part.run("root"):
                yield part.body()


def roots(home, options):
    """What a person has to compare before anything is believed."""
    memory = Memory(home)
    if memory.is_pinned:
        return [("pinned", "%s %s" % (verify.sha256(memory.roots[0]), memory.site))]
    offered = [root for root in Stick(options["dir"], options.get("site")).roots() if root]
    return [("offered", "%s %s" % (verify.sha256(root), site_of(root))) for root in offered]


def pin(memory, folder, digest):
    """The pinned root; at first use the one with the digest that somebody compared."""
    if memory.is_pinned:
        return memory.roots[0]
    for root in folder.roots():
        if root and verify.sha256(root) == digest:
            if memory.roots and memory.roots[0] != root:
                raise memory.other("state.json")
            return root
    raise Stop(3, "ROOT_FINGERPRINT", "no root with these words is on the stick", "do not use this stick: ask who brought it")


class Believer(verify.Trust):
    """verify.py's chain of roots, and what an import adds: numbers, the clock, ends."""

    def __init__(self, root, work, memory, late):
        self.ends, self.memory, self.late, self.roots = {}, memory, late, [root]
        try:
            verify.Trust.__init__(self, root, work)
            for data in memory.roots[1:]:
                self.follow({self.signed["version"] + 1: data})
        except verify.Refused as error:
            raise Stop(3, "ROOT_INVALID", str(error), "is it another site's? See /etc/gapferry/root.json")

    def follow(self, offered):
        version = self.signed["version"]
        verify.Trust.follow(self, offered)
        self.roots += [offered[one] for one in range(version + 1, self.signed["version"] + 1)]

    def warn(self, what, expires):
        """Ends are judged in `judge`, when all is known that the clock depends on."""

    def judge(self, files):
        """Refuses what is older, dated far ahead or past its end, or other bytes than this number had."""
        signed = dict((role, json.loads(files[role].decode("ascii"))["signed"]) for role in ROLES)
        kept = self.believed()
        made = verify.seconds(signed["timestamp"]["x-created"], "timestamp.json")
        now = max([time.time(), BUILT] + [verify.seconds(one["x-created"], "state") for one in kept.values() if "x-created" in one])
        self.refuse_end("root %d" % self.signed["version"], self.signed["expires"], now, 0)
        number, newest = signed["timestamp"]["version"], max([0] + [one["version"] for one in kept.values()])
        if number < newest:
            hint = "an older bundle is never taken; bring the newest one of this site, or pack a new one: gapferry pack --renew"
            raise Stop(3, "ROLE_ROLLBACK", "expected bundle %d or newer, found bundle %d" % (newest, number), hint)
        if made > now + MAX_AHEAD:
            hint = "set this box's clock if it is not %s; else set the laptop's and pack again: gapferry pack --renew" % day(now)
            raise Stop(3, "ROLE_FUTURE", "bundle %d says that it was made %s, now it is %s" % (number, day(made), day(now)), hint)
        for role in ROLES:
            self.refuse_end("bundle %d" % number, signed[role]["expires"], now, MAX_EXPIRED if self.late else 0)
        if kept and number == newest and any(files[role] != self.memory.files[role] for role in ROLES):
            hint = "two laptops signed number %d: on the one whose bundle is not here: gapferry pack --renew --number-above %d"
            message = "other content than this box took under number %d" % number
            raise Stop(3, "ROLE_CONFLICT", message, hint % (number, number))
        if time.time() < now - DAY:
            print("gapferry-box: warning: the clock says %s, but it must be at least %s: that date is used; set the clock"
                  % (day(time.time()), day(now)), file=sys.stderr)

    def believed(self):
        """What is kept of the newest bundle; nothing, once the root took away the keys that signed any of it (a stolen key
        may have run the numbers ahead)."""
        kept = {}
        for role, data in self.memory.files.items():
            doc = verify.read_metadata(role, data, "state.json: " + role)
            try:
                self.check_signatures(role, doc, role)
            except verify.Refused:
                return {}
            kept[role] = doc["signed"]
        return kept

    def refuse_end(self, what, expires, now, grace):
        end = verify.seconds(expires, what)
        if now >= end + grace:
            most = "; accepted at most %d days after" % (grace // DAY) if grace else ""
            hint = "bring a newer bundle, or set the clock if it is wrong"
            raise Stop(3, "ROLE_EXPIRED", "%s: expired %s, now it is %s%s" % (what, day(end), day(now), most), hint)
        if now >= end:
            print("gapferry-box: warning: %s is past its end of %s and accepted" % (what, day(end)), file=sys.stderr)


class Stager(verify.Keeper):
    """Keeps of each part what this box's group needs, and adopts the part when all of it was proved."""

    def __init__(self, home, trust, memory, options):
        self.home, self.trust, self.memory, self.options = home, trust, memory, options
        self.files, self.wanted, self.sound, self.staged, self.file = {}, {}, set(), [], None
        self.group = self.origin = self.tree = self.facts = None
        self.licenses = {}
        self.part_bytes = 0

    def metadata(self, files):
        self.trust.judge(files)
        self.files = files

    def targets(self, named):
        self.facts = json.loads(named["site"].decode("ascii"))
        self.group = self.choose(sorted(self.facts["groups"]))
        self.origin = self.facts["groups"][self.group]["origin"]
        self.tree = json.loads(named[self.group + "/current"].decode("ascii"))
        self.wanted = dict((one["sha256"], one["bytes"]) for one in self.tree["entries"].values())
        self.licenses = json.loads(named["licenses"].decode("ascii"))["blobs"] if "licenses" in named else {}
        self.wanted.update(self.licenses)
        lacking = sum(length for digest, length in self.wanted.items() if not self.home.has(digest, length))
        needed, found = min(lacking, self.part_bytes) + RESERVE, free(self.home.data)
        if found < needed:
            message = "/var/lib/gapferry: expected %d MB of free space, found %d MB" % (needed // 1000000 + 1, found // 1000000)
            raise Stop(5, "SPACE_SHORT", message, "make room on this disk, then run it again")

    def choose(self, groups):
        group = self.options.get("group")
        if group in groups or (not group and len(groups) == 1):
            return group or groups[0]
        message = 'the bundle has no group "%s"' % group if group else "the bundle has several groups"
        raise Stop(2, "GROUP_UNKNOWN", "%s; its groups: %s" % (message, listed(groups)), "add --group NAME")

    def blob(self, digest, length):
        if digest not in self.wanted or self.is_sound(digest):
            return lambda chunk: None
        self.file = open(os.path.join(self.home.staging, digest), "wb")
        return self.file.write

    def proved(self, digest):
        if self.file is not None:
            self.file.close()
            self.file = None
            self.staged.append(digest)

    def is_sound(self, digest):
        if digest not in self.sound and self.home.is_sound(digest, self.wanted[digest]):
            self.sound.add(digest)
        return digest in self.sound

    def adopt(self):
        """What the part brought becomes durable, then what it says is believed."""
        for digest in self.staged:
            path = os.path.join(self.home.staging, digest)
            os.chmod(path, 0o644)
            sync(path)
        for digest in self.staged:
            os.rename(os.path.join(self.home.staging, digest), self.home.blob(digest))
        sync(self.home.blobs)
        self.sound.update(self.staged)
        self.staged = []
        if self.trust.roots != self.memory.roots or self.files != self.memory.files or not self.memory.is_pinned:
            self.memory.keep(self.trust.roots, self.files)


def check_whole(home, bundle, stager, folder):
    """Refuses to go on while a path of the tree has no sound blob; says where each is."""
    paths = [(path, one["sha256"]) for path, one in stager.tree["entries"].items()]
    paths += [("a license", digest) for digest in stager.licenses]
    missing = sorted(one for one in paths if not stager.is_sound(one[1]))
    if not missing:
        return
    here = set(os.path.basename(path) for path in folder.parts)
    holders = set(bundle.holder(digest).replace(", look in ", "") for _, digest in missing)
    holders = sorted(name for name in holders if name and name not in here and name.replace("-1of1.tar", ".tar") not in here)
    for path, digest in missing[:NAMED]:
        print("gapferry-box: missing: %s (blobs/%s%s)" % (path, digest, bundle.holder(digest)), file=sys.stderr)
    hint = "no part has them, this box lacks what the bundle builds on; on the laptop: gapferry pack --full --to DIR"
    if holders:
        hint = "the same command with the stick that has %s; what came is kept" % listed(holders)
    total = sum(dict((digest, stager.wanted[digest]) for _, digest in missing).values())
    message = "bundle %d is incomplete: %d paths, %d bytes are missing" % (bundle.number, len(missing), total)
    raise Stop(4, "BUNDLE_INCOMPLETE", message, hint)


def keep_licenses(home, licenses):
    """Sealed, by their digests: which one is for this box is known to its key alone."""
    if not os.path.isdir(home.licenses):
        os.mkdir(home.licenses, 0o700)
    for name in os.listdir(home.licenses):
        if name not in licenses or not os.path.samefile(os.path.join(home.licenses, name), home.blob(name)):
            os.unlink(os.path.join(home.licenses, name))
    for name in set(licenses) - set(os.listdir(home.licenses)):
        os.link(home.blob(name), os.path.join(home.licenses, name))
    sync(home.licenses)


def unpack(home, number, stager):
    """Links the blobs to their paths and switches `origin`; gives the tree's folder below trees/."""
    entries, served = stager.tree["entries"], os.path.basename(link(home.origin))
    if served.split("~")[0] == "%d-%s" % (number, stager.group) and is_linked(home, served, entries):
        prune(home)
        return served
    fresh = os.path.join(home.trees, ".new")
    os.mkdir(fresh)
    folders = set([fresh])
    for path, entry in sorted(entries.items()):
        target = os.path.join(fresh, path)
        folder = os.path.dirname(target)
        if folder not in folders:
            os.makedirs(folder)
        while folder not in folders:
            folders.add(folder)
            folder = os.path.dirname(folder)
        os.link(home.blob(entry["sha256"]), target)
        os.utime(target, (entry["modified"], entry["modified"]))
    for folder in folders:
        os.chmod(folder, 0o755)
        sync(folder)
    name, count = "%d-%s" % (number, stager.group), 1
    while os.path.exists(os.path.join(home.trees, name)):
        name, count = "%d-%s~%d" % (number, stager.group, count), count + 1
    os.rename(fresh, os.path.join(home.trees, name))
    sync(home.trees)
    if served and os.path.isdir(os.path.join(home.trees, served)):
        point(home.previous, "trees/" + served)
    point(home.origin, "trees/" + name)
    prune(home)
    return name


def is_linked(home, served, entries):
    """Whether that tree has each of these blobs at its path: not so after one was mended, or before a new one."""
    folder = os.path.join(home.trees, served)
    for path, entry in entries.items():
        try:
            if not os.path.samefile(os.path.join(folder, path), home.blob(entry["sha256"])):
                return False
        except OSError:
            return False
    return sum(len(files) for _, _, files in os.walk(folder)) == len(entries)


def prune(home):
    """Keeps the tree that is served and the one before, and the blobs that they name."""
    kept = [os.path.basename(link(path)) for path in (home.origin, home.previous)]
    for name in os.listdir(home.trees):
        if name not in kept:
            shutil.rmtree(os.path.join(home.trees, name), ignore_errors=True)
    for name in os.listdir(home.blobs):
        if os.lstat(home.blob(name)).st_nlink == 1:
            os.unlink(home.blob(name))


def point(path, target):
    """Makes `path` a link to `target`, in one step."""
    fresh = path + ".new"
    if os.path.islink(fresh):
        os.unlink(fresh)
    os.symlink(target, fresh)
    os.rename(fresh, path)
    sync(os.path.dirname(path))


def link(path):
    return os.readlink(path) if os.path.islink(path) else ""


def write(path, data):
    fresh = path + ".new"
    with open(fresh, "wb") as file:
        os.chmod(fresh, 0o600)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(fresh, path)
    sync(os.path.dirname(path))


def read(path, most):
    """The bytes of a file that may not be there."""
    if not os.path.exists(path):
        return None
    with verify.open_now(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise Stop(3, "ROOT_INVALID", "%s: larger than %d bytes" % (path, most), "this is no file of gapferry")
    return data


def sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def names(place):
    """What a folder holds, without what every computer leaves on a stick."""
    try:
        found = os.listdir(place)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return []
        raise
    if len(found) > MAX_NAMES:
        raise Stop(2, "USAGE_INVALID", "%s: holds more than %d names" % (place, MAX_NAMES), "name the file instead")
    return sorted(name for name in found if not LITTER.match(name))


def site_of(root):
    try:
        return verify.show(json.loads(root.decode("ascii"))["signed"]["x-site"])
    except verify.MALFORMED:
        raise Stop(3, "ROOT_INVALID", "what should be a root is none", "bring root.json of the site beside the bundle")


def free(path):
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def listed(items):
    items = sorted(items)
    return ", ".join(items[:NAMED]) + (" and %d more" % (len(items) - NAMED) if len(items) > NAMED else "")


def day(moment):
    return time.strftime("%Y-%m-%d", time.gmtime(moment))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
