//! Random histories against a model of when dials start.

use proptest::prelude::*;

use super::*;

/// What happens to one dial.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// It connects, and the connection is lost after so many seconds.
    Lives(u64),
    Fails,
    Refused,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0_u64..60).prop_map(Event::Lives),
        Just(Event::Fails),
        Just(Event::Refused),
    ]
}

/// The starts of the dials in seconds, told independently of the code: the last one's outcome does not matter.
fn expected_starts(events: &[Event]) -> Vec<f64> {
    let table = [0, 1, 2, 5, 10, 30];
    let mut starts = vec![0.0];
    let (mut now, mut used) = (0, 0);
    for event in events {
        let index = match event {
            Event::Lives(seconds) => {
                now += seconds;
                if *seconds >= 30 { 0 } else { used }
            }
            Event::Fails => used.max(1),
            Event::Refused => 5,
        };
        now += table[index];
        used = (index + 1).min(5);
        starts.push(now as f64);
    }
    starts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn dials_start_when_the_model_says(events in prop::collection::vec(event(), 1..12)) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().start_paused(true).build().unwrap();
        let starts = runtime.block_on(async {
            let steps = events.iter().map(|event| match event {
                Event::Lives(_) => Step::Serve,
                Event::Fails => Step::Fail,
                Event::Refused => Step::Refuse,
            });
            let mut bed = Bed::new(steps);
            let start = Instant::now();
            // Only the first opening starts the worker; a short limit keeps its demand out of the history.
            let options = OpenOptions::new().with_wait_limit(Duration::from_millis(1));
            let _ = bed.open_with(options).await;
            for event in &events {
                if let Event::Lives(seconds) = event {
                    let far = bed.far_end().await;
                    sleep(Duration::from_secs(*seconds)).await;
                    far.close("lost");
                }
            }
            // One more than there are events: the script serves when it has run out.
            bed.far_end().await;
            bed.dials.seconds_since(start)
        });
        prop_assert_eq!(starts, expected_starts(&events));
    }
}
