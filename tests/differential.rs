//! The same request straight to the API server and through everything must be the same request, and get the same
//! answer: status, headers, body, byte for byte.

mod support;

#[path = "differential/answer.rs"]
mod answer;
#[path = "differential/cases.rs"]
mod cases;
#[path = "differential/way.rs"]
mod way;

use futures_util::{StreamExt, future::join_all, stream};
use http::StatusCode;

use answer::{Answer, Arrived};
use cases::{Case, phases};
use support::{
    api_server::{Access, StandIn, User},
    embedded::Embedded,
};
use way::Way;

const TOKEN: &str = "token-of-the-differential-run";
const READER: &str = "token-of-a-reader";
/// Enough to keep both cores busy; more only makes a failure harder to read.
const AT_ONCE: usize = 8;
/// About 1.5 KiB each: 750 KiB cross every buffer on the way.
const BIG_NAMESPACE_PODS: usize = 500;

async fn cluster() -> StandIn {
    StandIn::builder()
        .token(TOKEN, User::service_account("default", "admin-user"))
        .token(READER, User::new("reader"))
        .access("reader", Access::ReadOnly)
        .pod("default", "web-0")
        .pod("patched", "pod-0")
        .pod("patched", "pod-1")
        .pod("patched", "pod-2")
        .pod("patched", "pod-3")
        .pod("patched", "pod-4")
        .big_namespace_pods(BIG_NAMESPACE_PODS)
        .start()
        .await
        .expect("the stand-in starts")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn straight_and_through_are_the_same() {
    let stand_in = cluster().await;
    let path = Embedded::start(&stand_in, TOKEN).await;
    let ways = Way::all(&stand_in, TOKEN, &path);
    let mut count = 0;
    let mut differences = Vec::new();
    for cases in phases() {
        let found = stream::iter((count..).zip(&cases))
            .map(|(number, case)| compare(&stand_in, &ways, number, case))
            .buffer_unordered(AT_ONCE)
            .flat_map(stream::iter);
        differences.extend(found.collect::<Vec<String>>().await);
        count += cases.len();
    }
    assert!(count >= 100, "only {count} cases");
    assert!(
        differences.is_empty(),
        "{} differences in {count} cases:\n{}",
        differences.len(),
        differences.join("\n")
    );
}

/// A server that has seen enough answers before it has the whole body, and then stops reading. Nothing on the way may
/// take that for a failure, however the two cross.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_overtakes_the_upload_arrives() {
    const ATTEMPTS: usize = 50;
    let stand_in = cluster().await;
    let path = Embedded::start(&stand_in, TOKEN).await;
    let ways = Way::all(&stand_in, TOKEN, &path);
    let case = cases::upload_to_nowhere();
    let mut failures = Vec::new();
    for attempt in 0..ATTEMPTS {
        for way in &ways {
            match way.send(&case, &format!("{attempt}-{}", way.name)).await {
                Ok(answer) if answer.status == StatusCode::NOT_FOUND => {}
                other => failures.push(format!("{}: {other:?}", way.name)),
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {}: {}",
        failures.len(),
        ATTEMPTS * ways.len(),
        failures.join("\n")
    );
}

/// What the comparison is worth: an answer that differs in anything is found.
#[tokio::test]
async fn another_user_gets_another_answer() {
    let stand_in = cluster().await;
    let path = Embedded::start(&stand_in, READER).await;
    let ways = Way::all(&stand_in, TOKEN, &path);
    let case = Case::new("DELETE /api/v1/namespaces/default/pods/none");
    let differences = compare(&stand_in, &ways, 0, &case).await;
    // Only the proxy has its user's token; the streams past it carry the one that is given here.
    assert_eq!(differences.len(), 2, "{differences:#?}");
    assert!(
        differences
            .iter()
            .all(|difference| difference.contains(StatusCode::FORBIDDEN.as_str())),
        "{differences:#?}"
    );
}

/// Sends a case on every way at once and tells what differs from the straight way of the same HTTP version.
async fn compare(stand_in: &StandIn, ways: &[Way<'_>], number: usize, case: &Case) -> Vec<String> {
    let answers = join_all(ways.iter().enumerate().map(|(index, way)| async move {
        // Of one length, whatever the way: it stands in bodies, whose length is compared.
        let mark = format!("case{number:03}way{index}");
        let answer = way.send(case, &mark).await;
        (way, answer, Arrived::at(stand_in, &mark))
    }))
    .await;
    let mut differences = Vec::new();
    for (way, answer, arrived) in &answers {
        let (_, expected, expected_arrival) = answers
            .iter()
            .find(|(other, ..)| other.name == way.reference)
            .expect("every way is compared with one of the list");
        if expected_arrival != arrived {
            differences.push(format!(
                "{} by {}: another request arrives\n   straight: {expected_arrival:?}\n   through:  {arrived:?}",
                case.line, way.name
            ));
        }
        let mut differ = |what: &str, there: &dyn std::fmt::Debug, here: &dyn std::fmt::Debug| {
            differences.push(format!(
                "{} by {}: {what}\n   straight: {there:?}\n   through:  {here:?}",
                case.line, way.name
            ));
        };
        match (expected, answer) {
            (Ok(expected), Ok(answer)) => {
                if let Some((what, there, here)) = expected.difference(answer, case) {
                    differ(what, &there, &here);
                }
            }
            (there, here) => differ("no answer", there, here),
        }
    }
    differences
}

impl Answer {
    /// What differs first, and both versions of it.
    fn difference(&self, other: &Self, case: &Case) -> Option<(&'static str, String, String)> {
        let (here, there) = (self.comparable(case), other.comparable(case));
        here.into_iter()
            .zip(there)
            .find(|((_, here), (_, there))| here != there)
            .map(|((what, here), (_, there))| (what, cut(here), cut(there)))
    }
}

/// A list of hundreds of pods helps nobody who reads a failure.
fn cut(mut text: String) -> String {
    const READABLE: usize = 600;
    if let Some((end, _)) = text.char_indices().nth(READABLE) {
        text.truncate(end);
        text.push('…');
    }
    text
}
