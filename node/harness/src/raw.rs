//! HTTP/1.1 by hand, over one plain connection: for load that must cost little, and for requests that no decent client
//! sends.

use std::io::{Error, ErrorKind, Result};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// No answer may be larger: a test that meets one has found something else.
const ANSWER_SIZE_MAX: usize = 64 << 20;

/// One connection, kept alive.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// Read already, not yet part of an answer.
    read: Vec<u8>,
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    /// Body, unchunked.
    pub body: Vec<u8>,
}

impl Answer {
    /// A header's value, whatever its case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; null if it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

fn broken(text: &str) -> Error {
    Error::new(ErrorKind::UnexpectedEof, text)
}

impl Connection {
    /// Connects to a port of this machine.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn open(port: u16) -> Result<Self> {
        Self::open_at(&format!("127.0.0.1:{port}")).await
    }

    /// Connects to `HOST:PORT`.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn open_at(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, read: Vec::with_capacity(2_048) })
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the other side is gone.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Says that nothing more will be sent; answers can still be read.
    ///
    /// # Errors
    /// When the other side is gone.
    pub async fn half_close(&mut self) -> Result<()> {
        self.stream.shutdown().await
    }

    /// Reads one answer.
    ///
    /// # Errors
    /// When the connection ends before the answer does, or it is no HTTP.
    pub async fn answer(&mut self) -> Result<Answer> {
        let head_size = loop {
            if let Some(at) = find(&self.read, b"\r\n\r\n") {
                break at + 4;
            }
            self.more().await?;
        };
        let head: Vec<u8> = self.read.drain(..head_size).collect();
        let head = String::from_utf8_lossy(&head).into_owned();
        let status = head.get(9..12).and_then(|code| code.parse().ok());
        let status =
            status.filter(|_| head.starts_with("HTTP/1.")).ok_or_else(|| broken("no HTTP answer"))?;
        let mut answer = Answer { status, head, body: Vec::new() };
        if answer.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            answer.body = self.chunks().await?;
        } else {
            let size = answer.header("content-length").and_then(|size| size.parse().ok()).unwrap_or_default();
            answer.body = self.exactly(size).await?;
        }
        Ok(answer)
    }

    /// Sends a request with a token and reads its answer.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn call(&mut self, method: &str, path: &str, token: &str, body: &str) -> Result<Answer> {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: arca\r\nX-Vault-Token: {token}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        self.send(request.as_bytes()).await?;
        self.answer().await
    }

    /// Reads until the other side closes; true if it did so without an error.
    pub async fn is_closed_by_peer(&mut self) -> bool {
        loop {
            match self.stream.read_buf(&mut self.read).await {
                Ok(0) => return true,
                Ok(_) => {}
                // A reset is an end, too.
                Err(err) => return err.kind() == ErrorKind::ConnectionReset,
            }
        }
    }

    async fn more(&mut self) -> Result<()> {
        if self.read.len() > ANSWER_SIZE_MAX {
            return Err(broken("the answer is too large"));
        }
        if self.stream.read_buf(&mut self.read).await? == 0 {
            return Err(broken("the connection was closed"));
        }
        Ok(())
    }

    async fn exactly(&mut self, size: usize) -> Result<Vec<u8>> {
        while self.read.len() < size {
            self.more().await?;
        }
        Ok(self.read.drain(..size).collect())
    }

    async fn line(&mut self) -> Result<String> {
        loop {
            if let Some(at) = find(&self.read, b"\r\n") {
                let line: Vec<u8> = self.read.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&line).trim().to_owned());
            }
            self.more().await?;
        }
    }

    async fn chunks(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let size = usize::from_str_radix(&self.line().await?, 16)
                .map_err(|_| broken("a chunk without a size"))?;
            body.extend(self.exactly(size).await?);
            self.line().await?;
            if size == 0 {
                return Ok(body);
            }
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
