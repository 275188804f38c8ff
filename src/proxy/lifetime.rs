//! [`Lifetime`]: how every task of the proxy, or of one of its clusters, learns that it is over.

use std::{future::Future, time::Duration};

use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFutureOwned},
    task::TaskTracker,
};

/// Two signals and a count of the tasks that heed them.
///
/// ```text
///              drain                          stop
///  running ────────────► no new connections, ──────► every task is dropped where it stands:
///                        no new requests             connections break, tunnel streams are reset
/// ```
#[derive(Clone, Default)]
pub(super) struct Lifetime {
    drain: CancellationToken,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Lifetime {
    /// Spawns a task that is dropped when the proxy stops.
    pub(super) fn spawn<F>(&self, future: F)
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let stop = self.stop.clone();
        self.tasks
            .spawn(async move { stop.run_until_cancelled(future).await });
    }

    /// Resolves when nothing new shall begin.
    pub(super) async fn draining(&self) {
        self.drain.cancelled().await;
    }

    /// Whether everything was told to stop where it stands.
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Whether nothing new shall begin.
    pub(super) fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Resolves when everything was told to stop. Owned, so that it can be kept beside what it stops.
    pub(super) fn stopped(&self) -> WaitForCancellationFutureOwned {
        self.stop.clone().cancelled_owned()
    }

    /// Runs `future` unless it is stopped before its end, which gives `None`.
    pub(super) async fn run<F: Future>(&self, future: F) -> Option<F::Output> {
        self.stop.run_until_cancelled(future).await
    }

    /// Lets what runs come to its end for at most `limit`, then stops it.
    pub(super) async fn end(&self, limit: Duration) {
        self.drain.cancel();
        self.tasks.close();
        // An unfinished watch or shell is the usual reason to reach the limit, and no error.
        let _ = tokio::time::timeout(limit, self.tasks.wait()).await;
        self.stop.cancel();
        self.tasks.wait().await;
    }

    /// Stops everything now, without waiting.
    pub(super) fn stop(&self) {
        self.drain.cancel();
        self.stop.cancel();
    }
}

/// Lets hyper's HTTP/2 server put its streams under the same signals.
impl<F> hyper::rt::Executor<F> for Lifetime
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.spawn(future);
    }
}

#[cfg(test)]
mod tests {
    use std::future;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_does_not_end_is_stopped_after_the_limit() {
        let lifetime = Lifetime::default();
        lifetime.spawn(future::pending::<()>());
        let start = tokio::time::Instant::now();
        lifetime.end(Duration::from_secs(5)).await;
        assert_eq!(start.elapsed(), Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn what_ends_in_time_is_not_waited_for_longer() {
        let lifetime = Lifetime::default();
        lifetime.spawn(tokio::time::sleep(Duration::from_secs(2)));
        let start = tokio::time::Instant::now();
        lifetime.end(Duration::from_secs(5)).await;
        assert_eq!(start.elapsed(), Duration::from_secs(2));
    }
}
