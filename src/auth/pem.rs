//! PEM (RFC 7468), as far as keys and certificates of our own need it. Trust roots are read in `net`.

use base64::{Engine, prelude::BASE64_STANDARD};

/// The content of the first block with this label.
pub(super) fn first(text: &str, label: &str) -> Option<Vec<u8>> {
    let begin = format!("-----BEGIN {label}-----");
    let end = format!("-----END {label}-----");
    let (_, rest) = text.split_once(&begin)?;
    let (body, _) = rest.split_once(&end)?;
    let base64: String = body.split_ascii_whitespace().collect();
    BASE64_STANDARD.decode(base64).ok()
}

/// One block.
pub(super) fn encode(label: &str, content: &[u8]) -> String {
    /// RFC 7468 section 2.
    const LINE: usize = 64;

    let base64 = BASE64_STANDARD.encode(content);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in base64.as_bytes().chunks(LINE) {
        text.extend(line.iter().map(|&byte| char::from(byte)));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let content: Vec<u8> = (0..=255).collect();
        let text = encode("PRIVATE KEY", &content);
        assert!(text.lines().all(|line| line.len() <= 64));
        assert_eq!(first(&text, "PRIVATE KEY").unwrap(), content);
        assert_eq!(
            first(&format!("note\n{text}"), "PRIVATE KEY").unwrap(),
            content
        );
        assert_eq!(first(&text, "CERTIFICATE"), None);
        assert_eq!(first("-----BEGIN X-----\n!\n-----END X-----", "X"), None);
    }
}
