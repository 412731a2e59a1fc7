"""Writes back to the stick what was applied: BOX.gfi (the inventory) and BOX-NUMBER.applied.

usage: python - name=value... (source of verify.py on descriptor 3). A stick is foreign: no link on it is followed, so that
nothing outside of it is written. Format: manifests/FORMAT.md of Gapferry.
"""
from __future__ import print_function

import base64
import errno
import hashlib
import os
import re
import stat
import subprocess
import sys
import time
import types

verify = types.ModuleType("verify")
exec(compile(os.fdopen(3, "rb").read(), "verify.py", "exec"), verify.__dict__)

PEM = re.compile(b"-----BEGIN CERTIFICATE-----\\s([A-Za-z0-9+/=\\s]+)-----END CERTIFICATE-----")
FIELDS = ("box", "group", "site", "tool", "created", "expires", "origin")


def main(arguments):
    given = dict(argument.split("=", 1) for argument in arguments)
    with open(given["inventory"], "rb") as file:
        inventory = file.read()
    files = [("%s-%s.applied" % (given["box"], given["number"]), applied(given, inventory))]
    if inventory:
        files.append(("%s.gfi" % given["box"], inventory))
    place = os.path.join(given["data"], "report")
    keep(place, files)
    folder = given["folder"]
    is_inside = os.path.basename(os.path.normpath(folder)) == given["site"]
    below = given["below"].split("/") if given["below"] else [] if is_inside else ["gapferry", given["site"]]
    below.append("report")
    try:
        enter(folder, below)
        for name, data in files:
            put(name, data)
    except EnvironmentError as error:
        print("gapferry-box: the stick cannot be written: %s\n  next: the files are in %s; bring them to the laptop another way"
              % (verify.show(error), given["data"] + "/report"), file=sys.stderr)
        return 1
    for name, _ in files:
        print("written to the stick: %s" % "/".join(below[-1:] + [name]))
    return 0


def applied(given, inventory):
    """Signed with the box's key where it has one."""
    doc = dict((name, verify.show(given[name])) for name in FIELDS)
    doc.update({"_type": "gapferry-applied", "format": 1, "number": int(given["number"]), "isOnce": given["once"] == "1"})
    doc["appliedAt"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    doc["inventory"] = hashlib.sha256(inventory).hexdigest() if inventory else None
    doc["reason"] = given["reason"] or None
    certificate, signature = sign(given["settings"], verify.canonical(doc).encode("ascii"))
    whole = {"applied": doc, "certificate": certificate, "signature": signature}
    return verify.canonical(whole).encode("ascii") + b"\n"


def sign(settings, data):
    key, certificate = settings + "/box.key", settings + "/box.pem"
    if not os.path.isfile(key) or not os.path.isfile(certificate):
        return None, None
    with open(certificate, "rb") as file:
        match = PEM.search(file.read(65536))
    command = ["openssl", "dgst", "-sha256", "-sign", key]
    with open(os.devnull, "r+b") as null:
        openssl = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=null)
        signature = openssl.communicate(data)[0]
    if openssl.returncode != 0 or not match:
        return None, None
    plain = base64.b64decode(b"".join(match.group(1).split()))
    return [base64.b64encode(one).decode("ascii") for one in (plain, signature)]


def keep(place, files):
    """On the box, too: the stick may be write-protected."""
    if not os.path.isdir(place):
        os.mkdir(place, 0o700)
    os.chdir(place)
    for name, data in files:
        put(name, data)


def enter(folder, below):
    """Goes into folders, made where they are not, and never through a link."""
    os.chdir(folder)
    for name in below:
        if not os.path.lexists(name):
            os.mkdir(name, 0o755)
        before = os.lstat(name)
        if not stat.S_ISDIR(before.st_mode):
            raise OSError(errno.ENOTDIR, "%s is not a folder" % name)
        os.chdir(name)
        after = os.stat(".")
        if (before.st_dev, before.st_ino) != (after.st_dev, after.st_ino):
            raise OSError(errno.ELOOP, "%s was exchanged" % name)


def put(name, data):
    fresh = name + ".new"
    if os.path.lexists(fresh):
        os.unlink(fresh)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(fresh, name)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except EnvironmentError as error:
        print("gapferry-box: what was applied could not be written down: %s" % verify.show(error), file=sys.stderr)
        sys.exit(1)
