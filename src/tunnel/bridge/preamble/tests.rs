use proptest::prelude::*;

use super::{
    super::fuzzing,
    listener::{Asked, HelloDecoder},
    *,
};

fn answer(pieces: &[&[u8]]) -> (Progress, Bytes) {
    let mut decoder = ReplyDecoder::default();
    let mut rest = Bytes::new();
    let mut progress = Progress::More;
    for piece in pieces {
        assert_eq!(progress, Progress::More);
        assert!(rest.is_empty());
        rest = Bytes::copy_from_slice(piece);
        progress = decoder.handle_input(&mut rest);
    }
    (progress, rest)
}

fn asked(pieces: &[&[u8]]) -> (Asked, Bytes) {
    let mut decoder = HelloDecoder::default();
    let mut rest = Bytes::new();
    let mut asked = Asked::More;
    for piece in pieces {
        rest = Bytes::copy_from_slice(piece);
        asked = decoder.handle_input(&mut rest);
    }
    (asked, rest)
}

impl Reply {
    fn to_bytes(self) -> [u8; REPLY_LENGTH] {
        match self {
            Self::Accepted(mode) => [1, 0, mode as u8],
            Self::UnknownVersion => [0, 0, 0],
            Self::WantsDatagrams => [0, 0, 1],
            Self::WantsStream => [0, 0, 0xFF],
            Self::Unknown(bytes) => bytes,
        }
    }
}

/// What the documentation of the tunnel promises, byte by byte.
#[test]
fn every_row_of_the_table() {
    assert_eq!(hello(Mode::Stream, "k8s"), b"\x01\x00\x00\x03k8s");
    assert_eq!(hello(Mode::Datagram, "dns"), b"\x01\x00\x01\x03dns");
    assert_eq!(hello(Mode::Stream, ""), b"\x01\x00\x00\x00");

    assert_eq!(answer(&[b"\x01\x00\x00"]).0, Progress::Accepted);
    for (bytes, refusal) in [
        (*b"\x00\x00\x00", Refusal::UnknownVersion),
        (*b"\x00\x00\x01", Refusal::WantsDatagrams),
        // Answers to a question that nobody asked.
        (*b"\x01\x00\x01", Refusal::Garbage([1, 0, 1])),
        (*b"\x00\x00\xff", Refusal::Garbage([0, 0, 255])),
        // A version that may come, and somebody else altogether.
        (*b"\x01\x01\x00", Refusal::Garbage([1, 1, 0])),
        (*b"HTT", Refusal::Garbage(*b"HTT")),
    ] {
        assert_eq!(answer(&[&bytes]).0, Progress::Refused(refusal));
        let one_by_one: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(answer(&one_by_one).0, Progress::Refused(refusal));
    }
}

#[test]
fn a_listener_that_closes_at_once_knows_no_such_port() {
    assert_eq!(ReplyDecoder::default().handle_end(), Refusal::UnknownPort);
    let mut decoder = ReplyDecoder::default();
    assert_eq!(
        decoder.handle_input(&mut Bytes::from_static(b"\x01\x00")),
        Progress::More
    );
    assert_eq!(decoder.handle_end(), Refusal::Truncated);
}

#[test]
fn a_listener_from_before_port_names_is_recognised() {
    assert_eq!(
        answer(&[b"\x01\x00\x00\x00"]).0,
        Progress::Refused(Refusal::TooOld)
    );
}

#[test]
fn a_target_that_speaks_first_loses_no_byte() {
    assert_eq!(
        answer(&[b"\x01\x00\x00SSH-2.0\r\n"]),
        (Progress::Accepted, Bytes::from_static(b"SSH-2.0\r\n"))
    );
    // Even if it begins as an old listener's reply would end.
    assert_eq!(
        answer(&[b"\x01\x00\x00\x00\x01"]),
        (Progress::Accepted, Bytes::from_static(b"\x00\x01"))
    );
    assert_eq!(
        answer(&[b"\x01", b"\x00\x00\x00"]),
        (Progress::Accepted, Bytes::from_static(b"\x00"))
    );
}

#[test]
fn a_hello_of_another_version_is_told_at_its_third_byte() {
    for hello in [
        &b"\x02\x00\x00"[..],
        b"\x01\x01\x00",
        b"\x01\x00\x02",
        b"GET",
    ] {
        assert_eq!(asked(&[&hello[..2]]).0, Asked::More);
        assert_eq!(asked(&[hello]).0, Asked::UnknownVersion);
    }
    // A client from before port names asks for a port without a name.
    let (asked, _) = asked(&[b"\x01\x00\x00\x00"]);
    let name = String::new();
    assert_eq!(
        asked,
        Asked::Port {
            mode: Mode::Stream,
            name
        }
    );
}

fn pieces(bytes: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let mut rest = bytes;
    let mut pieces = Vec::new();
    for cut in cuts {
        let (piece, more) = rest.split_at((*cut).min(rest.len()));
        pieces.push(piece.to_vec());
        rest = more;
    }
    pieces.push(rest.to_vec());
    pieces
}

/// What the fuzz target looks for, with the seeds that it begins from.
#[test]
fn the_fuzz_targets_seeds_hold() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/bridge_preamble");
    let Ok(seeds) = std::fs::read_dir(corpus) else {
        // Not in the package that others build.
        return;
    };
    for seed in seeds {
        fuzzing::preamble(&std::fs::read(seed.unwrap().path()).unwrap());
    }
}

proptest! {
    #[test]
    fn no_bytes_break_the_fuzz_target(
        step in 0..6_u8,
        head in prop::sample::select(vec![vec![], vec![1, 0, 0], vec![1, 0, 1], vec![0, 0, 0]]),
        tail in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        fuzzing::preamble(&[&[step][..], &head, &tail].concat());
    }

    #[test]
    fn what_a_client_says_a_listener_hears(
        name in "\\PC{0,60}",
        datagrams in any::<bool>(),
        data in proptest::collection::vec(any::<u8>(), 0..20),
        cuts in proptest::collection::vec(0..9_usize, 0..9),
    ) {
        prop_assume!(name.len() <= 255);
        let mode = if datagrams { Mode::Datagram } else { Mode::Stream };
        let mut bytes = hello(mode, &name);
        bytes.extend_from_slice(&data);
        let mut decoder = HelloDecoder::default();
        let mut heard = Asked::More;
        let mut rest = Vec::new();
        for piece in pieces(&bytes, &cuts) {
            let mut piece = Bytes::from(piece);
            if heard == Asked::More {
                heard = decoder.handle_input(&mut piece);
            }
            rest.extend_from_slice(&piece);
        }
        prop_assert_eq!(heard, Asked::Port { mode, name });
        prop_assert_eq!(rest, data);
    }

    #[test]
    fn what_a_listener_says_a_client_understands(
        bytes in any::<[u8; 3]>(),
        data in proptest::collection::vec(any::<u8>(), 2..20),
        cuts in proptest::collection::vec(0..4_usize, 0..6),
    ) {
        let reply = Reply::from_bytes(bytes);
        prop_assert_eq!(reply.to_bytes(), bytes);
        let mut decoder = ReplyDecoder::default();
        let mut progress = Progress::More;
        let mut rest = Vec::new();
        for piece in pieces(&[&bytes[..], &data].concat(), &cuts) {
            // An exact old reply is a matter of its own.
            prop_assume!(piece != OLD_REPLY);
            let mut piece = Bytes::from(piece);
            if progress == Progress::More {
                progress = decoder.handle_input(&mut piece);
            }
            rest.extend_from_slice(&piece);
        }
        prop_assert_eq!(rest, data);
        prop_assert_eq!(
            progress == Progress::Accepted,
            reply == Reply::Accepted(Mode::Stream)
        );
    }
}
