//! Who is woken may be anybody's code, and so may what goes with the last waker of a task.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use bytes::Bytes;

use super::{
    super::{Config, MuxStream, Role, start},
    async_io::{side, stream_pair},
};

/// A task that owns a stream and is gone with its last waker, as in executors that keep no list of their tasks.
struct Task {
    stream: Option<MuxStream>,
    gone: Mutex<mpsc::Sender<()>>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Task {
    fn drop(&mut self) {
        self.stream = None;
        let _ = self.gone.lock().unwrap().send(());
    }
}

#[test]
fn a_task_that_goes_with_its_waker_may_own_streams_of_the_session() {
    let (gone, is_gone) = mpsc::channel();
    // On a thread of its own: a failure is a deadlock.
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let _entered = runtime.enter();
        let (near, _far) = tokio::io::duplex(64);
        let (session, _incoming, _driver) = start(near, Role::Client, Config::default());
        let open = || {
            let opening = pin!(session.open(Bytes::new()));
            match opening.poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(stream) => stream.unwrap(),
                Poll::Pending => panic!("there is room for a stream"),
            }
        };
        let wait = |stream: &mut MuxStream| {
            let task = Waker::from(Arc::new(Task {
                stream: Some(open()),
                gone: Mutex::new(gone.clone()),
            }));
            let mut context = Context::from_waker(&task);
            assert!(stream.poll_read_chunk(&mut context).is_pending());
        };
        let mut stream = open();
        wait(&mut stream);
        // Another waker takes the first one's place, then the stream goes, and the second with it.
        wait(&mut stream);
        drop(stream);
    });
    for which in ["replaced", "released"] {
        is_gone
            .recv_timeout(Duration::from_secs(10))
            .unwrap_or_else(|_| panic!("deadlock over the waker that was {which}"));
    }
}

/// Remembers that it was woken.
#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Flag {
    fn take(&self) -> bool {
        self.0.swap(false, Ordering::SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn m14_reader_writer_and_watcher_of_a_stream_have_wakers_of_their_own() {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let client = side(near, Role::Client);
    let mut server = side(far, Role::Server);
    let (mut near, mut far) = stream_pair(&client, &mut server).await;
    let flags = [(); 3].map(|()| Arc::new(Flag::default()));
    let wakers = flags.each_ref().map(|flag| Waker::from(Arc::clone(flag)));
    let [mut reading, mut writing, mut watching] = wakers.each_ref().map(Context::from_waker);
    // Until the windows are full, and the queue behind them.
    loop {
        let mut chunk = Bytes::from(vec![1; 64 * 1024]);
        if near.poll_write_chunk(&mut writing, &mut chunk).is_pending() {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if near.poll_write_chunk(&mut writing, &mut chunk).is_pending() {
                break;
            }
        }
    }
    for flag in &flags {
        flag.take();
    }
    let mut aborted = pin!(near.aborted());
    assert!(near.poll_read_chunk(&mut reading).is_pending());
    assert!(aborted.as_mut().poll(&mut watching).is_pending());
    let woken = async || {
        tokio::time::sleep(Duration::from_secs(1)).await;
        flags.each_ref().map(|flag| flag.take())
    };
    far.write_chunk(Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(woken().await, [true, false, false]);
    let mut read = 0;
    while read < 256 * 1024 {
        read += far.read_chunk().await.unwrap().unwrap().len();
    }
    assert_eq!(woken().await, [false, true, false]);
    far.stop(7);
    assert!(aborted.as_mut().poll(&mut watching).is_pending());
    assert_eq!(woken().await, [false, false, true]);
}
