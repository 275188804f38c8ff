//! Two byte streams joined after a change of protocol.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::watch,
    time::Instant,
};

/// How long, after one direction has ended, the other may stay silent before both are aborted.
///
/// Half-closing is legitimate (`exec` with its input at the end), so what still flows goes on for as long as it
/// flows. A peer that ended its own direction and then vanished must not hold a stream for ever.
pub(super) const LINGER: Duration = Duration::from_secs(30);
/// The buffer of one direction: two of them, for each exec or port-forward session.
const BUFFER: usize = 32 * 1024;

/// Copies each direction to its own end and passes that end on; an error on either side ends both.
///
/// On an error neither side is shut down: dropping them then aborts them, so that a reset stays a reset.
///
/// # Errors
/// The first error of either side; [`io::ErrorKind::TimedOut`] when [`LINGER`] ran out.
pub(super) async fn splice<A, B>(left: &mut A, right: &mut B) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (left_reader, left_writer) = tokio::io::split(left);
    let (right_reader, right_writer) = tokio::io::split(right);
    let (progress, watcher) = watch::channel(Progress {
        ended: 0,
        last: Instant::now(),
    });
    let both = async {
        tokio::try_join!(
            copy(left_reader, right_writer, &progress),
            copy(right_reader, left_writer, &progress),
        )
    };
    tokio::select! {
        result = both => result.map(|_| ()),
        () = lingered(watcher) => Err(io::ErrorKind::TimedOut.into()),
    }
}

struct Progress {
    ended: u8,
    last: Instant,
}

async fn copy(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    progress: &watch::Sender<Progress>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = reader.read(&mut buffer).await?;
        if read == 0 {
            break;
        }
        writer.write_all(&buffer[..read]).await?;
        // Keystrokes wait for no second one.
        writer.flush().await?;
        // Only the time of the last progress matters, and only once a direction has ended: nobody is woken.
        progress.send_if_modified(|progress| {
            progress.last = Instant::now();
            false
        });
    }
    writer.shutdown().await?;
    progress.send_modify(|progress| {
        progress.ended += 1;
        progress.last = Instant::now();
    });
    Ok(())
}

/// Ready once one direction has ended and the other made no progress for [`LINGER`].
async fn lingered(mut watcher: watch::Receiver<Progress>) {
    if watcher
        .wait_for(|progress| progress.ended > 0)
        .await
        .is_err()
    {
        return std::future::pending().await;
    }
    loop {
        let deadline = watcher.borrow().last + LINGER;
        if deadline <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(deadline).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    /// The two far ends of a splice that runs by itself, and its result.
    fn spliced() -> (
        DuplexStream,
        DuplexStream,
        tokio::task::JoinHandle<io::Result<()>>,
    ) {
        let (client, mut left) = duplex(1024);
        let (server, mut right) = duplex(1024);
        let task = tokio::spawn(async move { splice(&mut left, &mut right).await });
        (client, server, task)
    }

    #[tokio::test]
    async fn each_direction_ends_by_itself() {
        let (mut client, mut server, task) = spliced();
        client.write_all(b"input").await.expect("open");
        client.shutdown().await.expect("open");
        let mut input = Vec::new();
        server.read_to_end(&mut input).await.expect("the end");
        assert_eq!(input, b"input");
        server.write_all(b"late output").await.expect("open");
        server.shutdown().await.expect("open");
        let mut output = Vec::new();
        client.read_to_end(&mut output).await.expect("the end");
        assert_eq!(output, b"late output");
        task.await.expect("no panic").expect("a clean end");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_half_is_aborted_after_the_linger() {
        let (mut client, _server, task) = spliced();
        let start = Instant::now();
        client.shutdown().await.expect("open");
        let error = task.await.expect("no panic").expect_err("aborted");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed(), LINGER);
    }

    #[tokio::test(start_paused = true)]
    async fn a_half_that_still_flows_outlives_the_linger() {
        let (mut client, mut server, task) = spliced();
        client.shutdown().await.expect("open");
        for _ in 0..10 {
            tokio::time::sleep(LINGER / 2).await;
            server.write_all(b"x").await.expect("open");
            assert_eq!(client.read_u8().await.expect("open"), b'x');
        }
        server.shutdown().await.expect("open");
        task.await.expect("no panic").expect("a clean end");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_in_both_directions_is_not_limited() {
        let (mut client, mut server, _task) = spliced();
        tokio::time::sleep(LINGER * 100).await;
        client.write_all(b"x").await.expect("open");
        assert_eq!(server.read_u8().await.expect("open"), b'x');
    }
}
