//! Downloading the files of a known model.
//!
//! A file grows beside its place under a name that ends in `.part`, and takes its own once its size and its SHA-256 are
//! those that the manifest has. What was interrupted goes on where it stopped, if there is such a sum to tell that both
//! halves are of one file.

use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use ureq::config::RedirectAuthHeaders;
use ureq::http::{Response, StatusCode};
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Body};

use super::manifest::{self, Entry};
use super::output::unwritable;
use super::unreadable;
use crate::error::{Error, Result};

/// Where models are published, if nothing else is said.
pub const HUB: &str = "https://huggingface.co";

/// A place that models are downloaded from.
pub struct Hub {
    /// [`HUB`], or a mirror of it.
    pub url: String,
    /// What tells the hub who asks. It is sent to huggingface.co alone.
    pub token: Option<String>,
}

/// What happens on the way, for whoever shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<'a> {
    /// This file is here already.
    Here(&'a Path),
    /// So many bytes of this file are here, of so many if that is known.
    Bytes(&'a Path, u64, Option<u64>),
}

/// Downloads into `folder` those of a model's files that are not there yet.
///
/// # Errors
/// If the hub cannot be reached or does not give a file, a file is not what the manifest says, or it cannot be written.
pub fn fetch(entry: &Entry, folder: &Path, hub: &Hub, tell: &mut dyn FnMut(Progress)) -> Result<()> {
    let agent = agent();
    for file in &entry.files {
        let path = folder.join(&file.path);
        let size = fs::metadata(&path).ok().map(|metadata| metadata.len());
        if size.is_some_and(|size| file.bytes.is_none_or(|bytes| bytes == size)) {
            tell(Progress::Here(&path));
            continue;
        }
        let url = entry.url(&hub.url, file).ok_or_else(|| Error::file(&entry.name, "is published nowhere"))?;
        let part = PathBuf::from(format!("{}.part", path.display()));
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent).map_err(|error| unwritable(parent, &error))?;
        // Otherwise nothing tells that two halves are of one file.
        if file.sha256.is_none() && entry.revision.is_none() {
            drop(fs::remove_file(&part));
        }
        Download { agent: &agent, hub, file, url: &url, part: &part }.run(tell)?;
        fs::rename(&part, &path).map_err(|error| unwritable(&path, &error))?;
    }
    Ok(())
}

fn agent() -> Agent {
    // As Cargo.toml chooses.
    let provider =
        if cfg!(any(windows, target_vendor = "apple")) { TlsProvider::NativeTls } else { TlsProvider::Rustls };
    let roots = if provider == TlsProvider::NativeTls { RootCerts::PlatformVerifier } else { RootCerts::WebPki };
    Agent::config_builder()
        .tls_config(TlsConfig::builder().provider(provider).root_certs(roots).build())
        .http_status_as_error(false)
        // A repository that was renamed is redirected to; its files then lie on other hosts, which get no token.
        .redirect_auth_headers(RedirectAuthHeaders::SameHost)
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .user_agent(concat!("ornstein/", env!("CARGO_PKG_VERSION")))
        .build()
        .into()
}

/// One file on its way.
struct Download<'a> {
    agent: &'a Agent,
    hub: &'a Hub,
    file: &'a manifest::File,
    url: &'a str,
    part: &'a Path,
}

impl Download<'_> {
    fn run(&self, tell: &mut dyn FnMut(Progress)) -> Result<()> {
        let have = fs::metadata(self.part).map_or(0, |metadata| metadata.len());
        match self.file.bytes {
            Some(bytes) if have == bytes => {}
            Some(bytes) if have > bytes => self.receive(0, tell)?,
            _ => self.receive(have, tell)?,
        }
        self.check()
    }

    /// All that comes after the first `have` bytes.
    fn receive(&self, have: u64, tell: &mut dyn FnMut(Progress)) -> Result<()> {
        let response = self.ask(have)?;
        // Not every server can go on in the middle: then this is the whole file.
        let have = if response.status() == StatusCode::PARTIAL_CONTENT { have } else { 0 };
        let mut body = response.into_body();
        let all = body.content_length().map(|rest| have + rest);
        if let Some((all, wanted)) = all.zip(self.file.bytes).filter(|(all, wanted)| all != wanted) {
            return Err(self.fail(format!("has {all} bytes, and the manifest's file {wanted}: it is another one")));
        }
        let unwritable = |error: io::Error| unwritable(self.part, &error);
        let mut options = OpenOptions::new();
        let options = if have == 0 { options.write(true).truncate(true) } else { options.append(true) };
        let mut file = options.create(true).open(self.part).map_err(unwritable)?;
        let (mut reader, mut buffer, mut done) = (body.as_reader(), vec![0; 1 << 16], have);
        loop {
            tell(Progress::Bytes(self.part, done, all));
            let n = reader.read(&mut buffer).map_err(|error| self.broken(done, &error))?;
            if n == 0 {
                break;
            }
            file.write_all(&buffer[..n]).map_err(unwritable)?;
            done += n as u64;
        }
        file.sync_all().map_err(unwritable)?;
        if all.is_some_and(|all| done < all) { Err(self.broken(done, &"too early")) } else { Ok(()) }
    }

    /// The hub's answer, once it is one with the file in it.
    fn ask(&self, have: u64) -> Result<Response<Body>> {
        let mut request = self.agent.get(self.url);
        if have > 0 {
            request = request.header("Range", format!("bytes={have}-"));
        }
        if let Some(token) = self.hub.token.as_ref().filter(|_| self.url.starts_with(&format!("{HUB}/"))) {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let response = request.call().map_err(|error| {
            self.fail(format!("cannot be reached: {error}; check the network, or set HF_ENDPOINT to a mirror"))
        })?;
        match response.status().as_u16() {
            200 | 206 => Ok(response),
            // What is here is longer than the file there.
            416 if have > 0 => self.ask(0),
            status @ (401 | 403) => Err(self.fail(format!(
                "may not be downloaded ({status}): its page may ask for an agreement; set HF_TOKEN to a token of your \
                 account (https://huggingface.co/settings/tokens) that has agreed"
            ))),
            404 => Err(self.fail("is not there (404): it has moved or was taken away; look for a copy")),
            status => Err(self.fail(format!("is not given ({status}); try again later"))),
        }
    }

    /// Whether what was received is the manifest's file. What is not is removed, since nothing can come of it.
    fn check(&self) -> Result<()> {
        let mut file = File::open(self.part).map_err(|error| unreadable(self.part, &error))?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 16];
        let mut bytes = 0;
        loop {
            let n = file.read(&mut buffer).map_err(|error| unreadable(self.part, &error))?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            bytes += n as u64;
        }
        let sum: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let wrong = match (&self.file.sha256, self.file.bytes) {
            (Some(wanted), _) if *wanted != sum => format!("has the SHA-256 {sum}, and the manifest's file {wanted}"),
            (_, Some(wanted)) if wanted != bytes => format!("has {bytes} bytes, and the manifest's file {wanted}"),
            _ => return Ok(()),
        };
        drop(fs::remove_file(self.part));
        Err(self.fail(format!("{wrong}: what was downloaded is damaged and was removed; run this again")))
    }

    fn broken(&self, done: u64, why: &dyn Display) -> Error {
        self.fail(format!("the connection ended after {done} bytes: {why}; run this again, and it goes on from there"))
    }

    fn fail(&self, what: impl Display) -> Error {
        Error::file(self.url, what)
    }
}
