//! [`Context`]: what a request is about.

use std::net::SocketAddr;

use uuid::Uuid;

use super::route::{Target, decode};

/// What a request is about, beside its headers.
pub(super) struct Context<'a> {
    pub(super) target: Target<'a>,
    /// The path as a person writes it.
    pub(super) path: String,
    /// What the client calls the relay.
    pub(super) host: String,
    pub(super) id: String,
    pub(super) remote: SocketAddr,
}

/// Ids of clients are repeated in status lines, messages and logs. Azure's own have 36 characters and a suffix.
const MAX_CLIENT_ID: usize = 128;

/// A path has at most 512 bytes.
const MAX_READABLE_PATH: usize = 1024;

impl<'a> Context<'a> {
    pub(super) fn new(target: Target<'a>, host: String, remote: SocketAddr) -> Self {
        Self {
            path: readable_path(target.path),
            id: tracking_id(target.id.as_deref()),
            target,
            host,
            remote,
        }
    }
}

/// For tokens, logs and status lines. Longer than any entity's path it is no entity's path.
pub(super) fn readable_path(encoded: &str) -> String {
    let mut path = decode(encoded);
    if let Some((end, _)) = path.char_indices().nth(MAX_READABLE_PATH) {
        path.truncate(end);
    }
    path
}

/// A client's own id if it can be repeated as it is, else a new one.
pub(super) fn tracking_id(id: Option<&str>) -> String {
    match id {
        Some(id)
            if !id.is_empty()
                && id.len() <= MAX_CLIENT_ID
                && id.bytes().all(|byte| byte.is_ascii_graphic()) =>
        {
            id.to_owned()
        }
        _ => Uuid::new_v4().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_id_that_can_be_repeated_is_kept() {
        assert_eq!(tracking_id(Some("a-1_G0")), "a-1_G0");
        let long = "x".repeat(MAX_CLIENT_ID);
        assert_eq!(tracking_id(Some(&long)), long);
        for id in [
            None,
            Some(""),
            Some("a b"),
            Some("a\r\n"),
            Some("é"),
            Some(&*(long + "x")),
        ] {
            assert_eq!(tracking_id(id).len(), 36, "{id:?}");
        }
    }

    #[test]
    fn a_path_is_cut_between_characters() {
        let long = "%C3%A9".repeat(MAX_READABLE_PATH + 1);
        assert_eq!(readable_path(&long).chars().count(), MAX_READABLE_PATH);
        assert_eq!(readable_path("a%2Fb"), "a/b");
    }
}
