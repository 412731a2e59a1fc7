"""Runs a command on a terminal of its own. argv: JSON list of [text to wait for, keys to type], then the command.
Prints JSON: what the terminal showed, the exit status, how many steps were left."""
import json
import os
import pty
import select
import sys

WAIT_SECONDS = 60

steps = json.loads(sys.argv[1])
pid, fd = pty.fork()
if pid == 0:
    os.execv(sys.argv[2], sys.argv[2:])
shown = b''
seen = 0
while select.select([fd], [], [], WAIT_SECONDS)[0]:
    try:
        data = os.read(fd, 65536)
    except OSError:  # Linux says so when the other side is closed
        break
    if not data:
        break
    shown += data
    while steps and steps[0][0].encode() in shown[seen:]:
        seen = shown.index(steps[0][0].encode(), seen) + len(steps[0][0].encode())
        os.write(fd, steps.pop(0)[1].encode())
else:
    os.kill(pid, 9)
status = os.waitpid(pid, 0)[1]
code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
print(json.dumps({'shown': shown.decode('utf8', 'replace'), 'status': code, 'left': len(steps)}))
