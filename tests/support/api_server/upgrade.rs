//! Requests that stop being HTTP: exec, attach, port-forward, and a plain echo.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;

use super::{
    cork::Cork,
    faults::UpgradeAnswer,
    logs, port_channels, port_forward,
    process::Runs,
    query::Query,
    remote_command::{self, PodCommand, Wanted},
    request_body::RequestBody,
    request_log::Ticket,
    resource::builtin,
    response::{self, Response},
    server::Server,
    spdy,
    status::Status,
    websocket,
};

/// Any `Upgrade` to this path becomes raw bytes that come back as they were sent.
pub const ECHO_PATH: &str = "/stand-in/echo";

/// What an upgraded connection is.
type Io = TokioIo<Upgraded>;

/// Answers `pods/<name>/exec`.
pub(super) fn exec(
    server: &Arc<Server>,
    request: http::Request<RequestBody>,
    ticket: &Arc<Ticket>,
    namespace: &str,
    pod: &str,
    query: &Query,
) -> Result<Response, Status> {
    if let Some(answer) = faulty_answer(server) {
        return answer;
    }
    let object = server.store.require(builtin("pods"), namespace, pod)?;
    logs::require_container(&object, query.first("container"))?;
    let arguments: Vec<String> = query.all("command").map(str::to_owned).collect();
    if arguments.is_empty() {
        return Err(Status::bad_request("you must specify at least 1 command"));
    }
    let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
    let directory = server
        .pods
        .of(uid, pod)
        .map_err(|error| Status::internal(format!("no directory for the pod: {error}")))?;
    let wanted = wanted(query)?;
    let command = PodCommand {
        pod: pod.to_owned(),
        arguments,
        directory,
        runs: wanted.runs,
    };
    serve_command(server, request, ticket, wanted, |streams| {
        command.run(streams)
    })
}

/// Answers `pods/<name>/attach`.
pub(super) fn attach(
    server: &Arc<Server>,
    request: http::Request<RequestBody>,
    ticket: &Arc<Ticket>,
    namespace: &str,
    pod: &str,
    query: &Query,
) -> Result<Response, Status> {
    if let Some(answer) = faulty_answer(server) {
        return answer;
    }
    let object = server.store.require(builtin("pods"), namespace, pod)?;
    logs::require_container(&object, query.first("container"))?;
    let pod = pod.to_owned();
    serve_command(server, request, ticket, wanted(query)?, |streams| {
        remote_command::attached(pod, streams)
    })
}

/// Answers `pods/<name>/portforward`.
pub(super) fn port_forward(
    server: &Arc<Server>,
    request: http::Request<RequestBody>,
    ticket: &Arc<Ticket>,
    namespace: &str,
    pod: &str,
    query: &Query,
) -> Result<Response, Status> {
    if let Some(answer) = faulty_answer(server) {
        return answer;
    }
    server.store.require(builtin("pods"), namespace, pod)?;
    let pod = pod.to_owned();
    let protocols = Protocols {
        websocket: &[websocket::TUNNEL_PROTOCOL, port_channels::PROTOCOL],
        spdy: port_forward::SPDY_PROTOCOLS,
    };
    match negotiate(&request, protocols)? {
        Agreed::WebSocket {
            answer,
            protocol: port_channels::PROTOCOL,
        } => {
            let ports = port_channels::ports(query)?;
            switch(server, request, ticket, answer, FirstWord::Server, |io| {
                port_channels::serve(io, pod, ports)
            })
        }
        Agreed::WebSocket { answer, .. } => {
            switch(server, request, ticket, answer, FirstWord::Client, |io| {
                websocket::serve_tunnel(io, |io| {
                    spdy::serve(io, |streams, queue| {
                        port_forward::serve(pod, streams, queue)
                    })
                })
            })
        }
        Agreed::Spdy { answer } => {
            switch(server, request, ticket, answer, FirstWord::Client, |io| {
                spdy::serve(io, |streams, queue| {
                    port_forward::serve(pod, streams, queue)
                })
            })
        }
    }
}

/// Answers [`ECHO_PATH`].
pub(super) fn echo(
    server: &Arc<Server>,
    request: http::Request<RequestBody>,
    ticket: &Arc<Ticket>,
) -> Result<Response, Status> {
    if let Some(answer) = faulty_answer(server) {
        return answer;
    }
    require_upgradable(&request)?;
    let protocol = request.headers().get(header::UPGRADE).cloned();
    let protocol = protocol.ok_or_else(|| Status::bad_request("an Upgrade header is required"))?;
    let mut answer = HeaderMap::new();
    answer.insert(header::UPGRADE, protocol);
    let early_bytes = server.faults.early_bytes();
    let first_word = match early_bytes {
        Some(_) => FirstWord::Server,
        None => FirstWord::Client,
    };
    switch(
        server,
        request,
        ticket,
        answer,
        first_word,
        |mut io| async move {
            if let Some(bytes) = early_bytes
                && (io.write_all(&bytes).await.is_err() || io.flush().await.is_err())
            {
                return;
            }
            let (mut read, mut write) = tokio::io::split(io);
            if tokio::io::copy(&mut read, &mut write).await.is_ok() {
                let _ = write.shutdown().await;
            }
        },
    )
}

fn serve_command<F>(
    server: &Arc<Server>,
    request: http::Request<RequestBody>,
    ticket: &Arc<Ticket>,
    wanted: Wanted,
    command: impl FnOnce(remote_command::Streams) -> F + Send + 'static,
) -> Result<Response, Status>
where
    F: Future<Output = ()> + Send + 'static,
{
    let protocols = Protocols {
        websocket: websocket::CHANNEL_PROTOCOLS,
        spdy: spdy::command::PROTOCOLS,
    };
    match negotiate(&request, protocols)? {
        Agreed::WebSocket { answer, protocol } => switch(
            server,
            request,
            ticket,
            answer,
            FirstWord::Server,
            move |io| async move {
                websocket::serve_channels(io, protocol, wanted, command).await;
            },
        ),
        Agreed::Spdy { answer } => switch(
            server,
            request,
            ticket,
            answer,
            FirstWord::Client,
            move |io| {
                spdy::serve(io, move |streams, queue| {
                    spdy::command::serve(wanted, streams, queue, command)
                })
            },
        ),
    }
}

fn wanted(query: &Query) -> Result<Wanted, Status> {
    let wanted = Wanted {
        stdin: query.is_set("stdin"),
        stdout: query.is_set("stdout"),
        stderr: query.is_set("stderr"),
        runs: if query.is_set("tty") {
            Runs::OnTerminal
        } else {
            Runs::OnPipes
        },
    };
    if wanted.stdin || wanted.stdout || wanted.stderr {
        Ok(wanted)
    } else {
        Err(Status::bad_request(
            "you must specify at least one of stdin, stdout, stderr",
        ))
    }
}

fn faulty_answer(server: &Server) -> Option<Result<Response, Status>> {
    let answer = server.faults.upgrade_answer()?;
    Some(match answer {
        UpgradeAnswer::Forbidden => Err(Status::forbidden("upgrades are refused on demand")),
        UpgradeAnswer::InternalError => Err(Status::internal("upgrades fail on demand")),
        UpgradeAnswer::Ok => Ok(response::bytes(
            answer.code(),
            "text/plain",
            "this is no upgrade\n",
        )),
        UpgradeAnswer::Redirect => {
            let mut response = response::empty(answer.code());
            let elsewhere = HeaderValue::from_static("https://elsewhere.invalid/");
            response.headers_mut().insert(header::LOCATION, elsewhere);
            Ok(response)
        }
    })
}

/// What a resource speaks after an upgrade.
struct Protocols {
    websocket: &'static [&'static str],
    spdy: &'static [&'static str],
}

enum Agreed {
    WebSocket {
        answer: HeaderMap,
        protocol: &'static str,
    },
    Spdy {
        answer: HeaderMap,
    },
}

fn negotiate(request: &http::Request<RequestBody>, protocols: Protocols) -> Result<Agreed, Status> {
    require_upgradable(request)?;
    let headers = request.headers();
    let upgrade = headers
        .get(header::UPGRADE)
        .and_then(|value| value.to_str().ok());
    let mut answer = HeaderMap::new();
    match upgrade {
        Some(upgrade) if upgrade.eq_ignore_ascii_case("websocket") => {
            let key = headers
                .get(header::SEC_WEBSOCKET_KEY)
                .and_then(|key| key.to_str().ok())
                .filter(|_| request.method() == Method::GET)
                .ok_or_else(|| Status::bad_request("not a WebSocket handshake"))?;
            let protocol = choose(headers, "sec-websocket-protocol", protocols.websocket)?;
            let accept = HeaderValue::try_from(websocket::accept_key(key))
                .expect("base64 is a header value");
            answer.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            answer.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
            answer.insert(
                header::SEC_WEBSOCKET_PROTOCOL,
                HeaderValue::from_static(protocol),
            );
            Ok(Agreed::WebSocket { answer, protocol })
        }
        Some(upgrade) if upgrade.eq_ignore_ascii_case("spdy/3.1") => {
            let protocol = choose(headers, "x-stream-protocol-version", protocols.spdy)?;
            answer.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
            answer.insert(
                "x-stream-protocol-version",
                HeaderValue::from_static(protocol),
            );
            Ok(Agreed::Spdy { answer })
        }
        _ => Err(Status::bad_request("Upgrade request required")),
    }
}

fn require_upgradable(request: &http::Request<RequestBody>) -> Result<(), Status> {
    if request.version() == Version::HTTP_11 {
        Ok(())
    } else {
        Err(Status::bad_request(
            "unable to upgrade: HTTP/1.1 is required",
        ))
    }
}

/// The first protocol that the client offers and that exists here.
fn choose(
    headers: &HeaderMap,
    name: &str,
    offered: &'static [&'static str],
) -> Result<&'static str, Status> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|asked| offered.iter().find(|protocol| **protocol == asked.trim()))
        .copied()
        .ok_or_else(|| {
            Status::forbidden(format!(
                "unable to upgrade: none of the protocols {offered:?} was asked for"
            ))
        })
}

/// Who sends the first bytes after the 101.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FirstWord {
    Client,
    Server,
}

/// Answers 101 and, once that is sent, serves the raw connection.
fn switch<F>(
    server: &Arc<Server>,
    mut request: http::Request<RequestBody>,
    ticket: &Arc<Ticket>,
    answer: HeaderMap,
    first_word: FirstWord,
    serve: impl FnOnce(Io) -> F + Send + 'static,
) -> Result<Response, Status>
where
    F: Future<Output = ()> + Send,
{
    let joins = first_word == FirstWord::Server && server.faults.early_bytes().is_some();
    let cork = request
        .extensions()
        .get::<Cork>()
        .filter(|_| joins)
        .cloned();
    if let Some(cork) = &cork {
        cork.hold();
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let ticket = Arc::clone(ticket);
    server.spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        if let Some(cork) = cork {
            cork.join_next_write();
        }
        serve(TokioIo::new(upgraded)).await;
        drop(ticket);
    });

    let mut response = response::empty(StatusCode::SWITCHING_PROTOCOLS);
    *response.headers_mut() = answer;
    let upgrade = HeaderValue::from_static("Upgrade");
    response.headers_mut().insert(header::CONNECTION, upgrade);
    Ok(response)
}
