//! Who is woken may be anybody's code, and so may what goes with the last waker of a task.

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, mpsc},
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use bytes::Bytes;

use super::super::{Config, MuxStream, Role, start};

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
