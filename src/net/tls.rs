//! TLS, both ends: provider, trust roots, ALPN. The provider is always explicit and never installed process-wide.

use std::{io, path::Path, sync::Arc, time::Duration};

use rustls::{
    CertificateError, ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsStream;

use super::{Endpoint, NetStream, hop::Hop, sessions::RelaySessions, transport::Transport};
use crate::{Error, ErrorKind, Result};

/// How long a TLS handshake may take, on either side.
pub(super) const TLS_HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// The application protocols that a TLS handshake offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Alpn {
    /// None at all.
    None,
    /// `http/1.1` only: what an upgrade needs.
    Http1,
    /// `h2`, then `http/1.1`.
    Http2OrHttp1,
    /// `h2` only. As the result of a handshake: HTTP/2 was agreed on.
    Http2,
}

impl Alpn {
    fn to_wire(self) -> Vec<Vec<u8>> {
        match self {
            Self::None => Vec::new(),
            Self::Http1 => vec![b"http/1.1".to_vec()],
            Self::Http2OrHttp1 => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            Self::Http2 => vec![b"h2".to_vec()],
        }
    }

    pub(super) fn from_wire(protocol: &[u8]) -> Option<Self> {
        match protocol {
            b"h2" => Some(Self::Http2),
            b"http/1.1" => Some(Self::Http1),
            _ => None,
        }
    }
}

/// Which certificate authorities a [`Connector`](super::Connector) trusts.
#[derive(Clone, Debug, Default)]
pub struct TrustRoots {
    only: bool,
    extra: Vec<CertificateDer<'static>>,
}

impl TrustRoots {
    /// The platform's trust store.
    pub fn platform() -> Self {
        Self::default()
    }

    /// The certificates in `pem`, and nothing else.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when there is no certificate in `pem`, or one is malformed.
    pub fn only_pem(pem: &[u8]) -> Result<Self> {
        Ok(Self {
            only: true,
            extra: certificates(pem)?,
        })
    }

    /// Adds the certificates in `pem` to what is trusted.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when there is no certificate in `pem`, or one is malformed.
    pub fn and_pem(mut self, pem: &[u8]) -> Result<Self> {
        self.extra.extend(certificates(pem)?);
        Ok(self)
    }

    /// Adds the certificates of a PEM file to what is trusted.
    ///
    /// # Errors
    /// [`ErrorKind::File`] when the file can not be read, [`ErrorKind::InvalidInput`] as for
    /// [`and_pem`](Self::and_pem); the text names the file.
    pub fn and_file(self, path: &Path) -> Result<Self> {
        let pem = std::fs::read(path).map_err(|error| {
            Error::new(
                ErrorKind::File,
                format!("can not read the CA file {}", path.display()),
            )
            .with_source(error)
        })?;
        self.and_pem(&pem).map_err(|error| {
            Error::new(
                ErrorKind::InvalidInput,
                format!("the CA file {} is not usable", path.display()),
            )
            .with_source(error)
            .with_help("give a file with PEM certificates (-----BEGIN CERTIFICATE-----)")
        })
    }
}

#[derive(Clone, Debug)]
pub(super) struct TlsConnector {
    config: Arc<ClientConfig>,
    /// Stands in for the endpoint's host where it is set.
    server_name: Option<ServerName<'static>>,
}

impl TlsConnector {
    pub(super) fn new(roots: TrustRoots) -> Result<Self> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(tls_setup_error)?;
        let builder = if roots.only {
            let mut store = RootCertStore::empty();
            for certificate in roots.extra {
                store.add(certificate).map_err(tls_setup_error)?;
            }
            builder.with_root_certificates(store)
        } else if roots.extra.is_empty() {
            builder.with_platform_verifier().map_err(tls_setup_error)?
        } else {
            let verifier =
                rustls_platform_verifier::Verifier::new_with_extra_roots(roots.extra, provider())
                    .map_err(tls_setup_error)?;
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier))
        };
        Ok(Self {
            config: Arc::new(builder.with_no_client_auth()),
            server_name: None,
        })
    }

    pub(super) fn expect_server_name(&mut self, name: &str) -> Result<()> {
        self.server_name = Some(server_name(name)?);
        Ok(())
    }

    /// Begins handshakes as Azure's relays like it.
    pub(super) fn expect_relay(&mut self) {
        let mut config = ClientConfig::clone(&self.config);
        config.resumption = Resumption::store(Arc::new(RelaySessions::new()));
        self.config = Arc::new(config);
    }

    /// Completes the handshake with `endpoint` over `io`.
    pub(super) async fn handshake<T>(
        &self,
        endpoint: &Endpoint,
        io: T,
        alpn: Alpn,
        hop: Hop<'_>,
    ) -> Result<TlsStream<T>>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        match &self.server_name {
            Some(name) => self.complete(name.clone(), io, alpn, hop).await,
            None => self.handshake_as_named(endpoint, io, alpn, hop).await,
        }
    }

    /// As [`handshake`](Self::handshake), with somebody whom an expected server name does not concern.
    pub(super) async fn handshake_as_named<T>(
        &self,
        endpoint: &Endpoint,
        io: T,
        alpn: Alpn,
        hop: Hop<'_>,
    ) -> Result<TlsStream<T>>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let name = server_name(endpoint.host())?;
        self.complete(name, io, alpn, hop).await
    }

    async fn complete<T>(
        &self,
        name: ServerName<'static>,
        io: T,
        alpn: Alpn,
        hop: Hop<'_>,
    ) -> Result<TlsStream<T>>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        // A clone shares the store of sessions: a second connection to the same server resumes the first one's.
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = alpn.to_wire();
        let handshake = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, io);
        match tokio::time::timeout(TLS_HANDSHAKE_LIMIT, handshake).await {
            Ok(Ok(stream)) => Ok(stream.into()),
            Ok(Err(error)) => Err(handshake_error(hop, error)),
            Err(_) => Err(Error::new(
                ErrorKind::Timeout,
                format!("no TLS handshake with {hop} within {TLS_HANDSHAKE_LIMIT:?}"),
            )
            .with_help("check that the port speaks TLS")),
        }
    }
}

/// The server side of TLS: a certificate chain and its key.
#[derive(Clone, Debug)]
pub struct TlsAcceptor {
    config: Arc<ServerConfig>,
}

impl TlsAcceptor {
    /// An acceptor that shows the chain in `certificates_pem` (leaf first) and offers `alpn`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when there is no certificate or key, one is malformed, or they do not match.
    pub fn from_pem(certificates_pem: &[u8], key_pem: &[u8], alpn: Alpn) -> Result<Self> {
        let chain = certificates(certificates_pem)?;
        let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|error| {
            Error::new(
                ErrorKind::InvalidInput,
                "there is no usable PEM private key",
            )
            .with_source(error)
        })?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(tls_setup_error)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| {
                Error::new(
                    ErrorKind::InvalidInput,
                    "the certificate and the private key do not go together",
                )
                .with_source(error)
            })?;
        config.alpn_protocols = alpn.to_wire();
        Ok(Self {
            config: Arc::new(config),
        })
    }

    /// Completes the handshake on an accepted connection.
    ///
    /// # Errors
    /// [`ErrorKind::Tls`] when the client's handshake is not acceptable, [`ErrorKind::Timeout`] after ten seconds.
    ///
    /// # Cancel safety
    /// Cancel-safe: a dropped future closes the connection.
    pub async fn accept(&self, tcp: TcpStream) -> Result<NetStream> {
        let stream = self.complete(Transport::tcp(tcp)).await?;
        Ok(NetStream::tls(stream))
    }

    /// An acceptor that agrees on a key by P-384 only, as Azure's relays do.
    #[cfg(test)]
    pub(super) fn with_p384_only(pem: &[u8], key: &[u8]) -> Self {
        let mut provider = CryptoProvider::clone(&provider());
        provider
            .kx_groups
            .retain(|group| group.name() == rustls::NamedGroup::secp384r1);
        let config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                certificates(pem).unwrap(),
                PrivateKeyDer::from_pem_slice(key).unwrap(),
            )
            .unwrap();
        Self {
            config: Arc::new(config),
        }
    }

    /// A handshake within TLS, as behind a proxy that is spoken to over TLS.
    #[cfg(test)]
    pub(super) async fn accept_over<T>(&self, io: T) -> Result<TlsStream<T>>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        self.complete(io).await
    }

    async fn complete<T>(&self, io: T) -> Result<TlsStream<T>>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let handshake = tokio_rustls::TlsAcceptor::from(Arc::clone(&self.config)).accept(io);
        match tokio::time::timeout(TLS_HANDSHAKE_LIMIT, handshake).await {
            Ok(Ok(stream)) => Ok(stream.into()),
            Ok(Err(error)) => Err(
                Error::new(ErrorKind::Tls, "the client's TLS handshake failed").with_source(error),
            ),
            Err(_) => Err(Error::new(
                ErrorKind::Timeout,
                format!("the client sent no TLS handshake within {TLS_HANDSHAKE_LIMIT:?}"),
            )),
        }
    }
}

fn handshake_error(hop: Hop<'_>, error: io::Error) -> Error {
    let tls = error
        .get_ref()
        .and_then(|cause| cause.downcast_ref::<rustls::Error>());
    let (kind, help) = match tls {
        Some(rustls::Error::InvalidCertificate(problem)) => {
            (ErrorKind::Tls, certificate_help(problem))
        }
        Some(rustls::Error::InvalidMessage(_)) => (
            ErrorKind::Tls,
            "the server does not speak TLS on this port: check the port",
        ),
        Some(_) => (
            ErrorKind::Tls,
            "client and server have no TLS version, cipher or application protocol in common",
        ),
        // Not the peer's word but the connection's end: it may well work the next time.
        None => (
            ErrorKind::Network,
            "the server closed the connection: check that the port speaks TLS, and that no firewall interferes",
        ),
    };
    Error::new(kind, format!("the TLS handshake with {hop} failed"))
        .with_source(error)
        .with_help(help)
}

fn certificate_help(problem: &CertificateError) -> &'static str {
    match problem {
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => {
            "the server's certificate has to be renewed, unless this machine's clock is wrong"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the certificate is for another host: check the host name"
        }
        _ => {
            "if the server uses a private certificate authority, or a corporate proxy re-signs traffic, \
             pass its CA file"
        }
    }
}

/// An installed process default first, as the embedding program decided; else this crate's feature.
fn provider() -> Arc<CryptoProvider> {
    if let Some(installed) = CryptoProvider::get_default() {
        return Arc::clone(installed);
    }
    #[cfg(feature = "aws-lc-rs")]
    return Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    #[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
    return Arc::new(rustls::crypto::ring::default_provider());
}

fn server_name(name: &str) -> Result<ServerName<'static>> {
    ServerName::try_from(name.to_owned()).map_err(|error| {
        Error::new(
            ErrorKind::InvalidInput,
            format!("'{name}' is not a host name"),
        )
        .with_source(error)
    })
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let list = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| {
            Error::new(ErrorKind::InvalidInput, "a PEM certificate is malformed").with_source(error)
        })?;
    if list.is_empty() {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "there is no PEM certificate in it",
        ));
    }
    Ok(list)
}

fn tls_setup_error(error: rustls::Error) -> Error {
    Error::new(ErrorKind::Tls, "can not set up TLS").with_source(error)
}
