#!/usr/bin/env python3
"""Checks a Gapferry bundle with nothing of Gapferry: Python (3, or 2.7) and the openssl command.

usage: python3 verify.py ROOT.json FILE.tar...

ROOT.json must be a root that you have reason to trust: the one the mirror was set up with. The one that lies
beside the bundle is worth what its sha256 is worth once you compared it over another way. Give all parts of a
bundle at once to learn what is missing. Nothing is unpacked; only a temporary folder is written.

exit status: 0 whole, 2 usage, 3 refused, 4 incomplete
"""
from __future__ import print_function

import base64
import binascii
import calendar
import hashlib
import json
import numbers
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections import OrderedDict, namedtuple

# A run takes minutes: what is a day old was left by one that was ended by force.
WORK = "gapferry-verify-py-"
WORK_SECONDS = 86400
BLOCK = 512
CHUNK = 1024 * 1024
MAX_ROOT = 512000
MAX_TREE = 32 * 1024 * 1024
MAX_FACTS = 1024 * 1024
MAX_BLOB = 2 ** 31 - 1
MAX_LICENSE = 4 * 1024 * 1024
MAX_LICENSES = 1000
# Commas and opening brackets of one document: bounds the memory that it takes once it is read.
MAX_VALUES = 2 ** 20
# The sections of a part in their order: pattern of names, most entries, most bytes of one entry and of all.
SECTIONS = (
    ("timestamp", r"metadata/timestamp\.json", 1, 16384, 16384),
    ("snapshot", r"metadata/([1-9][0-9]{0,12})\.snapshot\.json", 1, 16384, 16384),
    ("targets", r"metadata/([1-9][0-9]{0,12})\.targets\.json", 1, 262144, 262144),
    ("root", r"metadata/([1-9][0-9]{0,12})\.root\.json", 256, MAX_ROOT, 8 * 1024 * 1024),
    ("tree", r"trees/([0-9a-f]{64})", 700, MAX_TREE, 2 * MAX_TREE),
    ("hint", r"part\.json", 1, 65536, 65536),
    ("blob", r"blobs/([0-9a-f]{64})", 20000, MAX_BLOB, 20000 * MAX_BLOB),
)
HINT = 5
P256_HEAD = binascii.unhexlify("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
RSA_OID = binascii.unhexlify("06092a864886f70d010101")
# SubjectPublicKeyInfo of an RSA key, up to the bytes of its modulus, whose count stands last.
RSA_HEAD = re.compile(b"0\x82..0\r" + re.escape(RSA_OID) + b"\x05\0\x03\x82..\0" + b"0\x82..\x02\x82(..)", re.DOTALL)
PEM = re.compile(r"-----BEGIN PUBLIC KEY-----\n([A-Za-z0-9+/=\n]+)\n-----END PUBLIC KEY-----\n\Z")
# What Python raises where a document does not have the shape that it must have.
MALFORMED = (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError, OverflowError)


class Refused(Exception):
    """What was read is not what the root's keys signed."""

    def __init__(self, message):
        Exception.__init__(self, show(message))


def main(arguments):
    if len(arguments) < 2 or arguments[0].startswith("-"):
        print(__doc__.strip(), file=sys.stderr)
        return 2
    sweep()
    work = tempfile.mkdtemp(prefix=WORK)
    try:
        with open_now(arguments[0]) as file:
            trust = Trust(file.read(MAX_ROOT + 1), work)
        print(trust.about)
        bundles = {}
        for path in arguments[1:]:
            check_part(path, trust, bundles)
        whole = [report(bundle) for _, bundle in sorted(bundles.items())]
        return 0 if all(whole) else 4
    except Refused as error:
        print("REFUSED: %s" % error, file=sys.stderr)
        return 3
    except EnvironmentError as error:
        print("cannot go on: %s" % show(error), file=sys.stderr)
        return 2
    finally:
        shutil.rmtree(work, ignore_errors=True)


def sweep():
    """Removes what runs that were ended by force have left of their temporary folders."""
    place = tempfile.gettempdir()
    for name in os.listdir(place):
        folder = os.path.join(place, name)
        try:
            found = os.lstat(folder)
            mine = found.st_uid == getattr(os, "getuid", lambda: found.st_uid)()
            if name.startswith(WORK) and mine and found.st_mtime < time.time() - WORK_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            pass  # another run took it away, or it is somebody else's


class Keeper(object):
    """What is done with what was proved, part by part and in this order: nothing, here. Who embeds this file may keep it."""

    def metadata(self, files):
        """`files`: timestamp, snapshot and targets -> bytes, as the root in force signed them."""

    def targets(self, named):
        """name -> bytes of every tree and of the site facts, before the first blob."""

    def blob(self, digest, length):
        """Gives the function that takes the blob's bytes; nobody knows yet whether they are the right ones."""
        return lambda chunk: None

    def proved(self, digest):
        """They are."""


def check_part(path, trust, bundles, keeper=Keeper()):
    """Reads one part front to end; adds what it proves to `bundles`, by number."""
    name = show(os.path.basename(path))
    with open_now(path) as file:
        try:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Refused("is not a plain file")
            part = Part(file)
            bundle, targets = check_metadata(part, trust, bundles, keeper)
            check_trees(part, bundle, targets, keeper)
            bundle.parts = check_hint(part.body(), bundle)
            check_blobs(part, bundle, keeper)
        except Refused as error:
            raise Refused("%s: %s" % (name, error))
        except MALFORMED as error:
            raise Refused("%s: malformed: %r" % (name, error))


def open_now(path):
    """Opens a file to read it, and waits for nobody where it is a pipe."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags), "rb")


def check_metadata(part, trust, bundles, keeper):
    """timestamp -> snapshot -> targets, under the newest root. Gives the bundle and its targets."""
    files = dict((section, (part.key, part.body())) for section in part.run("timestamp", "snapshot", "targets"))
    trust.follow(dict((part.key, part.body()) for _ in part.run("root")))
    timestamp = signed = trust.check("timestamp", files["timestamp"][1], "timestamp.json")
    number = timestamp["version"]
    for role, above in (("snapshot", "snapshot.json"), ("targets", "targets.json")):
        named, (key, data) = signed["meta"][above], files[role]
        what = "%d.%s.json" % (number, role)
        if key != number:
            raise Refused("expected %s, found number %d" % (what, key))
        signed = trust.check(role, data, what, number)
        if (named["version"], named["length"], named["hashes"]["sha256"]) != (number, len(data), sha256(data)):
            raise Refused("%s: is not the one that the file above it names" % what)
    digest = sha256(files["timestamp"][1])
    bundle = bundles.setdefault(number, Bundle(digest, timestamp))
    if bundle.digest != digest:
        raise Refused("says to be bundle %d like another part, but was signed apart from it" % number)
    keeper.metadata(dict((role, data) for role, (_, data) in files.items()))
    return bundle, signed["targets"]


def check_trees(part, bundle, targets, keeper):
    named = dict((target["hashes"]["sha256"], target["length"]) for target in targets.values())
    seen = {}
    for _ in part.run("tree"):
        digest, data = part.key, part.body()
        if sha256(data) != digest or named.get(digest) != len(data):
            raise Refused("trees/%s: is no tree that the metadata names" % digest)
        seen[digest] = data
    is_first = bundle.trees == 0
    for name, target in sorted(targets.items()):
        if target["hashes"]["sha256"] not in seen:
            raise Refused("trees/%s (%s): is not there" % (target["hashes"]["sha256"], name))
        if is_first:
            bundle.add_tree(name, seen[target["hashes"]["sha256"]])
    if "site" not in targets:
        raise Refused("target site: is not there")
    bundle.check_groups()
    keeper.targets(dict((name, seen[target["hashes"]["sha256"]]) for name, target in targets.items()))


def check_blobs(part, bundle, keeper):
    for _ in part.run("blob"):
        digest, blob = part.key, bundle.wanted.get(part.key)
        if blob is None:
            raise Refused("blobs/%s: no tree names it" % digest)
        if blob.length != part.length:
            raise Refused("blobs/%s: expected %d bytes, found %d" % (digest, blob.length, part.length))
        found, take = hashlib.sha256(), keeper.blob(digest, blob.length)
        for chunk in part.chunks():
            found.update(chunk)
            take(chunk)
        if found.hexdigest() != digest:
            raise Refused("blobs/%s (%s): has another sha256" % (digest, blob.paths[0]))
        keeper.proved(digest)
        bundle.here.add(digest)


def report(bundle):
    """Says what is there and what is missing. True when the bundle is whole."""
    here = sum(bundle.wanted[digest].length for digest in bundle.here)
    print("bundle %d of site %s: made %s, expires %s" % (bundle.number, bundle.site, bundle.created, bundle.expires))
    print("genuine: %d trees, %d blobs of %d bytes" % (bundle.trees, len(bundle.here), here))
    missing = [(blob, digest) for digest, blob in bundle.wanted.items() if digest not in bundle.here]
    required = sorted((blob.paths[0], digest) for blob, digest in missing if blob.required)
    for path, digest in required:
        print("MISSING: %s (blobs/%s%s)" % (show(path), digest, bundle.holder(digest)))
    if required:
        print("INCOMPLETE: %d required blobs are in none of the given files" % len(required))
    elif missing:
        print("whole; %d blobs are not there that only going back needs" % len(missing))
    else:
        print("whole")
    return not required


class Trust(object):
    """The root in force: the given one, then each newer one that a part brings and the one before signed."""

    def __init__(self, data, work):
        self.work, self.warned, self.signed = work, set(), None
        try:
            if len(data) > MAX_ROOT:
                raise Refused("larger than %d bytes" % MAX_ROOT)
            self.signed = read_metadata("root", data, "root")["signed"]
            self.use(self.check("root", data, "root"))
        except Refused as error:
            raise Refused("ROOT.json: %s" % error)
        except MALFORMED as error:
            raise Refused("ROOT.json: is not a root: %r" % error)
        about = (self.signed["version"], show(self.signed["x-site"]), sha256(data))
        self.about = "root %d of site %s, sha256 %s" % about

    def follow(self, offered):
        """Steps to the newest root of `offered`, version -> bytes."""
        version = self.signed["version"] + 1
        while version in offered:
            what = "%d.root.json" % version
            self.use(self.check("root", offered[version], what, version))
            self.check("root", offered[version], what, version)
            version += 1
        if max(offered) > version:
            raise Refused("%d.root.json: root %d before it is not there" % (max(offered), version))
        self.warn("root %d" % self.signed["version"], self.signed["expires"])

    def use(self, signed):
        """What signatures cannot say: ids are digests, no key has two, thresholds can be met."""
        owners = {}
        for keyid, key in sorted(signed["keys"].items()):
            if sha256(canonical(key).encode("utf-8")) != keyid:
                raise Refused("key %s: its id is not its sha256" % keyid)
            identity = public_numbers(key, "key %s" % keyid)
            if owners.setdefault(identity, keyid) != keyid:
                raise Refused("one public key under two ids: %s and %s" % (owners[identity], keyid))
        for role, rule in signed["roles"].items():
            if not set(rule["keyids"]) <= set(signed["keys"]):
                raise Refused("role %s: a key that is not among the keys" % role)
            if rule["threshold"] > len(rule["keyids"]):
                raise Refused("role %s: a threshold that cannot be met" % role)
        self.signed = signed

    def check(self, role, data, what, version=None):
        """Fields, site, signatures and number of one file. Gives its signed part."""
        doc = read_metadata(role, data, what)
        signed = doc["signed"]
        if signed["x-site"] != self.signed["x-site"]:
            raise Refused("%s: expected site %s, found site %s" % (what, self.signed["x-site"], signed["x-site"]))
        self.check_signatures(role, doc, what)
        if version not in (None, signed["version"]):
            raise Refused("%s: expected number %d, found %d" % (what, version, signed["version"]))
        if role != "root":
            self.warn("bundle %d" % signed["version"], signed["expires"])
        return signed

    def check_signatures(self, role, doc, what):
        rule, message = self.signed["roles"][role], canonical(doc["signed"]).encode("utf-8")
        good = set()
        for signature in doc["signatures"]:
            keyid = signature["keyid"]
            if keyid in rule["keyids"] and keyid not in good:
                if self.is_good(self.signed["keys"][keyid], signature["sig"], message):
                    good.add(keyid)
        if len(good) < rule["threshold"]:
            raise Refused(
                "%s: expected %d good signature(s) by the %s keys of root %d, found %d"
                % (what, rule["threshold"], role, self.signed["version"], len(good))
            )

    def is_good(self, key, signature, message):
        pem, sig = key["keyval"]["public"].encode("ascii"), binascii.unhexlify(signature.encode("ascii"))
        for name, data in (("key", pem), ("signature", sig), ("message", message)):
            with open(os.path.join(self.work, name), "wb") as file:
                file.write(data)
        command = ["openssl", "dgst", "-sha256", "-verify", "key", "-signature", "signature"]
        if key["keytype"] == "rsa":
            command += ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:-2"]
        with open(os.devnull, "r+b") as null:
            return subprocess.call(command + ["message"], cwd=self.work, stdin=null, stdout=null, stderr=null) == 0

    def warn(self, what, expires):
        if seconds(expires, what) <= time.time() and what not in self.warned:
            self.warned.add(what)
            print("warning: %s expired %s; a mirror refuses it" % (what, expires), file=sys.stderr)


class Bundle(object):
    """What is signed of one bundle, and which of its blobs were seen."""

    def __init__(self, digest, timestamp):
        self.digest, self.site, self.number = digest, show(timestamp["x-site"]), timestamp["version"]
        self.created, self.expires = show(timestamp["x-created"]), show(timestamp["expires"])
        self.trees, self.wanted, self.here, self.parts = 0, {}, set(), []
        self.groups, self.targets = set(), set()

    def add_tree(self, name, data):
        """A tree, the site facts or the licenses; each must be about what its target says."""
        self.trees += 1
        about = {"site": self.site, "number": self.number}
        if name == "site":
            if len(data) > MAX_FACTS:
                raise Refused("site facts: larger than %d bytes" % MAX_FACTS)
            self.groups = set(read_canonical(data, dict(FACTS, **about), "site facts")["groups"])
            return
        if name == "licenses":
            self.add_licenses(data, about)
            return
        what = "tree %s" % name
        about["group"], about["role"] = name.split("/")
        doc = read_canonical(data, dict(TREE, **about), what)
        self.targets.add(name)
        for path, entry in sorted(check_paths(doc["entries"], what).items()):
            blob = self.wanted.setdefault(entry["sha256"], Blob(entry["bytes"]))
            if blob.length != entry["bytes"]:
                raise Refused("%s: %s has two sizes" % (what, path))
            blob.required = blob.required or doc["role"] == "current" or entry["kind"] != "immutable"
            blob.paths.append(path)

    def add_licenses(self, data, about):
        """Names sealed blobs and nothing else; all of them are required. None is a path of an origin."""
        if len(data) > MAX_FACTS:
            raise Refused("licenses: larger than %d bytes" % MAX_FACTS)
        doc = read_canonical(data, dict(LICENSES, **about), "licenses")
        if doc["index"] is not None and doc["index"] not in doc["blobs"]:
            raise Refused("licenses: its index is none of its blobs")
        for digest, size in sorted(doc["blobs"].items()):
            blob = self.wanted.setdefault(digest, Blob(size))
            if blob.length != size:
                raise Refused("licenses: %s has two sizes" % digest)
            blob.required = True
            blob.paths.append("licenses/%s" % ("index" if digest == doc["index"] else digest))

    def check_groups(self):
        """Each group of the site facts has its current tree, and no other group has any."""
        for group in sorted(self.groups):
            if group + "/current" not in self.targets:
                raise Refused("site facts: group %s has no current tree" % group)
        for name in sorted(self.targets):
            if name.split("/")[0] not in self.groups:
                raise Refused("tree %s: the site facts do not know its group" % name)

    def holder(self, digest):
        """The part that should hold a blob, as part.json says: nobody signed that, so it is a hint and no more."""
        for number, span in enumerate(self.parts, 1):
            if span is not None and span["first"] <= digest <= span["last"]:
                return ", look in %s-%d-%dof%d.tar" % (self.site, self.number, number, len(self.parts))
        return ""


class Blob(object):
    def __init__(self, length):
        self.length, self.required, self.paths = length, False, []


class Part(object):
    """A strict reader: it takes only what gapferry writes. `section`, `key`, `length`: the entry at hand."""

    def __init__(self, file):
        self.file, self.index, self.key, self.count, self.total = file, -1, "", 0, 0
        self.advance()

    def run(self, *sections):
        """Steps through the entries of these sections; each must be read before the next."""
        while self.section in sections:
            yield self.section

    def chunks(self):
        """The bytes of the entry at hand; then the next one is at hand."""
        left = self.length
        while left > 0:
            chunk = self.read(min(left, CHUNK))
            left -= len(chunk)
            yield chunk
        if self.read(-self.length % BLOCK).strip(b"\0"):
            raise Refused("bytes between two entries")
        self.advance()

    def body(self):
        return b"".join(self.chunks())

    def advance(self):
        block = self.read(BLOCK)
        if block == b"\0" * BLOCK:
            if self.read(BLOCK) != block or self.file.read(1):
                raise Refused("something follows the end of the archive")
            if self.index < HINT:
                raise Refused("the archive ends before part.json")
            self.section = None
            return
        name = block[:100].split(b"\0")[0].decode("latin-1")
        size = re.match(r"[0-7]{11} \Z", block[124:136].decode("latin-1"))
        self.length = int(size.group(0), 8) if size else 0
        if block != header(name, self.length):
            raise Refused("%s: its header is not as gapferry writes it" % name)
        self.place(name)

    def place(self, name):
        """Sections follow each other, names rise inside each, so that none comes twice."""
        for index, (section, pattern, most, size, total) in enumerate(SECTIONS):
            match = re.match("(?:%s)\\Z" % pattern, name)
            if match is None:
                continue
            key = match.group(1) if match.groups() else ""
            key = int(key) if section in ("snapshot", "targets", "root") else key
            if index != self.index:
                self.count = self.total = 0
            self.count, self.total = self.count + 1, self.total + self.length
            if not (key > self.key if index == self.index else index == self.index + 1):
                raise Refused("%s: stands at the wrong place" % name)
            if self.length > size or self.count > most or self.total > total:
                raise Refused("%s: too large, or one too many" % name)
            self.section, self.index, self.key = section, index, key
            return
        raise Refused("%s: is no name that a part may have" % name)

    def read(self, length):
        data = self.file.read(length)
        if len(data) != length:
            raise Refused("the file ends too early")
        return data


def header(name, length):
    """The one header that gapferry writes for an entry."""
    head = name.ljust(100, "\0") + "000644 \0" + "000000 \0" * 2 + "%011o 00000000000 " % length
    tail = "0" + "\0" * 100 + "ustar\x0000" + "\0" * 64 + "000000 \0" * 2 + "\0" * 167
    total = sum(bytearray((head + " " * 8 + tail).encode("latin-1")))
    return (head + "%06o \0" % total + tail).encode("latin-1")


def read_metadata(role, data, what):
    """One metadata file: its fields, and the one spelling, which is what JSON.stringify(doc, null, 1) makes of it."""
    doc = parse(data, what, OrderedDict)
    check(doc, METADATA[role], what)
    # json.dumps writes texts as JSON.stringify does where they are ASCII: all were found to be.
    if (json.dumps(doc, indent=1, separators=(",", ": ")) + "\n").encode("utf-8") != data:
        raise Refused("%s: is not spelled as gapferry spells it" % what)
    if len(set(signature["keyid"] for signature in doc["signatures"])) != len(doc["signatures"]):
        raise Refused("%s: one key signed twice" % what)
    signed = doc["signed"]
    if role == "timestamp" and seconds(signed["x-created"], what) >= seconds(signed["expires"], what):
        raise Refused("%s: expires before it was made" % what)
    return doc


def public_numbers(key, what):
    """What two spellings of one key have in common. Only P-256 and RSA of 2048 bits or more, in plain PEM."""
    pem = key["keyval"]["public"]
    match = PEM.match(pem)
    der = base64.b64decode(match.group(1)) if match else b""
    plain = base64.b64encode(der).decode("ascii")
    if match and match.group(1) == "\n".join(plain[at:at + 64] for at in range(0, len(plain), 64)):
        kind = (key["keytype"], key["scheme"])
        if kind == ("ecdsa", "ecdsa-sha2-nistp256") and len(der) == 91 and der.startswith(P256_HEAD):
            return der
        head = RSA_HEAD.match(der)
        if kind == ("rsa", "rsassa-pss-sha256") and head:
            length = int(binascii.hexlify(head.group(1)), 16)
            modulus = int(binascii.hexlify(der[head.end():head.end() + length]), 16)
            if modulus.bit_length() >= 2048:
                return modulus
    raise Refused("%s: expected ECDSA P-256 or RSA-PSS of 2048 bits or more, in plain PEM" % what)


def read_canonical(data, rule, what):
    """A tree, the site facts or part.json: one content has one spelling."""
    doc = parse(data, what)
    check(doc, rule, what)
    if canonical(doc).encode("utf-8") != data:
        raise Refused("%s: is not in canonical form" % what)
    return doc


def check_paths(entries, what):
    """A tree can be unpacked: no path is a folder of another. A companion's pointer is in the same tree."""
    companions = {}
    for path, entry in sorted(entries.items()):
        segments = path.split("/")
        for folder in ("/".join(segments[:depth]) for depth in range(1, len(segments))):
            if folder in entries:
                raise Refused("%s: %s is both a file and a folder" % (what, folder))
        if ("of" in entry) != (entry["kind"] == "companion"):
            raise Refused('%s: %s: "of" goes with companions' % (what, path))
        if "of" in entry:
            pointer = entry["of"]
            if pointer not in entries or entries[pointer]["kind"] != "pointer":
                raise Refused("%s: %s: its pointer is not in the tree" % (what, path))
            companions[pointer] = companions.get(pointer, 0) + 1
            if companions[pointer] > 16:
                raise Refused("%s: %s has more than 16 companions" % (what, pointer))
    return entries


def check_hint(data, bundle):
    """part.json, which nobody signed. Gives what it says that each part holds."""
    doc = read_canonical(data, dict(PART, site=bundle.site, number=bundle.number), "part.json")
    if doc["part"] > len(doc["parts"]):
        raise Refused("part.json: is part %d of %d" % (doc["part"], len(doc["parts"])))
    return doc["parts"]


def canonical(value):
    """Canonical JSON, which is what signatures cover: sorted, no spaces, only quotes and backslashes escaped."""
    if isinstance(value, dict):
        return u"{%s}" % u",".join(canonical(key) + u":" + canonical(value[key]) for key in sorted(value))
    if isinstance(value, list):
        return u"[%s]" % u",".join(canonical(item) for item in value)
    if isinstance(value, bool) or value is None:
        return {True: u"true", False: u"false", None: u"null"}[value]
    if isinstance(value, numbers.Integral):
        return u"%d" % value
    return u'"%s"' % value.replace(u"\\", u"\\\\").replace(u'"', u'\\"')


def parse(data, what, kind=dict):
    """JSON without doubled keys and without numbers that are not whole. Deep nesting ends at Python's own limit."""
    if sum(data.count(mark) for mark in (b",", b"[", b"{")) > MAX_VALUES:
        raise Refused("%s: holds too many values" % what)

    def pairs(found):
        value = kind(found)
        if len(value) != len(found):
            names = sorted(name for name, _ in found)
            twice = [name for name, after in zip(names, names[1:]) if name == after]
            raise Refused("%s: key %s stands twice" % (what, twice[0]))
        return value

    def whole(number):
        if not re.match(r"-?[0-9]{1,16}\Z", number):
            raise Refused("%s: %s is not a whole number, or too large" % (what, number[:40]))
        return int(number)

    try:
        hooks = {"parse_int": whole, "parse_float": whole, "parse_constant": whole}
        return json.loads(data.decode("utf-8"), object_pairs_hook=pairs, **hooks)
    except (ValueError, RuntimeError):
        raise Refused("%s: is not JSON that can be read" % what)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def show(value):
    """Text that cannot play tricks on a terminal, nor on Python 2."""
    text = value if isinstance(value, type(u"")) else str(value)
    return str(re.sub(r"[^\x20-\x7e]", "?", text[:2000]))


# What each document must be, as FORMAT.md says it, and the one function that compares: check().
Text = namedtuple("Text", "pattern called")
Whole = namedtuple("Whole", "least most")
OneOf = namedtuple("OneOf", "values")
List = namedtuple("List", "item least most is_unique")
Map = namedtuple("Map", "key item least most")


def check(value, rule, what):
    """Refuses a value that breaks a rule. A dict is an object with these fields and no other, where `name?` may be left
    out and `x-*` stands for further texts; a function judges by itself; anything else is the very value."""
    is_good, expected = True, rule
    if isinstance(rule, dict):
        check_fields(value, rule, what)
    elif isinstance(rule, (List, Map)):
        check_each(value, rule, what)
    elif callable(rule):
        rule(value, what)
    elif isinstance(rule, Text):
        is_good, expected = isinstance(value, type(u"")) and rule.pattern.match(value), rule.called
    elif isinstance(rule, Whole):
        is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        is_good, expected = is_whole and rule.least <= value <= rule.most, "a whole number from %d to %d" % rule
    elif isinstance(rule, OneOf):
        is_good, expected = value in rule.values, "one of " + ", ".join(rule.values)
    else:
        is_good = value == rule and isinstance(value, bool) == isinstance(rule, bool)
    if not is_good:
        raise Refused("%s: expected %s, found %s" % (what, expected, value))


def digest_or_none(value, what):
    if value is not None:
        check(value, DIGEST, what)


def check_fields(value, rule, what):
    if not isinstance(value, dict):
        raise Refused("%s: expected an object" % what)
    for name in sorted(rule):
        if name[-1] not in "?*" and name not in value:
            raise Refused("%s: field %s is not there" % (what, name))
    for name in sorted(value):
        spelled = name if name in rule else name + "?"
        if "x-*" in rule and spelled not in rule and EXTRA.match(name):
            spelled = "x-*"
        if spelled not in rule or name[-1:] in ("?", "*"):
            raise Refused("%s: unknown field %s" % (what, name))
        check(value[name], rule[spelled], "%s: %s" % (what, name))


def check_each(value, rule, what):
    is_map = isinstance(rule, Map)
    if not isinstance(value, dict if is_map else list) or not rule.least <= len(value) <= rule.most:
        raise Refused("%s: expected %d to %d of them" % (what, rule.least, rule.most))
    for key, item in sorted(value.items()) if is_map else enumerate(value):
        if is_map:
            check(key, rule.key, what)
        check(item, rule.item, "%s: %s" % (what, key))
    if not is_map and rule.is_unique and len(set(canonical(item) for item in value)) != len(value):
        raise Refused("%s: one of them twice" % what)


def seconds(value, what):
    """A time as seconds since 1970."""
    check(value, TIME, what)
    try:
        return calendar.timegm(time.strptime(value, "%Y-%m-%dT%H:%M:%SZ"))
    except ValueError:
        raise Refused("%s: %s is not a time" % (what, value))


def tree_path(value, what):
    """A path is relative and has one spelling; nothing in it means a folder above."""
    check(value, PATH, what)
    segments = value.split("/")
    if len(segments) > 32 or any(segment in ("", ".", "..") or len(segment) > 255 for segment in segments):
        raise Refused("%s: %s is no path (empty or dot segment, or too long)" % (what, value))


def origin(value, what):
    """Scheme, host and port in one spelling: no path, no default port."""
    check(value, ORIGIN, what)
    port = re.search(":([0-9]+)\\Z", value)
    is_default = port and value.split(":")[0] + port.group(0) in ("http:80", "https:443")
    if len(value) > 300 or is_default or (port and int(port.group(1)) > 65535):
        raise Refused("%s: %s is not an origin" % (what, value))


def span(value, what):
    if value is not None:
        check(value, {"first": DIGEST, "last": DIGEST}, what)


def text(pattern, called):
    return Text(re.compile("(?:%s)\\Z" % pattern), called)


def printable(least, most):
    return text("[\\x20-\\x7e]{%d,%d}" % (least, most), "%d to %d printable characters" % (least, most))


def metadata(role, about):
    common = {"_type": role, "spec_version": "1.0.31", "version": NUMBER, "expires": seconds, "x-site": NAME}
    signature = {"keyid": DIGEST, "sig": text("(?:[0-9a-f]{2}){8,1024}", "a signature in hex")}
    signed = dict(list(common.items()) + list(about.items()), **{"x-*": printable(0, 1024)})
    return {"signatures": List(signature, 0, 32, True), "signed": signed}


def document(kind, about):
    return dict({"_type": kind, "format": 1, "site": NAME, "number": NUMBER}, **about)


NAME_PATTERN = "[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?"
NAME = text(NAME_PATTERN, "a name")
REPOSITORY = text("[A-Za-z0-9][A-Za-z0-9._:-]{0,63}", "a repository id")
DIGEST = text("[0-9a-f]{64}", "64 lower-case hex digits")
TIME = text("[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-5][0-9]Z", "a time")
MEDIA_TYPE = text("[a-z0-9.+-]+/[a-z0-9.+-]+(?:; ?charset=utf-8)?", "a media type")
TARGET = text("site|licenses|%s/(?:current|previous|return)" % NAME_PATTERN, "site, licenses or GROUP/current, previous or return")
ORIGIN = text(r"https?://(?:[a-z0-9._-]+|\[[0-9a-f:]+\])(?::[1-9][0-9]{0,4})?", "an origin")
PATH = text(r'[!"$&->@-\[\]-~]{1,1024}', "a path: printable ASCII without space, \\, %, ? and #")
EXTRA = re.compile(r"x-[a-z-]{1,32}\Z")
NUMBER = Whole(1, 2 ** 40)
SIZE = Whole(0, MAX_BLOB)
FILE = {"length": SIZE, "hashes": {"sha256": DIGEST}}
NAMED = dict(FILE, version=NUMBER)
PUBLIC = text(r"[\x20-\x7e\n]{0,2048}", "PEM")
KEYTYPE, SCHEME = OneOf(("ecdsa", "rsa")), OneOf(("ecdsa-sha2-nistp256", "rsassa-pss-sha256"))
KEY = {"keytype": KEYTYPE, "scheme": SCHEME, "keyval": {"public": PUBLIC}}
ROLE = {"keyids": List(DIGEST, 1, 32, True), "threshold": Whole(1, 32)}
ROLES = {"root": ROLE, "timestamp": ROLE, "snapshot": ROLE, "targets": ROLE}
ROOT = {"keys": Map(DIGEST, KEY, 1, 64), "roles": ROLES, "consistent_snapshot": True}
TIMESTAMP = {"meta": {"snapshot.json": NAMED}, "x-created": seconds, "x-bundler": printable(1, 128)}
TARGETS = {"targets": Map(TARGET, FILE, 1, 700)}
SNAPSHOT = {"meta": {"targets.json": NAMED}}
ABOUT = {"root": ROOT, "timestamp": TIMESTAMP, "snapshot": SNAPSHOT, "targets": TARGETS}
METADATA = dict((role, metadata(role, about)) for role, about in ABOUT.items())
ENTRY = {"sha256": DIGEST, "bytes": SIZE, "modified": Whole(0, 2 ** 40), "type": MEDIA_TYPE}
ENTRY["kind"] = OneOf(("immutable", "pointer", "companion"))
ENTRY.update({"of?": tree_path, "source?": printable(1, 2048)})
ENTRY["verdict?"] = OneOf(("good", "bad", "unsigned", "unchecked"))
ENTRIES, STAMPS = Map(tree_path, ENTRY, 0, 20000), Map(REPOSITORY, NUMBER, 0, 1000)
TREE_ROLE = OneOf(("current", "previous", "return"))
TREE = document("gapferry-tree", {"group": NAME, "role": TREE_ROLE, "stamps": STAMPS, "entries": ENTRIES})
GROUP = {"origin": origin, "yum": List({"id": REPOSITORY}, 0, 1000, True), "files": List(tree_path, 0, 10000, True)}
FACTS = document("gapferry-site", {"createdAt": seconds, "groups": Map(NAME, GROUP, 0, 10000)})
BLOBS = Map(DIGEST, Whole(1, MAX_LICENSE), 1, MAX_LICENSES + 1)
LICENSES = document("gapferry-licenses", {"index": digest_or_none, "blobs": BLOBS})
PART = document("gapferry-part", {"part": Whole(1, 256), "parts": List(span, 1, 256, False)})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
