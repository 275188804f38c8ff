//! Who is served before whom.

use std::task::Poll;

use bytes::{Buf, Bytes};

use super::{
    super::{
        Config, Priority, Weight,
        batch::Batch,
        frame::{HEADER_LENGTH, Header, Kind},
        id::{Role, StreamId},
        settings::Settings,
    },
    hello,
    wire::Scripted,
};

/// A client with streams that have much to send, and a peer that takes all of it.
struct Bed {
    client: Scripted,
    streams: Vec<StreamId>,
}

const MUCH: usize = 200 * 1024;

impl Bed {
    fn new(streams: usize, prepare: impl Fn(usize, StreamId, &mut Scripted)) -> Self {
        let mut client = Scripted::new(Role::Client, Config::default());
        client.feed(&hello(Settings {
            initial_stream_window: 1 << 20,
            ..Settings::INITIAL
        }));
        let streams: Vec<StreamId> = (0..streams).map(|_| open(&mut client)).collect();
        client.sent();
        for (index, id) in streams.iter().enumerate() {
            prepare(index, *id, &mut client);
            let written = client.connection.write(*id, &vec![index as u8; MUCH]);
            assert_eq!(written.map(Result::ok), Poll::Ready(Some(MUCH)));
        }
        Self { client, streams }
    }

    /// What each stream has sent in one batch, and in which order they first did.
    fn batch(&mut self) -> (Vec<usize>, Vec<usize>) {
        let mut sent = vec![0; self.streams.len()];
        let mut order = Vec::new();
        let mut batch = Batch::default();
        let now = self.client.now;
        self.client.connection.poll_transmit(now, &mut batch);
        let mut bytes = batch.take();
        while !bytes.is_empty() {
            let mut header = [0; HEADER_LENGTH];
            bytes.copy_to_slice(&mut header);
            let header = Header::decode(header);
            bytes.advance(header.length as usize);
            if header.kind != Kind::Data as u8 {
                continue;
            }
            let mut ids = self.streams.iter();
            let index = ids.position(|id| id.value() == header.stream).unwrap();
            sent[index] += header.length as usize;
            if !order.contains(&index) {
                order.push(index);
            }
        }
        (sent, order)
    }
}

fn open(client: &mut Scripted) -> StreamId {
    match client.connection.open(&Bytes::new()) {
        Poll::Ready(Ok(id)) => id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn weights_divide_what_is_sent() {
    let mut bed = Bed::new(2, |index, id, client| {
        if index == 1 {
            client.connection.set_weight(id, Weight::new(3));
        }
    });
    let (sent, _) = bed.batch();
    assert!((2 * sent[0]..=4 * sent[0]).contains(&sent[1]), "{sent:?}");
}

#[test]
fn interactive_bulk_passes_but_leaves_half() {
    let mut bed = Bed::new(2, |index, id, client| {
        if index == 1 {
            client.connection.set_priority(id, Priority::Interactive);
        }
    });
    let (sent, order) = bed.batch();
    assert_eq!(order, [1, 0]);
    assert!(sent[0] >= 100 * 1024 && sent[1] >= 100 * 1024, "{sent:?}");
}

#[test]
fn the_background_gets_on_slowly_and_alone_quickly() {
    let mut bed = Bed::new(2, |index, id, client| {
        if index == 0 {
            client.connection.set_priority(id, Priority::Background);
        }
    });
    let (sent, order) = bed.batch();
    assert_eq!(order[0], 1);
    assert_eq!(
        sent[1], MUCH,
        "all of it, before the background has had much"
    );
    let mut both = sent;
    while both.iter().sum::<usize>() < 2 * MUCH {
        let (sent, _) = bed.batch();
        both[0] += sent[0];
        both[1] += sent[1];
    }
    assert_eq!(both, [MUCH, MUCH]);
}

#[test]
fn the_background_is_never_starved() {
    let mut bed = Bed::new(9, |index, id, client| {
        if index == 0 {
            client.connection.set_priority(id, Priority::Background);
        }
    });
    let mut background = 0;
    let mut others = 0;
    while background == 0 {
        let (sent, _) = bed.batch();
        background += sent[0];
        others += sent[1..].iter().sum::<usize>();
    }
    assert!(others < 8 * MUCH, "it had its turn while others had more");
}

#[test]
fn weights_stay_within_their_bounds() {
    assert_eq!(Weight::new(0), Weight::NORMAL);
    assert_eq!(Weight::new(255).value(), 16);
}
