//! Each field of the configuration's types is applied, refused or warned of,
//! as `docs/OCI.md` says: a test finds the fields, and tries those that don't
//! apply.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use oci_spec::runtime::Spec;
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{Deserialize, Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Value, json};

use crate::plan::Overlay;

/// What becomes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Applied,
    Refused,
    Warned,
    /// There is nothing to do.
    Nothing,
}

impl Fate {
    /// As `docs/OCI.md` has it.
    const fn word(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Refused => "refused",
            Self::Warned => "warned",
            Self::Nothing => "nothing to do",
        }
    }
}

const FIELDS: &[(&str, Fate)] = &[
    ("ociVersion", Fate::Applied),
    ("root", Fate::Applied),
    ("root.path", Fate::Applied),
    ("root.readonly", Fate::Applied),
    ("mounts", Fate::Applied),
    ("mounts[].destination", Fate::Applied),
    ("mounts[].type", Fate::Applied),
    ("mounts[].source", Fate::Applied),
    ("mounts[].options", Fate::Applied),
    ("mounts[].uidMappings", Fate::Refused),
    ("mounts[].uidMappings[].hostID", Fate::Refused),
    ("mounts[].uidMappings[].containerID", Fate::Refused),
    ("mounts[].uidMappings[].size", Fate::Refused),
    ("mounts[].gidMappings", Fate::Refused),
    ("mounts[].gidMappings[].hostID", Fate::Refused),
    ("mounts[].gidMappings[].containerID", Fate::Refused),
    ("mounts[].gidMappings[].size", Fate::Refused),
    ("process", Fate::Applied),
    ("process.terminal", Fate::Applied),
    ("process.consoleSize", Fate::Applied),
    ("process.consoleSize.height", Fate::Applied),
    ("process.consoleSize.width", Fate::Applied),
    ("process.user", Fate::Applied),
    ("process.user.uid", Fate::Applied),
    ("process.user.gid", Fate::Applied),
    ("process.user.umask", Fate::Applied),
    ("process.user.additionalGids", Fate::Applied),
    ("process.user.username", Fate::Warned),
    ("process.args", Fate::Applied),
    ("process.commandLine", Fate::Warned),
    ("process.env", Fate::Applied),
    ("process.cwd", Fate::Applied),
    ("process.capabilities", Fate::Applied),
    ("process.capabilities.bounding", Fate::Applied),
    ("process.capabilities.effective", Fate::Applied),
    ("process.capabilities.inheritable", Fate::Applied),
    ("process.capabilities.permitted", Fate::Applied),
    ("process.capabilities.ambient", Fate::Applied),
    ("process.rlimits", Fate::Applied),
    ("process.rlimits[].type", Fate::Applied),
    ("process.rlimits[].hard", Fate::Applied),
    ("process.rlimits[].soft", Fate::Applied),
    ("process.noNewPrivileges", Fate::Applied),
    ("process.apparmorProfile", Fate::Warned),
    ("process.oomScoreAdj", Fate::Applied),
    ("process.selinuxLabel", Fate::Warned),
    ("process.ioPriority", Fate::Warned),
    ("process.ioPriority.class", Fate::Warned),
    ("process.ioPriority.priority", Fate::Warned),
    ("process.scheduler", Fate::Warned),
    ("process.scheduler.policy", Fate::Warned),
    ("process.scheduler.nice", Fate::Warned),
    ("process.scheduler.priority", Fate::Warned),
    ("process.scheduler.flags", Fate::Warned),
    ("process.scheduler.runtime", Fate::Warned),
    ("process.scheduler.deadline", Fate::Warned),
    ("process.scheduler.period", Fate::Warned),
    ("process.execCPUAffinity", Fate::Warned),
    ("process.execCPUAffinity.initial", Fate::Warned),
    ("process.execCPUAffinity.final", Fate::Warned),
    ("hostname", Fate::Applied),
    ("domainname", Fate::Applied),
    ("hooks", Fate::Applied),
    ("hooks.prestart", Fate::Applied),
    ("hooks.prestart[].path", Fate::Applied),
    ("hooks.prestart[].args", Fate::Applied),
    ("hooks.prestart[].env", Fate::Applied),
    ("hooks.prestart[].timeout", Fate::Applied),
    ("hooks.createRuntime", Fate::Applied),
    ("hooks.createRuntime[].path", Fate::Applied),
    ("hooks.createRuntime[].args", Fate::Applied),
    ("hooks.createRuntime[].env", Fate::Applied),
    ("hooks.createRuntime[].timeout", Fate::Applied),
    ("hooks.createContainer", Fate::Applied),
    ("hooks.createContainer[].path", Fate::Applied),
    ("hooks.createContainer[].args", Fate::Applied),
    ("hooks.createContainer[].env", Fate::Applied),
    ("hooks.createContainer[].timeout", Fate::Applied),
    ("hooks.startContainer", Fate::Applied),
    ("hooks.startContainer[].path", Fate::Applied),
    ("hooks.startContainer[].args", Fate::Applied),
    ("hooks.startContainer[].env", Fate::Applied),
    ("hooks.startContainer[].timeout", Fate::Applied),
    ("hooks.poststart", Fate::Applied),
    ("hooks.poststart[].path", Fate::Applied),
    ("hooks.poststart[].args", Fate::Applied),
    ("hooks.poststart[].env", Fate::Applied),
    ("hooks.poststart[].timeout", Fate::Applied),
    ("hooks.poststop", Fate::Applied),
    ("hooks.poststop[].path", Fate::Applied),
    ("hooks.poststop[].args", Fate::Applied),
    ("hooks.poststop[].env", Fate::Applied),
    ("hooks.poststop[].timeout", Fate::Applied),
    ("annotations", Fate::Applied),
    ("solaris", Fate::Warned),
    ("windows", Fate::Warned),
    ("zos", Fate::Warned),
    ("uidMappings", Fate::Warned),
    ("gidMappings", Fate::Warned),
    ("vm", Fate::Refused),
    ("linux", Fate::Applied),
    ("linux.uidMappings", Fate::Applied),
    ("linux.uidMappings[].hostID", Fate::Applied),
    ("linux.uidMappings[].containerID", Fate::Applied),
    ("linux.uidMappings[].size", Fate::Applied),
    ("linux.gidMappings", Fate::Applied),
    ("linux.gidMappings[].hostID", Fate::Applied),
    ("linux.gidMappings[].containerID", Fate::Applied),
    ("linux.gidMappings[].size", Fate::Applied),
    ("linux.netDevices", Fate::Refused),
    ("linux.netDevices.*.name", Fate::Refused),
    ("linux.sysctl", Fate::Applied),
    ("linux.resources", Fate::Applied),
    ("linux.resources.devices", Fate::Nothing),
    ("linux.resources.devices[].allow", Fate::Nothing),
    ("linux.resources.devices[].type", Fate::Nothing),
    ("linux.resources.devices[].major", Fate::Nothing),
    ("linux.resources.devices[].minor", Fate::Nothing),
    ("linux.resources.devices[].access", Fate::Nothing),
    ("linux.resources.memory", Fate::Applied),
    ("linux.resources.memory.limit", Fate::Applied),
    ("linux.resources.memory.reservation", Fate::Applied),
    ("linux.resources.memory.swap", Fate::Applied),
    ("linux.resources.memory.kernel", Fate::Applied),
    ("linux.resources.memory.kernelTCP", Fate::Applied),
    ("linux.resources.memory.swappiness", Fate::Applied),
    ("linux.resources.memory.disableOOMKiller", Fate::Applied),
    ("linux.resources.memory.useHierarchy", Fate::Applied),
    ("linux.resources.memory.checkBeforeUpdate", Fate::Applied),
    ("linux.resources.cpu", Fate::Applied),
    ("linux.resources.cpu.shares", Fate::Applied),
    ("linux.resources.cpu.quota", Fate::Applied),
    ("linux.resources.cpu.idle", Fate::Applied),
    ("linux.resources.cpu.burst", Fate::Applied),
    ("linux.resources.cpu.period", Fate::Applied),
    ("linux.resources.cpu.realtimeRuntime", Fate::Applied),
    ("linux.resources.cpu.realtimePeriod", Fate::Applied),
    ("linux.resources.cpu.cpus", Fate::Applied),
    ("linux.resources.cpu.mems", Fate::Applied),
    ("linux.resources.pids", Fate::Applied),
    ("linux.resources.pids.limit", Fate::Applied),
    ("linux.resources.blockIO", Fate::Applied),
    ("linux.resources.blockIO.weight", Fate::Applied),
    ("linux.resources.blockIO.leafWeight", Fate::Applied),
    ("linux.resources.blockIO.weightDevice", Fate::Applied),
    (
        "linux.resources.blockIO.weightDevice[].major",
        Fate::Applied,
    ),
    (
        "linux.resources.blockIO.weightDevice[].minor",
        Fate::Applied,
    ),
    (
        "linux.resources.blockIO.weightDevice[].weight",
        Fate::Applied,
    ),
    (
        "linux.resources.blockIO.weightDevice[].leafWeight",
        Fate::Applied,
    ),
    (
        "linux.resources.blockIO.throttleReadBpsDevice",
        Fate::Applied,
    ),
    (
        "linux.resources.blockIO.throttleReadBpsDevice[].major",
        Fate::Applied,
    ),
    (
        "linux.resources.blockIO.throttleReadBpsDevice[].minor",
        Fate::Applied,
    ),
    (
        "linux.resources.blockIO.throttleReadBpsDevice[].rate",
        Fate::Applied,
    ),
    (
        "linux.resources.blockIO.throttleWriteBpsDevice",
        Fate::Applied,
    ),
    (
        "linux.resources.blockIO.throttleWriteBpsDevice[].major",
        Fate::Applied,
    ),
    (
        "linux.resources.blockIO.throttleWriteBpsDevice[].minor",
        Fate::Applied,
    ),
    (
        "linux.resources.blockIO.throttleWriteBpsDevice[].rate",
        Fate::Applied,
    ),
    (
        "linux.resources.blockIO.throttleReadIOPSDevice",
        Fate::Applied,
    ),
    (
        "linux.resources.blockIO.throttleReadIOPSDevice[].major",
        Fate::Applied,
    ),
    (
        "linux.resources.blockIO.throttleReadIOPSDevice[].minor",
        Fate::Applied,
    ),
    (
        "linux.resources.blockIO.throttleReadIOPSDevice[].rate",
        Fate::Applied,
    ),
    (
        "linux.resources.blockIO.throttleWriteIOPSDevice",
        Fate::Applied,
    ),
    (
        "linux.resources.blockIO.throttleWriteIOPSDevice[].major",
        Fate::Applied,
    ),
    (
        "linux.resources.blockIO.throttleWriteIOPSDevice[].minor",
        Fate::Applied,
    ),
    (
        "linux.resources.blockIO.throttleWriteIOPSDevice[].rate",
        Fate::Applied,
    ),
    ("linux.resources.hugepageLimits", Fate::Applied),
    ("linux.resources.hugepageLimits[].pageSize", Fate::Applied),
    ("linux.resources.hugepageLimits[].limit", Fate::Applied),
    ("linux.resources.network", Fate::Applied),
    ("linux.resources.network.classID", Fate::Applied),
    ("linux.resources.network.priorities", Fate::Applied),
    ("linux.resources.network.priorities[].name", Fate::Applied),
    (
        "linux.resources.network.priorities[].priority",
        Fate::Applied,
    ),
    ("linux.resources.rdma", Fate::Applied),
    ("linux.resources.rdma.*.hcaHandles", Fate::Applied),
    ("linux.resources.rdma.*.hcaObjects", Fate::Applied),
    ("linux.resources.unified", Fate::Applied),
    ("linux.cgroupsPath", Fate::Applied),
    ("linux.namespaces", Fate::Applied),
    ("linux.namespaces[].type", Fate::Applied),
    ("linux.namespaces[].path", Fate::Applied),
    ("linux.devices", Fate::Applied),
    ("linux.devices[].path", Fate::Applied),
    ("linux.devices[].type", Fate::Applied),
    ("linux.devices[].major", Fate::Applied),
    ("linux.devices[].minor", Fate::Applied),
    ("linux.devices[].fileMode", Fate::Applied),
    ("linux.devices[].uid", Fate::Applied),
    ("linux.devices[].gid", Fate::Applied),
    ("linux.seccomp", Fate::Applied),
    ("linux.seccomp.defaultAction", Fate::Applied),
    ("linux.seccomp.defaultErrnoRet", Fate::Applied),
    ("linux.seccomp.architectures", Fate::Applied),
    ("linux.seccomp.flags", Fate::Applied),
    ("linux.seccomp.listenerPath", Fate::Nothing),
    ("linux.seccomp.listenerMetadata", Fate::Nothing),
    ("linux.seccomp.syscalls", Fate::Applied),
    ("linux.seccomp.syscalls[].names", Fate::Applied),
    ("linux.seccomp.syscalls[].action", Fate::Applied),
    ("linux.seccomp.syscalls[].errnoRet", Fate::Applied),
    ("linux.seccomp.syscalls[].args", Fate::Applied),
    ("linux.seccomp.syscalls[].args[].index", Fate::Applied),
    ("linux.seccomp.syscalls[].args[].value", Fate::Applied),
    ("linux.seccomp.syscalls[].args[].valueTwo", Fate::Applied),
    ("linux.seccomp.syscalls[].args[].op", Fate::Applied),
    ("linux.rootfsPropagation", Fate::Warned),
    ("linux.maskedPaths", Fate::Applied),
    ("linux.readonlyPaths", Fate::Applied),
    ("linux.mountLabel", Fate::Warned),
    ("linux.intelRdt", Fate::Refused),
    ("linux.intelRdt.closID", Fate::Refused),
    ("linux.intelRdt.schemata", Fate::Refused),
    ("linux.intelRdt.l3CacheSchema", Fate::Refused),
    ("linux.intelRdt.memBwSchema", Fate::Refused),
    ("linux.intelRdt.enableCMT", Fate::Refused),
    ("linux.intelRdt.enableMBM", Fate::Refused),
    ("linux.intelRdt.enableMonitoring", Fate::Refused),
    ("linux.memoryPolicy", Fate::Refused),
    ("linux.memoryPolicy.mode", Fate::Refused),
    ("linux.memoryPolicy.nodes", Fate::Refused),
    ("linux.memoryPolicy.flags", Fate::Refused),
    ("linux.personality", Fate::Applied),
    ("linux.personality.domain", Fate::Applied),
    ("linux.personality.flags", Fate::Refused),
    ("linux.timeOffsets", Fate::Refused),
    ("linux.timeOffsets.*.secs", Fate::Refused),
    ("linux.timeOffsets.*.nanosecs", Fate::Refused),
];

/// A value that tells which fields the types that are made of it have.
struct Traced<'a> {
    value: Value,
    path: String,
    fields: &'a RefCell<BTreeSet<String>>,
}

impl<'a> Traced<'a> {
    fn child(&self, step: &str, value: Value) -> Traced<'a> {
        Traced {
            value,
            path: format!("{}{step}", self.path),
            fields: self.fields,
        }
    }

    fn visit<'de, V: Visitor<'de>>(
        mut self,
        step: impl Fn(&str) -> String,
        visitor: V,
    ) -> serde_json::Result<V::Value> {
        match self.value.take() {
            Value::Array(list) => {
                let list = list.into_iter().map(|value| self.child("[]", value));
                visitor.visit_seq(SeqDeserializer::new(list))
            }
            Value::Object(object) => {
                let entries = object.into_iter().map(|(key, value)| {
                    let child = self.child(&step(&key), value);
                    (key, child)
                });
                visitor.visit_map(MapDeserializer::new(entries))
            }
            plain => plain.deserialize_any(visitor),
        }
    }

    fn dot(&self) -> &'static str {
        if self.path.is_empty() { "" } else { "." }
    }
}

impl<'de> Deserializer<'de> for Traced<'_> {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> serde_json::Result<V::Value> {
        self.visit(|_| ".*".to_owned(), visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> serde_json::Result<V::Value> {
        let dot = self.dot();
        for field in fields {
            let field = format!("{}{dot}{field}", self.path);
            self.fields.borrow_mut().insert(field);
        }
        self.visit(|key| format!("{dot}{key}"), visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> serde_json::Result<V::Value> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> serde_json::Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> serde_json::Result<V::Value> {
        self.value.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, serde_json::Error> for Traced<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// A configuration with all that is applied.
fn applied() -> Value {
    let mapping = json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
    let hook = json!([{"path": "/bin/true", "args": ["true"], "env": ["A=b"], "timeout": 1}]);
    let caps = json!(["CAP_KILL"]);
    let rates = json!([{"major": 8, "minor": 0, "rate": 5}]);
    json!({
        "ociVersion": "1.2.0",
        "root": {"path": "/", "readonly": true},
        "mounts": [{"destination": "/tmp", "type": "tmpfs", "source": "t", "options": ["ro"]}],
        "process": {
            "terminal": true, "consoleSize": {"height": 1, "width": 2},
            "user": {"uid": 0, "gid": 0, "umask": 0o22, "additionalGids": [1]},
            "args": ["x"], "env": ["A=b"], "cwd": "/",
            "capabilities": {"bounding": caps, "effective": caps, "inheritable": caps,
                "permitted": caps, "ambient": caps},
            "rlimits": [{"type": "RLIMIT_CORE", "soft": 1, "hard": 2}],
            "noNewPrivileges": true, "oomScoreAdj": 5,
        },
        "hostname": "h", "domainname": "d",
        "hooks": {"prestart": hook, "createRuntime": hook, "createContainer": hook,
            "startContainer": hook, "poststart": hook, "poststop": hook},
        "annotations": {"a": "b"},
        "linux": {
            "uidMappings": mapping, "gidMappings": mapping,
            "sysctl": {"kernel.shmmni": "1"},
            "resources": {
                "devices": [{"allow": true, "type": "c", "major": 1, "minor": 3, "access": "r"}],
                "memory": {"limit": 1, "reservation": 1, "swap": 1, "kernel": -1, "kernelTCP": -1,
                    "swappiness": 1, "disableOOMKiller": false, "useHierarchy": true,
                    "checkBeforeUpdate": false},
                "cpu": {"shares": 2, "quota": 1000, "idle": 0, "burst": 0, "period": 1000,
                    "realtimeRuntime": 0, "realtimePeriod": 1000, "cpus": "0", "mems": "0"},
                "pids": {"limit": 5},
                "blockIO": {"weight": 10, "leafWeight": 10,
                    "weightDevice": [{"major": 8, "minor": 0, "weight": 10, "leafWeight": 10}],
                    "throttleReadBpsDevice": rates, "throttleWriteBpsDevice": rates,
                    "throttleReadIOPSDevice": rates, "throttleWriteIOPSDevice": rates},
                "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
                "network": {"classID": 1, "priorities": [{"name": "lo", "priority": 1}]},
                "rdma": {"x": {"hcaHandles": 1, "hcaObjects": 1}},
                "unified": {"memory.high": "1"},
            },
            "cgroupsPath": "/x",
            "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"},
                {"type": "user"}, {"type": "network", "path": "/proc/self/ns/net"}],
            "devices": [{"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600,
                "uid": 0, "gid": 0}],
            "seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
                "architectures": ["SCMP_ARCH_X86_64"], "flags": ["SECCOMP_FILTER_FLAG_LOG"],
                "listenerPath": "/x", "listenerMetadata": "x",
                "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
                    "args": [{"index": 0, "value": 1, "valueTwo": 1, "op": "SCMP_CMP_EQ"}]}]},
            "maskedPaths": ["/x"], "readonlyPaths": ["/x"],
            "personality": {"domain": "LINUX"},
        },
    })
}

/// Fields that are warned of or refused, with values they may have.
fn others() -> BTreeMap<&'static str, Value> {
    let mapping = json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
    [
        ("mounts[].uidMappings", mapping.clone()),
        ("mounts[].gidMappings", mapping),
        ("process.user.username", json!("x")),
        ("process.commandLine", json!("x")),
        ("process.apparmorProfile", json!("x")),
        ("process.selinuxLabel", json!("x")),
        (
            "process.ioPriority",
            json!({"class": "IOPRIO_CLASS_IDLE", "priority": 1}),
        ),
        (
            "process.scheduler",
            json!({"policy": "SCHED_BATCH", "nice": 1, "priority": 1, "flags": [],
                "runtime": 1, "deadline": 1, "period": 1}),
        ),
        (
            "process.execCPUAffinity",
            json!({"initial": "0", "final": "0"}),
        ),
        (
            "uidMappings",
            json!([{"containerID": 0, "hostID": 0, "size": 1}]),
        ),
        (
            "gidMappings",
            json!([{"containerID": 0, "hostID": 0, "size": 1}]),
        ),
        ("solaris", json!({})),
        ("windows", json!({"layerFolders": ["x"]})),
        ("zos", json!({})),
        ("vm", json!({"kernel": {"path": "/x"}})),
        ("linux.netDevices", json!({"eth0": {"name": "x"}})),
        ("linux.rootfsPropagation", json!("shared")),
        ("linux.mountLabel", json!("x")),
        (
            "linux.intelRdt",
            json!({"closID": "x", "schemata": ["L3:0=f"], "l3CacheSchema": "L3:0=f",
                "memBwSchema": "MB:0=1", "enableCMT": true, "enableMBM": true,
                "enableMonitoring": true}),
        ),
        (
            "linux.memoryPolicy",
            json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}),
        ),
        ("linux.personality.flags", json!(["x"])),
        (
            "linux.timeOffsets",
            json!({"boottime": {"secs": 1, "nanosecs": 1}}),
        ),
    ]
    .into()
}

/// Sets the value at a path of the table.
fn set(config: &mut Value, path: &str, value: Value) {
    let mut at = config;
    for step in path.split('.') {
        at = match step.strip_suffix("[]") {
            Some(list) => &mut at[list][0],
            None => &mut at[step],
        };
    }
    *at = value;
}

fn plan(config: &Value) -> (anyhow::Result<()>, Vec<String>) {
    let mut warnings = Vec::new();
    let planned = super::read(config.to_string().as_bytes(), &mut warnings).and_then(|spec| {
        super::plan(
            "id",
            std::path::Path::new("/"),
            &spec,
            Overlay::None,
            warnings,
        )
    });
    match planned {
        Ok(plan) => (Ok(()), plan.host.warnings),
        Err(err) => (Err(err), Vec::new()),
    }
}

#[test]
fn the_table_has_all_fields() {
    let mut all = applied();
    for (path, value) in others() {
        set(&mut all, path, value);
    }
    let fields = RefCell::default();
    let traced = Traced {
        value: all,
        path: String::new(),
        fields: &fields,
    };
    Spec::deserialize(traced).expect("all fields have values of their types");
    // What is in the sections of others is theirs.
    let foreign = [
        "solaris.",
        "windows.",
        "zos.",
        "vm.",
        "uidMappings[",
        "gidMappings[",
    ];
    let found: BTreeSet<String> = fields
        .into_inner()
        .into_iter()
        // The crate's names of what the specification calls CMT and MBM.
        .map(|path| {
            path.replace("enableCmt", "enableCMT")
                .replace("enableMbm", "enableMBM")
        })
        .filter(|path| !foreign.iter().any(|section| path.starts_with(section)))
        .collect();
    let listed: BTreeSet<String> = FIELDS.iter().map(|(path, _)| (*path).to_owned()).collect();
    let missing: Vec<_> = found.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&found).collect();
    assert!(missing.is_empty(), "not in the table: {missing:?}");
    assert!(gone.is_empty(), "no such fields: {gone:?}");
}

#[test]
fn the_document_has_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/OCI.md");
    let text = std::fs::read_to_string(path).expect("docs/OCI.md");
    for (path, fate) in FIELDS {
        let row = format!("| `{path}` | {} |", fate.word());
        assert!(text.contains(&row), "no row {row}");
    }
}

#[test]
fn what_is_applied_is_neither_refused_nor_warned_of() {
    let (planned, warnings) = plan(&applied());
    planned.expect("applied");
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn other_fields_are_refused_or_warned_of() {
    let values = others();
    for (path, fate) in FIELDS {
        let Some(value) = values.get(path) else {
            // A part of one that has a value, or applied.
            let part = values.keys().any(|whole| path.starts_with(whole));
            assert!(
                part || matches!(fate, Fate::Applied | Fate::Nothing),
                "{path} has no value to try"
            );
            continue;
        };
        let mut config = applied();
        set(&mut config, path, value.clone());
        let name = path.rsplit('.').next().unwrap_or(path);
        let name = name.trim_end_matches("[]");
        match (fate, plan(&config)) {
            (Fate::Refused, (Err(err), _)) => {
                let told = format!("{err:#}");
                assert!(told.contains(name), "{path}: {told}");
            }
            (Fate::Warned, (Ok(()), warnings)) => {
                let told = warnings.iter().any(|warning| warning.contains(name));
                assert!(told, "{path}: {warnings:?}");
            }
            (fate, (planned, warnings)) => {
                panic!("{path}: {fate:?}, but {planned:?} {warnings:?}")
            }
        }
    }
}
