//! An HTTP/1.1 proxy between the provider and a server: it passes requests on, counts them, and answers some itself.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What the proxy does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Passes it on.
    Pass,
    /// An answer of its own.
    Own { status: u16, body: String },
    /// As AWS answers an error: its code, in JSON.
    Error { status: u16, code: &'static str, message: String },
    /// Half of what it promises, then the end.
    CutShort,
    /// A body that never ends.
    Endless,
    /// Never anything.
    Silence,
    /// Passes it on, and replaces text in the reply.
    Replace { old: String, new: String },
}

#[derive(Default)]
struct State {
    /// For the next requests, one each.
    next: VecDeque<Answer>,
    /// For all others.
    otherwise: Option<Answer>,
    seen: Vec<String>,
}

/// Runs as long as the runtime of its test.
#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
}

impl Proxy {
    /// In front of `upstream`, such as `http://127.0.0.1:4566`.
    pub(crate) async fn before(upstream: &str) -> Self {
        let upstream = upstream.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self { url: format!("http://{}", listener.local_addr().unwrap()), state: Arc::default() };
        let state = Arc::clone(&proxy.state);
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                // A client that hangs up ends its connection, nothing else.
                tokio::spawn(serve(connection, upstream.clone(), Arc::clone(&state)));
            }
        });
        proxy
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The next requests are answered so, one each; then again as before.
    pub(crate) fn next(&self, answers: impl IntoIterator<Item = Answer>) {
        self.with(|state| state.next.extend(answers));
    }

    /// All requests are answered so, until told otherwise.
    pub(crate) fn always(&self, answer: Answer) {
        self.with(|state| state.otherwise = Some(answer));
    }

    /// The requests since the last time this was asked: head and body.
    pub(crate) fn take_seen(&self) -> Vec<String> {
        self.with(|state| std::mem::take(&mut state.seen))
    }
}

async fn serve(mut client: TcpStream, upstream: String, state: Arc<Mutex<State>>) -> std::io::Result<()> {
    let (head, body) = read_message(&mut client).await?;
    let answer = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.seen.push(format!("{head}{}", String::from_utf8_lossy(&body)));
        let next = state.next.pop_front();
        next.or_else(|| state.otherwise.clone()).unwrap_or(Answer::Pass)
    };
    let json = |status: u16, body: &str| {
        let length = body.len();
        format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )
    };
    let reply = match answer {
        Answer::Pass => forward(&upstream, &head, &body).await?,
        Answer::Replace { old, new } => {
            let reply = String::from_utf8(forward(&upstream, &head, &body).await?).unwrap();
            let (_, content) = reply.split_once("\r\n\r\n").unwrap();
            json(200, &content.replace(&old, &new)).into_bytes()
        }
        Answer::Own { status, body } => json(status, &body).into_bytes(),
        Answer::Error { status, code, message } => {
            json(status, &serde_json::json!({"__type": code, "message": message}).to_string()).into_bytes()
        }
        Answer::CutShort => {
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\n{\"Plaintext\":".to_vec()
        }
        Answer::Silence => return std::future::pending().await,
        Answer::Endless => {
            client.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"Plaintext\":\"").await?;
            loop {
                client.write_all(&[b'A'; 4096]).await?; // fails once the client has had enough
            }
        }
    };
    client.write_all(&reply).await?;
    client.shutdown().await
}

/// One message: its head with the empty line, and a body of the length it states.
async fn read_message(from: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let mut read = Vec::new();
    let end = loop {
        if let Some(at) = read.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        if from.read_buf(&mut read).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    };
    let body = read.split_off(end);
    let head = String::from_utf8_lossy(&read).into_owned();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
    });
    let mut body = body;
    while body.len() < length.unwrap_or(0) {
        if from.read_buf(&mut body).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok((head, body))
}

/// Passes a request on over a connection of its own, and closes the client's behind the reply.
async fn forward(upstream: &str, head: &str, body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut server = TcpStream::connect(upstream).await?;
    server.write_all(closing(head).as_bytes()).await?;
    server.write_all(body).await?;
    let (head, body) = read_message(&mut server).await?;
    Ok([closing(&head).as_bytes(), &body].concat())
}

/// The head with `Connection: close` instead of what it says.
fn closing(head: &str) -> String {
    let kept = head.trim_end().lines().filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    let kept: String = kept.flat_map(|line| [line, "\r\n"]).collect();
    format!("{kept}Connection: close\r\n\r\n")
}
