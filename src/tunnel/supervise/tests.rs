//! The supervisor against a scripted far end, on virtual time.

mod closing;
mod model;
mod opening;
mod redial;
mod renewal;
mod states;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures_util::StreamExt;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, copy, duplex, split},
    sync::mpsc,
    time::{Instant, sleep},
};

use super::*;
use crate::tunnel::TunnelState;

/// What one dial does.
enum Step {
    /// Connects to a far end that echoes every stream.
    Serve,
    /// The same, after a time.
    ServeAfter(Duration),
    /// Serves until the bed freezes it: from then on nothing passes either way, and nothing says so.
    Freezing,
    /// Connects to a far end that never says a byte.
    Silent,
    /// Fails in a way that passes.
    Fail,
    /// Fails in a way that does not pass.
    Refuse,
    /// Never answers.
    Hang,
}

/// A far end that does one step per dial, and serves when there is none left.
struct Script {
    steps: Mutex<VecDeque<Step>>,
    dials: Arc<Dials>,
    far_ends: mpsc::UnboundedSender<Session>,
    far_config: mux::Config,
    frozen: Arc<AtomicBool>,
}

/// When dials started, and how many are going on.
#[derive(Default)]
struct Dials {
    starts: Mutex<Vec<Instant>>,
    running: AtomicUsize,
}

impl Dials {
    fn count(&self) -> usize {
        self.starts.lock().unwrap().len()
    }

    fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    /// The start of every dial, as seconds since `origin`.
    fn seconds_since(&self, origin: Instant) -> Vec<f64> {
        let starts = self.starts.lock().unwrap();
        starts
            .iter()
            .map(|start| (start.duration_since(origin).as_secs_f64() * 1000.0).round() / 1000.0)
            .collect()
    }
}

struct Running<'a>(&'a Dials);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Dial for Script {
    fn peer(&self) -> String {
        "far.example".to_owned()
    }

    async fn dial(&self) -> Result<Box<dyn BytePipe>> {
        self.dials.starts.lock().unwrap().push(Instant::now());
        self.dials.running.fetch_add(1, Ordering::SeqCst);
        let _running = Running(&self.dials);
        let step = self
            .steps
            .lock()
            .unwrap()
            .pop_front()
            .unwrap_or(Step::Serve);
        let freezes = matches!(step, Step::Freezing);
        match step {
            Step::Serve | Step::Freezing => {}
            Step::ServeAfter(time) => sleep(time).await,
            Step::Silent => {
                let (near, far) = duplex(64 * 1024);
                tokio::spawn(async move {
                    let (mut reader, _writer) = split(far);
                    copy(&mut reader, &mut tokio::io::sink()).await
                });
                return Ok(Box::new(near));
            }
            Step::Fail => {
                return Err(Error::new(ErrorKind::NotFound, "no listener")
                    .with_status(404)
                    .with_help("start the agent")
                    .with_tracking_id("T1"));
            }
            Step::Refuse => {
                return Err(Error::new(ErrorKind::Unauthorized, "wrong key")
                    .with_status(401)
                    .with_help("check the key"));
            }
            Step::Hang => std::future::pending().await,
        }
        let (near, far) = duplex(64 * 1024);
        let (session, incoming, driver) =
            mux::start(far, mux::Role::Server, self.far_config.clone());
        tokio::spawn(driver);
        tokio::spawn(echo_all(incoming));
        let _ = self.far_ends.send(session);
        if freezes {
            return Ok(Box::new(freezing(near, Arc::clone(&self.frozen))));
        }
        Ok(Box::new(near))
    }
}

/// A pipe in front of `far` that stops without a word.
fn freezing(far: DuplexStream, frozen: Arc<AtomicBool>) -> DuplexStream {
    let (near, middle) = duplex(64 * 1024);
    let ((near_in, near_out), (far_in, far_out)) = (split(middle), split(far));
    tokio::spawn(carry(near_in, far_out, Arc::clone(&frozen)));
    tokio::spawn(carry(far_in, near_out, frozen));
    near
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    frozen: Arc<AtomicBool>,
) {
    let mut piece = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        if !frozen.load(Ordering::SeqCst) {
            to.write_all(&piece[..length]).await.unwrap();
        }
    }
}

async fn echo_all(mut incoming: mux::Incoming) {
    while let Some(stream) = incoming.accept().await {
        let (mut reader, mut writer) = split(stream.into_stream());
        tokio::spawn(async move {
            let _ = copy(&mut reader, &mut writer).await;
            let _ = writer.shutdown().await;
        });
    }
}

/// A supervisor over a script, without jitter.
struct Bed {
    supervisor: Supervisor,
    dials: Arc<Dials>,
    far_ends: mpsc::UnboundedReceiver<Session>,
    frozen: Arc<AtomicBool>,
}

impl Bed {
    fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self::with_far_config(steps, mux::Config::default())
    }

    fn with_far_config(steps: impl IntoIterator<Item = Step>, far_config: mux::Config) -> Self {
        let (sender, far_ends) = mpsc::unbounded_channel();
        let dials = Arc::new(Dials::default());
        let frozen = Arc::new(AtomicBool::new(false));
        let mut supervisor = Supervisor::new(Script {
            steps: Mutex::new(steps.into_iter().collect()),
            dials: Arc::clone(&dials),
            far_ends: sender,
            far_config,
            frozen: Arc::clone(&frozen),
        });
        supervisor.jitter = || 0;
        Self {
            supervisor,
            dials,
            far_ends,
            frozen,
        }
    }

    /// What a network does under a machine that sleeps.
    fn freeze(&self) {
        self.frozen.store(true, Ordering::SeqCst);
    }

    async fn open(&self) -> Result<TunnelStream> {
        self.open_with(OpenOptions::new()).await
    }

    async fn open_with(&self, options: OpenOptions) -> Result<TunnelStream> {
        self.supervisor.open(&Target::api_server(), &options).await
    }

    /// The far end of the next connection, once it is dialled.
    async fn far_end(&mut self) -> Session {
        self.far_ends.recv().await.expect("the script lives")
    }

    /// Waits for a state.
    async fn until(&self, wanted: impl Fn(&TunnelState) -> bool) {
        let mut states = self.supervisor.states();
        while let Some(state) = states.next().await {
            if wanted(&state) {
                return;
            }
        }
        panic!("the tunnel closed first");
    }

    async fn until_connected(&self) {
        self.until(|state| matches!(state, TunnelState::Connected))
            .await;
    }

    async fn until_waiting(&self) {
        self.until(|state| matches!(state, TunnelState::Waiting { .. }))
            .await;
    }
}

/// One round trip of `text` on a stream that stays open.
async fn echo(stream: &mut TunnelStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, text.as_bytes());
}

/// Ends a stream cleanly both ways.
async fn finish(mut stream: TunnelStream) {
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
}
