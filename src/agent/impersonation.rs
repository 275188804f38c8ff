//! Impersonation headers: written from an [`Identity`], and read where a caller asks to act as somebody else.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::{
    identity::{Identity, IdentityRules},
    status::Refusal,
};
use crate::{Error, ErrorKind, Result};

pub(super) const PREFIX: &str = "impersonate-";
const USER: HeaderName = HeaderName::from_static("impersonate-user");
const GROUP: HeaderName = HeaderName::from_static("impersonate-group");
const UID: HeaderName = HeaderName::from_static("impersonate-uid");
const EXTRA_PREFIX: &str = "impersonate-extra-";
/// What stays as it is in the name of an extra header: the bytes of an RFC 9110 token but `%`. The API server
/// decodes the rest, after it has made the name lower case.
const EXTRA_KEY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'*')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// Whether `Impersonate-Uid` may be sent. API servers refuse the whole request where the right to it is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UidHeader {
    Send,
    Omit,
}

/// Writes `identity` in place of every impersonation header that `headers` may have.
///
/// # Errors
/// When a name can not stand in a header, which the rules of an [`Identity`] leave no room for.
pub(super) fn write(identity: &Identity, uid: UidHeader, headers: &mut HeaderMap) -> Result<()> {
    remove_all(headers);
    headers.insert(USER, value(identity.user())?);
    for group in identity.groups() {
        headers.append(GROUP, value(group)?);
    }
    if let (Some(id), UidHeader::Send) = (identity.uid(), uid) {
        headers.insert(UID, value(id)?);
    }
    for (key, values) in identity.extra() {
        let name = extra_name(key)?;
        for text in values {
            headers.append(name.clone(), value(text)?);
        }
    }
    Ok(())
}

/// Whom a caller asks to act as (`kubectl --as`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ActAs(Identity);

impl ActAs {
    /// Reads the wish in a caller's headers, more strictly than API servers do: what they would ignore, or take the
    /// first of, is refused.
    pub(super) fn read(headers: &HeaderMap) -> Result<Option<Self>, Refusal> {
        let mut user = None;
        let mut uid = None;
        let mut groups = Vec::new();
        let mut extra = Vec::new();
        let mut asks = false;
        for (name, value) in headers {
            let name = name.as_str();
            if !is_impersonation(name) {
                continue;
            }
            asks = true;
            let text = std::str::from_utf8(value.as_bytes())
                .map_err(|_| misshapen("an impersonation header is not UTF-8"))?
                .to_owned();
            if *name == USER {
                put(&mut user, text)?;
            } else if *name == UID {
                put(&mut uid, text)?;
            } else if *name == GROUP {
                groups.push(text);
            } else if let Some(key) = name.strip_prefix(EXTRA_PREFIX) {
                let key = percent_decode_str(key)
                    .decode_utf8()
                    .map_err(|_| misshapen("an impersonation header's extra key is not UTF-8"))?;
                extra.push((key.into_owned(), text));
            } else {
                return Err(misshapen(
                    "the request has an Impersonate-* header that is not known",
                ));
            }
        }
        if !asks {
            return Ok(None);
        }
        let user = user.ok_or_else(|| {
            misshapen("the request asks for groups, a uid or extra information without a user")
        })?;
        if groups.iter().any(|group| group.trim().is_empty()) {
            return Err(misshapen("an Impersonate-Group header is blank"));
        }
        let mut builder = Identity::builder(user).groups(groups);
        if let Some(uid) = uid {
            builder = builder.uid(uid);
        }
        for (key, value) in extra {
            builder = builder.extra(key, value);
        }
        builder
            .build_unfiltered(&IdentityRules::default())
            .map(|identity| Some(Self(identity)))
            .map_err(|error| misshapen(error.to_string()))
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.0
    }

    /// Writes the wish again, for an API server that judges it under the caller's own token.
    pub(super) fn write(&self, headers: &mut HeaderMap) -> Result<()> {
        write(&self.0, UidHeader::Send, headers)
    }
}

/// Whether a header's name is one of impersonation to any server. Some take `_` and `-` for the same.
pub(super) fn is_impersonation(name: &str) -> bool {
    name.get(..PREFIX.len()).is_some_and(|start| {
        start.bytes().zip(PREFIX.bytes()).all(|(byte, wanted)| {
            byte.eq_ignore_ascii_case(&wanted) || (byte == b'_' && wanted == b'-')
        })
    })
}

fn remove_all(headers: &mut HeaderMap) {
    let names: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_impersonation(name.as_str()))
        .cloned()
        .collect();
    for name in names {
        headers.remove(name);
    }
}

fn extra_name(key: &str) -> Result<HeaderName> {
    let name = format!("{EXTRA_PREFIX}{}", utf8_percent_encode(key, EXTRA_KEY));
    HeaderName::try_from(name).map_err(unwritable)
}

fn value(text: &str) -> Result<HeaderValue> {
    HeaderValue::from_bytes(text.as_bytes()).map_err(unwritable)
}

fn unwritable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(
        ErrorKind::InvalidInput,
        "a name of the identity can not stand in a header",
    )
    .with_source(error)
}

fn put(place: &mut Option<String>, text: String) -> Result<(), Refusal> {
    match place.replace(text) {
        None => Ok(()),
        Some(_) => Err(misshapen(
            "the request asks for more than one user or uid to act as",
        )),
    }
}

fn misshapen(message: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal::forbidden(
        message,
        "pass --as with one user, and --as-group, --as-uid and --as-user-extra only beside it",
    )
}

#[cfg(test)]
mod tests;
