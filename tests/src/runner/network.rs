//! Host network mode: servers and clients in containers whose network
//! namespaces are joined by a pair of virtual interfaces.

use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::bundle::{Ctx, expect};
use super::cli::Test;
use super::command;

pub const TESTS: &[(&str, Test)] = &[
    ("network_services", services),
    ("network_namespace_by_path", namespace_by_path),
    ("network_sysctl", sysctl),
];

const SERVER: &str = "10.98.0.1";

/// Two network namespaces with a link between them, gone when dropped.
struct Link {
    server: String,
    client: String,
}

fn host(script: &str) -> Result<String, String> {
    let done = command::run(
        Command::new("/bin/sh").args(["-ec", script]),
        Duration::from_secs(20),
    );
    if !done.ok() {
        return Err(format!("{script}: {}", done.describe()));
    }
    Ok(done.stdout)
}

impl Link {
    fn new() -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("rt{}-{number}", std::process::id());
        let link = Self {
            server: format!("{name}s"),
            client: format!("{name}c"),
        };
        let (s, c) = (&link.server, &link.client);
        host(&format!(
            "ip netns add {s}; ip netns add {c}
             ip -n {s} link add eth0 type veth peer name eth0 netns {c}
             ip -n {s} link set lo up; ip -n {s} link set eth0 up
             ip -n {c} link set lo up; ip -n {c} link set eth0 up
             ip -n {s} addr add {SERVER}/24 dev eth0
             ip -n {c} addr add 10.98.0.2/24 dev eth0"
        ))?;
        Ok(link)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for name in [&self.server, &self.client] {
            let _ = host(&format!("ip netns del {name}"));
        }
    }
}

/// A bundle on this machine's files with a network namespace.
fn bundle(ctx: &Ctx<'_>, name: &str, namespace: &str, args: &[&str]) -> Result<String, String> {
    ctx.bundle(name, args, |config| {
        config["root"] = json!({"path": "/", "readonly": false});
        config["process"]["cwd"] = json!(ctx.dir);
        config["process"]["env"] = json!(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp"]);
        let caps = json!([
            "CAP_NET_BIND_SERVICE",
            "CAP_SETUID",
            "CAP_SETGID",
            "CAP_DAC_OVERRIDE",
            "CAP_CHOWN",
        ]);
        config["process"]["capabilities"] =
            json!({"bounding": caps, "effective": caps, "permitted": caps});
        config["linux"]["namespaces"] = json!([
            {"type": "pid"}, {"type": "mount"},
            {"type": "network", "path": format!("/run/netns/{namespace}")},
        ]);
    })
}

/// Starts a server and stops it when dropped.
struct Server<'a> {
    ctx: &'a Ctx<'a>,
    id: String,
}

impl<'a> Server<'a> {
    fn start(ctx: &'a Ctx<'a>, id: &str, namespace: &str, args: &[&str]) -> Result<Self, String> {
        let bundle = bundle(ctx, id, namespace, args)?;
        let flags = ["--overlay2=root:memory", "run", "--detach", "--bundle"];
        // The server's output must not hold this test up.
        let log = std::fs::File::create(ctx.dir.join(format!("{id}.log")));
        let log = log.map_err(|e| e.to_string())?;
        let errors = log.try_clone().map_err(|e| e.to_string())?;
        let status = ctx
            .runsc(&[&flags[..], &[&bundle, id]].concat())
            .stdin(std::process::Stdio::null())
            .stdout(log)
            .stderr(errors)
            .status();
        let server = Self {
            ctx,
            id: id.to_owned(),
        };
        match status {
            Ok(status) if status.success() => Ok(server),
            other => Err(format!("{id}: {other:?}: {}", server.log())),
        }
    }

    fn log(&self) -> String {
        let path = self.ctx.dir.join(format!("{}.log", self.id));
        std::fs::read_to_string(path).unwrap_or_default()
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        self.ctx.run(&["delete", "--force", &self.id]);
    }
}

/// Repeats `script` in the client's namespace, in a container, until it says
/// what it should.
fn ask(ctx: &Ctx<'_>, link: &Link, name: &str, script: &str, wanted: &str) -> Result<(), String> {
    let bundle = bundle(ctx, name, &link.client, &["/bin/sh", "-c", script])?;
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let done = ctx.run(&["--overlay2=root:memory", "run", "--bundle", &bundle, name]);
        if done.stdout.contains(wanted) {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(format!("{script}: no {wanted:?}: {}", done.describe()));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn services(ctx: &Ctx<'_>) -> Result<(), String> {
    let link = Link::new()?;
    let dir = ctx.dir.join("www");
    std::fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
    std::fs::write(dir.join("hello"), "hello over the wire\n").map_err(|e| e.to_string())?;
    let big = vec![b'x'; 3 << 20];
    std::fs::write(dir.join("big"), &big).map_err(|e| e.to_string())?;
    let root = dir.to_string_lossy().into_owned();

    let conf = ctx.dir.join("nginx.conf");
    let text = format!(
        "daemon off; master_process off; user root; pid /tmp/nginx.pid; error_log stderr;
         events {{ worker_connections 64; }}
         http {{ access_log off; client_body_temp_path /tmp/b; proxy_temp_path /tmp/p;
           fastcgi_temp_path /tmp/f; uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s;
           server {{ listen 80; root {root}; }} }}"
    );
    std::fs::write(&conf, text).map_err(|e| e.to_string())?;
    let conf = conf.to_string_lossy().into_owned();
    let nginx = Server::start(ctx, "nginx", &link.server, &["nginx", "-c", &conf])?;
    let redis = [
        "redis-server",
        "--protected-mode",
        "no",
        "--save",
        "",
        "--dir",
        "/tmp",
    ];
    let redis = Server::start(ctx, "redis", &link.server, &redis)?;
    let python = ["python3", "-m", "http.server", "8000", "--directory", &root];
    let python = Server::start(ctx, "python", &link.server, &python)?;

    let fetch = format!("curl -sS http://{SERVER}/hello");
    ask(ctx, &link, "ask-nginx", &fetch, "hello over the wire")
        .map_err(|e| format!("{e}\n{}", nginx.log()))?;
    let fetch = format!("curl -sS http://{SERVER}/big | wc -c");
    ask(ctx, &link, "ask-big", &fetch, &big.len().to_string())?;
    let fetch = format!("redis-cli -h {SERVER} set k v; redis-cli -h {SERVER} get k");
    ask(ctx, &link, "ask-redis", &fetch, "OK\nv").map_err(|e| format!("{e}\n{}", redis.log()))?;
    let fetch = format!("curl -sS http://{SERVER}:8000/hello");
    ask(ctx, &link, "ask-python", &fetch, "hello over the wire")
        .map_err(|e| format!("{e}\n{}", python.log()))?;
    // From the host, without a container in between.
    let native = host(&format!(
        "ip netns exec {} curl -sS http://{SERVER}/hello",
        link.client
    ))?;
    if native != "hello over the wire\n" {
        return Err(format!("from the host: {native:?}"));
    }
    // And where nobody listens.
    let refused = format!("curl -sS http://{SERVER}:81/ 2>&1 || true");
    ask(ctx, &link, "ask-nobody", &refused, "Failed to connect")?;
    drop((nginx, redis, python));
    ctx.nothing_left()
}

fn namespace_by_path(ctx: &Ctx<'_>) -> Result<(), String> {
    let link = Link::new()?;
    let args = ["/bin/sh", "-c", "ip -o addr show dev eth0; exec sleep 60"];
    let server = Server::start(ctx, "where", &link.server, &args)?;
    let until = Instant::now() + Duration::from_secs(10);
    while !server.log().contains(SERVER) {
        if Instant::now() > until {
            return Err(format!("no address: {}", server.log()));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    // Engines find the network by the pid.
    let state = ctx.run(&["state", "where"]);
    let state: serde_json::Value =
        serde_json::from_str(&state.stdout).map_err(|e| e.to_string())?;
    let of = |path: String| {
        std::fs::metadata(path)
            .map(|m| m.ino())
            .map_err(|e| e.to_string())
    };
    let seen = of(format!("/proc/{}/ns/net", state["pid"]))?;
    let wanted = of(format!("/run/netns/{}", link.server))?;
    if seen != wanted {
        return Err(format!("pid {} is in another network", state["pid"]));
    }
    drop(server);
    ctx.nothing_left()
}

fn sysctl(ctx: &Ctx<'_>) -> Result<(), String> {
    let link = Link::new()?;
    let bundle = bundle(ctx, "sysctl", &link.server, &["true"])?;
    let config = std::path::Path::new(&bundle).join("config.json");
    let text = std::fs::read_to_string(&config).map_err(|e| e.to_string())?;
    let mut parsed: serde_json::Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    parsed["linux"]["sysctl"] = json!({"net.ipv4.tcp_fin_timeout": "17"});
    std::fs::write(&config, parsed.to_string()).map_err(|e| e.to_string())?;
    let done = ctx.run(&[
        "--overlay2=root:memory",
        "run",
        "--bundle",
        &bundle,
        "sysctl",
    ]);
    expect(&done, 0, "")?;
    let set = host(&format!(
        "ip netns exec {} cat /proc/sys/net/ipv4/tcp_fin_timeout",
        link.server
    ))?;
    if set != "17\n" {
        return Err(format!("the setting is {set:?}"));
    }
    Ok(())
}
