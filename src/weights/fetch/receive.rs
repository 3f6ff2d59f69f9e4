//! Asking for one file until it is there: what breaks off goes on where it stopped, and a busy hub is waited for.

use std::cell::Cell;
use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{Duration, SystemTime};

use ureq::config::RedirectAuthHeaders;
use ureq::http::Response;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Body, Timeout};

use super::answer::{Answer, Head, Span, answer};
use super::body::{Size, Stop, receive};
use super::{HUB, Hub, Progress, check, plain};
use crate::error::{Error, Result};
use crate::weights::manifest;
use crate::weights::output::unwritable;

/// Asks one hub for files.
pub(super) struct Client<'a> {
    agent: Agent,
    hub: &'a Hub,
    /// Whether the hub has answered yet. One that never did is not waited for.
    reached: Cell<bool>,
}

impl<'a> Client<'a> {
    pub fn new(hub: &'a Hub) -> Self {
        // As Cargo.toml chooses.
        let provider =
            if cfg!(any(windows, target_vendor = "apple")) { TlsProvider::NativeTls } else { TlsProvider::Rustls };
        let roots = if provider == TlsProvider::NativeTls { RootCerts::PlatformVerifier } else { RootCerts::WebPki };
        let idle = hub.patience.idle;
        let agent = Agent::config_builder()
            .tls_config(TlsConfig::builder().provider(provider).root_certs(roots).build())
            .http_status_as_error(false)
            // A repository that was renamed is redirected to; its files then lie on other hosts, which get no token.
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_connect(Some(idle.min(Duration::from_secs(30))))
            .timeout_recv_response(Some(idle))
            .timeout_per_read(Some(idle))
            .timeout_per_write(Some(idle))
            // A packed body is not the file.
            .accept_encoding("identity")
            .user_agent(concat!("ornstein/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        Self { agent, hub, reached: Cell::new(false) }
    }

    fn get(&self, url: &str, from: u64) -> Result<Response<Body>, ureq::Error> {
        let mut request = self.agent.get(url);
        if from > 0 {
            request = request.header("Range", format!("bytes={from}-"));
        }
        if let Some(token) = self.hub.token.as_ref().filter(|_| url.starts_with(&format!("{HUB}/"))) {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let response = request.call();
        self.reached.set(self.reached.get() || response.is_ok());
        response
    }

    /// Whether a failure may pass: a connection that was there and broke, or any once the hub has answered.
    fn may_pass(&self, error: &ureq::Error) -> bool {
        use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        match error {
            ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => self.reached.get(),
            ureq::Error::Timeout(_) => true,
            ureq::Error::Io(error) => {
                let broke = matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe);
                broke || self.reached.get()
            }
            ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => self.reached.get(),
            _ => false,
        }
    }
}

/// One file on its way.
pub(super) struct Download<'a> {
    pub client: &'a Client<'a>,
    pub file: &'a manifest::File,
    pub url: &'a str,
    pub part: &'a Path,
    /// Whether two halves that were received apart are known to be of one file.
    pub resumable: bool,
}

/// What one answer led to.
enum Step {
    Done,
    /// Only so far, and the rest is to be asked for.
    From(u64),
    /// Only so far, for this reason. The hub may have said how long to wait.
    Broken(u64, String, Option<Duration>),
}

impl Download<'_> {
    /// Receives what is not there yet, and checks the whole. What is wrong is removed, since nothing can come of it.
    pub fn run(&self, tell: &mut dyn FnMut(Progress)) -> Result<()> {
        self.receive(tell)?;
        let part = OpenOptions::new().append(true).open(self.part).and_then(|part| part.sync_all());
        part.map_err(|error| unwritable(self.part, &error))?;
        let Some(fault) = check::fault(self.file, self.part, || tell(Progress::Checks(self.part)))? else {
            return Ok(());
        };
        drop(fs::remove_file(self.part));
        Err(self.fail(format!("{fault}: what was downloaded is damaged and was removed; run this again")))
    }

    fn receive(&self, tell: &mut dyn FnMut(Progress)) -> Result<()> {
        let (Size::Exactly(most) | Size::AtMost(most)) = check::size(self.file);
        let there = fs::metadata(self.part).map_or(0, |metadata| metadata.len());
        let mut from = if self.resumable && there <= most { there } else { 0 };
        let (mut furthest, mut failures) = (from, 0);
        while self.file.bytes != Some(from) {
            let (done, broken) = match self.step(from, tell)? {
                Step::Done => return Ok(()),
                Step::From(done) => (done, None),
                Step::Broken(done, why, wait) => (done, Some((why, wait))),
            };
            failures = if done > furthest { 0 } else { failures + 1 };
            furthest = furthest.max(done);
            from = if self.resumable { done } else { 0 };
            let patience = &self.client.hub.patience;
            if failures > patience.tries {
                let why = broken.map_or_else(|| "is given in parts that do not fit".into(), |(why, _)| why);
                return Err(self.give_up(&why, from));
            }
            let Some((why, wait)) = broken else { continue };
            let doubled = 2u32.saturating_pow(failures.saturating_sub(1));
            let pause = wait.unwrap_or(patience.pause.saturating_mul(doubled));
            if pause > patience.wait {
                return Err(self.give_up(&format!("{why}, and is to be asked for in {} s", pause.as_secs()), from));
            }
            tell(Progress::Again(self.part, pause, &plain(&why)));
            std::thread::sleep(pause);
        }
        Ok(())
    }

    /// Asks for all that comes after the first `from` bytes, and takes what comes.
    fn step(&self, from: u64, tell: &mut dyn FnMut(Progress)) -> Result<Step> {
        let response = match self.client.get(self.url, from) {
            Ok(response) => response,
            Err(error) if self.client.may_pass(&error) => return Ok(Step::Broken(from, self.broken(error), None)),
            Err(ureq::Error::TooManyRedirects) => {
                return Err(self.fail("is redirected again and again; try another mirror (HF_ENDPOINT)"));
            }
            Err(error) => {
                let what = format!("cannot be reached: {error}; check the network, or set HF_ENDPOINT to a mirror");
                return Err(self.fail(what));
            }
        };
        let value = |name: &str| {
            let values = response.headers().get_all(name).iter();
            values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect::<Vec<_>>().join(", ")
        };
        let head = Head::new(response.status().as_u16(), response.body().content_length(), value);
        match answer(&head, from, SystemTime::now()) {
            Answer::Body(span) => self.store(span, response.into_body(), tell),
            Answer::Anew => Ok(Step::From(0)),
            Answer::Later(why, wait) => Ok(Step::Broken(from, why, wait)),
            Answer::Refused(why) => Err(self.fail(why)),
        }
    }

    fn store(&self, span: Span, mut body: Body, tell: &mut dyn FnMut(Progress)) -> Result<Step> {
        let size = check::size(self.file);
        let all = span.all.or(self.file.bytes);
        let mut told = |done| tell(Progress::Bytes(self.part, done, all));
        match receive(&mut body.as_reader(), span, size, || self.open(span.from), &mut told) {
            Ok(done) if all.is_some_and(|all| done < all) => Ok(Step::From(done)),
            Ok(_) => Ok(Step::Done),
            Err(Stop::Refused(why)) => Err(self.fail(why)),
            Err(Stop::TooLong(why)) => {
                drop(fs::remove_file(self.part));
                Err(self.fail(format!("{why}; try another mirror (HF_ENDPOINT)")))
            }
            Err(Stop::Broken(done, error)) => {
                let why = format!("the connection ended after {done} bytes: {}", self.broken(error.into()));
                Ok(Step::Broken(done, why, None))
            }
            Err(Stop::Unwritable(error)) => Err(unwritable(self.part, &error)),
        }
    }

    /// The part, to be written on from its first `from` bytes.
    fn open(&self, from: u64) -> io::Result<File> {
        if let Some(parent) = self.part.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut options = OpenOptions::new();
        let options = if from == 0 { options.write(true).truncate(true) } else { options.append(true) };
        options.create(true).open(self.part)
    }

    fn broken(&self, error: ureq::Error) -> String {
        match error {
            ureq::Error::Timeout(_) => format!("nothing came for {:?}", self.client.hub.patience.idle),
            error => error.to_string(),
        }
    }

    fn give_up(&self, why: &str, from: u64) -> Error {
        let then = if from > 0 { "and it goes on from there" } else { "and it starts again" };
        self.fail(format!("{why}; try again later: run this again, {then}"))
    }

    fn fail(&self, what: impl Display) -> Error {
        Error::file(plain(self.url), plain(&what.to_string()))
    }
}
