//! [`StreamLifetime`]: whether a stream may outlive the token that opened it.

use std::time::{Duration, SystemTime};

use tokio::{sync::watch, time::Instant};

/// The least time that an admitted request gets. A token is accepted for a moment beyond its end, because clocks
/// differ, and then the request is to have its answer.
const LEAST: Duration = Duration::from_secs(10);

/// How long a request's stream (a watch, `exec`, `port-forward`) may last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamLifetime {
    /// As long as both ends want it, as with an API server itself.
    #[default]
    Unlimited,
    /// Until the token that opened it has expired, and `grace` longer. Then the stream is aborted, so that nothing
    /// cut off looks complete. Tokens without an expiry set no limit.
    Token {
        /// How much longer than the token.
        grace: Duration,
    },
}

impl StreamLifetime {
    fn end(self, expires_at: Option<SystemTime>, now: SystemTime) -> Option<Instant> {
        let (Self::Token { grace }, Some(expires_at)) = (self, expires_at) else {
            return None;
        };
        let left = expires_at.duration_since(now).unwrap_or_default();
        Instant::now().checked_add(left.saturating_add(grace).max(LEAST))
    }
}

/// When a stream is to end; known once its caller is.
#[derive(Clone, Debug)]
pub(super) struct StreamEnd(watch::Sender<Option<Instant>>);

impl StreamEnd {
    pub(super) fn set(&self, lifetime: StreamLifetime, expires_at: Option<SystemTime>) {
        self.0
            .send_replace(lifetime.end(expires_at, SystemTime::now()));
    }

    /// Ready when the stream is to end.
    pub(super) async fn reached(&self) {
        let mut end = self.0.subscribe();
        let at = end.wait_for(Option::is_some).await.ok().and_then(|at| *at);
        match at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}

impl Default for StreamEnd {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(60);

    fn end(lifetime: StreamLifetime, expires_at: Option<u64>) -> Option<Duration> {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        lifetime
            .end(expires_at.map(at), at(1_000))
            .map(|end| end - Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn j10_a_stream_ends_with_its_token_and_the_grace() {
        let token = StreamLifetime::Token { grace: GRACE };
        assert_eq!(end(token, Some(1_300)), Some(Duration::from_secs(360)));
        assert_eq!(end(token, Some(900)), Some(GRACE));
        assert_eq!(end(token, None), None);
        assert_eq!(end(StreamLifetime::Unlimited, Some(1_300)), None);
        let no_grace = StreamLifetime::Token {
            grace: Duration::ZERO,
        };
        assert_eq!(end(no_grace, Some(999)), Some(LEAST));
        let forever = StreamLifetime::Token {
            grace: Duration::MAX,
        };
        assert_eq!(end(forever, Some(999)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_that_is_set_late_is_reached_all_the_same() {
        let stream = StreamEnd::default();
        let waiting = tokio::spawn({
            let stream = stream.clone();
            async move { stream.reached().await }
        });
        tokio::time::sleep(GRACE).await;
        assert!(!waiting.is_finished());
        stream.set(
            StreamLifetime::Token {
                grace: Duration::ZERO,
            },
            Some(SystemTime::UNIX_EPOCH),
        );
        let start = Instant::now();
        waiting.await.expect("no panic");
        assert_eq!(start.elapsed(), LEAST);
    }
}
