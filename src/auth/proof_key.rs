//! [`ProofKey`]: the caller's own key, to which Entra ID binds a token and which signs each use of it.

use std::{
    fmt, io,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{AccessToken, pem};
use crate::{
    Error, ErrorKind, Result,
    crypto::{self, PublicKey, SigningKey},
};

/// How long verifiers take a proof: five minutes at our agent, fifteen at Azure's.
const PROOF_LIFE: Duration = Duration::from_secs(5 * 60);

/// A key file is some 2 KiB; more is another file.
const MAX_KEY_FILE: u64 = 64 * 1024;

/// A key pair for proofs of possession: with it, a copied access token alone is worth nothing.
///
/// The key stays in memory and is gone with the process unless [`load_or_generate`](Self::load_or_generate) keeps it
/// in a file. There is no operating system key store: many machines have none, and failing there breaks automation.
///
/// # Which verifier takes which key
///
/// | key | made by | our agent | Azure's guard |
/// |---|---|---|---|
/// | RSA, 2048 bits (`RS256`) | the feature `aws-lc-rs`, or `openssl genpkey -algorithm RSA`, read with [`from_pem`](Self::from_pem) | yes | yes |
/// | P-256 (`ES256`) | the feature `ring`, which can not make RSA keys | with `SignatureAlgorithm::Es256` among its `algorithms` | no: RS256 only |
///
/// Entra ID binds a token to either: it sees no more of the key than its thumbprint. Clusters that are connected to
/// Azure's own agent therefore need `aws-lc-rs` or an RSA key from outside.
///
/// Format: "Signed HTTP Requests" (draft-ietf-oauth-signed-http-request-03) as Microsoft's client libraries make it.
///
/// ```
/// use std::time::SystemTime;
///
/// use arc_cluster_connect::auth::{AccessToken, ProofKey};
///
/// let key = ProofKey::generate()?;
/// // Entra ID gives this for a request with `token_type=pop` and `req_cnf` = key.request_confirmation().
/// let token = AccessToken::new("an-access-token-bound-to-the-key", None);
/// let proof = key.sign(&token, "the cluster's resource id", SystemTime::now())?;
/// assert_eq!(proof.secret().split('.').count(), 3);
/// # Ok::<(), arc_cluster_connect::Error>(())
/// ```
#[derive(Clone)]
pub struct ProofKey {
    pair: Arc<SigningKey>,
    id: String,
    jwk: Value,
}

impl ProofKey {
    /// A new key, of the kind that the crate's cryptography provider can make (see above).
    ///
    /// RSA keys take some tenths of a second of computing: call it off the runtime's threads where that matters.
    ///
    /// # Errors
    /// [`ErrorKind::Other`] when the operating system's random source fails.
    pub fn generate() -> Result<Self> {
        Self::from_pkcs8(&new_document()?)
    }

    /// The key of a PEM text (`-----BEGIN PRIVATE KEY-----`, PKCS#8): RSA from 2048 bits on, or P-256.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for anything else. The error shows nothing of the text.
    pub fn from_pem(text: &str) -> Result<Self> {
        let document = pem::first(text, "PRIVATE KEY").ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidInput,
                "the proof key is not a PKCS#8 PEM text",
            )
            .with_help(
                "make one with `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048`",
            )
        })?;
        Self::from_pkcs8(&document)
    }

    /// The key in the file at `path`, or a new one that is written there for its owner only (mode 0600).
    ///
    /// So that tokens that are bound to the key can be kept from run to run. Never overwrites. Reads and writes
    /// synchronously.
    ///
    /// # Errors
    /// [`ErrorKind::File`] when the file can not be read or written, or when others can read it; otherwise as
    /// [`from_pem`](Self::from_pem).
    pub fn load_or_generate(path: &Path) -> Result<Self> {
        match read_private(path) {
            Ok(text) => Self::from_pem(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let document = new_document()?;
                write_private(path, &pem::encode("PRIVATE KEY", &document))
                    .map_err(|error| file_error(path, "written", error))?;
                Self::from_pkcs8(&document)
            }
            Err(error) => Err(file_error(path, "used", error)),
        }
    }

    /// The key's thumbprint (RFC 7638), by which tokens and proofs name it.
    pub fn key_id(&self) -> &str {
        &self.id
    }

    /// The public half as a JWK, with `alg` and `kid`.
    pub fn public_jwk(&self) -> Value {
        let mut jwk = self.jwk.clone();
        jwk["alg"] = json!(self.pair.algorithm());
        jwk["kid"] = json!(self.id);
        jwk
    }

    /// The value of `req_cnf` in a token request with `token_type=pop`.
    pub fn request_confirmation(&self) -> String {
        encode(
            json!({ "kid": self.id, "xms_ksl": "sw" })
                .to_string()
                .as_bytes(),
        )
    }

    /// A proof, made at `now` for `host`, that whoever shows `token` has this key. For Arc-enabled clusters `host` is
    /// the cluster's resource id.
    ///
    /// The proof is a token in its own right, good for one request at our agent, and for five minutes. It does not
    /// name the request's method and path.
    ///
    /// # Errors
    /// [`ErrorKind::Other`] when the operating system's random source fails.
    pub fn sign(&self, token: &AccessToken, host: &str, now: SystemTime) -> Result<AccessToken> {
        let header = json!({ "typ": "pop", "alg": self.pair.algorithm(), "kid": self.id });
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims = json!({
            "at": token.secret(),
            "ts": seconds,
            "u": host,
            "cnf": { "jwk": self.public_jwk() },
            "nonce": crypto::hex(&crypto::random::<16>()),
        });
        let proof = self.signed(&header, &claims)?;
        let end = now + PROOF_LIFE;
        let end = token
            .expires_at()
            .map_or(end, |token_end| token_end.min(end));
        Ok(AccessToken::new(proof, Some(end)))
    }

    fn signed(&self, header: &Value, claims: &Value) -> Result<String> {
        sign_jwt(&self.pair, header, claims)
    }

    fn from_pkcs8(document: &[u8]) -> Result<Self> {
        let unusable = || {
            Error::new(
                ErrorKind::InvalidInput,
                "the proof key is neither RSA of at least 2048 bits nor P-256",
            )
        };
        let pair = SigningKey::from_pkcs8(document).ok_or_else(unusable)?;
        // Members in alphabetical order, no white space: what RFC 7638 takes the digest of.
        let jwk = match pair.public().ok_or_else(unusable)? {
            PublicKey::Rsa { n, e } => json!({ "e": encode(&e), "kty": "RSA", "n": encode(&n) }),
            PublicKey::P256 { x, y } => {
                json!({ "crv": "P-256", "kty": "EC", "x": encode(&x), "y": encode(&y) })
            }
        };
        let id = encode(&crypto::sha256(jwk.to_string().as_bytes()));
        Ok(Self {
            pair: Arc::new(pair),
            id,
            jwk,
        })
    }
}

impl fmt::Debug for ProofKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProofKey")
            .field("key_id", &self.id)
            .finish_non_exhaustive()
    }
}

/// A JWT (RFC 7515 compact form) over `claims`.
pub(super) fn sign_jwt(pair: &SigningKey, header: &Value, claims: &Value) -> Result<String> {
    let signed = format!(
        "{}.{}",
        encode(header.to_string().as_bytes()),
        encode(claims.to_string().as_bytes())
    );
    let signature = pair.sign(signed.as_bytes()).ok_or_else(no_randomness)?;
    Ok(format!("{signed}.{}", encode(&signature)))
}

fn new_document() -> Result<Vec<u8>> {
    SigningKey::generate_pkcs8().ok_or_else(no_randomness)
}

fn no_randomness() -> Error {
    Error::new(
        ErrorKind::Other,
        "the operating system's random source failed",
    )
}

fn encode(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn read_private(path: &Path) -> io::Result<String> {
    use std::io::Read;

    let file = std::fs::File::open(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;

        if file.metadata()?.permissions().mode() & 0o077 != 0 {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "others than its owner have access to it",
            ));
        }
    }
    let mut text = String::new();
    file.take(MAX_KEY_FILE).read_to_string(&mut text)?;
    Ok(text)
}

/// Whole or not at all, and never over another file. Temporary files are their owner's only from the start.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write;

    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path).map_err(|error| error.error)?;
    Ok(())
}

fn file_error(path: &Path, done: &str, error: io::Error) -> Error {
    Error::new(
        ErrorKind::File,
        format!("the key file {} can not be {done}", path.display()),
    )
    .with_source(error)
    .with_help("give a file that is yours alone (chmod 600), or a path where one can be made")
}

#[cfg(test)]
mod tests;
