"""Applies one file after the other to a box that is a folder, in one process at a given time: apply.py without its shell.

stdin: JSON with verify and apply (sources), root (the box), now (seconds), reserve (bytes, as RESERVE there), runs (options of apply.py; `now` for
another time).
stdout: JSON, for each run code ("accepted", the code of FORMAT.md, or "refused"), message, isUnchanged, cpuMs; and peakBytes.
"""
import hashlib
import json
import os
import resource
import sys
import tempfile
import time

given = json.loads(sys.stdin.read())
source = tempfile.TemporaryFile()
source.write(given["verify"].encode("utf-8"))
source.seek(0)
os.dup2(source.fileno(), 3)
clock = {"now": given["now"]}
time.time = lambda: clock["now"]
tool = {"__name__": "apply"}
exec(compile(given["apply"], "apply.py", "exec"), tool)
tool["RESERVE"] = given.get("reserve", tool["RESERVE"])
home = tool["Home"](given["root"])


def state():
    found = []
    for top in (home.settings, home.data):
        for folder, folders, files in os.walk(top):
            folders.sort()
            for name in sorted(folders + files):
                path = os.path.join(folder, name)
                if os.path.islink(path):
                    found.append((path, os.readlink(path)))
                elif os.path.isfile(path):
                    with open(path, "rb") as file:
                        found.append((path, hashlib.sha256(file.read()).hexdigest()))
                else:
                    found.append((path, ""))
    return found


def run(options):
    clock["now"] = options.pop("now", given["now"])
    try:
        answer = tool["apply"](home, dict(options, root=given["root"]))
        return "accepted", json.dumps(answer)
    except tool["Stop"] as stop:
        return stop.code, str(stop)
    except tool["verify"].Refused as error:
        return "refused", str(error)
    except EnvironmentError as error:
        return "errno %s" % error.errno, str(error)
    finally:
        home.sweep()


sys.stderr = open(os.devnull, "w")
results, before = [], state()
for options in given["runs"]:
    started = sum(os.times()[:4])
    code, message = run(options)
    spent = sum(os.times()[:4]) - started
    after = state()
    results.append({"code": code, "message": message, "isUnchanged": after == before, "cpuMs": spent * 1000})
    before = after
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
sys.stdout.write(json.dumps({"results": results, "peakBytes": peak}))
