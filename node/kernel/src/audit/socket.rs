//! Lines to a collector by TCP, UDP or a unix socket. A lost connection is tried again once per batch.

use std::io::{self, Write};
use std::net::{TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::chain::{Chain, Start};
use super::device::{Sink, Torn};
use super::options::Protocol;

enum Connection {
    Tcp(TcpStream),
    Udp(UdpSocket),
    Unix(UnixStream),
}

impl Connection {
    fn open(address: &str, protocol: Protocol, timeout: Duration) -> io::Result<Self> {
        match protocol {
            Protocol::Tcp => {
                let mut outcome = Err(io::ErrorKind::AddrNotAvailable.into());
                for address in address.to_socket_addrs()? {
                    match TcpStream::connect_timeout(&address, timeout) {
                        Ok(stream) => {
                            stream.set_write_timeout(Some(timeout))?;
                            return Ok(Self::Tcp(stream));
                        }
                        Err(err) => outcome = Err(err),
                    }
                }
                outcome
            }
            Protocol::Udp => {
                let socket = UdpSocket::bind("[::]:0").or_else(|_| UdpSocket::bind("0.0.0.0:0"))?;
                socket.set_write_timeout(Some(timeout))?;
                socket.connect(address)?;
                Ok(Self::Udp(socket))
            }
            Protocol::Unix => {
                let stream = UnixStream::connect(address)?;
                stream.set_write_timeout(Some(timeout))?;
                Ok(Self::Unix(stream))
            }
        }
    }

    fn write(&mut self, lines: &str) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(lines.as_bytes()),
            Self::Unix(stream) => stream.write_all(lines.as_bytes()),
            Self::Udp(socket) => {
                lines.split_inclusive('\n').try_for_each(|line| socket.send(line.as_bytes()).map(|_| ()))
            }
        }
    }
}

/// A collector.
pub(super) struct Socket {
    address: String,
    protocol: Protocol,
    timeout: Duration,
    open: Option<Connection>,
}

impl Socket {
    pub(super) fn new(address: &str, protocol: Protocol, timeout: Duration) -> Self {
        Self { address: address.to_owned(), protocol, timeout, open: None }
    }
}

impl Sink for Socket {
    fn prepare(&mut self) -> io::Result<bool> {
        if self.open.is_none() {
            self.reopen()?;
        }
        Ok(false)
    }

    fn resume(&mut self) -> Result<Chain, Start> {
        Err(Start::New)
    }

    fn write(&mut self, lines: &str) -> Result<(), Torn> {
        if let Some(open) = &mut self.open {
            match open.write(lines) {
                Ok(()) => return Ok(()),
                // Trying again would take as long once more, and the next lines wait.
                Err(err) if matches!(err.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    self.open = None;
                    return Err(Torn::Maybe(err));
                }
                Err(_) => self.open = None,
            }
        }
        self.reopen().map_err(Torn::Maybe)?;
        let open = self.open.as_mut().ok_or_else(|| Torn::Maybe(io::ErrorKind::NotConnected.into()))?;
        open.write(lines).map_err(|err| {
            self.open = None;
            Torn::Maybe(err)
        })
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.open = None;
        self.open = Some(Connection::open(&self.address, self.protocol, self.timeout)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_lost_collector_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let mut sink = Socket::new(path.to_str().unwrap(), Protocol::Unix, Duration::from_secs(1));
        sink.prepare().unwrap();
        let (first, _) = listener.accept().unwrap();
        sink.write("one\n").unwrap();
        let mut line = String::new();
        BufReader::new(first).read_line(&mut line).unwrap();
        sink.write("two\n").unwrap();
        let (second, _) = listener.accept().unwrap();
        BufReader::new(second).read_line(&mut line).unwrap();
        assert_eq!(line, "one\ntwo\n");
    }

    #[test]
    fn a_collector_that_does_not_read_times_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _listener = UnixListener::bind(&path).unwrap();
        let mut sink = Socket::new(path.to_str().unwrap(), Protocol::Unix, Duration::from_millis(20));
        sink.prepare().unwrap();
        let lines = "x".repeat(16 << 20);
        assert!(matches!(sink.write(&lines), Err(Torn::Maybe(_))));
    }
}
