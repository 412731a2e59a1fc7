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

BLOCK = 512
CHUNK = 1024 * 1024
MAX_ROOT = 512000
# The sections of a part in their order: pattern of names, most entries, most bytes of one entry.
SECTIONS = (
    ("timestamp", r"metadata/timestamp\.json", 1, 16384),
    ("snapshot", r"metadata/([1-9][0-9]{0,12})\.snapshot\.json", 1, 16384),
    ("targets", r"metadata/([1-9][0-9]{0,12})\.targets\.json", 1, 262144),
    ("root", r"metadata/([1-9][0-9]{0,12})\.root\.json", 256, MAX_ROOT),
    ("tree", r"trees/([0-9a-f]{64})", 700, 32 * 1024 * 1024),
    ("hint", r"part\.json", 1, 65536),
    ("blob", r"blobs/([0-9a-f]{64})", 20000, 2 ** 31 - 1),
)
HINT = 5
P256_HEAD = binascii.unhexlify("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
RSA_OID = binascii.unhexlify("06092a864886f70d010101")
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
    work = tempfile.mkdtemp(prefix="gapferry-verify-")
    try:
        with open(arguments[0], "rb") as file:
            trust = Trust(file.read(MAX_ROOT + 1), work)
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


def check_part(path, trust, bundles):
    """Reads one part front to end; adds what it proves to `bundles`, by number."""
    name = show(os.path.basename(path))
    with open(path, "rb") as file:
        try:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Refused("is not a plain file")
            part = Part(file)
            bundle, targets = check_metadata(part, trust, bundles)
            check_trees(part, bundle, targets)
            bundle.parts = parse(part.body())["parts"]
            check_blobs(part, bundle)
        except Refused as error:
            raise Refused("%s: %s" % (name, error))
        except MALFORMED as error:
            raise Refused("%s: malformed: %r" % (name, error))


def check_metadata(part, trust, bundles):
    """timestamp -> snapshot -> targets, under the newest root. Gives the bundle and its targets."""
    files = dict((section, (part.key, part.body())) for section in part.run("timestamp", "snapshot", "targets"))
    trust.follow(dict((part.key, part.body()) for _ in part.run("root")))
    data = files["timestamp"][1]
    number = parse(data)["signed"]["version"]
    timestamp = signed = trust.check("timestamp", data, "timestamp.json", number)
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
    return bundle, signed["targets"]


def check_trees(part, bundle, targets):
    named = dict((target["hashes"]["sha256"], target["length"]) for target in targets.values())
    seen = {}
    for _ in part.run("tree"):
        digest, data = part.key, part.body()
        if sha256(data) != digest or named.get(digest) != len(data):
            raise Refused("trees/%s: is no tree that the metadata names" % digest)
        seen[digest] = parse(data)
    is_first = bundle.trees == 0
    for name, target in sorted(targets.items()):
        if target["hashes"]["sha256"] not in seen:
            raise Refused("trees/%s (%s): is not there" % (target["hashes"]["sha256"], name))
        if is_first:
            bundle.add_tree(name, seen[target["hashes"]["sha256"]])
    if "site" not in targets:
        raise Refused("target site: is not there")


def check_blobs(part, bundle):
    for _ in part.run("blob"):
        digest, blob = part.key, bundle.wanted.get(part.key)
        if blob is None:
            raise Refused("blobs/%s: no tree names it" % digest)
        if blob.length != part.length:
            raise Refused("blobs/%s: expected %d bytes, found %d" % (digest, blob.length, part.length))
        found = hashlib.sha256()
        for chunk in part.chunks():
            found.update(chunk)
        if found.hexdigest() != digest:
            raise Refused("blobs/%s (%s): has another sha256" % (digest, blob.paths[0]))
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
            self.signed = parse(data)["signed"]
            self.use(self.check("root", data, "root", whole_number(self.signed["version"])))
        except Refused as error:
            raise Refused("ROOT.json: %s" % error)
        except MALFORMED as error:
            raise Refused("ROOT.json: is not a root: %r" % error)
        print("root %d of site %s, sha256 %s" % (self.signed["version"], show(self.signed["x-site"]), sha256(data)))

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
        for keyid, key in signed["keys"].items():
            if sha256(canonical(key).encode("utf-8")) != keyid:
                raise Refused("key %s: its id is not its sha256" % keyid)
            der = base64.b64decode(PEM.match(key["keyval"]["public"]).group(1))
            kind = (key["keytype"], key["scheme"])
            is_p256 = kind == ("ecdsa", "ecdsa-sha2-nistp256") and len(der) == 91 and der.startswith(P256_HEAD)
            is_rsa = kind == ("rsa", "rsassa-pss-sha256") and RSA_OID in der[:24]
            if not is_p256 and not is_rsa:
                raise Refused("key %s: expected ECDSA P-256 or RSA-PSS" % keyid)
            if owners.setdefault(der, keyid) != keyid:
                raise Refused("one public key under two ids: %s and %s" % (owners[der], keyid))
        for role in ("root", "timestamp", "snapshot", "targets"):
            rule = signed["roles"][role]
            if len(set(rule["keyids"])) != len(rule["keyids"]):
                raise Refused("role %s: a key id twice" % role)
            if not 1 <= whole_number(rule["threshold"]) <= len(rule["keyids"]):
                raise Refused("role %s: a threshold that cannot be met" % role)
        self.signed = signed

    def check(self, role, data, what, version):
        """Site, signatures and number of one file. Gives its signed part."""
        doc = parse(data)
        signed = doc["signed"]
        if signed["_type"] != role:
            raise Refused("%s: expected %s metadata, found %s" % (what, role, signed["_type"]))
        if signed["x-site"] != self.signed["x-site"]:
            raise Refused("%s: expected site %s, found site %s" % (what, self.signed["x-site"], signed["x-site"]))
        self.check_signatures(role, doc, what)
        if whole_number(signed["version"]) != version:
            raise Refused("%s: expected number %d, found %d" % (what, version, signed["version"]))
        if "delegations" in signed:
            raise Refused("%s: expected no delegations" % what)
        if role != "root":
            self.warn("bundle %d" % version, signed["expires"])
        return signed

    def check_signatures(self, role, doc, what):
        rule, message = self.signed["roles"][role], canonical(doc["signed"]).encode("utf-8")
        good = set()
        for signature in doc["signatures"]:
            keyid = signature["keyid"]
            if keyid in rule["keyids"] and keyid not in good:
                if self.is_good(self.signed["keys"][keyid], signature["sig"], message):
                    good.add(keyid)
        if len(good) < whole_number(rule["threshold"]):
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
        if calendar.timegm(time.strptime(expires, "%Y-%m-%dT%H:%M:%SZ")) <= time.time() and what not in self.warned:
            self.warned.add(what)
            print("warning: %s expired %s; a mirror refuses it" % (what, expires), file=sys.stderr)


class Bundle(object):
    """What is signed of one bundle, and which of its blobs were seen."""

    def __init__(self, digest, timestamp):
        self.digest, self.site, self.number = digest, show(timestamp["x-site"]), timestamp["version"]
        self.created, self.expires = show(timestamp["x-created"]), show(timestamp["expires"])
        self.trees, self.wanted, self.here, self.parts = 0, {}, set(), []

    def add_tree(self, name, doc):
        about = {"_type": "gapferry-site" if name == "site" else "gapferry-tree", "site": self.site, "number": self.number}
        if name != "site":
            about["group"], about["role"] = name.split("/")
        for field, value in about.items():
            if doc[field] != value:
                raise Refused("tree %s: expected %s %s, found %s" % (name, field, value, doc[field]))
        self.trees += 1
        for path, entry in sorted(doc.get("entries", {}).items()):
            blob = self.wanted.setdefault(entry["sha256"], Blob(entry["bytes"]))
            if blob.length != entry["bytes"]:
                raise Refused("tree %s: %s has two sizes" % (name, path))
            blob.required = blob.required or doc["role"] == "current" or entry["kind"] != "immutable"
            blob.paths.append(path)

    def holder(self, digest):
        """The part that should hold a blob, as part.json says: nobody signed that, so it is a hint and no more."""
        try:
            for number, span in enumerate(self.parts, 1):
                if span is not None and span["first"] <= digest <= span["last"]:
                    return ", look in %s-%d-%dof%d.tar" % (self.site, self.number, number, len(self.parts))
        except MALFORMED:
            pass
        return ""


class Blob(object):
    def __init__(self, length):
        self.length, self.required, self.paths = whole_number(length, 0), False, []


class Part(object):
    """A strict reader: it takes only what gapferry writes. `section`, `key`, `length`: the entry at hand."""

    def __init__(self, file):
        self.file, self.index, self.key, self.count = file, -1, "", 0
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
        for index, (section, pattern, most, size) in enumerate(SECTIONS):
            match = re.match("(?:%s)\\Z" % pattern, name)
            if match is None:
                continue
            key = match.group(1) if match.groups() else ""
            key = int(key) if section in ("snapshot", "targets", "root") else key
            self.count = self.count + 1 if index == self.index else 1
            if not (key > self.key if index == self.index else index == self.index + 1):
                raise Refused("%s: stands at the wrong place" % name)
            if self.length > size or self.count > most:
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


def parse(data):
    return json.loads(data.decode("utf-8"))


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def whole_number(value, least=1):
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise Refused("expected a whole number, found %s" % value)
    return value


def show(value):
    """Text that cannot play tricks on a terminal, nor on Python 2."""
    text = value if isinstance(value, type(u"")) else str(value)
    return str(re.sub(r"[^\x20-\x7e]", "?", text[:2000]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
