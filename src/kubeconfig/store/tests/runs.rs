//! Several runs at one file.

use super::*;

#[test]
fn a_second_run_of_the_same_name_is_not_disturbed_by_the_first_ones_end() {
    let bed = Bed::new(Some(USERS));
    let first = bed.merge(&ours("till", "first")).unwrap();
    let second = bed.merge(&ours("till", "second")).unwrap();
    first.undo().unwrap();
    assert_eq!(bed.file.read().unwrap().resolve(None).unwrap().name, "till");
    second.undo().unwrap();
    // The first run's dead entries do not come back.
    let kept = bed.file.read().unwrap();
    assert_eq!(kept.contexts.len(), 1);
    assert_eq!(kept.clusters.len(), 1);
    // The context that was current before either of them does.
    assert_eq!(kept.current_context, "me@home");
}

#[test]
fn two_runs_that_end_in_the_order_of_their_start_leave_the_first_state() {
    let bed = Bed::new(Some(USERS));
    let first = bed.merge(&ours("till", "s")).unwrap();
    let second = bed.merge(&ours("shelf", "s")).unwrap();
    first.undo().unwrap();
    assert_eq!(bed.file.read().unwrap().current_context, "shelf");
    second.undo().unwrap();
    assert_eq!(bed.text().as_deref(), Some(USERS));
}

#[test]
fn what_is_there_already_is_not_written_again() {
    let bed = Bed::new(Some(USERS));
    let _first = bed.merge(&ours("till", "s")).unwrap();
    let text = bed.text().unwrap() + "# a comment that a rewrite would lose\n";
    fs::write(&bed.file.path, &text).unwrap();
    let again = bed.merge(&ours("till", "s")).unwrap();
    assert_eq!(bed.text(), Some(text));
    again.undo().unwrap();
    assert_eq!(bed.file.read().unwrap().contexts.len(), 1);
}

#[test]
fn concurrent_writers_lose_nothing() {
    const WRITERS: usize = 4;
    const ROUNDS: usize = 8;

    let bed = Bed::new(Some(USERS));
    let kept: Vec<Kubeconfig> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let file = bed.file.clone();
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let name = format!("w{writer}-{round}");
                        let receipt = file
                            .merge(&ours(&name, "s"), CurrentContext::KeepIfSet)
                            .unwrap();
                        assert!(file.read().unwrap().context(&name).is_some());
                        // Every other one leaves again.
                        if round % 2 == 0 {
                            receipt.undo().unwrap();
                        }
                    }
                    marked(&format!("w{writer}-{}", ROUNDS - 1), "s", "")
                })
            })
            .collect();
        writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .collect()
    });
    let result = bed.file.read().unwrap();
    assert_eq!(result.contexts.len(), 1 + WRITERS * ROUNDS / 2);
    assert_eq!(result.current_context, "me@home");
    for addition in kept {
        assert!(result.clusters.contains(&addition.clusters[0]));
        assert!(result.users.contains(&addition.users[0]));
    }
    assert_eq!(bed.names().len(), 1);
}
