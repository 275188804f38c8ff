//! [`ReplayBody`]: a request's body that can start again, as long as little of it has been sent.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};

use crate::agent::body::RequestBody;

/// How much of a body is kept until the response begins, in case the server turns out not to have looked at it. Most
/// objects of Kubernetes are smaller; what is larger fails where it would otherwise have been sent again.
pub(super) const MAX_KEPT: usize = 64 * 1024;

pub(super) struct ReplayBody<B = RequestBody> {
    /// What was sent before, to be sent once more ahead of the rest.
    replay: Option<Bytes>,
    /// A copy of what was sent: slices of it would keep whole read buffers alive.
    kept: Kept,
    rest: Option<B>,
}

enum Kept {
    All(BytesMut),
    /// Some of the body is gone.
    Lost,
}

impl<B> ReplayBody<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    pub(super) fn new(body: B) -> Self {
        Self {
            replay: None,
            kept: Kept::All(BytesMut::new()),
            rest: (!body.is_end_stream()).then_some(body),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.replay.is_none() && self.rest.is_none()
    }

    /// Stops keeping: there will be no second time.
    pub(super) fn forget(&mut self) {
        self.kept = Kept::Lost;
    }

    /// The body from its beginning, if nothing of it is gone.
    pub(super) fn rewind(self) -> Option<Self> {
        let Kept::All(mut kept) = self.kept else {
            return None;
        };
        if let Some(replay) = self.replay {
            kept.extend_from_slice(&replay);
        }
        Some(Self {
            replay: (!kept.is_empty()).then(|| kept.freeze()),
            kept: Kept::All(BytesMut::new()),
            rest: self.rest,
        })
    }

    fn keep(&mut self, chunk: &Bytes) {
        if let Kept::All(kept) = &mut self.kept {
            if kept.len() + chunk.len() <= MAX_KEPT {
                kept.extend_from_slice(chunk);
            } else {
                self.kept = Kept::Lost;
            }
        }
    }
}

impl<B> Body for ReplayBody<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if let Some(chunk) = self.replay.take() {
            self.keep(&chunk);
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        let Some(rest) = &mut self.rest else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(rest).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => match frame.data_ref() {
                Some(chunk) => self.keep(chunk),
                // Trailers come with large bodies, which can not start again anyhow.
                None => self.forget(),
            },
            Some(Err(_)) => self.forget(),
            None => self.rest = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.replay.is_none() && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self
            .rest
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        let replay = self.replay.as_ref().map_or(0, |chunk| chunk.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + replay);
        }
        hint.set_lower(hint.lower() + replay);
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, convert::Infallible};

    use http::HeaderMap;
    use http_body_util::BodyExt;
    use proptest::prelude::*;

    use super::*;

    struct Chunks(VecDeque<Frame<Bytes>>);

    impl Body for Chunks {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(Ok))
        }
    }

    fn body(sizes: &[usize]) -> (Vec<u8>, ReplayBody<Chunks>) {
        let mut whole = Vec::new();
        let mut chunks = VecDeque::new();
        for (index, size) in sizes.iter().enumerate() {
            let chunk = vec![index as u8; *size];
            whole.extend_from_slice(&chunk);
            chunks.push_back(Frame::data(Bytes::from(chunk)));
        }
        (whole, ReplayBody::new(Chunks(chunks)))
    }

    async fn sent(body: &mut ReplayBody<Chunks>, frames: usize) -> usize {
        let mut bytes = 0;
        for _ in 0..frames {
            if let Some(Ok(frame)) = body.frame().await {
                bytes += frame.data_ref().map_or(0, Bytes::len);
            }
        }
        bytes
    }

    proptest! {
        /// Whatever was sent, and however often it broke off: the body is whole again, or it says that it is not.
        #[test]
        fn a_body_starts_again_whole_or_not_at_all(
            sizes in prop::collection::vec(0..MAX_KEPT / 2, 0..8),
            breaks in prop::collection::vec(0..6_usize, 0..4),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(async {
                let (whole, mut body) = body(&sizes);
                for frames in breaks {
                    let sent = sent(&mut body, frames).await;
                    match body.rewind() {
                        Some(again) => body = again,
                        None => {
                            assert!(sent > MAX_KEPT);
                            return;
                        }
                    }
                    assert!(sent <= MAX_KEPT);
                }
                let collected = body.collect().await.expect("infallible").to_bytes();
                assert_eq!(collected, whole);
            });
        }
    }

    #[tokio::test]
    async fn the_limit_is_inclusive() {
        for (size, starts_again) in [(MAX_KEPT, true), (MAX_KEPT + 1, false)] {
            let (_, mut body) = body(&[size]);
            assert_eq!(sent(&mut body, 2).await, size);
            assert_eq!(body.rewind().is_some(), starts_again);
        }
    }

    #[tokio::test]
    async fn what_is_forgotten_or_ended_in_trailers_does_not_start_again() {
        let (_, mut forgotten) = body(&[1]);
        forgotten.forget();
        assert!(forgotten.rewind().is_none());

        let mut body = ReplayBody::new(Chunks([Frame::trailers(HeaderMap::new())].into()));
        assert_eq!(sent(&mut body, 1).await, 0);
        assert!(body.rewind().is_none());
    }
}
