//! The gateway on real sockets: an independent client (`fastcgi-client`) and raw bytes talk to `gateway::serve`, whose
//! answers are made here. Every wait is bounded; nothing waits for a fixed time.

#[path = "gateway/peer.rs"]
mod peer;

use std::fs;
use std::future::pending;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Notify, mpsc as async_mpsc, watch};
use tokio::task::JoinHandle;

use peer::{Peer, independent, request, soon};
use webpresence::gateway::signals::Signals;
use webpresence::gateway::{Address, Door, Limits, Listener, cgi, serve};
use webpresence::web::request::Request;
use webpresence::web::response::Response;

fn page(body: impl Into<Vec<u8>>) -> Response {
    Response {
        status: 200,
        headers: vec![("Content-Type", "text/plain".into())],
        body: body.into().into(),
        version: None,
    }
}

/// Says what was asked for.
async fn echo(request: Request) -> Response {
    let query = request.var("QUERY_STRING").unwrap_or_default().to_vec();
    let excess = request.excess.map(|excess| format!(" excess={excess:?}")).unwrap_or_default();
    page([&query[..], b" ", &request.body, excess.as_bytes()].concat())
}

/// What [`echo`] answers.
fn echoed(text: &str) -> String {
    format!("Status: 200 OK\r\nContent-Type: text/plain\r\n\r\n{text}")
}

/// A running `serve` behind a socket file.
struct Server {
    _directory: tempfile::TempDir,
    path: PathBuf,
    stop: watch::Sender<bool>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Server {
    fn start<A, F>(limits: Limits, answer: A) -> Server
    where
        A: Fn(Request) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response> + Send + 'static,
    {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let address: Address = format!("unix:{}", path.display()).parse().unwrap();
        let listeners = Listener::bind(&address).unwrap();
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(serve(listeners, limits, answer, stopped));
        Server { _directory: directory, path, stop, task }
    }

    async fn connect(&self) -> Peer<UnixStream> {
        Peer::new(soon(UnixStream::connect(&self.path)).await.unwrap())
    }

    /// One request on a connection of its own is answered.
    async fn check_answers(&self) {
        let mut peer = self.connect().await;
        peer.send(&request(1, false, "jid=a", b"")).await;
        assert_eq!(peer.answer(1).await, echoed("jid=a "));
    }

    async fn finish(self) {
        self.stop.send_replace(true);
        soon(self.task).await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_independent_client_is_answered_over_unix_and_tcp() {
    let server = Server::start(Limits::default(), echo);
    let unix = soon(UnixStream::connect(&server.path)).await.unwrap();
    assert_eq!(independent::ask_once(unix, "type=xml", b"jid=a").await, echoed("type=xml jid=a").as_bytes());

    let listeners = Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listeners[0].to_string();
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(serve(listeners, Limits::default(), echo, stopped));
    let tcp = soon(TcpStream::connect(&address)).await.unwrap();
    assert_eq!(independent::ask_once(tcp, "type=xml", b"jid=a").await, echoed("type=xml jid=a").as_bytes());
    stop.send_replace(true);
    soon(task).await.unwrap().unwrap();
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_listeners_are_served_and_an_inherited_one_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("inherited");
    let fd = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let mut listeners = Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listeners[0].to_string();
    listeners.extend(Listener::inherited(&fd));
    let (stop, stopped) = watch::channel(false);
    let one_at_a_time = Limits { connections: 1, ..Limits::default() };
    let task = tokio::spawn(serve(listeners, one_at_a_time, echo, stopped));
    for _ in 0..3 {
        let tcp = soon(TcpStream::connect(&address)).await.unwrap();
        assert_eq!(independent::ask_once(tcp, "a", b"").await, echoed("a ").as_bytes());
        let unix = soon(UnixStream::connect(&path)).await.unwrap();
        assert_eq!(independent::ask_once(unix, "b", b"").await, echoed("b ").as_bytes());
    }
    stop.send_replace(true);
    soon(task).await.unwrap().unwrap();
    assert!(path.exists(), "the file of a socket that was handed over is not ours to remove");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_is_used_again() {
    let server = Server::start(Limits::default(), echo);
    let unix = soon(UnixStream::connect(&server.path)).await.unwrap();
    let queries: Vec<String> = (0..20).map(|n| format!("n={n}")).collect();
    let expected: Vec<Vec<u8>> = queries.iter().map(|query| echoed(&format!("{query} ")).into()).collect();
    assert_eq!(independent::ask_kept(unix, &queries).await, expected);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_keep_conn_the_connection_is_closed_behind_the_answer() {
    let server = Server::start(Limits::default(), echo);
    let mut peer = server.connect().await;
    // The second empty STDIN record of some clients.
    peer.send(&[request(1, false, "jid=a", b""), peer::record(5, 1, b"")].concat()).await;
    assert_eq!(peer.answer(1).await, echoed("jid=a "));
    peer.expect_closed().await;
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_idle_kept_connections_block_nobody() {
    let server = Server::start(Limits::default(), echo);
    let mut kept = Vec::new();
    for n in 0..300 {
        let mut peer = server.connect().await;
        peer.send(&request(1, true, &format!("n={n}"), b"")).await;
        assert_eq!(peer.answer(1).await, echoed(&format!("n={n} ")));
        kept.push(peer);
    }
    server.check_answers().await;
    for peer in kept.iter_mut().rev() {
        peer.send(&request(2, true, "again", b"")).await;
        assert_eq!(peer.answer(2).await, echoed("again "));
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_on_one_connection_overtake_each_other() {
    let gate = Arc::new(Notify::new());
    let opened = gate.clone();
    let server = Server::start(Limits::default(), move |request| {
        let gate = gate.clone();
        async move {
            if request.var("QUERY_STRING") == Some(b"slow") {
                gate.notified().await;
            }
            echo(request).await
        }
    });
    let mut peer = server.connect().await;
    peer.send(&[request(1, true, "slow", b""), request(2, true, "fast", b"")].concat()).await;
    assert_eq!(peer.answer(2).await, echoed("fast "));
    opened.notify_one();
    assert_eq!(peer.answer(1).await, echoed("slow "));
    server.finish().await;
}

/// Tells when it is dropped.
struct Guard(async_mpsc::UnboundedSender<&'static str>);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.send("dropped");
    }
}

type Answer = std::pin::Pin<Box<dyn Future<Output = Response> + Send>>;
type Told = async_mpsc::UnboundedReceiver<&'static str>;

/// Never answers `hang`, and tells when it starts and when it is dropped.
fn hanging() -> (impl Fn(Request) -> Answer + Clone + Send + Sync + 'static, Told) {
    let (tell, told) = async_mpsc::unbounded_channel();
    let answer = move |request: Request| {
        let tell = tell.clone();
        Box::pin(async move {
            if request.var("QUERY_STRING") == Some(b"hang") {
                let _guard = Guard(tell.clone());
                let _ = tell.send("started");
                pending::<()>().await;
            }
            echo(request).await
        }) as Answer
    };
    (answer, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_drops_the_answer_and_the_connection_lives() {
    let (answer, mut told) = hanging();
    let server = Server::start(Limits::default(), answer);
    let mut peer = server.connect().await;
    peer.send(&request(1, true, "hang", b"")).await;
    assert_eq!(soon(told.recv()).await, Some("started"));
    peer.send(&peer::record(2, 1, b"")).await;
    assert_eq!(peer.answer(1).await, "");
    assert_eq!(soon(told.recv()).await, Some("dropped"));
    peer.send(&request(1, true, "jid=a", b"")).await;
    assert_eq!(peer.answer(1).await, echoed("jid=a "));
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_answer_of_an_aborted_request_is_not_given_to_the_next_of_its_id() {
    let (finish, finished) = mpsc::channel();
    let finished = Arc::new(Mutex::new(finished));
    let server = Server::start(Limits::default(), move |request: Request| {
        let query = request.var("QUERY_STRING").unwrap().to_vec();
        if query == b"barrier" {
            // Holds up the reading of the abort until the first answer is there.
            finished.lock().unwrap().recv_timeout(Duration::from_secs(10)).unwrap();
        }
        let finish = finish.clone();
        async move {
            let answer = echo(request).await;
            if query == b"old" {
                finish.send(()).unwrap();
            }
            answer
        }
    });
    let mut peer = server.connect().await;
    let before = [request(1, true, "old", b""), request(2, true, "other", b""), request(3, true, "barrier", b"")];
    let behind = [peer::record(2, 1, b""), request(1, true, "fresh", b"")];
    peer.send(&[before.concat(), behind.concat()].concat()).await;
    let mut ends = Vec::new();
    for _ in 0..4 {
        ends.push(peer.next_end().await);
    }
    assert_eq!(ends.remove(0), (1, String::new(), 0));
    ends.sort();
    let expected = [(1, "fresh "), (2, "other "), (3, "barrier ")].map(|(id, text)| (id, echoed(text), 0));
    assert_eq!(ends, expected);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_is_refused_is_refused_before_the_next_request_of_its_id_is_answered() {
    let server = Server::start(Limits::default(), echo);
    let mut peer = server.connect().await;
    let authorizer = peer::record(1, 1, &[0, 2, 1, 0, 0, 0, 0, 0]);
    peer.send(&[authorizer, request(1, true, "jid=a", b"")].concat()).await;
    assert_eq!(peer.answer(1).await, "");
    assert_eq!(peer.answer(1).await, echoed("jid=a "));
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_server_that_goes_away_drops_the_answer() {
    let (answer, mut told) = hanging();
    let server = Server::start(Limits::default(), answer);
    let mut peer = server.connect().await;
    peer.send(&request(1, true, "hang", b"")).await;
    assert_eq!(soon(told.recv()).await, Some("started"));
    drop(peer);
    assert_eq!(soon(told.recv()).await, Some("dropped"));
    server.check_answers().await;
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_many_records_arrives_whole() {
    let body: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let sent = body.clone();
    let server = Server::start(Limits::default(), move |_| {
        let body = sent.clone();
        async move { page(body) }
    });
    let unix = soon(UnixStream::connect(&server.path)).await.unwrap();
    let received = independent::ask_once(unix, "", b"").await;
    let expected = [echoed("").as_bytes(), &body].concat();
    assert!(received == expected, "{} bytes came, {} were sent", received.len(), expected.len());
    server.finish().await;
}

/// This process's memory, in bytes.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_parameters_are_refused_without_growth() {
    if !peer::alone("a_hundred_thousand_parameters_are_refused_without_growth") {
        return;
    }
    let server = Server::start(Limits::default(), echo);
    let mut peers = Vec::new();
    for _ in 0..20 {
        peers.push(server.connect().await);
    }
    let before = resident();
    for peer in &mut peers {
        peer.send(&peer::begin(1, true)).await;
    }
    // All of them together, so that what one of them would keep is not used again by the next.
    for group in 0..1000 {
        let pairs: String = (0..100).map(|n| format!("\x0b\x05NAME_{:06}value", group * 100 + n)).collect();
        let record = peer::record(4, 1, pairs.as_bytes());
        for peer in &mut peers {
            peer.send(&record).await;
        }
    }
    let grown = resident().saturating_sub(before);
    for peer in &mut peers {
        peer.send(&[peer::record(4, 1, b""), peer::record(5, 1, b"")].concat()).await;
        assert_eq!(peer.answer(1).await, echoed("  excess=Params"));
    }
    // 20 requests of 1.8 MB each would be 36 MB and more.
    assert!(grown < 8 * 1024 * 1024, "{grown} bytes");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_limit_is_read_to_its_end_and_refused() {
    let server = Server::start(Limits::default(), echo);
    let mut peer = server.connect().await;
    peer.send(&request(1, true, "q", &vec![b'b'; 16 * 1024])).await;
    assert_eq!(peer.answer(1).await, echoed(&format!("q {}", "b".repeat(16 * 1024))));
    peer.send(&request(1, true, "q", &vec![b'b'; 1024 * 1024])).await;
    assert_eq!(peer.answer(1).await, echoed("q  excess=Body"));
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_sent_byte_by_byte_is_answered() {
    let server = Server::start(Limits::default(), echo);
    let mut peer = server.connect().await;
    for byte in request(1, true, "jid=a", b"body") {
        peer.send(&[byte]).await;
    }
    assert_eq!(peer.answer(1).await, echoed("jid=a body"));
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_sent_request_ends_in_time_and_holds_up_nobody() {
    let limits = Limits { request_time: Duration::from_millis(50), ..Limits::default() };
    let server = Server::start(limits, echo);
    let whole = request(1, true, "jid=a", b"");
    let mut half_request = server.connect().await;
    half_request.send(&whole[..16]).await;
    let mut half_record = server.connect().await;
    half_record.send(&whole[..whole.len() - 5]).await;
    server.check_answers().await;

    assert_eq!(half_request.ended(1).await, (String::new(), 1));
    half_request.send(&request(2, true, "jid=b", b"")).await;
    assert_eq!(half_request.answer(2).await, echoed("jid=b "), "the connection lives");
    half_record.expect_closed().await;
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_server_that_does_not_take_its_answer_is_given_up() {
    let limits = Limits { connections: 1, write_time: Duration::from_millis(50), ..Limits::default() };
    let server = Server::start(limits, |request: Request| async move {
        match request.var("QUERY_STRING") {
            Some(b"big") => page(vec![0; 8 * 1024 * 1024]),
            _ => echo(request).await,
        }
    });
    let mut slow = server.connect().await;
    slow.send(&request(1, true, "big", b"")).await;
    server.check_answers().await;
    drop(slow);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_speak_fastcgi_is_closed_at_once() {
    let server = Server::start(Limits::default(), echo);
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\0", b"\x02\x01\0\x01\0\x08\0\0\0\x01\0\0\0\0\0\0", &[0xff; 70_000]]
    {
        let mut peer = server.connect().await;
        peer.send_all_it_takes(bytes).await;
        peer.expect_closed().await;
    }
    server.check_answers().await;
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_limit_counts_on_both_sides() {
    let (answer, mut told) = hanging();
    let server = Server::start(Limits { connections: 3, ..Limits::default() }, answer);
    let mut busy = Vec::new();
    for _ in 0..3 {
        let mut peer = server.connect().await;
        peer.send(&request(1, true, "hang", b"")).await;
        assert_eq!(soon(told.recv()).await, Some("started"));
        busy.push(peer);
    }
    let mut waiting = server.connect().await;
    waiting.send(&request(1, false, "hang", b"")).await;
    assert!(told.try_recv().is_err(), "the fourth waits");
    drop(busy.pop());
    assert_eq!(soon(told.recv()).await, Some("dropped"));
    assert_eq!(soon(told.recv()).await, Some("started"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_house_of_idle_connections_makes_room() {
    let server = Server::start(Limits { connections: 3, ..Limits::default() }, echo);
    let mut kept = Vec::new();
    for _ in 0..3 {
        let mut peer = server.connect().await;
        peer.send(&request(1, true, "kept", b"")).await;
        assert_eq!(peer.answer(1).await, echoed("kept "));
        kept.push(peer);
    }
    for _ in 0..5 {
        let mut peer = server.connect().await;
        peer.send(&request(1, true, "new", b"")).await;
        assert_eq!(peer.answer(1).await, echoed("new "));
        kept.push(peer);
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_house_of_silent_connections_ends_in_time() {
    let limits = Limits { connections: 3, request_time: Duration::from_millis(50), ..Limits::default() };
    let server = Server::start(limits, echo);
    let mut kept = server.connect().await;
    kept.send(&request(1, true, "kept", b"")).await;
    assert_eq!(kept.answer(1).await, echoed("kept "));
    let (mut first, mut second) = (server.connect().await, server.connect().await);
    first.expect_closed().await;
    second.expect_closed().await;
    kept.send(&request(1, true, "again", b"")).await;
    assert_eq!(kept.answer(1).await, echoed("again "), "who has been served may be silent");
    server.check_answers().await;
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_finishes_the_request_in_hand_and_closes_the_idle() {
    let (release, (begun, started)) = (Arc::new(Notify::new()), mpsc::channel());
    let gate = release.clone();
    let server = Server::start(Limits::default(), move |request: Request| {
        let (gate, begun) = (gate.clone(), begun.clone());
        async move {
            if request.var("QUERY_STRING") == Some(b"slow") {
                begun.send(()).unwrap();
                gate.notified().await;
            }
            echo(request).await
        }
    });
    let mut idle = server.connect().await;
    idle.send(&request(1, true, "kept", b"")).await;
    assert_eq!(idle.answer(1).await, echoed("kept "));
    let mut half_sent = server.connect().await;
    let later = request(1, true, "later", b"");
    half_sent.send(&[request(7, true, "first", b""), later[..30].to_vec()].concat()).await;
    assert_eq!(half_sent.answer(7).await, echoed("first "));
    let mut in_hand = server.connect().await;
    in_hand.send(&request(1, true, "slow", b"")).await;
    tokio::task::spawn_blocking(move || started.recv_timeout(Duration::from_secs(10)).unwrap()).await.unwrap();

    server.stop.send_replace(true);
    idle.expect_closed().await;
    // The listener goes before the connections are told, or after: until then it may still be there.
    soon(async {
        while UnixStream::connect(&server.path).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!server.path.exists() && !server.task.is_finished());

    half_sent.send(&later[30..]).await;
    assert_eq!(half_sent.answer(1).await, echoed("later "));
    in_hand.send(&request(2, true, "too late", b"")).await;
    assert_eq!(in_hand.answer(2).await, "");
    release.notify_one();
    assert_eq!(in_hand.answer(1).await, echoed("slow "));
    in_hand.expect_closed().await;
    half_sent.expect_closed().await;
    soon(server.task).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_the_first_request_of_a_new_connection() {
    let server = Server::start(Limits::default(), echo);
    let mut new = server.connect().await;
    // Connections are accepted in their order: now the other one is, too.
    server.check_answers().await;
    server.stop.send_replace(true);
    new.send(&request(1, true, "jid=a", b"")).await;
    assert_eq!(new.answer(1).await, echoed("jid=a "));
    new.expect_closed().await;
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_serves_who_has_connected_and_was_not_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let address: Address = format!("unix:{}", directory.path().join("socket").display()).parse().unwrap();
    let mut listeners = Listener::bind(&address).unwrap();
    listeners.extend(Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap());
    let port = listeners[1].to_string();
    let mut unix = Peer::new(soon(UnixStream::connect(directory.path().join("socket"))).await.unwrap());
    let mut tcp = Peer::new(soon(TcpStream::connect(port)).await.unwrap());
    unix.send(&request(1, true, "jid=a", b"")).await;
    tcp.send(&request(1, true, "jid=b", b"")).await;
    // It is over before anybody was accepted.
    let (_stop, stopped) = watch::channel(true);
    let task = tokio::spawn(serve(listeners, Limits::default(), echo, stopped));
    assert_eq!(unix.answer(1).await, echoed("jid=a "));
    assert_eq!(tcp.answer(1).await, echoed("jid=b "));
    soon(task).await.unwrap().unwrap();
    assert!(!directory.path().join("socket").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_one_write() {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

    // A socket that keeps the borders between writes.
    let socket =
        || rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let address = SocketAddrUnix::new(directory.path().join("socket")).unwrap();
    let listening = socket();
    rustix::net::bind(&listening, &address).unwrap();
    rustix::net::listen(&listening, 1).unwrap();
    let listener = Listener::inherited(&listening).unwrap();
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(serve(vec![listener], Limits::default(), |_| async { page([b'x'; 70_000]) }, stopped));

    let client = socket();
    rustix::net::connect(&client, &address).unwrap();
    rustix::io::write(&client, &request(1, true, "", b"")).unwrap();
    let (written, len) = tokio::task::spawn_blocking(move || {
        let mut written = vec![0; 200_000];
        let len = rustix::io::read(&client, &mut written).unwrap();
        (written, len)
    })
    .await
    .unwrap();
    let mut peer = Peer::new(std::io::Cursor::new(written[..len].to_vec()));
    assert_eq!(peer.answer(1).await, echoed(&"x".repeat(70_000)));
    stop.send_replace(true);
    soon(task).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_file_has_its_mode_and_group_and_a_live_one_is_not_taken() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let group = fs::metadata(directory.path()).unwrap().gid();
    // Left behind by a process that was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());

    let address: Address = format!("unix:{},mode=0640,group={group}", path.display()).parse().unwrap();
    let listeners = Listener::bind(&address).unwrap();
    let found = fs::metadata(&path).unwrap();
    assert_eq!((found.permissions().mode() & 0o777, found.gid()), (0o640, group));
    let error = Listener::bind(&address).unwrap_err().to_string();
    assert_eq!(error, format!("cannot listen on {address}: already in use by a running process"));

    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(serve(listeners, Limits::default(), echo, stopped));
    let unix = soon(UnixStream::connect(&path)).await.unwrap();
    assert_eq!(independent::ask_once(unix, "a", b"").await, echoed("a ").as_bytes());
    drop(stop);
    soon(task).await.unwrap().unwrap();
    assert!(!path.exists());
    assert!(Listener::bind(&format!("unix:{}", path.display()).parse().unwrap()).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn want_of_descriptors_is_a_pause_and_no_end() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    use std::os::fd::AsRawFd;

    if !peer::alone("want_of_descriptors_is_a_pause_and_no_end") {
        return;
    }
    let logged = peer::log_lines();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listeners = Listener::bind(&format!("unix:{}", path.display()).parse().unwrap()).unwrap();
    let mut peer = Peer::new(UnixStream::connect(&path).await.unwrap());

    let before = getrlimit(Resource::Nofile);
    let next = fs::File::open("/dev/null").unwrap().as_raw_fd() as u64;
    setrlimit(Resource::Nofile, Rlimit { current: Some(next), ..before }).unwrap();
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(serve(listeners, Limits::default(), echo, stopped));
    let line = tokio::task::spawn_blocking(move || logged.recv_timeout(Duration::from_secs(10))).await.unwrap();
    assert!(line.unwrap().starts_with("cannot accept connections at the moment: Too many open files"));

    setrlimit(Resource::Nofile, before).unwrap();
    peer.send(&request(1, false, "jid=a", b"")).await;
    assert_eq!(peer.answer(1).await, echoed("jid=a "));
    stop.send_replace(true);
    soon(task).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_that_hold_the_last_descriptors_make_room() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    if !peer::alone("idle_connections_that_hold_the_last_descriptors_make_room") {
        return;
    }
    let server = Server::start(Limits::default(), echo);
    let (mut kept, mut new) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let mut peer = server.connect().await;
        peer.send(&request(1, true, "kept", b"")).await;
        assert_eq!(peer.answer(1).await, echoed("kept "));
        kept.push(peer);
    }
    // What connects must have its descriptors before there are none left.
    let sockets: Vec<_> = (0..5).map(|_| tokio::net::UnixSocket::new_stream().unwrap()).collect();
    let before = getrlimit(Resource::Nofile);
    let open = fs::read_dir("/proc/self/fd").unwrap().count() as u64 - 1;
    setrlimit(Resource::Nofile, Rlimit { current: Some(open), ..before }).unwrap();
    for socket in sockets {
        let mut peer = Peer::new(soon(socket.connect(&server.path)).await.unwrap());
        peer.send(&request(1, true, "new", b"")).await;
        assert_eq!(peer.answer(1).await, echoed("new "));
        new.push(peer);
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_reload_and_stop() {
    use rustix::process::{Signal, getpid, kill_process};

    for signal in [Signal::TERM, Signal::USR1, Signal::INT] {
        let signals = Signals::listen().unwrap();
        let (stop, mut stopped) = watch::channel(false);
        let (reload, mut reloaded) = async_mpsc::unbounded_channel();
        let task = tokio::spawn(signals.run(stop, move || reload.send(()).unwrap()));
        kill_process(getpid(), Signal::HUP).unwrap();
        assert_eq!(soon(reloaded.recv()).await, Some(()));
        assert!(!*stopped.borrow_and_update());
        kill_process(getpid(), signal).unwrap();
        soon(task).await.unwrap();
        assert!(*stopped.borrow(), "{signal:?}");
    }
}

#[test]
fn a_process_finds_the_sockets_it_was_given() {
    const TEST: &str = "a_process_finds_the_sockets_it_was_given";
    if peer::is_alone() {
        let door = match Door::detect(&["serve"]) {
            Door::Activated(listeners) => format!("activated {}", listeners[0]),
            Door::Inherited(listener) => format!("inherited {listener}"),
            other => format!("{other:?}"),
        };
        let left = ["LISTEN_PID", "LISTEN_FDS"].map(|name| std::env::var_os(name).is_some());
        println!("\ndoor: {door}, left: {left:?}");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listening = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let (connected, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
    let path = path.display();
    let table = [
        ("exec \"$@\"", &listening as &dyn AsFd, format!("inherited unix:{path}, left: [false, false]")),
        (
            "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"",
            &listening,
            format!("activated unix:{path}, left: [false, false]"),
        ),
        (
            "exec 3<&0 </dev/null; LISTEN_PID=1 LISTEN_FDS=1 exec \"$@\"",
            &listening,
            "Nobody, left: [true, true]".to_owned(),
        ),
        (
            "exec 3</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"",
            &connected,
            "Nobody, left: [false, false]".to_owned(),
        ),
        ("REQUEST_METHOD=GET exec \"$@\"", &connected, "Cgi, left: [false, false]".to_owned()),
    ];
    for (script, stdin, expected) in table {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", script, "sh"]).arg(std::env::current_exe().unwrap());
        command.stdin(stdin.as_fd().try_clone_to_owned().unwrap());
        let output = peer::run_alone(command, TEST);
        let line = format!("door: {expected}");
        assert!(output.lines().any(|found| found == line), "{script}: no '{line}' in {output}");
    }
}

#[test]
fn cgi_reads_its_environment_and_answers_in_one_write() {
    use std::ffi::OsStr;
    use std::io::Write;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::UnixDatagram;

    const TEST: &str = "cgi_reads_its_environment_and_answers_in_one_write";
    if peer::is_alone() {
        let request = cgi::request(tokio::time::Instant::now());
        let body = [request.var("HTTP_X_JUNK").unwrap(), b"\n", &request.body, b"\n"].concat();
        cgi::write_response(&page(body)).unwrap();
        return;
    }
    // Datagrams keep the borders between writes; those of the test's own output are passed over.
    let (stdout, written) = UnixDatagram::pair().unwrap();
    let (stdin, mut body) = std::io::pipe().unwrap();
    body.write_all(b"jid=a&more").unwrap();
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.env_clear().envs([("REQUEST_METHOD", "POST"), ("CONTENT_LENGTH", "5")]);
    command.env("HTTP_X_JUNK", OsStr::from_bytes(b"\xff\xfe")).env(OsStr::from_bytes(b"\xff"), "");
    let mut child =
        peer::alone_command(command, TEST).stdin(stdin).stdout(std::os::fd::OwnedFd::from(stdout)).spawn().unwrap();
    assert!(child.wait().unwrap().success());
    written.set_nonblocking(true).unwrap();
    let mut datagrams = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(len) = written.recv(&mut buffer) {
        datagrams.push(buffer[..len].to_vec());
    }
    let expected = b"Status: 200 OK\r\nContent-Type: text/plain\r\n\r\n\xff\xfe\njid=a\n";
    assert!(datagrams.iter().any(|datagram| datagram == expected), "{datagrams:?}");
}
