#!/bin/bash
# java: several threads, a loop that keeps the collector busy, files, processes, sockets.
# packages: openjdk-17-jdk-headless
# long
# timeout: 240
. "$(dirname "$0")/lib.sh.inc"
cat > T.java <<'X'
import java.io.*; import java.net.*; import java.nio.*; import java.nio.channels.*; import java.nio.file.*; import java.util.*;
import java.util.concurrent.*; import java.util.concurrent.atomic.*; import java.util.stream.*;
public class T {
    static void check(boolean b, String w) { if (!b) throw new AssertionError(w); }
    public static void main(String[] a) throws Exception {
        ExecutorService ex = Executors.newFixedThreadPool(8);
        List<Future<Long>> fs = new ArrayList<>();
        for (int t = 0; t < 8; t++) fs.add(ex.submit(() -> { long s = 0; Map<Integer, byte[]> m = new HashMap<>();
            for (int i = 0; i < 60000; i++) { m.put(i % 1000, new byte[i % 5000]); s += m.size(); } return s; }));
        for (Future<Long> f : fs) check(f.get() == 59500500L, "gc loop " + f.get());
        check(IntStream.range(0, 1000000).parallel().filter(i -> i % 3 == 0).count() == 333334, "streams");
        AtomicInteger n = new AtomicInteger(); Object lock = new Object(); Thread[] ts = new Thread[50];
        for (int i = 0; i < 50; i++) { ts[i] = new Thread(() -> { for (int k = 0; k < 100; k++) synchronized (lock) { n.incrementAndGet(); } }); ts[i].start(); }
        for (Thread t : ts) t.join(); check(n.get() == 5000, "monitors");
        ServerSocket ss = new ServerSocket(0, 50, InetAddress.getLoopbackAddress());
        ex.submit(() -> { for (int i = 0; i < 20; i++) try (Socket s = ss.accept()) { s.getOutputStream().write(s.getInputStream().read() + 1); } return 0; });
        for (int i = 0; i < 20; i++) try (Socket s = new Socket(ss.getInetAddress(), ss.getLocalPort())) { s.getOutputStream().write(i); check(s.getInputStream().read() == i + 1, "socket"); }
        Selector sel = Selector.open(); Pipe p = Pipe.open(); p.source().configureBlocking(false); p.source().register(sel, SelectionKey.OP_READ);
        p.sink().write(ByteBuffer.wrap(new byte[]{1})); check(sel.select(2000) == 1, "selector");
        Process pr = new ProcessBuilder("sh", "-c", "cat; exit 5").start(); pr.getOutputStream().write("x".getBytes()); pr.getOutputStream().close();
        check(pr.getInputStream().read() == 'x' && pr.waitFor() == 5, "process");
        Path d = Files.createTempDirectory("j"); for (int i = 0; i < 200; i++) Files.writeString(d.resolve("f" + i), "x" + i);
        try (Stream<Path> l = Files.list(d)) { check(l.count() == 200, "files"); }
        try (FileChannel c = FileChannel.open(d.resolve("m"), StandardOpenOption.CREATE, StandardOpenOption.READ, StandardOpenOption.WRITE)) { MappedByteBuffer b = c.map(FileChannel.MapMode.READ_WRITE, 0, 1 << 20); b.putInt(5, 77); b.force(); check(b.getInt(5) == 77, "mmap"); }
        try { int[] z = null; z[0] = 1; check(false, "npe"); } catch (NullPointerException e) { }
        try { deep(0); check(false, "so"); } catch (StackOverflowError e) { }
        long t0 = System.nanoTime(); Thread.sleep(30); check(System.nanoTime() - t0 >= 29_000_000L, "sleep");
        check(Runtime.getRuntime().availableProcessors() >= 1, "cpus"); ex.shutdown(); System.out.println("ok");
    }
    static int deep(int n) { return deep(n + 1) + 1; }
}
X
javac T.java
for gc in Serial Parallel G1; do
    is "$(java -Xmx256m -XX:+Use${gc}GC -cp . T)" ok $gc
done
echo ok
