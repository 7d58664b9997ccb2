//! The web server's end of a connection: raw FastCGI records, written here once more so that the product's own
//! encoder is not its own judge, and the crate `fastcgi-client`.

use std::env;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Whatever is waited for comes within ten seconds, or the test has failed.
pub async fn soon<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(10), future).await.expect("nothing happened within 10 seconds")
}

pub fn record(kind: u8, id: u16, content: &[u8]) -> Vec<u8> {
    let [id_high, id_low] = id.to_be_bytes();
    let [content_high, content_low] = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[1, kind, id_high, id_low, content_high, content_low, 0, 0], content].concat()
}

pub fn begin(id: u16, keep: bool) -> Vec<u8> {
    record(1, id, &[0, 1, keep as u8, 0, 0, 0, 0, 0])
}

/// A whole request as nginx would send it.
pub fn request(id: u16, keep: bool, query: &str, body: &[u8]) -> Vec<u8> {
    let pair = [&[12, query.len() as u8], &b"QUERY_STRING"[..], query.as_bytes()].concat();
    let method: &[u8] = if body.is_empty() { b"" } else { b"\x0e\x04REQUEST_METHODPOST" };
    let mut out = [begin(id, keep), record(4, id, &pair), record(4, id, method), record(4, id, b"")].concat();
    body.chunks(0xffff).for_each(|content| out.extend(record(5, id, content)));
    out.extend(record(5, id, b""));
    out
}

/// A connection whose records are looked at one by one.
pub struct Peer<S> {
    stream: S,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    pub fn new(stream: S) -> Peer<S> {
        Peer { stream }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        soon(self.stream.write_all(bytes)).await.unwrap();
    }

    /// Sends to somebody who may hang up in the middle.
    pub async fn send_all_it_takes(&mut self, bytes: &[u8]) {
        let _ = soon(self.stream.write_all(bytes)).await;
    }

    /// What the request `id` was answered; the next records must be its own.
    pub async fn answer(&mut self, id: u16) -> String {
        let (stdout, app_status) = self.ended(id).await;
        assert_eq!(app_status, 0);
        stdout
    }

    /// FCGI_STDOUT of the request `id`, which is the next to end, and the application's status.
    pub async fn ended(&mut self, id: u16) -> (String, u32) {
        let (ended, stdout, app_status) = self.next_end().await;
        assert_eq!(ended, id);
        (stdout, app_status)
    }

    /// The next request that ends; its records follow each other.
    pub async fn next_end(&mut self) -> (u16, String, u32) {
        let (mut of, mut stdout) = (None, Vec::new());
        loop {
            let mut header = [0; 8];
            soon(self.stream.read_exact(&mut header)).await.expect("a record");
            let [1, kind, id_high, id_low, content_high, content_low, padding, _] = header else {
                panic!("{header:?}")
            };
            let id = u16::from_be_bytes([id_high, id_low]);
            let len = usize::from(u16::from_be_bytes([content_high, content_low]));
            let mut content = vec![0; len + usize::from(padding)];
            soon(self.stream.read_exact(&mut content)).await.expect("the record's content");
            assert_eq!((*of.get_or_insert(id), content.len() % 8), (id, 0));
            match kind {
                6 => stdout.extend_from_slice(&content[..len]),
                3 => {
                    let app_status = u32::from_be_bytes(content[..4].try_into().unwrap());
                    return (id, String::from_utf8(stdout).unwrap(), app_status);
                }
                _ => panic!("a record of type {kind}"),
            }
        }
    }

    pub async fn expect_closed(&mut self) {
        let mut rest = Vec::new();
        // A reset is a way to close, too.
        let _ = soon(self.stream.read_to_end(&mut rest)).await;
        assert_eq!(rest.escape_ascii().to_string(), "");
    }
}

const ALONE: &str = "WEBPRESENCE_TEST_ALONE";

/// Is this the process that was started for a single test?
pub fn is_alone() -> bool {
    env::var_os(ALONE).is_some()
}

/// Runs the named test in a process of its own, for it changes or measures the whole process. True in that process.
pub fn alone(test: &str) -> bool {
    if !is_alone() {
        run_alone(Command::new(env::current_exe().unwrap()), test);
    }
    is_alone()
}

/// Runs the named test by a command that starts this executable; what it wrote.
pub fn run_alone(command: Command, test: &str) -> String {
    let output = alone_command(command, test).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "there is no test {test}: {text}");
    text
}

pub fn alone_command(mut command: Command, test: &str) -> Command {
    command.args(["--exact", test, "--nocapture"]).env(ALONE, "1");
    command
}

/// What is logged from now on in this process.
pub fn log_lines() -> mpsc::Receiver<String> {
    struct Lines(mpsc::Sender<String>);
    impl log::Log for Lines {
        fn enabled(&self, _: &log::Metadata) -> bool {
            true
        }
        fn log(&self, record: &log::Record) {
            let _ = self.0.send(record.args().to_string());
        }
        fn flush(&self) {}
    }
    let (lines, received) = mpsc::channel();
    log::set_boxed_logger(Box::new(Lines(lines))).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    received
}

/// The crate `fastcgi-client` as the peer.
pub mod independent {
    use std::pin::Pin;
    use std::task::{Context, Poll, ready};

    use fastcgi_client::{Client, Params, Request, io};
    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    use super::soon;

    /// The bytes of FCGI_STDOUT, over a connection that is closed afterwards.
    pub async fn ask_once<S: AsyncRead + AsyncWrite + Unpin>(stream: S, query: &str, body: &'static [u8]) -> Vec<u8> {
        let client = Client::new(Bridge(stream));
        let request = Request::new(params(query, body), io::Cursor::new(body));
        stdout(soon(client.execute_once(request)).await)
    }

    /// The same, one after the other over a connection that is kept.
    pub async fn ask_kept<S: AsyncRead + AsyncWrite + Unpin>(stream: S, queries: &[String]) -> Vec<Vec<u8>> {
        let mut client = Client::new_keep_alive(Bridge(stream));
        let mut answers = Vec::new();
        for query in queries {
            let request = Request::new(params(query, b""), io::empty());
            answers.push(stdout(soon(client.execute(request)).await));
        }
        answers
    }

    fn params<'a>(query: &'a str, body: &[u8]) -> Params<'a> {
        Params::default().request_method("POST").query_string(query).content_length(body.len())
    }

    fn stdout(response: fastcgi_client::ClientResult<fastcgi_client::Response>) -> Vec<u8> {
        let response = response.unwrap();
        assert_eq!(response.stderr, None);
        response.stdout.unwrap_or_default()
    }

    /// tokio's streams under the traits of the crate `futures`.
    struct Bridge<S>(S);

    impl<S: AsyncRead + Unpin> io::AsyncRead for Bridge<S> {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
            let mut buffer = ReadBuf::new(bytes);
            ready!(Pin::new(&mut self.0).poll_read(cx, &mut buffer))?;
            Poll::Ready(Ok(buffer.filled().len()))
        }
    }

    impl<S: AsyncWrite + Unpin> io::AsyncWrite for Bridge<S> {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_write(cx, bytes)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }
}
