//! Masking (RFC 6455 section 5.3): the transform, and where a client's keys come from.

use crate::crypto;

/// Masks or unmasks `payload` in place; `offset` is how far into the frame's payload it starts.
pub(super) fn apply(payload: &mut [u8], key: [u8; 4], offset: u64) {
    let mut key = key;
    // The remainder is below 4.
    key.rotate_left((offset % 4) as usize);
    // Eight bytes at a time; the compiler makes vector instructions of the loop.
    let [a, b, c, d] = key;
    let wide_key = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut chunks = payload.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let bytes: &mut [u8; 8] = chunk
            .try_into()
            .expect("chunks_exact_mut(8) yields 8 bytes");
        *bytes = (u64::from_ne_bytes(*bytes) ^ wide_key).to_ne_bytes();
    }
    for (index, byte) in chunks.into_remainder().iter_mut().enumerate() {
        *byte ^= key[index % 4];
    }
}

/// A client's masking keys.
///
/// They must not be predictable from earlier ones (RFC 6455 section 10.3), yet asking the operating system for each
/// frame costs a system call. So: HMAC-SHA-256 over a counter with a key from the operating system, eight keys a block.
pub(super) struct MaskKeys {
    secret: [u8; 32],
    counter: u64,
    block: [u8; 32],
    used: usize,
}

impl MaskKeys {
    pub(super) fn new() -> Self {
        Self {
            secret: crypto::random(),
            counter: 0,
            block: [0; 32],
            used: 32,
        }
    }

    pub(super) fn next_key(&mut self) -> [u8; 4] {
        if self.used == self.block.len() {
            self.block = crypto::hmac_sha256(&self.secret, &self.counter.to_be_bytes());
            self.counter += 1;
            self.used = 0;
        }
        let start = self.used;
        self.used += 4;
        self.block[start..self.used]
            .try_into()
            .expect("the slice is 4 bytes long")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_masked_hello_of_rfc_6455_section_5_7() {
        let mut payload = *b"Hello";
        apply(&mut payload, [0x37, 0xfa, 0x21, 0x3d], 0);
        assert_eq!(payload, [0x7f, 0x9f, 0x4d, 0x51, 0x58]);
    }

    #[test]
    fn keys_do_not_repeat() {
        let mut keys = MaskKeys::new();
        let first: HashSet<_> = (0..100).map(|_| keys.next_key()).collect();
        assert!(first.len() >= 99, "a repeat among 100 is a 1 in 10^6 event");
        assert_ne!(MaskKeys::new().next_key(), MaskKeys::new().next_key());
    }

    proptest! {
        #[test]
        fn equals_the_definition_whatever_the_pieces(
            payload in prop::collection::vec(any::<u8>(), 0..200),
            key: [u8; 4],
            cut in 0usize..200,
        ) {
            let expected: Vec<u8> = payload.iter().enumerate().map(|(i, byte)| byte ^ key[i % 4]).collect();
            let mut masked = payload;
            let cut = cut.min(masked.len());
            let (head, tail) = masked.split_at_mut(cut);
            apply(head, key, 0);
            apply(tail, key, cut as u64);
            prop_assert_eq!(masked, expected);
        }
    }
}
