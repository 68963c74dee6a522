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

    /// Sends a request and reads its answer to the end, of which only the status is kept: for load that must cost little.
    ///
    /// # Errors
    /// When the connection breaks, or the answer is no HTTP or does not say how long it is.
    pub async fn exchange(&mut self, request: &[u8]) -> Result<u16> {
        self.send(request).await?;
        loop {
            if let Some((status, size)) = whole(&self.read)? {
                self.read.drain(..size);
                return Ok(status);
            }
            self.more().await?;
        }
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

/// Status and size of the answer that `bytes` begin with, once all of it is there.
fn whole(bytes: &[u8]) -> Result<Option<(u16, usize)>> {
    const NAME: &[u8] = b"content-length:";
    let (mut at, mut status, mut size) = (0, None, None);
    while let Some(end) = bytes.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == b'\n')) {
        let line = bytes.get(at..at + end).unwrap_or_default().trim_ascii_end();
        at += end + 1;
        if status.is_none() {
            let code = line.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..5));
            status = Some(number(code).ok_or_else(|| broken("no HTTP answer"))?);
        } else if line.is_empty() {
            let status = status.and_then(|status| u16::try_from(status).ok()).unwrap_or_default();
            let end = match size {
                None if status == 204 => Some(at),
                None => chunks_end(bytes, at)?,
                Some(size) => Some(at + size).filter(|end| *end <= bytes.len()),
            };
            return Ok(end.map(|end| (status, end)));
        } else if line.len() > NAME.len()
            && line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME))
        {
            size = number(line.get(NAME.len()..));
        }
    }
    Ok(None)
}

/// Where the chunks that begin `at` end, once all of them are there.
fn chunks_end(bytes: &[u8], mut at: usize) -> Result<Option<usize>> {
    while let Some(end) = bytes.get(at..).and_then(|rest| find(rest, b"\r\n")) {
        let size = std::str::from_utf8(bytes.get(at..at + end).unwrap_or_default()).ok();
        let size = size.and_then(|size| usize::from_str_radix(size.trim(), 16).ok());
        let size = size.ok_or_else(|| broken("an answer without a length"))?;
        at += end + 2 + size + 2;
        if size == 0 {
            return Ok(Some(at).filter(|end| *end <= bytes.len()));
        }
    }
    Ok(None)
}

fn number(digits: Option<&[u8]>) -> Option<usize> {
    std::str::from_utf8(digits?).ok()?.trim().parse().ok()
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_all_of_it_is_there() {
        let check = |bytes: &str, want: Option<(u16, usize)>| {
            assert_eq!(whole(bytes.as_bytes()).unwrap(), want, "{bytes:?}");
        };
        let answer = "HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 3\r\n\r\nabc";
        check(answer, Some((200, answer.len())));
        check(&format!("{answer}HTTP/1.1 500"), Some((200, answer.len())));
        for end in 0..answer.len() {
            check(&answer[..end], None);
        }
        check("HTTP/1.1 204 No Content\r\n\r\n", Some((204, 27)));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        check(chunked, Some((200, chunked.len())));
        for end in 0..chunked.len() {
            check(&chunked[..end], None);
        }
        assert!(whole(b"HTTP/1.1 200 OK\r\n\r\nno length\r\n").is_err());
        assert!(whole(b"nonsense\r\n").is_err());
    }
}
