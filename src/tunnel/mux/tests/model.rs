//! Random operations on two ends against the model of `simulation`.

use std::{fs, path::Path};

use proptest::prelude::*;

use super::super::{
    config::Config,
    fuzzing,
    id::Role,
    simulation::{Operation, Step, World},
};

/// What `cargo test` runs. `MUX_MODEL_CASES` says otherwise: 20 000 take some minutes.
const CASES: u32 = 256;

fn cases() -> u32 {
    match std::env::var("MUX_MODEL_CASES") {
        Ok(count) => count.parse().expect("MUX_MODEL_CASES is a number"),
        Err(_) => CASES,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn two_ends_behave_like_queues(
        steps in proptest::collection::vec(step(), 1..200),
        client in config(),
        server in config(),
        leaver in proptest::option::weighted(0.2, side()),
    ) {
        let mut world = World::new(client, server);
        for step in steps {
            world.run(step);
        }
        if let Some(leaver) = leaver {
            world.leave(leaver);
        }
        world.settle();
    }

    /// As the fuzz target has it.
    #[test]
    fn any_bytes_are_operations(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        fuzzing::operate(&bytes);
    }
}

#[test]
fn the_corpora_of_the_fuzz_targets_run() {
    type Target = (&'static str, fn(&[u8]));
    let targets: [Target; 3] = [
        ("mux_frame", fuzzing::decode_frames),
        ("mux_hostile_peer", |input| {
            fuzzing::hostile_peer(input);
        }),
        ("mux_operations", fuzzing::operate),
    ];
    for (name, run) in targets {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/corpus")
            .join(name);
        let files = fs::read_dir(&folder).expect("a corpus");
        let mut count = 0;
        for file in files {
            run(&fs::read(file.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 0, "{}", folder.display());
    }
}

fn step() -> impl Strategy<Value = Step> {
    let operation = prop_oneof![
        3 => Just(Operation::Open),
        4 => Just(Operation::Accept),
        6 => (1usize..60_000).prop_map(Operation::Write),
        3 => (1usize..60_000).prop_map(Operation::WriteChunk),
        8 => prop_oneof![1usize..100, Just(usize::MAX)].prop_map(Operation::Read),
        1 => Just(Operation::Watch),
        2 => Just(Operation::Finish),
        1 => Just(Operation::Reset),
        1 => Just(Operation::Stop),
        1 => Just(Operation::Drop),
        1 => (0usize..48).prop_map(Operation::Prefer),
        1 => Just(Operation::Probe),
        4 => Just(Operation::Transmit),
        4 => (1usize..20).prop_map(Operation::Deliver),
        4 => Just(Operation::Drive),
        1 => (1u64..40_000).prop_map(Operation::Wait),
        1 => (0u64..200).prop_map(Operation::Latency),
        1 => prop_oneof![50usize..3000, Just(usize::MAX)].prop_map(Operation::Fragment),
    ];
    (operation, side(), any::<usize>()).prop_map(|(operation, side, choice)| Step {
        operation,
        side,
        choice,
    })
}

fn side() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Client), Just(Role::Server)]
}

/// The default, or what makes limits be reached in a few steps: each side's own, its peer's, the floors.
fn config() -> impl Strategy<Value = Config> {
    let tight = (16usize..24, 1usize..24, 16usize..24).prop_map(|(streams, opened, unaccepted)| {
        Config::default()
            .with_max_streams(streams)
            .with_max_opened(opened)
            .with_max_unaccepted(unaccepted)
            .with_receive_budget(0)
            .with_send_queue(10_000)
    });
    prop_oneof![Just(Config::default()), tight]
}
