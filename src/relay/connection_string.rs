//! Connection strings, in the form that the Azure portal shows.

use std::{fmt, fs::File, io::Read, path::Path};

use secrecy::{ExposeSecret, SecretString};

use super::{HybridConnection, RelayCredential, SasRule, address::RelayUrl};
use crate::{
    Error, ErrorKind, Result,
    net::{Endpoint, Security},
};

/// A connection string: where the relay is, and what to show it.
///
/// ```text
/// Endpoint=sb://contoso.servicebus.windows.net/;SharedAccessKeyName=…;SharedAccessKey=…;EntityPath=…
/// Endpoint=sb://contoso.servicebus.windows.net/;SharedAccessSignature=SharedAccessSignature sr=…;EntityPath=…
/// ```
///
/// The names of the parts are matched without case, their order does not matter, unknown parts are ignored. `sb`,
/// `wss` and `https` mean TLS on port 443 unless another is given; `ws` means a plain connection on port 80, and is
/// taken for loopback only. Space, line ends and one pair of quotes around the whole are dropped. No error and no
/// [`Debug`](fmt::Debug) output ever repeats a key, or any other part of the text.
///
/// ```
/// use arc_cluster_connect::relay::ConnectionString;
///
/// # fn main() -> arc_cluster_connect::Result<()> {
/// let parsed = ConnectionString::parse(
///     "Endpoint=sb://contoso.servicebus.windows.net/;SharedAccessKeyName=listen;\
///      SharedAccessKey=an-example-key=;EntityPath=clusters/east",
/// )?;
/// assert_eq!(parsed.endpoint().port(), 443);
/// assert_eq!(parsed.hybrid_connection()?.path(), "clusters/east");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ConnectionString {
    endpoint: Endpoint,
    entity_path: Option<String>,
    credential: RelayCredential,
}

impl ConnectionString {
    /// Reads a connection string.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`]; the text names the part that is missing or malformed.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > MAX_LENGTH {
            return Err(invalid("it is longer than 16 KiB"));
        }
        let text = unquoted(text);
        if text.is_empty() {
            return Err(invalid("it is empty"));
        }
        let parts = Parts::split(text)?;
        let endpoint = parse_endpoint(parts.endpoint)?;
        let credential = parts.credential()?;
        if let Some(path) = parts.entity_path {
            HybridConnection::new(endpoint.clone(), path)
                .map_err(|error| invalid("its part EntityPath is not usable").with_source(error))?;
        }
        Ok(Self {
            endpoint,
            entity_path: parts.entity_path.map(str::to_owned),
            credential,
        })
    }

    /// Reads the connection string in the file at `path`.
    ///
    /// # Errors
    /// [`ErrorKind::File`] when the file can not be read, [`ErrorKind::InvalidInput`] as for
    /// [`parse`](Self::parse); the text names the file.
    pub fn read_file(path: &Path) -> Result<Self> {
        let shown = path.display();
        let text = read_text(path).map_err(|error| {
            Error::new(
                ErrorKind::File,
                format!("can not read the connection string file {shown}"),
            )
            .with_source(error)
            .with_help("give a readable text file that holds the connection string")
        })?;
        Self::parse(text.expose_secret()).map_err(|error| {
            let help = error.help().map(str::to_owned);
            let outer = Error::new(
                ErrorKind::InvalidInput,
                format!("the connection string in {shown} is not usable"),
            )
            .with_source(error);
            match help {
                Some(help) => outer.with_help(help),
                None => outer,
            }
        })
    }

    /// The relay's host and port.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The path of the hybrid connection, where the string names one.
    pub fn entity_path(&self) -> Option<&str> {
        self.entity_path.as_deref()
    }

    /// The hybrid connection that the string names.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when it names none: a connection string for a whole namespace has no
    /// `EntityPath`.
    pub fn hybrid_connection(&self) -> Result<HybridConnection> {
        let path = self
            .entity_path
            .as_deref()
            .ok_or_else(|| missing("EntityPath", "EntityPath=<name of the hybrid connection>"))?;
        HybridConnection::new(self.endpoint.clone(), path)
    }

    /// What to show the relay.
    pub fn credential(&self) -> RelayCredential {
        self.credential.clone()
    }
}

impl fmt::Debug for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionString")
            .field("endpoint", &self.endpoint)
            .field("entity_path", &self.entity_path)
            .field("credential", &self.credential)
            .finish()
    }
}

/// The parts that matter, still as text.
#[derive(Default)]
struct Parts<'a> {
    endpoint: Option<&'a str>,
    rule_name: Option<&'a str>,
    key: Option<&'a str>,
    signature: Option<&'a str>,
    entity_path: Option<&'a str>,
}

impl<'a> Parts<'a> {
    fn split(text: &'a str) -> Result<Self> {
        let mut parts = Self::default();
        for part in text.split(';') {
            let part = part.trim();
            if part.is_empty() {
                continue;
            }
            // At the first `=` only: a key ends in one.
            let (name, value) = part
                .split_once('=')
                .ok_or_else(|| invalid("one of its parts has no '='"))?;
            let (slot, name) = match name.trim().to_ascii_lowercase().as_str() {
                "endpoint" => (&mut parts.endpoint, "Endpoint"),
                "sharedaccesskeyname" => (&mut parts.rule_name, "SharedAccessKeyName"),
                "sharedaccesskey" => (&mut parts.key, "SharedAccessKey"),
                "sharedaccesssignature" => (&mut parts.signature, "SharedAccessSignature"),
                "entitypath" => (&mut parts.entity_path, "EntityPath"),
                _ => continue,
            };
            let value = value.trim();
            if value.is_empty() {
                return Err(invalid(format!("its part {name} is empty")));
            }
            if slot.replace(value).is_some() {
                return Err(invalid(format!("its part {name} is there twice")));
            }
        }
        Ok(parts)
    }

    fn credential(&self) -> Result<RelayCredential> {
        match (self.rule_name, self.key, self.signature) {
            (None, None, Some(token)) => RelayCredential::sas_token(token).map_err(|error| {
                invalid("its part SharedAccessSignature is not usable").with_source(error)
            }),
            (Some(name), Some(key), None) => {
                let rule = SasRule::new(name, key).map_err(|error| {
                    invalid("its SharedAccessKeyName or SharedAccessKey is not usable")
                        .with_source(error)
                })?;
                Ok(rule.into())
            }
            (None, Some(_), None) => Err(missing(
                "SharedAccessKeyName",
                "SharedAccessKeyName=<name of the shared access policy>",
            )),
            (_, None, None) => Err(missing(
                "SharedAccessKey",
                "SharedAccessKey=<key of the shared access policy>",
            )),
            (_, _, Some(_)) => Err(invalid(
                "it has both a SharedAccessSignature and a SharedAccessKeyName or SharedAccessKey",
            )),
        }
    }
}

fn parse_endpoint(text: Option<&str>) -> Result<Endpoint> {
    let text = text.ok_or_else(|| missing("Endpoint", ENDPOINT_EXAMPLE))?;
    let unusable = |reason: &str| {
        invalid(format!("its part Endpoint is not usable: {reason}"))
            .with_help(format!("write {ENDPOINT_EXAMPLE}"))
    };
    let url = RelayUrl::parse(text).map_err(unusable)?;
    if url.path_and_query != "/" {
        return Err(unusable("it has a path or query")
            .with_help("put the name of the hybrid connection into EntityPath=…"));
    }
    if url.endpoint.security() == Security::Plain && !url.endpoint.is_loopback() {
        return Err(unusable("ws:// is taken for loopback only")
            .with_help("use sb://, so that the key's tokens travel under TLS"));
    }
    Ok(url.endpoint)
}

/// Reads one byte more than is allowed, so that [`ConnectionString::parse`] sees that it was too much.
fn read_text(path: &Path) -> std::io::Result<SecretString> {
    let mut text = String::new();
    File::open(path)?
        .take(MAX_LENGTH as u64 + 1)
        .read_to_string(&mut text)?;
    Ok(SecretString::from(text))
}

fn unquoted(text: &str) -> &str {
    // Editors on Windows begin a file with a byte order mark.
    let text = text.trim_start_matches('\u{feff}').trim();
    ['"', '\'']
        .into_iter()
        .find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
        .map_or(text, str::trim)
}

fn missing(part: &str, example: &str) -> Error {
    invalid(format!("its part {part} is missing")).with_help(format!(
        "add {example}; the parts are separated by semicolons"
    ))
}

fn invalid(reason: impl fmt::Display) -> Error {
    Error::new(
        ErrorKind::InvalidInput,
        format!("the relay's connection string is not usable: {reason}"),
    )
    .with_help(
        "copy it whole from the Azure portal: \
         Endpoint=sb://…/;SharedAccessKeyName=…;SharedAccessKey=…;EntityPath=…",
    )
}

const ENDPOINT_EXAMPLE: &str = "Endpoint=sb://<namespace>.servicebus.windows.net/";

/// A finished token is the longest part, and has at most 4 KiB.
const MAX_LENGTH: usize = 16 * 1024;

#[cfg(test)]
mod tests;
