//! A tunnel whose dials end at the test.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::mpsc,
};

use super::super::*;

/// What the listener says when it takes a stream.
pub const ACCEPTED: &[u8] = b"\x01\x00\x00";

/// What a client says that asks for `k8s`.
pub const HELLO: &[u8] = b"\x01\x00\x00\x03k8s";

/// The far end of the tunnel's dials.
pub struct Bed {
    pub tunnel: Arc<BridgeTunnel>,
    arrived: mpsc::UnboundedReceiver<DuplexStream>,
    road: Arc<Road>,
}

/// How the dials fare.
#[derive(Default)]
pub struct Road {
    dials: AtomicUsize,
    /// What becomes of the next dials; those after them arrive.
    failures: Mutex<VecDeque<Error>>,
    blocked: Mutex<Option<Error>>,
}

struct Dialled {
    road: Arc<Road>,
    arrivals: mpsc::UnboundedSender<DuplexStream>,
}

#[async_trait]
impl Dial for Dialled {
    fn peer(&self) -> String {
        "relay.example/hc".into()
    }

    async fn dial(&self) -> Result<Box<dyn BytePipe>> {
        self.road.dials.fetch_add(1, Ordering::Relaxed);
        if let Some(error) = self.road.failures.lock().unwrap().pop_front() {
            return Err(error);
        }
        if let Some(error) = &*self.road.blocked.lock().unwrap() {
            return Err(Error::new(error.kind(), error.to_string()));
        }
        let (near, far) = duplex(64 * 1024);
        let _ = self.arrivals.send(far);
        Ok(Box::new(near))
    }
}

impl Bed {
    pub fn new() -> Self {
        Self::with(|tunnel| tunnel)
    }

    pub fn with(configure: impl FnOnce(BridgeTunnel) -> BridgeTunnel) -> Self {
        let road = Arc::new(Road::default());
        let (arrivals, arrived) = mpsc::unbounded_channel();
        let dial = Dialled {
            road: Arc::clone(&road),
            arrivals,
        };
        let port = BridgePort::new("k8s").unwrap();
        Self {
            tunnel: Arc::new(configure(BridgeTunnel::dialling(Arc::new(dial), port))),
            arrived,
            road,
        }
    }

    /// How often was dialled.
    pub fn dials(&self) -> usize {
        self.road.dials.load(Ordering::Relaxed)
    }

    /// The next dials fail like this, in turn.
    pub fn fail_next(&self, errors: impl IntoIterator<Item = Error>) {
        self.road.failures.lock().unwrap().extend(errors);
    }

    /// All dials fail like this, or none.
    pub fn block(&self, error: Option<Error>) {
        *self.road.blocked.lock().unwrap() = error;
    }

    /// Opens a stream from a task of its own.
    pub fn open(&self) -> JoinHandle<Result<TunnelStream>> {
        self.open_to(Target::api_server(), OpenOptions::new())
    }

    pub fn open_to(
        &self,
        target: Target,
        options: OpenOptions,
    ) -> JoinHandle<Result<TunnelStream>> {
        let tunnel = Arc::clone(&self.tunnel);
        tokio::spawn(async move { tunnel.open(&target, options).await })
    }

    /// The far end of the next dial.
    pub async fn arrival(&mut self) -> DuplexStream {
        self.arrived.recv().await.unwrap()
    }

    /// The far end of the next dial, after a whole hello for `k8s`.
    pub async fn asked(&mut self) -> DuplexStream {
        let mut far = self.arrival().await;
        assert_eq!(read(&mut far, HELLO.len()).await, HELLO);
        far
    }

    /// The far end of the next dial, which is taken.
    pub async fn accept(&mut self) -> DuplexStream {
        let mut far = self.asked().await;
        far.write_all(ACCEPTED).await.unwrap();
        far
    }

    /// A stream and its far end.
    pub async fn stream(&mut self) -> (TunnelStream, DuplexStream) {
        let opening = self.open();
        let far = self.accept().await;
        (opening.await.unwrap().unwrap(), far)
    }

    /// Takes every dial from now on and holds it; `echo` is what it does with the far ends.
    pub fn accept_all(self) -> (Arc<BridgeTunnel>, Arc<Road>) {
        let Self {
            tunnel,
            mut arrived,
            road,
        } = self;
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Some(mut far) = arrived.recv().await {
                assert_eq!(read(&mut far, HELLO.len()).await, HELLO);
                far.write_all(ACCEPTED).await.unwrap();
                held.push(far);
            }
        });
        (tunnel, road)
    }
}

impl Road {
    pub fn dials(&self) -> usize {
        self.dials.load(Ordering::Relaxed)
    }
}

pub async fn read(far: &mut DuplexStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    far.read_exact(&mut bytes).await.unwrap();
    bytes
}

pub fn unreachable() -> Error {
    Error::new(ErrorKind::Network, "no way to the relay")
}

pub fn forbidden() -> Error {
    Error::new(ErrorKind::Unauthorized, "a wrong key").with_help("get another")
}
