# Which servers answer, and which names have an address: standard input names them, one in a line, as "dns ADDRESS",
# "ntp HOST" and "name HOST" (a port may follow). All are asked at once; whoever has not answered by the end has not.
from __future__ import print_function

import os
import socket
import struct
import sys
import threading
import time

MAX_ASKED = 64
WAIT_SECONDS = 5.0
ANSWER_SECONDS = 3.0
# between 1900, where NTP counts from, and 1970
NTP_EPOCH = 2208988800


def ask(host, port, questions, is_answer):
    """The first answer of whichever address the host has to any of the questions, and when it was asked and answered."""
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, 0, socket.SOCK_DGRAM)[:2]:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(ANSWER_SECONDS)
            sock.connect(address)
            sent = time.time()
            for question in questions:
                sock.send(question)
            answer = sock.recv(1024)
            if is_answer(answer):
                return answer, sent, time.time()
        except (socket.error, socket.timeout):
            pass
        finally:
            sock.close()
    return None


def dns(host, port):
    # What a server answers or refuses by itself, without asking another one; not every server answers the first.
    number = os.urandom(2)
    asked = (b"\x07version\x04bind\x00", 16, 3), (b"\x09localhost\x00", 1, 1)
    questions = [number + struct.pack(">HHHHH", 256, 1, 0, 0, 0) + name + struct.pack(">HH", kind, place) for name, kind, place in asked]
    answer = ask(host, port or 53, questions, lambda text: len(text) >= 12 and text[:2] == number)
    return "yes" if answer else "no"


def ntp(host, port):
    answer = ask(host, port or 123, [b"\x1b" + 47 * b"\x00"], lambda text: len(text) >= 48)
    if not answer:
        return "no"
    text, sent, came = answer
    seconds = [whole - NTP_EPOCH + part / 4294967296.0 for whole, part in (struct.unpack(">II", text[at : at + 8]) for at in (32, 40))]
    if seconds[1] < 0:  # it has no time itself
        return "no"
    return "%.3f" % ((seconds[0] - sent + seconds[1] - came) / 2)


def name(host, _):
    return "yes" if socket.getaddrinfo(host, None) else "no"


ASK = {"dns": dns, "ntp": ntp, "name": name}
FACTS = (("dns", "dns-answers"), ("ntp", "time-answers"), ("name", "name-answers"))


def main():
    asked = []
    for line in sys.stdin:
        words = line.split()
        if len(words) > 1 and words[0] in ASK and words not in asked and len(asked) < MAX_ASKED:
            asked.append(words)
    found = {}

    def look(words):
        try:
            port = int(words[2]) if len(words) > 2 else 0
            found[tuple(words)] = ASK[words[0]](words[1], port)
        except Exception:
            pass

    threads = [threading.Thread(target=look, args=(words,)) for words in asked]
    for thread in threads:
        thread.daemon = True
        thread.start()
    end = time.time() + WAIT_SECONDS
    for thread in threads:
        thread.join(max(0, end - time.time()))
    for kind, fact in FACTS:
        texts = ["%s=%s" % (words[1], found.get(tuple(words), "no")) for words in asked if words[0] == kind]
        if texts:
            print(fact + " " + " ".join(texts))
    sys.stdout.flush()
    os._exit(0)  # a resolver that hangs holds its thread


main()
