//! [`RequestLog`]: what was asked, by whom, and what is still being answered.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::{HeaderMap, Method, Version, request};

use super::user::User;

/// How many requests are kept; more than any test sends, and a bound for a server that is left running.
pub(super) const MAX_RECORDED: usize = 10_000;

/// One request as it arrived. Headers are kept whole, credentials included: they are what tests look for.
#[derive(Clone, Debug)]
pub struct RecordedRequest {
    /// The method.
    pub method: Method,
    /// Path and query, byte for byte.
    pub path_and_query: String,
    /// HTTP/1.1 or HTTP/2.
    pub version: Version,
    /// The headers.
    pub headers: HeaderMap,
    /// Which connection it came on, counted from 0.
    pub connection: u64,
    /// Whom the credential belongs to; `None` when it was refused or not needed.
    pub caller: Option<User>,
    /// As whom it was carried out: the impersonated user, else the caller.
    pub user: Option<User>,
}

/// The recorded requests and the count of live ones.
#[derive(Default)]
pub(super) struct RequestLog {
    recorded: Mutex<Recorded>,
    live: AtomicUsize,
}

#[derive(Default)]
struct Recorded {
    requests: VecDeque<RecordedRequest>,
    /// How many were dropped from the front.
    dropped: usize,
}

impl RequestLog {
    pub(super) fn begin(self: &Arc<Self>, head: &request::Parts, connection: u64) -> Arc<Ticket> {
        let mut recorded = self.lock();
        if recorded.requests.len() == MAX_RECORDED {
            recorded.requests.pop_front();
            recorded.dropped += 1;
        }
        let number = recorded.dropped + recorded.requests.len();
        recorded.requests.push_back(RecordedRequest {
            method: head.method.clone(),
            path_and_query: head
                .uri
                .path_and_query()
                .map_or_else(|| head.uri.path().to_owned(), ToString::to_string),
            version: head.version,
            headers: head.headers.clone(),
            connection,
            caller: None,
            user: None,
        });
        self.live.fetch_add(1, Ordering::SeqCst);
        Arc::new(Ticket {
            log: Arc::clone(self),
            number,
        })
    }

    pub(super) fn all(&self) -> Vec<RecordedRequest> {
        self.lock().requests.iter().cloned().collect()
    }

    pub(super) fn live(&self) -> usize {
        self.live.load(Ordering::SeqCst)
    }

    fn lock(&self) -> MutexGuard<'_, Recorded> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One live request. It is live as long as somebody holds its ticket.
pub(super) struct Ticket {
    log: Arc<RequestLog>,
    number: usize,
}

impl Ticket {
    pub(super) fn set_caller(&self, caller: &User) {
        self.update(|request| request.caller = Some(caller.clone()));
    }

    pub(super) fn set_user(&self, user: &User) {
        self.update(|request| request.user = Some(user.clone()));
    }

    fn update(&self, change: impl FnOnce(&mut RecordedRequest)) {
        let mut recorded = self.log.lock();
        let position = self.number.checked_sub(recorded.dropped);
        if let Some(request) = position.and_then(|at| recorded.requests.get_mut(at)) {
            change(request);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.log.live.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_requests_are_forgotten_and_every_ticket_finds_its_own() {
        let log = Arc::new(RequestLog::default());
        let begin = |number: usize| {
            let request = http::Request::builder().uri(format!("/{number}")).body(());
            log.begin(&request.unwrap().into_parts().0, 0)
        };
        let first = begin(0);
        let tickets: Vec<_> = (1..=MAX_RECORDED).map(begin).collect();
        assert_eq!(log.live(), MAX_RECORDED + 1);
        first.set_user(&User::new("forgotten"));
        tickets[0].set_user(&User::new("second"));

        let all = log.all();
        assert_eq!(all.len(), MAX_RECORDED);
        assert_eq!(all[0].path_and_query, "/1");
        assert_eq!(all[0].user.as_ref().unwrap().name, "second");
        assert!(all[1..].iter().all(|request| request.user.is_none()));
        drop((first, tickets));
        assert_eq!(log.live(), 0);
    }
}
