//! What a queue of received bytes keeps, gives back and copies.

use proptest::prelude::*;

use super::*;
use crate::tunnel::mux::{config::RECEIVE_BLOCK, spare::PATIENCE};

const PLENTY: usize = usize::MAX;

fn all(unread: &mut Unread) -> Vec<usize> {
    let popped = std::iter::from_fn(|| unread.pop(usize::MAX));
    popped.map(|popped| popped.bytes.len()).collect()
}

#[test]
fn small_copies_share_one_buffer() {
    let mut unread = Unread::default();
    for byte in 0..200 {
        unread.push_copy(&[byte], PLENTY);
    }
    assert_eq!(all(&mut unread), [1, 199]);
}

#[test]
fn a_queue_that_had_little_in_it_holds_nothing() {
    let mut unread = Unread::default();
    unread.push_copy(b"one", PLENTY);
    unread.push_copy(b"two", PLENTY);
    all(&mut unread);
    assert!(unread.rest.get().is_some(), "it may be needed again soon");
    for _ in 0..PATIENCE {
        unread.push_copy(b"three", PLENTY);
        all(&mut unread);
    }
    assert!(unread.rest.get().is_none());
    assert_eq!(unread.charge(), 0);
}

#[test]
fn slices_that_are_copied_out_of_their_blocks_are_packed() {
    let mut unread = Unread::default();
    unread.push(Bytes::from(vec![1; 2048]), RECEIVE_BLOCK);
    for _ in 0..100 {
        unread.push(Bytes::from(vec![1; 2048]), RECEIVE_BLOCK);
        unread.push_copy(&[2], PLENTY);
    }
    let mut times = 0;
    while unread.is_pinning() {
        unread.compact();
        times += 1;
    }
    // The last copied byte was looked at with the slice in front of it, or is the tail.
    assert!(unread.charge() <= 101 * 2048 + 100 + SMALLEST_BUFFER);
    let lengths = all(&mut unread);
    assert_eq!(lengths.iter().sum::<usize>(), 101 * 2048 + 100);
    assert_eq!(lengths.len(), times + 1);
    assert!(lengths.len() <= 101 * 2049 / (BUFFER_LENGTH / 2) + 2);
}

#[test]
fn the_credit_of_a_copy_comes_back_with_its_last_byte() {
    let mut unread = Unread::default();
    unread.push(Bytes::from(vec![1; 5000]), RECEIVE_BLOCK);
    assert_eq!(unread.pop(1000).unwrap().credit, 1000);
    assert_eq!(unread.charge(), RECEIVE_BLOCK);
    unread.compact();
    assert_eq!(unread.charge(), 4000);
    assert_eq!(unread.pop(3999).unwrap().credit, 0);
    assert_eq!(unread.charge(), 4000, "all of the buffer is there");
    assert_eq!(unread.pop(1).unwrap().credit, 4000);
    assert_eq!(unread.charge(), 0);
}

#[test]
fn a_queue_that_is_never_empty_gives_its_list_back() {
    let mut unread = Unread::default();
    for _ in 0..1000 {
        unread.push(Bytes::from_static(&[1; 2048]), RECEIVE_BLOCK);
    }
    while unread.length > 2048 {
        unread.pop(usize::MAX);
    }
    let rest = unread.rest.get().unwrap();
    assert!(rest.chunks.capacity() <= 32);
}

proptest! {
    #[test]
    fn bytes_leave_in_the_order_they_came_and_hold_no_more_than_their_credit(
        operations in proptest::collection::vec((0u8..8, 1usize..20_000), 1..80)
    ) {
        const WINDOW: usize = 100_000;
        let mut unread = Unread::default();
        let mut model = VecDeque::<u8>::new();
        let mut next = 0u8;
        // What was granted, and neither used nor given back.
        let mut credit = WINDOW;
        for (operation, size) in operations {
            match operation {
                0..4 => {
                    let size = if operation < 2 { size } else { size / 10 };
                    let size = size.min(credit);
                    let bytes: Vec<u8> = (0..size).map(|_| { next = next.wrapping_add(1); next }).collect();
                    credit -= size;
                    model.extend(&bytes);
                    if operation < 2 {
                        unread.push(Bytes::from(bytes), RECEIVE_BLOCK);
                    } else {
                        unread.push_copy(&bytes, credit);
                    }
                }
                4 => unread.compact(),
                _ => if let Some(popped) = unread.pop(size) {
                    let expected: Vec<u8> = model.drain(..popped.bytes.len()).collect();
                    prop_assert_eq!(&popped.bytes[..], &expected[..]);
                    credit += popped.credit;
                } else {
                    prop_assert!(model.is_empty());
                },
            }
            let found = unread.recount();
            prop_assert_eq!(found.length, model.len());
            prop_assert_eq!(unread.len(), model.len());
            prop_assert_eq!(found.charge, unread.charge());
            prop_assert_eq!(found.pinned_charge, found.pinned * RECEIVE_BLOCK);
            let copied = found.charge - found.pinned_charge;
            prop_assert!(copied + found.pinned_length <= WINDOW);
        }
        // The peer ends the stream, and everything is copied.
        unread.seal();
        while unread.is_pinning() {
            unread.compact();
        }
        prop_assert!(unread.charge() <= WINDOW - credit);
        let mut left = Vec::new();
        while let Some(popped) = unread.pop(usize::MAX) {
            left.extend_from_slice(&popped.bytes);
            credit += popped.credit;
        }
        prop_assert_eq!(left, Vec::from(model));
        prop_assert_eq!((unread.charge(), credit), (0, WINDOW));
    }
}
