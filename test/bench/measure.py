"""Runs one command to its end and prints what it used, with all processes that it waited for, as one JSON object.

Node cannot ask for this: its own process would have to be measured from inside, and the peers' not at all. Peak memory is
that of the largest single process; it is never below this interpreter's own (about 10 MB), which the command starts from.
Output goes to a file, because grep stops at the first match when it sees that nobody will read.
"""
import json
import resource
import subprocess
import sys
import tempfile
import time

with tempfile.TemporaryFile() as output:
    start = time.monotonic()
    done = subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.PIPE)
    wall = time.monotonic() - start
if done.returncode != 0:
    sys.stderr.buffer.write(done.stderr)
    sys.exit("%s: exit status %d" % (" ".join(sys.argv[1:]), done.returncode))
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({
    "wallSeconds": wall,
    "cpuSeconds": used.ru_utime + used.ru_stime,
    "userSeconds": used.ru_utime,
    "peakMb": used.ru_maxrss * 1024 / 1e6,
}))
