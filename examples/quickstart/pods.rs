//! Lists pods over the loopback endpoint, with what the kubeconfig says and nothing else, as kubectl does.

use arc_cluster_connect::{
    Error, ErrorKind, Result,
    kubeconfig::ProxyEndpoint,
    net::{Alpn, Connector, Endpoint, Security, TrustRoots},
};
use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;

/// The list is for a person: a cluster with more than this many bytes of pods is listed better by kubectl.
const MAX_LIST: usize = 16 * 1024 * 1024;

pub struct Pod {
    namespace: String,
    name: String,
    phase: String,
}

pub async fn list(endpoint: &ProxyEndpoint) -> Result<Vec<Pod>> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
        Error::new(
            ErrorKind::Network,
            "can not list pods at the loopback endpoint",
        )
        .with_source(error)
    };
    let server: Uri = endpoint
        .server()
        .parse()
        .map_err(|error| failed(Box::new(error)))?;
    let host = server.host().unwrap_or_default();
    let address = Endpoint::new(host, server.port_u16().unwrap_or(443), Security::Tls);
    let roots = TrustRoots::only_pem(endpoint.certificate_authority_pem().as_bytes())?;
    let stream = Connector::new(roots)?
        .connect(&address, Alpn::Http1)
        .await?;

    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(Box::new(error)))?;
    let connection = tokio::spawn(connection);
    let request = Request::get(format!("{}/api/v1/pods", server.path()))
        .header(header::HOST, address.authority())
        .header(
            header::AUTHORIZATION,
            format!("Bearer {}", endpoint.secret()),
        )
        .body(Empty::<Bytes>::new())
        .map_err(|error| failed(Box::new(error)))?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| failed(Box::new(error)))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_LIST)
        .collect()
        .await
        .map_err(failed)?
        .to_bytes();
    drop(sender);
    let _ = connection.await;

    let answer: Value = serde_json::from_slice(&body).map_err(|error| failed(Box::new(error)))?;
    if !status.is_success() {
        let message = answer["message"].as_str().unwrap_or("no reason was given");
        return Err(Error::new(
            ErrorKind::Refused,
            format!("the cluster answered {status}: {message}"),
        )
        .with_status(status.as_u16()));
    }
    Ok(answer["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|pod| Pod {
            namespace: text(&pod["metadata"]["namespace"]),
            name: text(&pod["metadata"]["name"]),
            phase: text(&pod["status"]["phase"]),
        })
        .collect())
}

pub fn print(pods: &[Pod]) {
    println!("   {:<16} {:<32} PHASE", "NAMESPACE", "NAME");
    for pod in pods {
        println!("   {:<16} {:<32} {}", pod.namespace, pod.name, pod.phase);
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}
