"""Samples the state of a healthy guest at random moments, as dumps that tests/live.rs reads.

    sample.py KERNEL INITRD SYMBOLS COUNT > states.txt

SYMBOLS is `nm -n -S vmlinux`. The guest runs under TCG with one instruction per translation block, so
that it stops anywhere; a gdb stub on the loopback interface steps it and reads registers and code.
"""
import bisect
import random
import socket
import struct
import subprocess
import sys
import time

kernel, initrd, symbols, count = sys.argv[1:4] + [int(sys.argv[4])]
PORT = 23000 + random.randrange(1000)
BEFORE, WINDOW = 42, 64
NAMES = "RAX RBX RCX RDX RSI RDI RBP RSP R08 R09 R10 R11 R12 R13 R14 R15".split()

functions = []
for line in open(symbols):
    parts = line.split()
    if len(parts) == 4 and parts[2] in "tT":
        functions.append((int(parts[0], 16), int(parts[1], 16), parts[3]))
functions.sort()
starts = [f[0] for f in functions]

guest = subprocess.Popen(
    ["qemu-system-x86_64", "-accel", "tcg", "-smp", "1", "-m", "512", "-nodefaults", "-no-user-config",
     "-display", "none", "-kernel", kernel, "-initrd", initrd, "-append", "nokaslr rdinit=/init quiet",
     "-gdb", f"tcp:127.0.0.1:{PORT}"], stdout=subprocess.DEVNULL)
time.sleep(1)
stub = socket.create_connection(("127.0.0.1", PORT))
stub.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
received = b""


def send(text):
    data = text.encode()
    stub.sendall(b"$" + data + b"#%02x" % (sum(data) & 255))


def receive():
    global received
    while True:
        start = received.find(b"$")
        end = received.find(b"#", start) if start >= 0 else -1
        if end >= 0 and len(received) >= end + 3:
            packet = received[start + 1:end]
            received = received[end + 3:]
            stub.sendall(b"+")
            return packet.decode()
        data = stub.recv(65536)
        if not data:
            raise EOFError
        received += data


def ask(text, fits):
    send(text)
    while True:
        packet = receive()
        if fits(packet):
            return packet


def stop():
    stub.sendall(b"\x03")
    receive()


def dump():
    state = bytes.fromhex(ask("g", lambda p: len(p) > 500))
    general = struct.unpack_from("<16Q", state)
    rip, = struct.unpack_from("<Q", state, 128)
    flags, selector = struct.unpack_from("<II", state, 136)
    fs, gs = struct.unpack_from("<QQ", state, 164)
    if selector & 3 or rip < starts[0]:
        return 0
    start, size, name = functions[bisect.bisect_right(starts, rip) - 1]
    if rip - start >= size:
        return 0
    code = ask(f"m{rip - BEFORE:x},{WINDOW:x}", lambda p: p.startswith("E") or len(p) == 2 * WINDOW)
    if code.startswith("E"):
        return 0
    code = " ".join(f"<{b:02x}>" if i == BEFORE else f"{b:02x}" for i, b in enumerate(bytes.fromhex(code)))
    value = dict(zip(NAMES, general))
    print(f"RIP: 0010:{name}+{rip - start:#x}/{size:#x}\nCode: {code}")
    print(f"RSP: 0018:{value['RSP']:016x} EFLAGS: {flags:08x}")
    rest = [n for n in NAMES if n != "RSP"]
    for i in range(0, 15, 3):
        print(" ".join(f"{n}: {value[n]:016x}" for n in rest[i:i + 3]))
    print(f"FS: {fs:016x}(0000) GS:{gs:016x}(0000) knlGS:0000000000000000\n")
    return 1


send("c")
time.sleep(14)
stop()
ask("qRcmd," + b"singlestep on".hex(), lambda p: p == "OK")
while count > 0:
    send("c")
    time.sleep(random.uniform(0.001, 0.06))
    stop()
    for _ in range(random.randint(1, 40)):
        count -= dump()
        for _ in range(random.randint(1, 4)):
            ask("s", lambda p: p.startswith("T"))
guest.kill()
