//! Events to containerd, in the order they happen.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;
use prost::Message;

use crate::args::Args;
use crate::messages::{Any, Envelope, ForwardRequest};
use crate::reaper::Reaper;
use crate::ttrpc::Client;

const SERVICE: &str = "containerd.services.events.ttrpc.v1.Events";
/// How often an event is sent anew before it is given up.
const TRIES: u32 = 5;
/// Pause before the first repetition; doubled for each further one.
const PAUSE: Duration = Duration::from_millis(200);

/// Takes events; a thread of its own sends them.
pub struct Events {
    queue: Mutex<Sender<Envelope>>,
    /// Events that have not been sent.
    left: Arc<AtomicUsize>,
    namespace: String,
}

struct Publisher {
    /// containerd's socket for events.
    socket: Option<PathBuf>,
    client: Option<Client>,
    address: String,
    publish_binary: String,
    reaper: Reaper,
    left: Arc<AtomicUsize>,
}

impl Events {
    pub fn start(args: &Args, reaper: &Reaper) -> Result<Self> {
        let (queue, events) = channel();
        let mut publisher = Publisher {
            socket: std::env::var_os("TTRPC_ADDRESS")
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
            client: None,
            address: args.address.clone(),
            publish_binary: args.publish_binary.clone(),
            reaper: reaper.clone(),
            left: Arc::default(),
        };
        let left = publisher.left.clone();
        std::thread::Builder::new()
            .name("events".to_owned())
            .spawn(move || publisher.run(&events))
            .context("a thread can't be made")?;
        Ok(Self {
            queue: Mutex::new(queue),
            left,
            namespace: args.namespace.clone(),
        })
    }

    /// Publishes `event`, a message called `name` of `containerd.events`.
    pub fn publish(&self, topic: &str, name: &str, event: &impl Message) {
        let envelope = Envelope {
            timestamp: Some(SystemTime::now().into()),
            namespace: self.namespace.clone(),
            topic: topic.to_owned(),
            event: Some(Any::of(&format!("containerd.events.{name}"), event)),
        };
        self.left.fetch_add(1, Ordering::SeqCst);
        // The thread ends with the process.
        let _ = self.queue.lock().send(envelope);
    }
}

impl Events {
    /// Waits until all events have been sent, at most `timeout`.
    pub fn flush(&self, timeout: Duration) {
        let end = Instant::now() + timeout;
        while self.left.load(Ordering::SeqCst) > 0 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Publisher {
    fn run(&mut self, events: &Receiver<Envelope>) {
        for event in events {
            let mut pause = PAUSE;
            for left in (0..TRIES).rev() {
                match self.send(&event) {
                    Ok(()) => break,
                    Err(err) if left == 0 => {
                        crate::serve::note(format_args!("event {}: {err:#}", event.topic))
                    }
                    // containerd may be restarting.
                    Err(_) => {
                        std::thread::sleep(pause);
                        pause *= 2;
                    }
                }
            }
            self.left.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn send(&mut self, envelope: &Envelope) -> Result<()> {
        let Some(socket) = &self.socket else {
            return self.send_by_binary(envelope);
        };
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::connect(socket)?,
        };
        let request = ForwardRequest {
            envelope: Some(envelope.clone()),
        };
        client.call(SERVICE, "Forward", &request)?;
        self.client = Some(client);
        Ok(())
    }

    fn send_by_binary(&self, envelope: &Envelope) -> Result<()> {
        let (reader, mut writer) = std::io::pipe().context("a pipe can't be made")?;
        let event = envelope.event.clone().unwrap_or_default();
        // Shorter than a pipe holds.
        std::io::Write::write_all(&mut writer, &event.encode_to_vec())?;
        drop(writer);
        let exit = self.reaper.run(
            Command::new(&self.publish_binary)
                .args(["--address", &self.address, "publish"])
                .args(["--topic", &envelope.topic])
                .args(["--namespace", &envelope.namespace])
                .stdin(reader)
                .stdout(Stdio::null())
                .stderr(Stdio::null()),
        )?;
        ensure!(
            exit.status == 0,
            "{} publish failed with status {}",
            self.publish_binary,
            exit.status
        );
        Ok(())
    }
}
