//! Entry point of the fuzz target. Not part of the API.

use bytes::Bytes;

use super::preamble::{
    Mode, Progress, ReplyDecoder, hello,
    listener::{Asked, HelloDecoder},
};

/// Feeds `input` to both ends of the preamble, in pieces whose length the first byte gives. However it is cut, the
/// same is heard, no byte of what follows is lost, and what was heard says itself again.
pub fn preamble(input: &[u8]) {
    let Some((step, input)) = input.split_first() else {
        return;
    };
    let step = usize::from(*step) + 1;
    let (asked, rest) = hear(input, step);
    assert_eq!(hear(input, 1), (asked.clone(), rest.clone()));
    if let Asked::Port { mode, name } = &asked
        && let Some(said) = input.strip_suffix(&rest[..])
        && name.len() <= 255
        && !name.contains(char::REPLACEMENT_CHARACTER)
    {
        assert_eq!(hello(*mode, name), said);
    }

    let (progress, rest) = understand(input, step);
    if progress == Progress::Accepted {
        assert_eq!([&[1, 0, Mode::Stream as u8][..], &rest].concat(), input);
    }
}

fn hear(input: &[u8], step: usize) -> (Asked, Vec<u8>) {
    let mut decoder = HelloDecoder::default();
    let mut asked = Asked::More;
    let mut rest = Vec::new();
    for piece in input.chunks(step) {
        let mut piece = Bytes::copy_from_slice(piece);
        if asked == Asked::More {
            asked = decoder.handle_input(&mut piece);
        }
        rest.extend_from_slice(&piece);
    }
    (asked, rest)
}

fn understand(input: &[u8], step: usize) -> (Progress, Vec<u8>) {
    let mut decoder = ReplyDecoder::default();
    let mut progress = Progress::More;
    let mut rest = Vec::new();
    for piece in input.chunks(step) {
        let mut piece = Bytes::copy_from_slice(piece);
        if progress == Progress::More {
            progress = decoder.handle_input(&mut piece);
        }
        rest.extend_from_slice(&piece);
    }
    if progress == Progress::More {
        let _ = decoder.handle_end();
    }
    (progress, rest)
}
