"""A bad link between two network namespaces: rate, delay, loss, a queue with an end, and connections that are reset.

Kernels without netem have nothing for this, so each namespace gets a TUN device, and every packet passes through here.
The namespaces have no names: they, the devices and the two processes that hold them are gone with this process, however
it ends. It ends with its standard input. Needs root.

  link.py OPTIONS    as JSON: bitsPerSecond and queueBytes of each direction, delayMs of one way, loss of each direction
                     (0 to 1), congestion (the TCP congestion control of both sides), near and far (their addresses)
First line of output: {"near": PID, "far": PID}, processes to enter the namespaces by. Then for each line of input,
{"seed": N, "resetBytes": N or null}, what went over the link since the line before, and the counters begin anew. With
resetBytes a connection is reset as soon as the far side has sent half to one and a half of that.
"""
import ctypes
import fcntl
import json
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import deque

CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
TCP, SYN, RST = 6, 2, 4
RESET = "reset"
PACKET_BYTES = 65536
LIBC = ctypes.CDLL(None, use_errno=True)


def open_end(own, other, congestion):
    """A process that holds a namespace, and the TUN device in it."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid > 0:
        theirs.close()
        _, tuns, _, _ = socket.recv_fds(ours, 1, 1)
        if not tuns:
            sys.exit("the network namespace could not be made")
        os.set_blocking(tuns[0], False)
        return pid, tuns[0]
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if LIBC.unshare(CLONE_NEWNET) != 0:
        sys.exit("cannot make a network namespace: " + os.strerror(ctypes.get_errno()))
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"modem", IFF_TUN | IFF_NO_PI))
    # What one run learned of the link must not help the next.
    with open("/proc/sys/net/ipv4/tcp_no_metrics_save", "w") as setting:
        setting.write("1")
    up = ["link set lo up", "link set dev modem up", "addr add %s dev modem" % own]
    for line in [*up, "route add %s dev modem congctl %s" % (other, congestion)]:
        subprocess.run(["ip", *line.split()], check=True)
    socket.send_fds(theirs, [b"x"], [tun])
    os.close(tun)
    signal.pause()


class Direction:
    def __init__(self, options, out):
        self.bytes_per_second = options["bitsPerSecond"] / 8
        self.queue_seconds = options["queueBytes"] / self.bytes_per_second
        self.delay = options["delayMs"] / 1000
        self.loss = options["loss"]
        self.out = out
        self.packets = deque()
        self.free_at = 0
        self.restart()

    def restart(self):
        self.bytes = self.count = self.lost = self.overflowed = 0

    def take(self, packet, now):
        start = max(now, self.free_at)
        if start - now > self.queue_seconds:
            self.overflowed += 1
            return
        self.free_at = start + len(packet) / self.bytes_per_second
        self.count += 1
        self.bytes += len(packet)
        if random.random() < self.loss:
            self.lost += 1  # it had its time on the air
        else:
            self.packets.append((self.free_at + self.delay, packet))

    def due(self, now):
        while self.packets and self.packets[0][0] <= now:
            yield self.packets.popleft()[1]

    def wait(self, now):
        return max(0, self.packets[0][0] - now) if self.packets else 1


class Connections:
    """Of TCP over IPv4, by the near side's port: the sequence number at which it ends, or that it has."""

    def __init__(self):
        self.restart(None)

    def restart(self, reset_bytes):
        self.reset_bytes = reset_bytes
        self.ends = {}
        self.begun = {}
        self.usable_bytes = 0
        self.opened = self.resets = self.payload_bytes = 0

    def goes_up(self, packet, near):
        """False: the connection is reset already, and the near side is told."""
        tcp, header = tcp_of(packet)
        if tcp is None:
            return True
        port, _, _, acknowledged, _, flags = header
        if flags & SYN:
            self.opened += 1
            self.ends.pop(port, None)
            self.begun.pop(port, None)
        elif port in self.begun and not flags & RST:
            more = (acknowledged - self.begun[port]) & 0xFFFFFFFF
            if more < 1 << 31:
                self.usable_bytes += more
                self.begun[port] = acknowledged
        if self.ends.get(port) != RESET:
            return True
        if not flags & RST:
            # The first reset counts only where nothing was lost before it: this one names what is expected.
            put(near, reset_for(packet, acknowledged))
        return False

    def goes_down(self, packet, far, down, now):
        """False: it does not, because there the connection is reset, and both sides are told."""
        tcp, header = tcp_of(packet)
        if tcp is None:
            return True
        _, port, sequence, acknowledged, _, flags = header
        if flags & SYN:
            self.begun[port] = sequence + 1
        if self.reset_bytes is None:
            return True
        if flags & SYN:
            self.ends[port] = sequence + self.reset_bytes * random.uniform(0.5, 1.5)
        end = self.ends.get(port)
        if end != RESET and (end is None or ((int(end) - sequence - payload_of(packet, tcp)) & 0xFFFFFFFF) < 1 << 31):
            return True
        if end != RESET:
            self.ends[port] = RESET
            self.resets += 1
            down.take(reset_of(packet, sequence), now)
        if not flags & RST:
            put(far, reset_for(packet, acknowledged))
        return False

    def arrived(self, packet):
        tcp, header = tcp_of(packet)
        if tcp is not None:
            self.payload_bytes += payload_of(packet, tcp)


def payload_of(packet, tcp):
    return len(packet) - tcp - (packet[tcp + 12] >> 4) * 4


def tcp_of(packet):
    if packet[0] >> 4 != 4 or packet[9] != TCP:
        return None, None
    start = (packet[0] & 15) * 4
    return start, struct.unpack_from("!HHIIBB", packet, start)


def reset_of(packet, sequence):
    """A reset that goes where the packet goes. It counts only with the sequence number that is expected there."""
    start, header = tcp_of(packet)
    return made(packet[12:16], packet[16:20], header[0], header[1], sequence)


def reset_for(packet, sequence):
    """A reset for whoever sent the packet."""
    start, header = tcp_of(packet)
    return made(packet[16:20], packet[12:16], header[1], header[0], sequence)


def made(source, target, source_port, target_port, sequence):
    tcp = struct.pack("!HHIIBBHHH", source_port, target_port, sequence, 0, 5 << 4, RST, 0, 0, 0)
    sum_ = checksum(source + target + struct.pack("!BBH", 0, TCP, len(tcp)) + tcp)
    tcp = tcp[:16] + struct.pack("!H", sum_) + tcp[18:]
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 0, 0, 64, TCP, 0, source, target)
    return ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:] + tcp


def checksum(data):
    """RFC 1071, of an even number of bytes."""
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def put(tun, packet):
    try:
        os.write(tun, packet)
    except OSError:
        pass  # a full device loses packets, too


def read_all(tun):
    while True:
        try:
            yield os.read(tun, PACKET_BYTES)
        except BlockingIOError:
            return


def main(options):
    near_pid, near = open_end(options["near"], options["far"], options["congestion"])
    far_pid, far = open_end(options["far"], options["near"], options["congestion"])
    # A link does not wait for a processor.
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    up, down, connections = Direction(options, far), Direction(options, near), Connections()
    print(json.dumps({"near": near_pid, "far": far_pid}), flush=True)
    late = 0
    while True:
        now = time.monotonic()
        ready, _, _ = select.select([near, far, 0], [], [], min(up.wait(now), down.wait(now)))
        now = time.monotonic()
        if near in ready:
            for packet in read_all(near):
                if connections.goes_up(packet, near):
                    up.take(packet, now)
        if far in ready:
            for packet in read_all(far):
                if connections.goes_down(packet, far, down, now):
                    down.take(packet, now)
        late = max(late, now - min([one.packets[0][0] for one in (up, down) if one.packets], default=now))
        for packet in up.due(now):
            put(far, packet)
        for packet in down.due(now):
            connections.arrived(packet)
            put(near, packet)
        if 0 in ready:
            line = sys.stdin.readline()
            if line == "":
                return
            print(json.dumps({
                "downBytes": down.bytes, "upBytes": up.bytes, "payloadBytes": connections.payload_bytes,
                "usableBytes": connections.usable_bytes,
                "packets": down.count, "lost": down.lost, "overflowed": down.overflowed,
                "connections": connections.opened, "resets": connections.resets, "latestMs": late * 1000,
            }), flush=True)
            asked = json.loads(line)
            random.seed(asked["seed"])
            connections.restart(asked["resetBytes"])
            up.restart()
            down.restart()
            late = 0


main(json.loads(sys.argv[1]))
