//! Calls over D-Bus to systemd: connection, and as much of the wire format as
//! they need (D-Bus specification, "Message Format").
//!
//! The crates for this bring threads, which a command that is about to fork
//! can't have, or loop when the bus closes on them.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// How long the bus, and what is asked of it, may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Longest message in bytes; the answers that matter are small.
const MAX_MESSAGE: usize = 1 << 20;

/// Longest line of the greeting.
const MAX_LINE: usize = 512;

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// A value of a property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Bool(bool),
    U32(u32),
    U64(u64),
    I32(i32),
    I64(i64),
    Text(String),
    Texts(Vec<String>),
    Numbers(Vec<u32>),
    Bytes(Vec<u8>),
}

impl Value {
    const fn signature(&self) -> &'static str {
        match self {
            Self::Bool(_) => "b",
            Self::U32(_) => "u",
            Self::U64(_) => "t",
            Self::I32(_) => "i",
            Self::I64(_) => "x",
            Self::Text(_) => "s",
            Self::Texts(_) => "as",
            Self::Numbers(_) => "au",
            Self::Bytes(_) => "ay",
        }
    }
}

/// Names and values, in order.
pub type Properties = Vec<(String, Value)>;

/// Encodes a message or its body, which begins at a multiple of eight.
#[derive(Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, value: u32) {
        self.align(4);
        self.0.extend(value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.align(8);
        self.0.extend(value.to_le_bytes());
    }

    fn len(&mut self, len: usize) {
        // Nothing near the limit of 2^26 is ever sent.
        self.u32(u32::try_from(len).unwrap_or(u32::MAX));
    }

    /// Appends a string or an object path.
    pub fn text(&mut self, text: &str) {
        self.len(text.len());
        self.0.extend(text.bytes());
        self.0.push(0);
    }

    fn signature(&mut self, signature: &str) {
        self.0.push(u8::try_from(signature.len()).unwrap_or(0));
        self.0.extend(signature.bytes());
        self.0.push(0);
    }

    /// An array whose elements, aligned so, `fill` appends.
    fn array(&mut self, align: usize, fill: impl FnOnce(&mut Self)) {
        self.u32(0);
        let at = self.0.len() - 4;
        self.align(align);
        let start = self.0.len();
        fill(self);
        let len = u32::try_from(self.0.len() - start).unwrap_or(u32::MAX);
        if let Some(place) = self.0.get_mut(at..at + 4) {
            place.copy_from_slice(&len.to_le_bytes());
        }
    }

    fn variant(&mut self, value: &Value) {
        self.signature(value.signature());
        match value {
            Value::Bool(value) => self.u32(u32::from(*value)),
            Value::U32(value) => self.u32(*value),
            Value::U64(value) => self.u64(*value),
            Value::I32(value) => self.u32(value.cast_unsigned()),
            Value::I64(value) => self.u64(value.cast_unsigned()),
            Value::Text(text) => self.text(text),
            Value::Texts(texts) => {
                self.array(4, |w| texts.iter().for_each(|text| w.text(text)));
            }
            Value::Numbers(numbers) => {
                self.array(4, |w| numbers.iter().for_each(|number| w.u32(*number)));
            }
            Value::Bytes(bytes) => self.array(1, |w| w.0.extend(bytes)),
        }
    }

    /// Appends an array of names with values (`a(sv)`).
    pub fn properties(&mut self, properties: &Properties) {
        self.array(8, |w| {
            for (name, value) in properties {
                w.align(8);
                w.text(name);
                w.variant(value);
            }
        });
    }

    /// Appends an empty array of structures.
    pub fn no_structures(&mut self) {
        self.array(8, |_| {});
    }

    /// Appends a boolean.
    pub fn bool(&mut self, value: bool) {
        self.u32(u32::from(value));
    }
}

/// Decodes a message.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(len);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        self.at = end.unwrap_or(self.at);
        taken.context("a message of the bus is cut off")
    }

    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn u8(&mut self) -> Result<u8> {
        Ok(self.take(1)?.first().copied().unwrap_or_default())
    }

    fn u32(&mut self) -> Result<u32> {
        self.align(4);
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes(bytes.try_into()?))
    }

    fn text_of(&mut self, len: usize) -> Result<&'a str> {
        let text = std::str::from_utf8(self.take(len)?)?;
        self.take(1)?;
        Ok(text)
    }

    fn text(&mut self) -> Result<&'a str> {
        let len = usize::try_from(self.u32()?)?;
        self.text_of(len)
    }

    fn signature(&mut self) -> Result<&'a str> {
        let len = usize::from(self.u8()?);
        self.text_of(len)
    }
}

/// A message that has come in.
#[derive(Debug, Default)]
struct Message {
    kind: u8,
    reply_to: Option<u32>,
    member: String,
    error: String,
    signature: String,
    body: Vec<u8>,
}

impl Message {
    fn receive(stream: &mut impl Read) -> Result<Self> {
        let mut head = [0; 16];
        stream
            .read_exact(&mut head)
            .context("the bus does not answer")?;
        let mut reader = Reader::new(&head);
        ensure!(reader.u8()? == b'l', "the bus has another byte order");
        let kind = reader.u8()?;
        reader.take(2)?;
        let body_len = usize::try_from(reader.u32()?)?;
        reader.u32()?;
        let fields_len = usize::try_from(reader.u32()?)?;
        ensure!(
            body_len <= MAX_MESSAGE && fields_len <= MAX_MESSAGE,
            "a message of the bus is too long"
        );
        let mut fields = vec![0; fields_len.next_multiple_of(8)];
        stream.read_exact(&mut fields)?;
        let mut message = Self {
            kind,
            body: vec![0; body_len],
            ..Self::default()
        };
        stream.read_exact(&mut message.body)?;
        let mut reader = Reader::new(&fields);
        while reader.at < fields_len {
            message.field(&mut reader)?;
            reader.align(8);
        }
        Ok(message)
    }

    fn field(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        let code = reader.u8()?;
        match reader.signature()? {
            "u" => {
                let number = reader.u32()?;
                if code == 5 {
                    self.reply_to = Some(number);
                }
            }
            "g" => {
                let signature = reader.signature()?;
                signature.clone_into(&mut self.signature);
            }
            "s" | "o" => {
                let text = reader.text()?;
                match code {
                    3 => text.clone_into(&mut self.member),
                    4 => text.clone_into(&mut self.error),
                    _ => {}
                }
            }
            other => bail!("the bus sent a header field of type {other:?}"),
        }
        Ok(())
    }

    /// The first argument, if that is a text.
    fn text(&self) -> Result<String> {
        Ok(Reader::new(&self.body).text()?.to_owned())
    }
}

/// What a service answers that can't do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {message}")]
pub struct Refusal {
    pub name: String,
    pub message: String,
}

/// Whom a call is for.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub service: &'static str,
    pub path: &'static str,
    pub interface: &'static str,
}

const BUS: Target = Target {
    service: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
};

/// A connection to a bus.
pub struct Bus {
    stream: UnixStream,
    serial: u32,
    /// Jobs of systemd that have ended, and how.
    ended: Vec<(String, String)>,
}

impl Bus {
    /// Connects as the user that this process is.
    pub fn connect(socket: &Path) -> Result<Self> {
        let mut stream = UnixStream::connect(socket)
            .with_context(|| format!("the bus at {} can't be reached", socket.display()))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let uid = nix::unistd::geteuid().to_string();
        let uid: String = uid.bytes().map(|digit| format!("{digit:02x}")).collect();
        write!(stream, "\0AUTH EXTERNAL {uid}\r\n")?;
        let answer = line(&mut stream)?;
        ensure!(
            answer.starts_with("OK "),
            "the bus does not let this user in: {answer}"
        );
        stream.write_all(b"BEGIN\r\n")?;
        let mut bus = Self {
            stream,
            serial: 0,
            ended: Vec::new(),
        };
        bus.call(BUS, "Hello", "", |_| {})?;
        Ok(bus)
    }

    /// Makes a call; answers the first argument of the reply if it is a text.
    pub fn call(
        &mut self,
        target: Target,
        member: &str,
        signature: &str,
        arguments: impl FnOnce(&mut Writer),
    ) -> Result<Option<String>> {
        self.serial += 1;
        let serial = self.serial;
        let message = encode(serial, target, member, signature, arguments);
        self.stream
            .write_all(&message)
            .context("the bus can't be written to")?;
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let message = self.receive(deadline)?;
            if message.reply_to != Some(serial) {
                continue;
            }
            if message.kind == ERROR {
                return Err(Refusal {
                    message: message.text().unwrap_or_default(),
                    name: message.error,
                }
                .into());
            }
            let is_text = message.signature.starts_with(['s', 'o']);
            return is_text.then(|| message.text()).transpose();
        }
    }

    /// Has signals with the ends of systemd's jobs sent here.
    pub fn watch_jobs(&mut self, manager: Target) -> Result<()> {
        let rule = format!(
            "type='signal',sender='{}',interface='{}',member='JobRemoved'",
            manager.service, manager.interface
        );
        self.call(BUS, "AddMatch", "s", |w| w.text(&rule))?;
        self.call(manager, "Subscribe", "", |_| {})?;
        Ok(())
    }

    /// Waits until a job has ended; answers how.
    pub fn job_result(&mut self, job: &str) -> Result<String> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let found = self.ended.iter().find(|(ended, _)| ended == job);
            if let Some((_, result)) = found {
                return Ok(result.clone());
            }
            self.receive(deadline)?;
        }
    }

    fn receive(&mut self, deadline: Instant) -> Result<Message> {
        let left = deadline.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "the bus takes too long to answer");
        self.stream.set_read_timeout(Some(left))?;
        let message = Message::receive(&mut self.stream)?;
        let answers = [METHOD_RETURN, ERROR].contains(&message.kind);
        if message.kind == SIGNAL && message.member == "JobRemoved" && message.signature == "uoss" {
            let mut reader = Reader::new(&message.body);
            reader.u32()?;
            let job = reader.text()?.to_owned();
            reader.text()?;
            self.ended.push((job, reader.text()?.to_owned()));
        }
        Ok(Message {
            reply_to: message.reply_to.filter(|_| answers),
            ..message
        })
    }
}

fn encode(
    serial: u32,
    target: Target,
    member: &str,
    signature: &str,
    arguments: impl FnOnce(&mut Writer),
) -> Vec<u8> {
    let mut body = Writer::default();
    arguments(&mut body);
    let mut message = Writer::default();
    // Little endian, no flags, version 1.
    message.0.extend([b'l', METHOD_CALL, 0, 1]);
    message.len(body.0.len());
    message.u32(serial);
    message.array(8, |w| {
        for (code, kind, text) in [
            (1, "o", target.path),
            (2, "s", target.interface),
            (3, "s", member),
            (6, "s", target.service),
        ] {
            w.align(8);
            w.0.push(code);
            w.signature(kind);
            w.text(text);
        }
        if !signature.is_empty() {
            w.align(8);
            w.0.push(8);
            w.signature("g");
            w.signature(signature);
        }
    });
    message.align(8);
    message.0.extend(body.0);
    message.0
}

/// A line of the greeting, without its end.
fn line(stream: &mut impl Read) -> Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\r\n") {
        ensure!(line.len() < MAX_LINE, "the bus greets with a long line");
        stream
            .read_exact(&mut byte)
            .context("the bus does not answer")?;
        line.extend(byte);
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    const MANAGER: Target = Target {
        service: "org.freedesktop.systemd1",
        path: "/org/freedesktop/systemd1",
        interface: "org.freedesktop.systemd1.Manager",
    };

    /// A message of a kind other than a call: its first bytes and fields differ.
    fn answer(kind: u8, fields: &[(u8, &str, &str)], reply_to: u32, body: &Writer) -> Vec<u8> {
        let mut message = Writer::default();
        message.0.extend([b'l', kind, 0, 1]);
        message.len(body.0.len());
        message.u32(7);
        message.array(8, |w| {
            w.0.push(5);
            w.signature("u");
            w.u32(reply_to);
            for (code, signature, text) in fields {
                w.align(8);
                w.0.push(*code);
                w.signature(signature);
                match *signature {
                    "g" => w.signature(text),
                    _ => w.text(text),
                }
            }
        });
        message.align(8);
        message.0.extend(&body.0);
        message.0
    }

    fn body(fill: impl FnOnce(&mut Writer)) -> Writer {
        let mut writer = Writer::default();
        fill(&mut writer);
        writer
    }

    /// The bytes of a call, by hand from the specification.
    #[test]
    fn bytes_of_a_call() {
        let got = encode(3, MANAGER, "StopUnit", "ss", |w| {
            w.text("a");
            w.text("bc");
        });
        assert_eq!(got.get(..12), Some(&b"l\x01\0\x01\x0f\0\0\0\x03\0\0\0"[..]));
        assert_eq!(got.len() % 8, 7);
        assert!(got.ends_with(b"\x01\0\0\0a\0\0\0\x02\0\0\0bc\0"));
        let path = b"\x01\x01o\0\x19\0\0\0/org/freedesktop/systemd1\0";
        assert_eq!(got.get(16..16 + path.len()), Some(&path[..]));
    }

    #[test]
    fn bytes_of_properties() {
        let list = vec![
            ("A".to_owned(), Value::U64(5)),
            ("B".to_owned(), Value::Numbers(vec![9])),
        ];
        let got = body(|w| w.properties(&list)).0;
        let expected: &[u8] = b"\x28\0\0\0\0\0\0\0\
            \x01\0\0\0A\0\x01t\0\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\
            \x01\0\0\0B\0\x02au\0\0\0\x04\0\0\0\x09\0\0\0";
        assert_eq!(got.get(8..), expected.get(8..));
        assert_eq!(got.len(), expected.len());
    }

    #[test]
    fn a_bus_that_answers_and_refuses() {
        let dir = std::env::temp_dir().join(format!("bus-{}", std::process::id()));
        let _ = std::fs::remove_file(&dir);
        let listener = UnixListener::bind(&dir).expect("bind");
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accept");
            let greeting = line(&mut stream).expect("line");
            assert!(greeting.starts_with("\0AUTH EXTERNAL 3"));
            stream.write_all(b"OK 0123\r\n").expect("write");
            assert_eq!(line(&mut stream).expect("line"), "BEGIN");
            let mut calls = Vec::new();
            for serial in 1..=3 {
                let call = Message::receive(&mut stream).expect("call");
                assert_eq!(call.kind, METHOD_CALL);
                calls.push(call.member);
                let text = body(|w| w.text("/job/1"));
                let reply = if serial == 3 {
                    let fields = [(4, "s", "org.example.No"), (8, "g", "s")];
                    answer(ERROR, &fields, serial, &text)
                } else {
                    answer(METHOD_RETURN, &[(8, "g", "o")], serial, &text)
                };
                if serial == 2 {
                    // The end may come before the reply.
                    let ended = body(|w| {
                        w.u32(1);
                        w.text("/job/1");
                        w.text("x.scope");
                        w.text("done");
                    });
                    let fields = [(3, "s", "JobRemoved"), (8, "g", "uoss")];
                    stream
                        .write_all(&answer(SIGNAL, &fields, 0, &ended))
                        .expect("write");
                }
                stream.write_all(&reply).expect("write");
            }
            calls
        });
        let mut bus = Bus::connect(&dir).expect("connects");
        let job = bus.call(MANAGER, "StartTransientUnit", "", |_| {});
        let job = job.expect("starts").expect("a job");
        assert_eq!(bus.job_result(&job).expect("ends"), "done");
        let refused = bus.call(MANAGER, "StopUnit", "s", |w| w.text("x"));
        let refused = refused.expect_err("refused");
        let refused = refused.downcast_ref::<Refusal>().expect("a refusal");
        assert_eq!(refused.name, "org.example.No");
        // The server is gone: that is an error, not a wait.
        let calls = server.join().expect("server");
        assert_eq!(calls, ["Hello", "StartTransientUnit", "StopUnit"]);
        assert!(bus.call(MANAGER, "StopUnit", "", |_| {}).is_err());
        std::fs::remove_file(&dir).expect("remove");
    }
}
