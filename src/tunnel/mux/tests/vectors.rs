//! The vectors of `tests/vectors/` and the tables of `docs/wire.md` against the code, so that neither can rot.

use std::task::Poll;

use bytes::{Bytes, BytesMut};

use super::{
    super::{
        code::{CloseCode, StreamCode},
        config::{Config, MAX_FRAME},
        connection::Ending,
        decoder::{Decoded, Decoder},
        failure::StreamFailure,
        frame::{Flags, Frame, Kind, encode_data_header},
        id::Role,
        settings::{PREFACE, Settings},
    },
    hello, id, open,
    wire::Scripted,
};

const SPECIFICATION: &str = include_str!("../../../../docs/wire.md");

const FRAMES: [&str; 4] = [
    include_str!("../../../../tests/vectors/frame-data.txt"),
    include_str!("../../../../tests/vectors/frame-session.txt"),
    include_str!("../../../../tests/vectors/frame-stream.txt"),
    include_str!("../../../../tests/vectors/frame-unknown.txt"),
];

const VIOLATIONS: &str = include_str!("../../../../tests/vectors/violations.txt");

const SESSIONS: [&str; 3] = [
    include_str!("../../../../tests/vectors/session-cancel.txt"),
    include_str!("../../../../tests/vectors/session-echo.txt"),
    include_str!("../../../../tests/vectors/session-leave.txt"),
];

/// What stands between two `[names]`.
struct Vector<'a> {
    name: &'a str,
    fields: Vec<(&'a str, &'a str)>,
    bytes: Vec<u8>,
}

impl<'a> Vector<'a> {
    fn all(text: &'a str) -> Vec<Self> {
        let mut vectors: Vec<Self> = Vec::new();
        for line in lines(text) {
            if let Some(name) = line
                .strip_prefix('[')
                .and_then(|line| line.strip_suffix(']'))
            {
                vectors.push(Self {
                    name,
                    fields: Vec::new(),
                    bytes: Vec::new(),
                });
                continue;
            }
            let vector = vectors.last_mut().expect("a [name] comes first");
            match line.split_once(':') {
                Some((key, value)) => vector.fields.push((key, value.trim())),
                None => vector.bytes.extend(hex(line)),
            }
        }
        vectors
    }

    fn field(&self, key: &str) -> Option<&'a str> {
        let (_, value) = self.fields.iter().find(|(name, _)| *name == key)?;
        Some(value)
    }
}

/// The lines that say something, without their comments.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(" # ").next().unwrap_or(line).trim())
        .filter(|line| !line.is_empty())
}

/// `00 1f` are two bytes, `00*3` are three.
fn hex(line: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in line.split_whitespace() {
        let (digits, count) = word.split_once('*').unwrap_or((word, "1"));
        let byte = u8::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("not hex: {line}"));
        bytes.resize(bytes.len() + count.parse::<usize>().expect("a count"), byte);
    }
    bytes
}

fn decode(bytes: &[u8]) -> Vec<Decoded> {
    let mut decoder = Decoder::new(MAX_FRAME as u32);
    let mut input = Bytes::from([&PREFACE[..], bytes].concat());
    let mut all = Vec::new();
    while let Some(decoded) = decoder.decode(&mut input).expect("a valid vector") {
        all.push(decoded);
    }
    all
}

/// How the vectors put a frame in words, and the bytes that the encoder makes of it.
fn described(decoded: &[Decoded]) -> (String, Option<Vec<u8>>) {
    let mut out = BytesMut::new();
    let text = match decoded {
        [Decoded::Ignored] => return ("ignored".to_owned(), None),
        [Decoded::Frame(frame)] => {
            frame.encode(&mut out);
            frame_in_words(frame)
        }
        [Decoded::Data(data), pieces @ ..] => {
            let payload = match pieces {
                [] => &[][..],
                [Decoded::Payload(payload)] => payload,
                more => panic!("{more:?}"),
            };
            let mut flags = Flags::NONE;
            let mut text = format!("DATA stream={}", data.stream);
            if let Some(metadata) = &data.metadata {
                flags = flags.with(Flags::OPEN);
                text += &format!(" open={:?}", String::from_utf8_lossy(metadata));
            }
            if data.fin {
                flags = flags.with(Flags::FIN);
                text += " fin";
            }
            if data.waiting {
                flags = flags.with(Flags::WAITING);
                text += " waiting";
            }
            let metadata = data.metadata.as_deref();
            encode_data_header(&mut out, data.stream, flags, metadata, payload.len());
            out.extend_from_slice(payload);
            text + &format!(" payload={:?}", String::from_utf8_lossy(payload))
        }
        other => panic!("not one frame: {other:?}"),
    };
    (text, Some(out.to_vec()))
}

fn frame_in_words(frame: &Frame) -> String {
    match frame {
        Frame::Credit { stream, limit } => format!("CREDIT stream={stream} limit={limit}"),
        Frame::Reset {
            stream,
            code,
            final_size,
        } => format!(
            "RESET stream={stream} code={} size={final_size}",
            code.value()
        ),
        Frame::Stop { stream, code } => format!("STOP stream={stream} code={}", code.value()),
        Frame::MaxStreams(count) => format!("MAX_STREAMS {count}"),
        Frame::Ping(token) => format!("PING {token}"),
        Frame::Pong(token) => format!("PONG {token}"),
        Frame::GoAway {
            last_stream,
            code: CloseCode(code),
            reason,
        } => format!("GOAWAY last={last_stream} code={code} text={reason:?}"),
        Frame::Settings(settings) => format!(
            "SETTINGS version={} window={} streams={} frame={} features={:#x}",
            settings.version,
            settings.initial_stream_window,
            settings.max_streams,
            settings.max_frame,
            settings.features
        ),
    }
}

#[test]
fn every_frame_means_what_its_vector_says() {
    let mut kinds = Vec::new();
    for vector in FRAMES.into_iter().flat_map(Vector::all) {
        let (text, encoded) = described(&decode(&vector.bytes));
        assert_eq!(Some(&text[..]), vector.field("is"), "{}", vector.name);
        if let Some(encoded) = encoded {
            assert_eq!(encoded, vector.bytes, "{}", vector.name);
            kinds.push(vector.bytes[3] >> 4);
        }
    }
    for kind in 1..16 {
        let known = Kind::from_bits(kind).is_some();
        assert_eq!(known, kinds.contains(&kind), "a vector of kind {kind}");
    }
}

#[test]
fn every_violation_ends_the_session_with_its_code() {
    let mut seen = Vec::new();
    for vector in Vector::all(VIOLATIONS) {
        let name = vector.name;
        let role = match vector.field("to") {
            Some("client") => Role::Client,
            Some("server") => Role::Server,
            other => panic!("{name}: {other:?}"),
        };
        let mut end = Scripted::new(role, Config::default());
        match vector.field("before") {
            None => end.feed(&hello(Settings::INITIAL)),
            Some("nothing") => {}
            Some("go-away") => {
                end.feed(&hello(Settings::INITIAL));
                // A stream of its own keeps the session from ending at once.
                assert!(end.connection.open(&Bytes::new()).is_ready());
                end.connection.go_away("leaving");
            }
            Some("open") => end.feed(&[hello(Settings::INITIAL), open(1, b"", b"")].concat()),
            Some(other) => panic!("{name}: {other}"),
        }
        end.sent();
        assert!(!end.connection.is_closing(), "{name}");
        let count = vector.field("repeat").map_or(1, |count| {
            count.parse::<usize>().unwrap_or_else(|_| panic!("{name}"))
        });
        for _ in 0..count {
            end.connection
                .handle_input(end.now, Bytes::from(vector.bytes.clone()));
        }
        assert!(end.connection.is_closing(), "{name} is allowed");
        let code = vector.field("code").and_then(|code| code.parse().ok());
        let (_, text, ending) = end.ending();
        assert_eq!(Some(text.as_str()), vector.field("says"), "{name}");
        assert_eq!(ending, Ending::Failed, "{name}");
        assert_eq!(Some(end.last_code().0), code, "{name}");
        let row = (name.to_owned(), code);
        if !seen.contains(&row) {
            seen.push(row);
        }
    }
    seen.sort();
    let mut written: Vec<_> = rows("violation")
        .map(|cells| (cells[0].clone(), cells[1].parse().ok()))
        .collect();
    written.sort();
    assert_eq!(seen, written, "the vectors and the specification");
    // As many as the code knows.
    let source = include_str!("../violation.rs");
    let list = source
        .split_once("pub(super) enum Violation {")
        .and_then(|(_, rest)| rest.split_once("\n}\n"))
        .expect("the list of violations")
        .0;
    let variants: Vec<_> = list
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(char::is_uppercase))
        .map(|line| kebab(line.split(['(', '{', ',', ' ']).next().unwrap_or(line)))
        .collect();
    for variant in &variants {
        assert!(written.iter().any(|(name, _)| name == variant), "{variant}");
    }
    assert_eq!(written.len(), variants.len());
}

/// The rows of the table in the specification whose first column is called so.
fn rows(first: &str) -> impl Iterator<Item = Vec<String>> {
    let head = format!("| {first} |");
    SPECIFICATION
        .lines()
        .skip_while(move |line| !line.starts_with(&head))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            line.trim_matches('|')
                .split('|')
                .map(|cell| cell.trim().trim_matches('`').to_owned())
                .collect()
        })
}

fn kebab(camel: &str) -> String {
    let mut out = String::new();
    for char in camel.chars() {
        if char.is_uppercase() && !out.is_empty() {
            out.push('-');
        }
        out.push(char.to_ascii_lowercase());
    }
    out
}

#[test]
fn the_numbers_of_the_specification_are_those_of_the_code() {
    let codes: Vec<_> = rows("code").map(|cells| cells[1].clone()).collect();
    for (number, name) in (0..).zip(&codes) {
        assert_eq!(&CloseCode(number).to_string(), name);
    }
    assert_eq!(CloseCode(codes.len() as u32).to_string(), "code 10");
    let kinds: Vec<_> = rows("kind").map(|cells| cells[1].clone()).collect();
    let named = [
        Kind::Data,
        Kind::Credit,
        Kind::Reset,
        Kind::Stop,
        Kind::MaxStreams,
        Kind::Ping,
        Kind::Pong,
        Kind::GoAway,
        Kind::Settings,
    ];
    assert_eq!(kinds.len(), named.len());
    for ((number, name), kind) in (1..).zip(&kinds).zip(named) {
        assert_eq!(Kind::from_bits(number), Some(kind));
        let camel = format!("{kind:?}");
        assert_eq!(
            kebab(&camel).replace('-', "_").to_uppercase(),
            name.replace("GOAWAY", "GO_AWAY")
        );
    }
}

/// Two ends that never meet: each is given what the recording says that the other one sent.
struct Recording {
    client: Scripted,
    server: Scripted,
    /// What the client, then the server, will get only when the recording says so.
    under_way: [Vec<u8>; 2],
}

impl Recording {
    fn new() -> Self {
        let end = |role| Scripted::new(role, Config::default());
        Self {
            client: end(Role::Client),
            server: end(Role::Server),
            under_way: Default::default(),
        }
    }

    fn end(&mut self, name: &str) -> (&mut Scripted, &mut Scripted) {
        match name {
            "client" => (&mut self.client, &mut self.server),
            "server" => (&mut self.server, &mut self.client),
            other => panic!("who is {other}?"),
        }
    }

    fn sends(&mut self, who: &str, bytes: &[u8], slowly: bool) {
        let (from, to) = self.end(who);
        let sent = from.sent();
        assert_eq!(obligatory(&sent), obligatory(bytes), "{who}");
        if !slowly {
            to.feed(bytes);
            return;
        }
        let receiver = usize::from(who == "client");
        self.under_way[receiver].extend_from_slice(bytes);
    }

    fn gets(&mut self, who: &str) {
        let bytes = std::mem::take(&mut self.under_way[usize::from(who == "server")]);
        assert!(!bytes.is_empty());
        self.end(who).0.feed(&bytes);
    }

    fn act(&mut self, who: &str, what: &str) {
        let (end, _) = self.end(who);
        let connection = &mut end.connection;
        let (what, text) = match what.split_once('"') {
            Some((what, text)) => (what, text.trim_end_matches('"')),
            None => (what, ""),
        };
        let words: Vec<_> = what.split_whitespace().collect();
        let number = |index: usize| words[index].parse::<u32>().expect("a number");
        let stream = || id(number(1));
        match words[0] {
            "open" => match connection.open(&Bytes::copy_from_slice(text.as_bytes())) {
                Poll::Ready(Ok(opened)) => assert_eq!(opened, stream()),
                other => panic!("{other:?}"),
            },
            "accept" => match connection.accept() {
                Poll::Ready(Some((accepted, metadata))) => {
                    assert_eq!((accepted, &metadata[..]), (stream(), text.as_bytes()));
                }
                other => panic!("{other:?}"),
            },
            "write" => match connection.write(stream(), text.as_bytes()) {
                Poll::Ready(Ok(written)) => assert_eq!(written, text.len()),
                other => panic!("{other:?}"),
            },
            "read" => match connection.read(stream(), usize::MAX) {
                Poll::Ready(Ok(Some(bytes))) => assert_eq!(bytes, text.as_bytes()),
                other => panic!("{other:?}"),
            },
            "end" => assert!(matches!(
                connection.read(stream(), 1),
                Poll::Ready(Ok(None))
            )),
            "failed" => match (words[2], connection.read(stream(), 1)) {
                ("reset", Poll::Ready(Err(StreamFailure::Reset(code)))) => {
                    assert_eq!(code.value(), number(3));
                }
                other => panic!("{other:?}"),
            },
            "finish" => connection.finish(stream()).expect("an open stream"),
            "release" => connection.release(stream(), StreamCode::new(number(2))),
            "announce" => connection.announce_go_away(text),
            "go-away" => connection.go_away(text),
            "live" => assert_eq!(connection.status().live_streams, number(1) as usize),
            "over" => {
                assert_eq!(end.sent(), b"", "the end needs no words");
                assert_eq!(end.ending().2, Ending::Clean);
            }
            other => panic!("what is {other}?"),
        }
    }
}

/// The frames that an end had no choice about, in words; all of a stream's payload together.
fn obligatory(bytes: &[u8]) -> Vec<String> {
    let mut bytes = bytes;
    let mut all = Vec::new();
    if let Some(rest) = bytes.strip_prefix(&PREFACE) {
        all.push("preface".to_owned());
        bytes = rest;
    }
    let mut frame = Vec::new();
    let mut take = |frame: &mut Vec<Decoded>| {
        if frame.is_empty() {
            return;
        }
        let (text, _) = described(frame);
        frame.clear();
        let chosen = ["CREDIT", "MAX_STREAMS", "PING", "PONG"];
        if text.starts_with("SETTINGS") {
            all.push("SETTINGS".to_owned());
        } else if !chosen.iter().any(|kind| text.starts_with(kind)) {
            all.push(text.replacen(" waiting", "", 1));
        }
    };
    for decoded in decode(bytes) {
        if !matches!(decoded, Decoded::Payload(_)) {
            take(&mut frame);
        }
        frame.push(decoded);
    }
    take(&mut frame);
    // Which stream comes first is its choice too.
    all.sort_by_key(|text| {
        let stream = text.split_once("stream=").map(|(_, rest)| rest);
        stream
            .and_then(|rest| rest.split(' ').next())
            .map(str::to_owned)
    });
    all
}

#[test]
fn the_recorded_sessions_are_what_both_ends_would_do() {
    for session in SESSIONS {
        let mut recording = Recording::new();
        let mut sender = ("", false);
        let mut bytes = Vec::new();
        for line in lines(session).chain(["client: done"]) {
            let Some((who, what)) = line.split_once(": ") else {
                bytes.extend(hex(line));
                continue;
            };
            if !bytes.is_empty() {
                recording.sends(sender.0, &std::mem::take(&mut bytes), sender.1);
            }
            match what {
                "sends" => sender = (who, false),
                "sends slowly" => sender = (who, true),
                "gets it" => recording.gets(who),
                "done" => {}
                what => recording.act(who, what),
            }
        }
        for end in [&mut recording.client, &mut recording.server] {
            assert_eq!(obligatory(&end.sent()), [""; 0], "nothing is left to say");
        }
    }
}

#[test]
fn the_list_of_regressions_and_the_tests_are_the_same() {
    let sources = [
        include_str!("abuse.rs"),
        include_str!("async_io.rs"),
        include_str!("bounds.rs"),
        include_str!("endings.rs"),
        include_str!("flood.rs"),
        include_str!("framing.rs"),
        include_str!("model.rs"),
        include_str!("progress.rs"),
        include_str!("wakers.rs"),
        include_str!("../decoder.rs"),
    ]
    .concat();
    let tests: Vec<_> = sources
        .split("fn ")
        .skip(1)
        .filter_map(|rest| rest.split_once('(').map(|(name, _)| name))
        .collect();
    let mut numbers = 1..;
    let mut listed = Vec::new();
    for row in rows("id") {
        assert_eq!(
            Some(&row[0]),
            numbers.next().map(|n: u32| format!("M{n:02}")).as_ref()
        );
        let names = row[2].split('`').filter(|name| name.contains('_'));
        listed.extend(names.map(str::to_owned));
    }
    for name in listed.iter().filter(|name| *name != "mux_operations") {
        assert!(tests.contains(&&name[..]), "{name} is no test");
    }
    for name in tests {
        let numbered = name.starts_with('m') && name[1..].starts_with(|c: char| c.is_ascii_digit());
        assert!(
            !numbered || listed.iter().any(|known| known == name),
            "{name} is not in the list"
        );
    }
}
