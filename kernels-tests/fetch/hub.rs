//! A hub that runs in a thread of the test and gives the answers that it was made with.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use libtest_mimic::Failed;

/// The file, and its SHA-256.
pub const BYTES: &[u8] = b"the weights of a very small model";
pub const SUM: &str = "8848f57c7a09430cd55ebd8cf562c1e5109a16efff8585bf56ced24aaa0d6e32";

/// How the hub answers a request.
#[derive(Clone)]
pub enum Answer {
    /// With the file, or what a range asks of it.
    File,
    /// With the whole file, whatever is asked.
    Whole,
    /// As [`Answer::File`], but it says nothing more after this many bytes.
    Stall(usize),
    /// As [`Answer::File`], but it hangs up after this many bytes.
    HangUp(usize),
    /// As [`Answer::File`], a byte at a time.
    Slow,
    /// With an `x` after the other, for ever.
    Endless,
    Status(u16),
    /// With these lines of a head, and this body.
    Raw(Vec<u8>, Vec<u8>),
}

/// The same to every request.
impl From<Answer> for Vec<Answer> {
    fn from(answer: Answer) -> Self {
        vec![answer]
    }
}

impl Answer {
    pub fn raw(head: impl AsRef<[u8]>, body: impl AsRef<[u8]>) -> Self {
        Self::Raw(head.as_ref().to_vec(), body.as_ref().to_vec())
    }
}

/// Its address, and what was asked of it.
pub struct Server {
    pub url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Gives the first answer to the first request, and so on, and the last to all that follow.
    pub fn start(answers: impl Into<Vec<Answer>>) -> Result<Self, Failed> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (answers, url) = (answers.into(), format!("http://{}", listener.local_addr()?));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let lines = BufReader::new(&stream).lines().map_while(Result::ok);
                let request = lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join("\n").to_lowercase();
                let mut requests = lock(&kept);
                let answer = answers[requests.len().min(answers.len() - 1)].clone();
                requests.push(request.clone());
                // One that stalls must not hold up the next.
                std::thread::spawn(move || respond(&answer, &request, stream));
            }
        });
        Ok(Self { url, requests })
    }

    /// The requests so far, in lower case.
    pub fn requests(&self) -> Vec<String> {
        lock(&self.requests).clone()
    }
}

fn lock(requests: &Mutex<Vec<String>>) -> MutexGuard<'_, Vec<String>> {
    requests.lock().expect("the list of requests")
}

fn respond(answer: &Answer, request: &str, mut stream: TcpStream) {
    let from = range(request);
    let (status, body) = match from {
        None => (200, BYTES),
        Some(_) if matches!(answer, Answer::Whole) => (200, BYTES),
        Some(from) if from < BYTES.len() => (206, &BYTES[from..]),
        Some(_) => (416, &b""[..]),
    };
    let range = from.map(|from| format!("Content-Range: bytes {from}-{}/{}\r\n", BYTES.len() - 1, BYTES.len()));
    let range = range.filter(|_| status == 206).unwrap_or_default();
    let head = format!("HTTP/1.1 {status} X\r\n{range}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    // A client may go away; that is not an error here.
    let mut send = |bytes: &[u8]| stream.write_all(bytes).is_ok();
    match answer {
        Answer::File | Answer::Whole => _ = send(head.as_bytes()) && send(body),
        Answer::HangUp(most) => _ = send(head.as_bytes()) && send(&body[..body.len().min(*most)]),
        Answer::Stall(most) => {
            let _ = send(head.as_bytes()) && send(&body[..body.len().min(*most)]);
            // Until the client goes away.
            drop(stream.read(&mut [0]));
        }
        Answer::Slow => {
            _ = send(head.as_bytes());
            for byte in body {
                std::thread::sleep(Duration::from_millis(50));
                _ = send(&[*byte]);
            }
        }
        Answer::Endless => {
            _ = send(b"HTTP/1.1 200 X\r\nConnection: close\r\n\r\n");
            while send(&[b'x'; 1024]) {}
        }
        Answer::Status(status) => {
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
            _ = send(head.as_bytes());
        }
        Answer::Raw(head, body) => {
            let head = [b"HTTP/1.1 ", &head[..], b"\r\nConnection: close\r\n\r\n"].concat();
            _ = send(&head) && send(body);
        }
    }
}

/// From which byte on a request asks for the file.
pub fn range(request: &str) -> Option<usize> {
    let range = request.lines().find_map(|line| line.strip_prefix("range: bytes="))?;
    range.trim_end_matches('-').parse().ok()
}
