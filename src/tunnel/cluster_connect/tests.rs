//! Credentials that end, clocks that jump and networks that freeze, on virtual time.

use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, duplex, split},
    time::{Instant, sleep, timeout},
};

use super::{
    issuer::{Issued, Issuer},
    *,
};
use crate::{
    Error, ErrorKind,
    clock::Clock,
    net::{Endpoint, Jitter, Security},
    relay::{HybridConnection, RelayGrant, RelayTokenSource, SasRule},
    tunnel::{CredentialStatus, TunnelState, mux},
};

/// Three hours, as Azure has it, and the ten minutes for which the relay takes a token beyond that.
const LIFE: Duration = Duration::from_secs(10_800);
const GRACE: Duration = Duration::from_secs(600);
const SECOND: Duration = Duration::from_secs(1);

/// What Azure Resource Manager does when it is asked.
enum Answer {
    Give,
    GiveEnded,
    Fail(ErrorKind, u16),
    Hang,
}

/// The outside world: a clock, an issuer and an agent.
#[derive(Clone)]
struct World(Arc<Shared>);

struct Shared {
    start: Instant,
    /// By how much the machine's clock has jumped, in seconds.
    jumped: AtomicU64,
    answers: Mutex<VecDeque<Answer>>,
    asked_at: Mutex<Vec<u64>>,
    dials: Mutex<Vec<String>>,
    failing_dials: AtomicUsize,
    frozen: AtomicBool,
}

impl World {
    fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self(Arc::new(Shared {
            start: Instant::now(),
            jumped: AtomicU64::new(0),
            answers: Mutex::new(answers.into_iter().collect()),
            asked_at: Mutex::default(),
            dials: Mutex::default(),
            failing_dials: AtomicUsize::new(0),
            frozen: AtomicBool::new(false),
        }))
    }

    /// Seconds of wall-clock time since the beginning.
    fn now(&self) -> u64 {
        self.0.start.elapsed().as_secs() + self.0.jumped.load(Ordering::SeqCst)
    }

    fn clock(&self) -> Clock {
        let world = self.clone();
        Clock::new(move || {
            let jumped = Duration::from_secs(world.0.jumped.load(Ordering::SeqCst));
            UNIX_EPOCH + world.0.start.elapsed() + jumped
        })
    }

    /// The lid is closed for a time: the wall clock goes on, nothing else does.
    fn suspend(&self, time: Duration) {
        self.0.jumped.fetch_add(time.as_secs(), Ordering::SeqCst);
    }

    fn asked_at(&self) -> Vec<u64> {
        self.0.asked_at.lock().unwrap().clone()
    }

    /// The path of each dial.
    fn dials(&self) -> Vec<String> {
        self.0.dials.lock().unwrap().clone()
    }
}

#[async_trait]
impl Issuer for World {
    async fn issue(&self) -> Result<Issued> {
        let now = self.now();
        let number = {
            let mut asked_at = self.0.asked_at.lock().unwrap();
            asked_at.push(now);
            asked_at.len()
        };
        let answer = self.0.answers.lock().unwrap().pop_front();
        let expires_at = match answer.unwrap_or(Answer::Give) {
            Answer::Give => UNIX_EPOCH + Duration::from_secs(now) + LIFE,
            Answer::GiveEnded => UNIX_EPOCH,
            Answer::Fail(kind, status) => {
                return Err(Error::new(kind, "no credential")
                    .with_status(status)
                    .with_help("ask the owner"));
            }
            Answer::Hang => std::future::pending().await,
        };
        let relay = Endpoint::new("relay.example", 443, Security::Tls);
        let hybrid_connection = HybridConnection::new(relay, &format!("cluster/{number}"))?;
        let rule = SasRule::new("sender", "an-example-key")?;
        let token = rule.sign(&hybrid_connection, expires_at + GRACE);
        Ok(Issued {
            grant: RelayGrant::new(hybrid_connection, token),
            expires_at,
            kubeconfigs: Vec::new(),
        })
    }
}

struct WorldDial {
    world: World,
    keeper: Arc<Keeper>,
}

#[async_trait]
impl Dial for WorldDial {
    fn peer(&self) -> String {
        "cluster".to_owned()
    }

    async fn dial(&self) -> Result<Box<dyn BytePipe>> {
        let grant = self.keeper.grant().await?;
        let path = grant.hybrid_connection().path().to_owned();
        self.world.0.dials.lock().unwrap().push(path);
        let failing = &self.world.0.failing_dials;
        if failing
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            })
            .is_ok()
        {
            return Err(Error::new(ErrorKind::Network, "no network"));
        }
        // A wire of its own for each connection, which freezes with the world and stays so.
        let ((near, near_end), (far_end, far)) = (duplex(64 * 1024), duplex(64 * 1024));
        let ((near_in, near_out), (far_in, far_out)) = (split(near_end), split(far_end));
        let cut = Arc::new(AtomicBool::new(false));
        tokio::spawn(carry(
            near_in,
            far_out,
            self.world.clone(),
            Arc::clone(&cut),
        ));
        tokio::spawn(carry(far_in, near_out, self.world.clone(), cut));
        let (_session, mut incoming, driver) =
            mux::start(far, mux::Role::Server, mux::Config::default());
        tokio::spawn(driver);
        tokio::spawn(async move {
            let _session = _session;
            while let Some(stream) = incoming.accept().await {
                let (mut reader, mut writer) = split(stream.into_stream());
                tokio::spawn(async move { copy(&mut reader, &mut writer).await });
            }
        });
        Ok(Box::new(near))
    }
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    world: World,
    cut: Arc<AtomicBool>,
) {
    let mut piece = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        if world.0.frozen.load(Ordering::SeqCst) {
            cut.store(true, Ordering::SeqCst);
        }
        if !cut.load(Ordering::SeqCst) && to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}

/// A tunnel over the world, connected.
struct Bed {
    world: World,
    cluster: ClusterConnect,
}

impl Bed {
    async fn connect(answers: impl IntoIterator<Item = Answer>) -> Self {
        let world = World::new(answers);
        let keeper = Arc::new(Keeper::new(Box::new(world.clone()), world.clock(), || 0));
        keeper.refresh().await.unwrap();
        let supervisor = Supervisor::new(WorldDial {
            world: world.clone(),
            keeper: Arc::clone(&keeper),
        });
        supervisor.connect().await.unwrap();
        let refresher = Refresher::new(
            Arc::clone(&keeper),
            supervisor.handle(),
            world.clock(),
            || 0,
        );
        let id = ConnectedClusterId::new("00000000-0000-0000-0000-000000000001", "shop", "till-7");
        let auth = crate::auth::BearerAuth::fixed("token").unwrap();
        Self {
            world,
            cluster: ClusterConnect {
                refresher: tokio::spawn(refresher.run()),
                supervisor,
                keeper,
                auth: Arc::new(auth),
                id: id.unwrap(),
                cluster: None,
                correlation_id: String::new(),
            },
        }
    }

    async fn open(&self) -> TunnelStream {
        self.cluster
            .open(&Target::api_server(), OpenOptions::new())
            .await
            .unwrap()
    }

    fn credential(&self) -> CredentialStatus {
        self.cluster.status().credential.unwrap()
    }
}

async fn echo(stream: &mut TunnelStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, text.as_bytes());
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn a_new_credential_comes_five_minutes_ahead_again_and_again_and_no_stream_is_cut() {
    let bed = Bed::connect([]).await;
    let mut stream = bed.open().await;
    for round in 1..=3 {
        sleep(Duration::from_secs(10_500)).await;
        echo(&mut stream, "still").await;
        sleep(10 * SECOND).await;
        echo(&mut bed.open().await, "new").await;
        assert_eq!(bed.credential().issued, round + 1);
        assert!(bed.credential().failure.is_none());
    }
    let asked_at = bed.world.asked_at();
    assert_eq!(asked_at.len(), 4);
    for (number, second) in asked_at.into_iter().enumerate() {
        // To the second but for the time between two looks.
        let expected = 10_500 * number as u64;
        assert!(
            second.abs_diff(expected) <= number as u64,
            "{number}: {second}"
        );
    }
    // Each credential has a path of its own, and a dial of its own.
    assert_eq!(
        bed.world.dials(),
        ["cluster/1", "cluster/2", "cluster/3", "cluster/4"]
    );
    echo(&mut stream, "from the first connection").await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_refresh_is_tried_again_while_the_old_credential_serves() {
    let fail = || Answer::Fail(ErrorKind::Refused, 503);
    let bed = Bed::connect([Answer::Give, fail(), fail(), fail()]).await;
    sleep(Duration::from_secs(10_501)).await;
    let status = bed.credential();
    assert_eq!(status.expires_at, at(10_800 + 600));
    let failure = status.failure.unwrap();
    assert_eq!(failure.to_string(), "no credential");
    // The waits of the house: 1, 2 and 5 seconds.
    sleep(Duration::from_secs(9)).await;
    assert_eq!(bed.world.asked_at(), [0, 10_500, 10_501, 10_503, 10_508]);
    let status = bed.credential();
    assert!(status.failure.is_none());
    assert_eq!(status.issued, 2);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_tried_again_for_as_long_as_the_token_lives_and_after_that() {
    let refuse = || Answer::Fail(ErrorKind::Unauthorized, 403);
    let answers = std::iter::once(Answer::Give).chain((0..60).map(|_| refuse()));
    let bed = Bed::connect(answers).await;
    let mut stream = bed.open().await;
    // Past the credential's end and within the token's: a dial still works.
    sleep(Duration::from_secs(10_900)).await;
    bed.cluster.supervisor.handle().renew();
    sleep(SECOND).await;
    assert_eq!(bed.world.dials(), ["cluster/1", "cluster/1"]);
    // Past the token's end: streams go on, and a dial says why it can not.
    sleep(Duration::from_secs(600)).await;
    echo(&mut stream, "still").await;
    let error = bed.cluster.keeper.grant().await.unwrap_err();
    assert!(error.is_unauthorized());
    assert_eq!(
        (error.status(), error.help()),
        (Some(403), Some("ask the owner"))
    );
    // The role is given back.
    sleep(Duration::from_secs(1_200)).await;
    assert!(bed.credential().failure.is_none());
    echo(&mut stream, "still").await;
    let asked = bed.world.asked_at();
    let gaps = asked[1..].windows(2).map(|pair| pair[1] - pair[0]);
    assert!(gaps.max().unwrap() <= 31, "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn after_a_sleep_what_has_ended_is_fetched_at_once_and_a_living_connection_stays() {
    let bed = Bed::connect([]).await;
    let mut stream = bed.open().await;
    sleep(60 * SECOND).await;
    bed.world.suspend(4 * 3600 * SECOND);
    let woken = bed.world.now();
    sleep(6 * SECOND).await;
    let asked_at = bed.world.asked_at();
    assert_eq!(asked_at.len(), 2);
    assert!(asked_at[1] <= woken + 5, "{asked_at:?}");
    echo(&mut stream, "still").await;
    assert!(matches!(bed.cluster.status().state, TunnelState::Connected));
}

#[tokio::test(start_paused = true)]
async fn after_a_sleep_a_dead_connection_is_replaced_within_seconds() {
    let bed = Bed::connect([]).await;
    let mut stream = bed.open().await;
    sleep(60 * SECOND).await;
    let woken = Instant::now();
    bed.world.0.frozen.store(true, Ordering::SeqCst);
    bed.world.suspend(600 * SECOND);
    // Whatever was under way when the lid was closed is lost.
    let mut rest = [0];
    tokio::spawn({
        let world = bed.world.clone();
        async move {
            sleep(12 * SECOND).await;
            world.0.frozen.store(false, Ordering::SeqCst);
        }
    });
    assert!(
        timeout(20 * SECOND, stream.read(&mut rest))
            .await
            .unwrap()
            .is_err()
    );
    assert!(woken.elapsed() <= 16 * SECOND, "{:?}", woken.elapsed());
    echo(&mut bed.open().await, "again").await;
    // The credential was still good.
    assert_eq!(bed.world.asked_at().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_sleep_ends_the_pause_after_a_failure() {
    let refuse = || Answer::Fail(ErrorKind::Unauthorized, 403);
    let bed = Bed::connect([Answer::Give, refuse(), refuse()]).await;
    sleep(Duration::from_secs(10_535)).await;
    assert_eq!(bed.world.asked_at(), [0, 10_500, 10_530]);
    bed.world.suspend(60 * SECOND);
    sleep(6 * SECOND).await;
    assert_eq!(bed.credential().issued, 2);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_or_by_seconds_is_no_sleep() {
    let bed = Bed::connect([]).await;
    for _ in 0..20 {
        bed.world.suspend(8 * SECOND);
        sleep(7 * SECOND).await;
    }
    assert_eq!(bed.world.asked_at(), [0]);
    assert_eq!(bed.world.dials().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_clock_asks_seldom_and_still_connects() {
    let bed = Bed::connect((0..20).map(|_| Answer::GiveEnded)).await;
    echo(&mut bed.open().await, "works").await;
    sleep(Duration::from_secs(1_000)).await;
    // Every dial has to ask, and the refresher does every five minutes.
    assert!(
        bed.world.asked_at().len() <= 10,
        "{:?}",
        bed.world.asked_at()
    );
}

#[tokio::test(start_paused = true)]
async fn whoever_needs_a_credential_while_one_is_fetched_gets_that_one() {
    let world = World::new([Answer::Hang]);
    let keeper = Arc::new(Keeper::new(Box::new(world.clone()), world.clock(), || 0));
    assert!(keeper.status().is_none());
    // A caller that goes away leaves its place to the next.
    assert!(timeout(SECOND, keeper.grant()).await.is_err());
    let (one, two) = tokio::join!(keeper.grant(), keeper.grant());
    assert_eq!(one.unwrap().hybrid_connection().path(), "cluster/2");
    assert_eq!(two.unwrap().hybrid_connection().path(), "cluster/2");
    assert_eq!(keeper.status().unwrap().issued, 1);
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_the_relay_refused_is_not_given_out_again() {
    let world = World::new([]);
    let keeper = Keeper::new(Box::new(world.clone()), world.clock(), || 0);
    let first = keeper.grant().await.unwrap();
    assert_eq!(
        keeper.grant().await.unwrap().token().secret(),
        first.token().secret()
    );
    keeper.refused(&first);
    let second = keeper.grant().await.unwrap();
    assert_eq!(second.hybrid_connection().path(), "cluster/2");
    // A refusal of an older one says nothing of the present one.
    keeper.refused(&first);
    assert_eq!(
        keeper.grant().await.unwrap().hybrid_connection().path(),
        "cluster/2"
    );
}

#[test]
fn the_next_fetch_is_spread_over_a_quarter_of_the_time_ahead() {
    for (jitter, life, due) in [
        (0_u8, 10_800, 10_500),
        (255, 10_800, 10_425),
        (0, 100, 80),
        (255, 100, 75),
    ] {
        let source: Jitter = if jitter == 0 { || 0 } else { || u8::MAX };
        let keeper = Keeper::new(Box::new(Never), Clock::new(|| UNIX_EPOCH), source);
        let relay = Endpoint::new("relay.example", 443, Security::Tls);
        let hybrid_connection = HybridConnection::new(relay, "a").unwrap();
        let token = SasRule::new("rule", "key")
            .unwrap()
            .sign(&hybrid_connection, at(life));
        let issued = Issued {
            grant: RelayGrant::new(hybrid_connection, token),
            expires_at: at(life),
            kubeconfigs: Vec::new(),
        };
        assert_eq!(keeper.due_at(&issued), at(due), "{jitter} {life}");
    }
}

struct Never;

#[async_trait]
impl Issuer for Never {
    async fn issue(&self) -> Result<Issued> {
        std::future::pending().await
    }
}
