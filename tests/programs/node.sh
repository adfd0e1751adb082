#!/bin/bash
# node: http server and client, worker threads, fs promises, child processes, streams.
# packages: nodejs
# timeout: 90
. "$(dirname "$0")/lib.sh.inc"
cat > t.js <<'X'
const assert = require('assert'), http = require('http'), fs = require('fs'), fsp = fs.promises, net = require('net');
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const { spawn, execFile, fork, execSync } = require('child_process');
const { pipeline } = require('stream/promises'), zlib = require('zlib'), crypto = require('crypto'), os = require('os');
if (!isMainThread) { let s = 0; for (let i = 0; i < 1e6; i++) s += i % workerData; parentPort.postMessage(s); return; }
if (process.send) { process.on('message', m => { process.send(m * 2); process.disconnect(); }); return; }
const alive = setInterval(() => {}, 1000);
(async () => {
  const server = http.createServer((q, r) => { let b = ''; q.on('data', d => b += d); q.on('end', () => r.end(q.method + q.url + b.length)); });
  await new Promise(r => server.listen(0, '127.0.0.1', r));
  const port = server.address().port;
  const get = (path, body) => new Promise((ok, no) => {
    const q = http.request({ port, host: '127.0.0.1', path, method: body ? 'POST' : 'GET' }, r => { let b = ''; r.on('data', d => b += d); r.on('end', () => ok(b)); });
    q.on('error', no); q.end(body);
  });
  assert.strictEqual(await get('/a'), 'GET/a0');
  assert.strictEqual(await get('/b', 'x'.repeat(500000)), 'POST/b500000');
  const all = await Promise.all([...Array(100).keys()].map(i => get('/' + i)));
  assert.deepStrictEqual(all, [...Array(100).keys()].map(i => `GET/${i}0`));
  server.close(); server.closeAllConnections?.();
  const sums = await Promise.all([2, 3, 5, 7].map(n => new Promise((ok, no) => { const w = new Worker(__filename, { workerData: n }); w.on('message', ok); w.on('error', no); })));
  assert.strictEqual(sums[0], 500000);
  await fsp.mkdir('d/e', { recursive: true }); await fsp.writeFile('d/e/f', 'text'); assert.strictEqual(await fsp.readFile('d/e/f', 'utf8'), 'text');
  await Promise.all([...Array(200).keys()].map(i => fsp.writeFile(`d/n${i}`, String(i)))); assert.strictEqual((await fsp.readdir('d')).length, 201);
  const seen = new Promise(r => { const w = fs.watch('d', (e, n) => { if (n === 'watched') { w.close(); r(); } }); });
  await fsp.writeFile('d/watched', ''); await seen;
  const big = crypto.randomBytes(3e6); await fsp.writeFile('big', big);
  await pipeline(fs.createReadStream('big'), zlib.createGzip(), fs.createWriteStream('big.gz'));
  await pipeline(fs.createReadStream('big.gz'), zlib.createGunzip(), fs.createWriteStream('big2')); assert(big.equals(await fsp.readFile('big2')));
  await fsp.rm('d', { recursive: true });
  assert.strictEqual(execSync('echo $((6*7))').toString(), '42\n');
  const out = await new Promise(r => execFile('sh', ['-c', 'cat; exit 3'], (e, o) => r([e.code, o])).stdin.end('in')); assert.deepStrictEqual(out, [3, 'in']);
  const c = fork(__filename); c.send(21); assert.strictEqual(await new Promise(r => c.on('message', r)), 42);
  const s = spawn('sleep', ['100']); setTimeout(() => s.kill('SIGTERM'), 50); assert.strictEqual(await new Promise(r => s.on('exit', (c, sig) => r(sig))), 'SIGTERM');
  const un = net.createServer(x => x.pipe(x)); await new Promise(r => un.listen('sock', r));
  const cl = net.connect('sock'); cl.write('echo'); assert.strictEqual((await new Promise(r => cl.once('data', r))).toString(), 'echo'); cl.end(); un.close();
  const t = process.hrtime.bigint(); await new Promise(r => setTimeout(r, 30)); assert(process.hrtime.bigint() - t >= 29000000n);
  assert(os.cpus().length >= 1 && os.totalmem() > 1e7 && os.networkInterfaces().lo);
  const sig = new Promise(r => process.once('SIGUSR2', r)); process.kill(process.pid, 'SIGUSR2'); await sig;
  clearInterval(alive); console.log('ok');
})().catch(e => { console.error(e); process.exit(1); });
X
is "$(node t.js)" ok
