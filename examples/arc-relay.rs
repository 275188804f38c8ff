//! `arc-relay`: the embedded relay as a server of its own, for tests, development, and networks without Azure.
//!
//! ```console
//! $ arc-relay --listen 127.0.0.1:9400 --hybrid-connection demo --sas-rule root:@key-file:listen,send
//! ```
//!
//! With `--emulate azure` it is as slow as Azure's.

#[path = "common/mod.rs"]
mod common;
#[path = "arc-relay/emulation.rs"]
mod emulation;
#[path = "arc-relay/entities.rs"]
mod entities;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use arc_cluster_connect::{
    Error, ErrorKind, Result,
    net::{Alpn, TlsAcceptor},
    relay::{
        SasRule,
        server::{EntraIssuer, RelayServer, Rights},
    },
};
use clap::Parser;
use serde_json::json;
use tokio::net::TcpListener;

/// A relay that speaks the protocol of Azure Relay Hybrid Connections.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Address to listen on; port 0 takes any free one
    #[arg(long, value_name = "HOST:PORT")]
    listen: String,

    #[command(flatten)]
    entities: entities::EntityArguments,

    /// Who may connect, as NAME:KEY:RIGHTS with RIGHTS out of listen,send (repeatable).
    /// A KEY of the form @FILE is read from the file, which keeps it out of process lists
    #[arg(
        long,
        value_name = "NAME:KEY:listen,send",
        required_unless_present = "entra_issuer"
    )]
    sas_rule: Vec<String>,

    /// An issuer of Microsoft Entra tokens that may be used in place of a SAS rule, as in their claim `iss`
    #[arg(long, value_name = "URL", requires = "entra_keys")]
    entra_issuer: Option<String>,

    /// The issuer's keys: the document at its `jwks_uri`, read once
    #[arg(long, value_name = "FILE", requires = "entra_issuer")]
    entra_keys: Option<PathBuf>,

    /// What the owner of an object id may do (repeatable)
    #[arg(long, value_name = "ID:listen,send", requires = "entra_issuer")]
    entra_object: Vec<String>,

    /// What everybody with an application role may do (repeatable)
    #[arg(long, value_name = "NAME:listen,send", requires = "entra_issuer")]
    entra_role: Vec<String>,

    /// Certificate chain (PEM) to serve wss:// instead of ws://
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Address to serve /livez, /readyz and /metrics on, in plain HTTP; not served if not given
    #[arg(long, value_name = "HOST:PORT")]
    health: Option<String>,

    /// Written once the relay serves; holds its address as JSON
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,

    #[command(flatten)]
    emulation: emulation::EmulationArguments,

    #[command(flatten)]
    verbosity: common::Verbosity,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::run(
        common::Audience::Operator,
        arguments.verbosity,
        run(arguments),
    )
}

async fn run(arguments: Arguments) -> Result<ExitCode> {
    let mut builder = arguments.entities.apply(RelayServer::builder())?;
    for rule in &arguments.sas_rule {
        let (rule, rights) = parse_rule(rule)?;
        builder = builder.rule(rule, rights);
    }
    if let Some(issuer) = entra_issuer(&arguments)? {
        builder = builder.entra_issuer(issuer);
    }
    builder = arguments.emulation.apply(builder);
    let tls = tls_acceptor(&arguments)?;
    let scheme = if tls.is_some() { "wss" } else { "ws" };
    if let Some(tls) = tls {
        builder = builder.tls(tls);
    }

    let listener = bind(&arguments.listen, scheme).await?;
    let server = builder.start(listener)?;
    let address = server.local_addr();
    let health = serve_health(&server, arguments.health.as_deref()).await?;
    common::progress(format_args!(
        "relay listens on {scheme}://{address} for {}",
        arguments.entities.names()
    ));
    common::write_ready_file(
        arguments.ready_file.as_deref(),
        &json!({
            "address": address.to_string(),
            "scheme": scheme,
            "health": health.map(|address| address.to_string()),
        }),
    )?;

    common::stop_requested().await;
    common::progress("closing");
    server.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

async fn bind(listen: &str, scheme: &str) -> Result<TcpListener> {
    let failed = |error| {
        Error::new(ErrorKind::Network, format!("can not listen on {listen}"))
            .with_source(error)
            .with_help("give an address of this machine and a free port, or port 0 for any")
    };
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host(listen)
        .await
        .map_err(failed)?
        .collect();
    if scheme == "ws" && !addresses.iter().all(|address| address.ip().is_loopback()) {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!(
                "{listen} is not a loopback address, and without TLS tokens would travel in clear"
            ),
        )
        .with_help("pass --tls-cert and --tls-key, or listen on 127.0.0.1"));
    }
    TcpListener::bind(addresses.as_slice())
        .await
        .map_err(failed)
}

/// Serves health until the program ends: a shutdown is to be seen there.
async fn serve_health(server: &RelayServer, address: Option<&str>) -> Result<Option<SocketAddr>> {
    let Some((listener, bound)) = common::health_listener(address).await? else {
        return Ok(None);
    };
    tokio::spawn(server.serve_health(listener, std::future::pending()));
    Ok(Some(bound))
}

fn entra_issuer(arguments: &Arguments) -> Result<Option<EntraIssuer>> {
    let (Some(issuer), Some(keys)) = (&arguments.entra_issuer, &arguments.entra_keys) else {
        return Ok(None);
    };
    let mut issuer = EntraIssuer::new(issuer, &read(keys)?)?;
    for grant in &arguments.entra_object {
        let (id, rights) = parse_grant(grant)?;
        issuer = issuer.object(id, rights);
    }
    for grant in &arguments.entra_role {
        let (name, rights) = parse_grant(grant)?;
        issuer = issuer.role(name, rights);
    }
    Ok(Some(issuer))
}

/// `WHO:RIGHTS`. The rights stand after the last colon.
fn parse_grant(text: &str) -> Result<(&str, Rights)> {
    let (who, rights) = text.rsplit_once(':').ok_or_else(|| {
        Error::new(
            ErrorKind::InvalidInput,
            format!("'{text}' is not of the form WHO:RIGHTS"),
        )
        .with_help("write it like Relay.Send:send")
    })?;
    Ok((who, rights.parse()?))
}

fn tls_acceptor(arguments: &Arguments) -> Result<Option<TlsAcceptor>> {
    let (Some(certificate), Some(key)) = (&arguments.tls_cert, &arguments.tls_key) else {
        return Ok(None);
    };
    TlsAcceptor::from_pem(&read(certificate)?, &read(key)?, Alpn::Http1)
        .map(Some)
        .map_err(|error| {
            Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "can not serve TLS with {} and {}",
                    certificate.display(),
                    key.display()
                ),
            )
            .with_source(error)
        })
}

/// `NAME:KEY:RIGHTS`. The name has no colon; the rights stand after the last one, so the key may hold colons.
fn parse_rule(text: &str) -> Result<(SasRule, Rights)> {
    let parts = text
        .split_once(':')
        .and_then(|(name, rest)| Some((name, rest.rsplit_once(':')?)));
    let Some((name, (key, rights))) = parts else {
        return Err(rule_error("it is not of the form NAME:KEY:RIGHTS"));
    };
    let key = match key.strip_prefix('@') {
        Some(file) => String::from_utf8_lossy(&read(file.as_ref())?)
            .trim()
            .to_owned(),
        None => key.to_owned(),
    };
    Ok((SasRule::new(name, key)?, rights.parse()?))
}

fn rule_error(what: &str) -> Error {
    // The rule's text holds a key: it is not repeated here.
    Error::new(
        ErrorKind::InvalidInput,
        format!("a --sas-rule can not be read: {what}"),
    )
    .with_help("write it like root:@key-file:listen,send")
}

fn read(path: &std::path::Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| {
        Error::new(ErrorKind::File, format!("can not read {}", path.display())).with_source(error)
    })
}
