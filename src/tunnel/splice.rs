//! [`splice`]: two byte streams joined after a change of protocol.

use std::{
    io,
    pin::{Pin, pin},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// After one direction has ended, how long the other may stay silent. The end of an exec's input is followed by the rest
/// of its output; a peer that neither sends nor ends has gone without a word.
pub(crate) const LINGER_LIMIT: Duration = Duration::from_secs(30);

/// One per direction: two TLS records.
const COPY_BUFFER: usize = 32 * 1024;

/// Copies both ways until both have ended. The end of one direction is passed on as a half-close, the other goes on.
///
/// Silence is that of who sends: a receiver that takes its time, such as a pager, may take as much as it wants.
///
/// # Errors
/// When a side breaks, or stays silent for [`LINGER_LIMIT`] after the other has ended. Both are then dropped as they
/// are, so that neither peer takes what it got for the whole.
pub(crate) async fn splice<A, B>(left: A, right: B) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (left_reader, left_writer) = tokio::io::split(left);
    let (right_reader, right_writer) = tokio::io::split(right);
    let (rightwards, leftwards) = (Activity::default(), Activity::default());
    let mut to_right = pin!(copy(left_reader, right_writer, &rightwards));
    let mut to_left = pin!(copy(right_reader, left_writer, &leftwards));
    tokio::select! {
        end = &mut to_right => {
            end?;
            linger(to_left, &leftwards).await
        }
        end = &mut to_left => {
            end?;
            linger(to_right, &rightwards).await
        }
    }
}

/// What one direction does.
#[derive(Default)]
struct Activity {
    reads: AtomicU64,
    writes_now: AtomicBool,
}

async fn copy(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    activity: &Activity,
) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BUFFER];
    loop {
        let count = reader.read(&mut buffer).await?;
        activity.reads.fetch_add(1, Ordering::Relaxed);
        activity.writes_now.store(true, Ordering::Relaxed);
        if count == 0 {
            return writer.shutdown().await;
        }
        writer.write_all(&buffer[..count]).await?;
        // A keystroke must not wait in a TLS buffer for the next one.
        writer.flush().await?;
        activity.writes_now.store(false, Ordering::Relaxed);
    }
}

async fn linger(
    mut rest: Pin<&mut impl Future<Output = io::Result<()>>>,
    activity: &Activity,
) -> io::Result<()> {
    loop {
        let before = activity.reads.load(Ordering::Relaxed);
        match tokio::time::timeout(LINGER_LIMIT, rest.as_mut()).await {
            Ok(end) => return end,
            Err(_) if activity.writes_now.load(Ordering::Relaxed) => {}
            Err(_) if activity.reads.load(Ordering::Relaxed) != before => {}
            Err(silence) => return Err(silence.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    /// The far ends of two pipes that are joined, and the joining.
    fn joined() -> (
        DuplexStream,
        DuplexStream,
        tokio::task::JoinHandle<io::Result<()>>,
    ) {
        let (client, near_client) = duplex(64);
        let (agent, near_agent) = duplex(64);
        (client, agent, tokio::spawn(splice(near_client, near_agent)))
    }

    #[tokio::test(start_paused = true)]
    async fn the_tail_follows_a_half_close() {
        let (mut client, mut agent, joining) = joined();
        client.write_all(b"input").await.expect("written");
        client.shutdown().await.expect("closed");
        let mut input = Vec::new();
        agent.read_to_end(&mut input).await.expect("read");
        assert_eq!(input, b"input");
        // Far longer than the limit in sum, never silent for as long as it.
        for _ in 0..5 {
            tokio::time::sleep(LINGER_LIMIT * 3 / 4).await;
            agent.write_all(b"output").await.expect("written");
        }
        drop(agent);
        let mut output = Vec::new();
        client.read_to_end(&mut output).await.expect("read");
        assert_eq!(output, b"output".repeat(5));
        joining.await.expect("no panic").expect("a clean end");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_after_a_half_close_ends_in_an_error() {
        let (client, mut agent, joining) = joined();
        agent.shutdown().await.expect("closed");
        let start = tokio::time::Instant::now();
        let error = joining.await.expect("no panic").expect_err("a time-out");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() >= LINGER_LIMIT);
        assert!(start.elapsed() < LINGER_LIMIT * 3);
        drop(client);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_alone_is_no_error() {
        let (mut client, mut agent, joining) = joined();
        tokio::time::sleep(LINGER_LIMIT * 100).await;
        client.write_all(b"x").await.expect("written");
        assert_eq!(agent.read_u8().await.expect("read"), b'x');
        assert!(!joining.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn a_receiver_may_take_its_time_after_a_half_close() {
        let (mut client, mut agent, joining) = joined();
        client.shutdown().await.expect("closed");
        let sending = tokio::spawn(async move {
            // More than all buffers on the way hold.
            agent.write_all(&[b'x'; 100_000]).await?;
            agent.shutdown().await
        });
        tokio::time::sleep(LINGER_LIMIT * 10).await;
        let mut output = Vec::new();
        client.read_to_end(&mut output).await.expect("read");
        assert_eq!(output.len(), 100_000);
        sending.await.expect("no panic").expect("sent");
        joining.await.expect("no panic").expect("a clean end");
    }
}
