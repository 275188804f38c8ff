//! Entry point of a fuzz target. Not part of the API.

use super::{
    http_connect::{Answer, MAX_HEAD, Progress},
    socks5::{Method, Reply, check_password_answer},
};

/// Takes `input` for what a proxy answers: to CONNECT, cut into pieces by its first byte, and over SOCKS.
pub fn proxy_answer(input: &[u8]) {
    let Some((cut, input)) = input.split_first() else {
        return;
    };
    let piece = usize::from(*cut).max(1);
    let whole = Answer::default().push(input);
    let mut answer = Answer::default();
    let mut read = 0;
    for bytes in input.chunks(piece) {
        read += bytes.len();
        match answer.push(bytes) {
            Ok(Progress::More) => assert!(read < MAX_HEAD, "a head without end"),
            Ok(Progress::Opened(early)) => {
                // However it is cut, the target's bytes begin at the same place.
                assert!(input[..read].ends_with(&early));
                let Ok(Progress::Opened(all)) = whole else {
                    panic!("cut, it means something else");
                };
                assert_eq!(early.len() + input.len() - read, all.len());
                break;
            }
            Ok(Progress::Refused(refusal)) => {
                assert!(!(200..300).contains(&refusal.status));
                assert!(refusal.reason.len() <= 1024);
                break;
            }
            Err(_) => break,
        }
    }

    if let [first, second, ..] = input {
        let _ = Method::parse([*first, *second]);
        let _ = check_password_answer([*first, *second]);
    }
    let mut reply = Reply::default();
    let mut rest = input;
    while let Ok(Some(missing)) = reply.missing() {
        let Some((next, after)) = rest.split_at_checked(missing) else {
            break;
        };
        reply.bytes.extend_from_slice(next);
        rest = after;
        assert!(reply.bytes.len() <= 262, "the longest reply");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_corpus_passes() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/proxy_answer");
        // The published package comes without it.
        let Ok(files) = std::fs::read_dir(corpus) else {
            return;
        };
        for file in files {
            proxy_answer(&std::fs::read(file.unwrap().path()).unwrap());
        }
    }

    proptest! {
        #[test]
        fn anything_passes(
            cut: u8,
            start in "(HTTP/1\\.[01] [0-9]{3}[ -~]{0,9}\r\n)?(\r\n)?",
            rest in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            proxy_answer(&[&[cut][..], start.as_bytes(), &rest].concat());
        }
    }
}
