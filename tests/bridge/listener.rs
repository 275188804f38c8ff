//! [`Listener`]: a stand-in for the listener of the Azure Relay Bridge. It knows nothing of this crate's codec: every byte
//! is written down here once more, as the bridge's public source has it.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_cluster_connect::{
    net::Connector,
    relay::{ConnectionString, IncomingConnection, RelayListener, RelayStream},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::TcpStream,
    task::{JoinHandle, JoinSet},
    time::timeout,
};

/// What a port is forwarded to.
#[derive(Clone, Copy)]
pub enum Forward {
    Tcp(SocketAddr),
    /// Not carried out: only who asks for a stream is answered.
    Udp,
}

/// Which listener it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// Since September 2018.
    PortNames,
    /// Before.
    FourBytes,
    /// One that may come: it refuses our version.
    Future,
}

/// Serves a hybrid connection until it is dropped, and takes all its connections with it.
pub struct Listener {
    task: JoinHandle<()>,
    accepted: Arc<AtomicUsize>,
}

struct Bridge {
    age: Age,
    ports: HashMap<String, Forward>,
}

impl Listener {
    pub async fn start(
        connector: Connector,
        string: &ConnectionString,
        ports: &[(&str, Forward)],
    ) -> Self {
        Self::of_age(Age::PortNames, connector, string, ports).await
    }

    pub async fn of_age(
        age: Age,
        connector: Connector,
        string: &ConnectionString,
        ports: &[(&str, Forward)],
    ) -> Self {
        let ports = ports.iter().map(|(name, port)| ((*name).to_owned(), *port));
        let bridge = Arc::new(Bridge {
            age,
            ports: ports.collect(),
        });
        let mut listener = RelayListener::start(
            connector,
            string.hybrid_connection().expect("it names one"),
            string.credential(),
        );
        listener.online().await.expect("the listener registers");
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Some(connection) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                connections.spawn(Arc::clone(&bridge).serve(connection));
            }
        });
        Self { task, accepted }
    }

    /// How many connections have come so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Bridge {
    /// What goes wrong is the end of this connection, as a `using` in .NET has it: dropped without a Close.
    async fn serve(self: Arc<Self>, connection: IncomingConnection) {
        let Ok(mut stream) = connection.accept().await else {
            return;
        };
        if self.age == Age::FourBytes {
            let mut preamble = [0; 4];
            if stream.read_exact(&mut preamble).await.is_err()
                || stream.write_all(&[1, 0, 0, 0]).await.is_err()
            {
                return;
            }
            let forward = self.ports.values().next().copied();
            return bridge(stream, forward).await;
        }

        let mut version = [0; 3];
        if stream.read_exact(&mut version).await.is_err() {
            return close(stream).await;
        }
        let known = version == [1, 0, 0] || version == [1, 0, 1];
        if !known || self.age == Age::Future {
            return answer(stream, [0, 0, 0]).await;
        }
        let Ok(length) = stream.read_u8().await else {
            return close(stream).await;
        };
        let mut name = vec![0; usize::from(length)];
        if stream.read_exact(&mut name).await.is_err() {
            return close(stream).await;
        }
        let name = String::from_utf8_lossy(&name);
        let is_number = name.parse::<i32>().is_ok();
        let forward = if self.ports.len() == 1 && is_number {
            self.ports.values().next().copied()
        } else {
            self.ports.get(&*name).copied()
        };
        match (forward, version[2]) {
            (None, _) => close(stream).await,
            (Some(Forward::Udp), 0) => answer(stream, [0, 0, 1]).await,
            (Some(Forward::Tcp(_)), 1) => answer(stream, [0, 0, 255]).await,
            (Some(_), mode) => {
                if stream.write_all(&[1, 0, mode]).await.is_ok() {
                    bridge(stream, forward).await;
                }
            }
        }
    }
}

async fn bridge(mut stream: RelayStream, forward: Option<Forward>) {
    let Some(Forward::Tcp(address)) = forward else {
        return;
    };
    let Ok(mut tcp) = TcpStream::connect(address).await else {
        return;
    };
    // The end of one direction is passed on, and the other goes on.
    if copy_bidirectional(&mut stream, &mut tcp).await.is_ok() {
        close(stream).await;
    }
}

async fn answer(mut stream: RelayStream, reply: [u8; 3]) {
    if stream.write_all(&reply).await.is_ok() {
        close(stream).await;
    }
}

/// Shutdown, then wait for the other's.
async fn close(mut stream: RelayStream) {
    let _ = timeout(Duration::from_secs(60), async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    })
    .await;
}
