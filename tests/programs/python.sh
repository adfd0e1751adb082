#!/bin/bash
# python3: subprocess, threading, asyncio, multiprocessing, sqlite3, ssl, pip of a local wheel, venv.
# packages: python3 python3-venv python3-pip python3-wheel python3-setuptools openssl
# platforms: systrap ptrace
# timeout: 120
. "$(dirname "$0")/lib.sh.inc"
is "$(python3 -c 'print(6*7)')" 42
cat > t.py <<'X'
import asyncio, concurrent.futures, ctypes, fcntl, hashlib, mmap, multiprocessing, os, pty, queue, resource
import select, selectors, shutil, signal, socket, sqlite3, ssl, subprocess, sys, tempfile, threading, time

def square(x):
    return x * x

def worker(q, out):
    while (n := q.get()) is not None:
        out.put(n * n)

def main():
    # subprocess
    assert subprocess.check_output(["echo", "hi"]) == b"hi\n"
    p = subprocess.run(["sh", "-c", "cat; exit 4"], input=b"x" * 200_000, capture_output=True)
    assert p.returncode == 4 and len(p.stdout) == 200_000
    try:
        subprocess.run(["sleep", "10"], timeout=0.2)
        assert False
    except subprocess.TimeoutExpired:
        pass
    try:
        subprocess.run(["/no/such"])
        assert False
    except FileNotFoundError:
        pass
    ps = [subprocess.Popen(["sh", "-c", f"exit {i}"]) for i in range(20)]
    assert [p.wait() for p in ps] == list(range(20))
    # threading
    total, lock = [0], threading.Lock()
    def add():
        for _ in range(1000):
            with lock:
                total[0] += 1
    ts = [threading.Thread(target=add) for _ in range(8)]
    [t.start() for t in ts]; [t.join() for t in ts]
    assert total[0] == 8000
    e = threading.Event()
    threading.Timer(0.05, e.set).start()
    assert e.wait(5)
    assert not threading.Event().wait(0.05)
    with concurrent.futures.ThreadPoolExecutor(8) as ex:
        assert sum(ex.map(square, range(100))) == 328350
    # multiprocessing: fork, spawn, forkserver
    for method in ["fork", "spawn", "forkserver"]:
        ctx = multiprocessing.get_context(method)
        q, out = ctx.Queue(), ctx.Queue()
        ps = [ctx.Process(target=worker, args=(q, out)) for _ in range(2)]
        [p.start() for p in ps]
        for i in range(20): q.put(i)
        for _ in ps: q.put(None)
        assert sorted(out.get(timeout=20) for _ in range(20)) == [i * i for i in range(20)]
        [p.join() for p in ps]
        assert all(p.exitcode == 0 for p in ps)
    with multiprocessing.Pool(3) as pool:
        assert sum(pool.map(square, range(200))) == 2646700
    v = multiprocessing.Value("i", 0)
    from multiprocessing import shared_memory
    s = shared_memory.SharedMemory(create=True, size=100)
    s.buf[0] = 7
    t = shared_memory.SharedMemory(s.name)
    assert t.buf[0] == 7
    t.close(); s.close(); s.unlink()
    # asyncio
    async def serve():
        async def handle(r, w):
            data = await r.readline()
            w.write(data.upper()); await w.drain(); w.close()
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async def client(i):
            r, w = await asyncio.open_connection("127.0.0.1", port)
            w.write(f"hello {i}\n".encode())
            line = await r.readline()
            w.close()
            return line
        lines = await asyncio.gather(*[client(i) for i in range(50)])
        assert lines == [f"HELLO {i}\n".encode() for i in range(50)]
        p = await asyncio.create_subprocess_exec("cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
        o, _ = await p.communicate(b"data")
        assert o == b"data" and p.returncode == 0
        try:
            await asyncio.wait_for(asyncio.sleep(10), 0.05)
            assert False
        except asyncio.TimeoutError:
            pass
        loop = asyncio.get_running_loop()
        got = asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR1, got.set)
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.wait_for(got.wait(), 5)
        server.close()
    asyncio.run(serve())
    # sqlite3, on disk with two connections
    c = sqlite3.connect("db"); c.execute("pragma journal_mode=wal"); c.execute("create table t(a int, b text)")
    with c: c.executemany("insert into t values(?, ?)", [(i, str(i)) for i in range(10000)])
    d = sqlite3.connect("db")
    assert d.execute("select sum(a), count(*) from t").fetchone() == (49995000, 10000)
    # ssl over loopback
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); ctx.load_cert_chain("cert.pem", "key.pem")
    ls = socket.create_server(("127.0.0.1", 0))
    def serve_tls():
        with ctx.wrap_socket(ls.accept()[0], server_side=True) as conn:
            conn.sendall(conn.recv(100)[::-1])
    th = threading.Thread(target=serve_tls); th.start()
    cc = ssl.create_default_context(); cc.check_hostname = False; cc.verify_mode = ssl.CERT_NONE
    with cc.wrap_socket(socket.create_connection(ls.getsockname())) as conn:
        conn.sendall(b"abc"); assert conn.recv(10) == b"cba"
    th.join()
    # the rest of what programs use of the system
    with tempfile.TemporaryFile() as f:
        f.truncate(8192); m = mmap.mmap(f.fileno(), 8192); m[5:8] = b"xyz"; f.seek(5); assert f.read(3) == b"xyz"
    r, w = os.pipe(); sel = selectors.DefaultSelector(); sel.register(r, selectors.EVENT_READ)
    assert sel.select(0) == []; os.write(w, b"x"); assert len(sel.select(1)) == 1
    pid, fd = pty.fork()
    if pid == 0: os.execvp("echo", ["echo", "on a tty"])
    assert b"on a tty" in os.read(fd, 100); os.waitpid(pid, 0)
    assert ctypes.CDLL(None).getpid() == os.getpid()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0
    hits = []
    signal.signal(signal.SIGALRM, lambda *a: hits.append(1)); signal.setitimer(signal.ITIMER_REAL, 0.05); time.sleep(0.2)
    assert hits == [1]
    os.makedirs("a/b/c"); open("a/b/c/f", "w").write("x"); shutil.copytree("a", "z"); assert open("z/b/c/f").read() == "x"; shutil.rmtree("a")
    assert [e.name for e in os.scandir("z")] == ["b"]
    assert len(os.sched_getaffinity(0)) >= 1 and os.cpu_count() >= 1 and os.uname().sysname == "Linux"
    assert len(os.listdir("/proc/self/fd")) >= 3

if __name__ == "__main__":
    main()
    print("ok")
X
openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost 2>/dev/null
is "$(python3 t.py)" ok
# A wheel made by hand, into a venv.
mkdir -p pkg/hello
echo 'def main(): print("from the wheel")' > pkg/hello/__init__.py
cat > pkg/setup.py <<'X'
from setuptools import setup
setup(name="hello", version="1.0", packages=["hello"], entry_points={"console_scripts": ["hello=hello:main"]})
X
(cd pkg && python3 setup.py -q bdist_wheel -d .. 2>/dev/null)
python3 -m venv venv
venv/bin/pip install -q --no-index --disable-pip-version-check ./hello-1.0-py3-none-any.whl
is "$(venv/bin/hello)" "from the wheel"
is "$(venv/bin/python -c 'import sys; print(sys.prefix)')" "$scratch/venv"
echo ok
