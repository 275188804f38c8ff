//! A program with the loopback endpoint inside: clusters come and go while it runs, kubectl finds them in a kubeconfig of
//! its own, and every change is told.
//!
//! ```console
//! $ cargo run --example embedded_proxy -- my-kubeconfig
//! add edge send.txt token
//! remove edge
//! ```

use std::{collections::HashMap, error::Error, path::Path, sync::Arc};

use arc_cluster_connect::{
    KubeconfigBuilder,
    auth::BearerAuth,
    kubeconfig::{CurrentContext, KubeconfigFile, MergeReceipt, TokenKubeconfig},
    net::{Connector, TrustRoots},
    proxy::{Proxy, ProxyId},
    relay::{ConnectionString, RelaySender},
    tunnel::RelayTunnel,
};
use futures_util::StreamExt;
use tokio::task::block_in_place;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let kubeconfig = std::env::args()
        .nth(1)
        .ok_or("usage: embedded_proxy KUBECONFIG")?;
    let mut clusters = Clusters {
        proxy: Proxy::builder().start().await?,
        connector: Connector::new(TrustRoots::platform())?,
        kubeconfig: KubeconfigFile::at(kubeconfig),
        receipts: HashMap::new(),
    };
    let mut states = clusters.proxy.states();
    let telling = tokio::spawn(async move {
        while let Some(change) = states.next().await {
            eprintln!("{change:?}");
        }
    });

    println!("serving at {}", clusters.proxy.local_addr());
    let mut lines = std::io::stdin().lines();
    // Files and terminals block: the runtime's other work goes on elsewhere meanwhile.
    while let Some(line) = block_in_place(|| lines.next()).transpose()? {
        let words: Vec<&str> = line.split_whitespace().collect();
        let done = match words.as_slice() {
            ["add", name, relay, token] => clusters.add(name, relay, token),
            ["remove", name] => clusters.remove(name).await,
            _ => Err("say `add NAME CONNECTION_STRING_FILE TOKEN_FILE` or `remove NAME`".into()),
        };
        match done {
            Ok(()) => println!("done: {line}"),
            Err(error) => println!("failed: {line}: {error}"),
        }
    }
    clusters.end().await?;
    // The stream of changes ends with the proxy; all that happened is told first.
    telling.await?;
    Ok(())
}

struct Clusters {
    proxy: Proxy,
    connector: Connector,
    kubeconfig: KubeconfigFile,
    /// What takes the contexts out of the kubeconfig again.
    receipts: HashMap<String, MergeReceipt>,
}

impl Clusters {
    fn add(&mut self, name: &str, relay: &str, token: &str) -> Result<(), Box<dyn Error>> {
        let relay = ConnectionString::read_file(Path::new(relay))?;
        let sender = RelaySender::new(
            self.connector.clone(),
            relay.hybrid_connection()?,
            relay.credential(),
        );
        let tunnel = Arc::new(RelayTunnel::new(sender));
        let auth = Arc::new(BearerAuth::file(token)?);
        let endpoint = self
            .proxy
            .add_cluster(ProxyId::from_name(name), tunnel, auth)?;
        let context = TokenKubeconfig::new(name).build(&endpoint)?;
        let receipt =
            block_in_place(|| self.kubeconfig.merge(&context, CurrentContext::KeepIfSet))?;
        self.receipts.insert(name.to_owned(), receipt);
        Ok(())
    }

    async fn remove(&mut self, name: &str) -> Result<(), Box<dyn Error>> {
        if let Some(receipt) = self.receipts.remove(name) {
            block_in_place(|| receipt.undo())?;
        }
        let removed = self.proxy.remove_cluster(&ProxyId::from_name(name)).await?;
        // The proxy leaves the tunnel alone: somebody else might use it.
        removed.tunnel().shutdown().await?;
        Ok(())
    }

    async fn end(mut self) -> Result<(), Box<dyn Error>> {
        for (_, receipt) in self.receipts.drain() {
            block_in_place(|| receipt.undo())?;
        }
        self.proxy.shutdown().await;
        Ok(())
    }
}
