//! Lines to the local syslog daemon, one datagram each.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use super::chain::{Chain, Start};
use super::device::{Sink, Torn};

/// Where daemons listen.
const SOCKETS: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];
const SEVERITY_INFO: u8 = 6;

/// The daemon's socket.
pub(super) struct Syslog {
    header: String,
    sockets: Vec<PathBuf>,
    timeout: Duration,
    open: Option<UnixDatagram>,
}

impl Syslog {
    pub(super) fn new(facility: u8, tag: &str, timeout: Duration) -> Self {
        Self::at(SOCKETS.iter().map(PathBuf::from).collect(), facility, tag, timeout)
    }

    fn at(sockets: Vec<PathBuf>, facility: u8, tag: &str, timeout: Duration) -> Self {
        let priority = u16::from(facility) * 8 + u16::from(SEVERITY_INFO);
        let header = format!("<{priority}>{tag}[{}]: ", std::process::id());
        Self { header, sockets, timeout, open: None }
    }

    fn send(&mut self, line: &str) -> io::Result<()> {
        let message = format!("{}{line}", self.header);
        if let Some(socket) = &self.open
            && socket.send(message.as_bytes()).is_ok()
        {
            return Ok(());
        }
        // The daemon may have been restarted.
        self.reopen()?;
        let socket = self.open.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        socket.send(message.as_bytes()).map(|_| ())
    }
}

impl Sink for Syslog {
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
        for (at, line) in lines.lines().enumerate() {
            self.send(line).map_err(|err| if at == 0 { Torn::No(err) } else { Torn::Maybe(err) })?;
        }
        Ok(())
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.open = None;
        let mut outcome = Err(io::ErrorKind::NotFound.into());
        for path in &self.sockets {
            let socket = UnixDatagram::unbound()?;
            socket.set_write_timeout(Some(self.timeout))?;
            match socket.connect(path) {
                Ok(()) => {
                    self.open = Some(socket);
                    return Ok(());
                }
                Err(err) => outcome = Err(err),
            }
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_message() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let mut sink = Syslog::at(vec![dir.path().join("none"), path], 4, "arca", Duration::from_secs(1));
        sink.prepare().unwrap();
        sink.write("{\"a\":1}\n{\"b\":2}\n").unwrap();
        let mut buffer = [0; 256];
        for want in ["{\"a\":1}", "{\"b\":2}"] {
            let len = daemon.recv(&mut buffer).unwrap();
            let text = std::str::from_utf8(&buffer[..len]).unwrap();
            assert_eq!(text, format!("<38>arca[{}]: {want}", std::process::id()));
        }
        assert!(
            Syslog::at(vec![dir.path().join("none")], 4, "arca", Duration::from_secs(1)).prepare().is_err()
        );
    }
}
