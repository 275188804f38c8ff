//! [`Absence`]: for how long the relay has said that there is no such hybrid connection.

use std::time::Duration;

use tokio::time::Instant;

use crate::{Error, ErrorKind, relay::HybridConnection};

/// For how long the relay has said that there is no such hybrid connection.
///
/// At first that is taken for something that passes: it was made a moment ago, or is made anew. After the patience it
/// is an answer.
#[derive(Debug)]
pub(super) struct Absence {
    patience: Duration,
    since: Option<Instant>,
}

impl Absence {
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            patience,
            since: None,
        }
    }

    /// A registration stood.
    pub(super) fn is_over(&mut self) {
        self.since = None;
    }

    /// What the relay's `error`, which ended an attempt at `now`, means: itself, or that there is no such hybrid connection, which is
    /// not [retryable](Error::is_retryable).
    pub(super) fn judge(
        &mut self,
        error: Error,
        hybrid_connection: &HybridConnection,
        now: Instant,
    ) -> Error {
        if error.kind() != ErrorKind::NotFound {
            return error;
        }
        let since = *self.since.get_or_insert(now);
        if now < since + self.patience {
            return error;
        }
        let waited = match self.patience.as_secs() {
            0 => String::new(),
            _ => format!(", and had none for {} s", (now - since).as_secs()),
        };
        // Without the status: a 404 by itself is something that may pass.
        let lasting = Error::new(
            ErrorKind::NotFound,
            format!("the relay has no hybrid connection {hybrid_connection}{waited}"),
        );
        let lasting = match error.help() {
            Some(help) => lasting.with_help(help.to_owned()),
            None => lasting,
        };
        let lasting = match error.tracking_id() {
            Some(id) => lasting.with_tracking_id(id.to_owned()),
            None => lasting,
        };
        lasting.with_source(error)
    }

    /// `delay`, or less: at the end of the patience the relay is asked once more.
    pub(super) fn at_most(&self, delay: Duration, now: Instant) -> Duration {
        match self.since {
            Some(since) if now < since + self.patience => delay.min(since + self.patience - now),
            _ => delay,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Endpoint, Security};

    const PATIENCE: Duration = Duration::from_secs(120);
    const SECOND: Duration = Duration::from_secs(1);

    fn hybrid_connection() -> HybridConnection {
        let endpoint = Endpoint::new("relay.example", 443, Security::Tls);
        HybridConnection::new(endpoint, "hyco").unwrap()
    }

    fn not_found() -> Error {
        Error::new(ErrorKind::NotFound, "404 Endpoint does not exist")
            .with_status(404)
            .with_tracking_id("id_G1")
            .with_help("check EntityPath")
    }

    fn judge(absence: &mut Absence, error: Error, now: Instant) -> Error {
        absence.judge(error, &hybrid_connection(), now)
    }

    #[test]
    fn a_404_passes_until_the_patience_is_over() {
        let start = Instant::now();
        let mut absence = Absence::new(PATIENCE);
        for now in [start, start + PATIENCE - SECOND] {
            let error = judge(&mut absence, not_found(), now);
            assert!(error.is_retryable());
            assert_eq!(error.status(), Some(404));
        }
        let error = judge(&mut absence, not_found(), start + PATIENCE);
        assert!(!error.is_retryable());
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(error.tracking_id(), Some("id_G1"));
        assert_eq!(error.help(), Some("check EntityPath"));
        assert_eq!(
            error.report(),
            "the relay has no hybrid connection relay.example:443/hyco, and had none for 120 s: \
             404 Endpoint does not exist"
        );
    }

    #[test]
    fn only_a_registration_begins_the_patience_anew() {
        let start = Instant::now();
        let mut absence = Absence::new(PATIENCE);
        judge(&mut absence, not_found(), start);
        let busy = Error::new(ErrorKind::Refused, "busy").with_status(503);
        assert!(judge(&mut absence, busy, start + SECOND).is_retryable());
        assert!(!judge(&mut absence, not_found(), start + PATIENCE).is_retryable());
        absence.is_over();
        assert!(judge(&mut absence, not_found(), start + PATIENCE).is_retryable());
    }

    #[test]
    fn without_patience_the_first_404_counts() {
        let mut absence = Absence::new(Duration::ZERO);
        let error = judge(&mut absence, not_found(), Instant::now());
        assert!(!error.is_retryable());
        assert!(error.to_string().ends_with("relay.example:443/hyco"));
    }

    #[test]
    fn the_last_question_comes_when_the_patience_ends() {
        let start = Instant::now();
        let mut absence = Absence::new(PATIENCE);
        assert_eq!(absence.at_most(PATIENCE * 2, start), PATIENCE * 2);
        judge(&mut absence, not_found(), start);
        let late = start + PATIENCE - SECOND;
        assert_eq!(absence.at_most(SECOND * 30, late), SECOND);
        assert_eq!(absence.at_most(SECOND / 2, late), SECOND / 2);
        assert_eq!(absence.at_most(SECOND * 30, start + PATIENCE), SECOND * 30);
    }
}
