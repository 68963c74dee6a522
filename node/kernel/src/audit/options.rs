//! What an operator says about a device, checked once. Strict: an option that is not known here is refused, because
//! an audit log that is not what it seems is worse than none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use arca_engine_api::fields::parse_duration;

use crate::KernelError;

/// Where a device writes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// A file, appended to.
    File {
        /// Where.
        target: FileTarget,
        /// Permissions of a file made here; `None` leaves an existing file's alone.
        mode: Option<u32>,
    },
    /// TCP, UDP or a unix socket.
    Socket {
        /// `host:port`, or a path.
        address: String,
        /// Which.
        protocol: Protocol,
    },
    /// The local syslog daemon.
    Syslog {
        /// Facility number.
        facility: u8,
        /// Name in front of each message.
        tag: String,
    },
}

/// `file_path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileTarget {
    /// Nowhere: for measuring.
    Discard,
    /// A file.
    Path(PathBuf),
    /// Standard output.
    Stdout,
}

/// `socket_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Stream.
    Tcp,
    /// One datagram a line.
    Udp,
    /// Stream, on this host.
    Unix,
}

/// A device's options, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceOptions {
    /// Where it writes to.
    pub kind: DeviceKind,
    /// Values in clear.
    pub is_raw: bool,
    /// Accessors hashed.
    pub hashes_accessors: bool,
    /// Listings only by their size.
    pub elides_lists: bool,
    /// Text in front of each line.
    pub prefix: String,
    /// A request waits no longer than this for its line.
    pub write_timeout: Duration,
}

/// Facilities by number.
const FACILITIES: [&str; 24] = [
    "KERN", "USER", "MAIL", "DAEMON", "AUTH", "SYSLOG", "LPR", "NEWS", "UUCP", "CRON", "AUTHPRIV", "FTP",
    "NTP", "AUDIT", "ALERT", "CLOCK", "LOCAL0", "LOCAL1", "LOCAL2", "LOCAL3", "LOCAL4", "LOCAL5", "LOCAL6",
    "LOCAL7",
];
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
const WRITE_TIMEOUT_MAX: Duration = Duration::from_secs(60);

impl DeviceOptions {
    /// Checks `type` and `options`. Files under `forbidden` (the data directory) are refused, through links and `..`
    /// as well.
    ///
    /// # Errors
    /// Names the option and what it may be.
    pub fn parse(
        kind: &str,
        options: &BTreeMap<String, String>,
        forbidden: &[PathBuf],
    ) -> Result<Self, KernelError> {
        let given = Given { options };
        let (known, kind): (&[&str], _) = match kind {
            "file" => (&["file_path", "mode", "path"], given.file(forbidden)?),
            "socket" => (&["address", "socket_type"], given.socket()?),
            "syslog" => (&["facility", "tag"], given.syslog()?),
            _ => return Err(invalid("unknown audit device type, use file, socket or syslog")),
        };
        const COMMON: [&str; 7] = [
            "elide_list_responses",
            "format",
            "hmac_accessor",
            "log_raw",
            "prefix",
            "skip_test",
            "write_timeout",
        ];
        if let Some(name) =
            options.keys().find(|name| !known.contains(&name.as_str()) && !COMMON.contains(&name.as_str()))
        {
            return Err(invalid(format!(
                "audit option {:?} is not supported",
                name.chars().take(64).collect::<String>()
            )));
        }
        if !matches!(given.text("format"), "" | "json") {
            return Err(invalid("audit option format must be json"));
        }
        Ok(Self {
            kind,
            is_raw: given.flag("log_raw", false)?,
            hashes_accessors: given.flag("hmac_accessor", true)?,
            elides_lists: given.flag("elide_list_responses", false)?,
            prefix: given.prefix()?,
            write_timeout: given.write_timeout()?,
        })
    }
}

fn invalid(text: impl Into<String>) -> KernelError {
    KernelError::invalid(text)
}

struct Given<'a> {
    options: &'a BTreeMap<String, String>,
}

impl Given<'_> {
    fn text(&self, name: &str) -> &str {
        self.options.get(name).map_or("", |text| text.trim())
    }

    fn flag(&self, name: &str, default: bool) -> Result<bool, KernelError> {
        match self.text(name).to_ascii_lowercase().as_str() {
            "" => Ok(default),
            "true" | "t" | "1" => Ok(true),
            "false" | "f" | "0" => Ok(false),
            _ => Err(invalid(format!("audit option {name} must be true or false"))),
        }
    }

    /// CVE-2025-6000: a prefix could make a log a script. It may only be a tag such as `@cee: `.
    fn prefix(&self) -> Result<String, KernelError> {
        let prefix = self.options.get("prefix").cloned().unwrap_or_default();
        let is_tag = prefix
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '@' | ':' | ' ' | '_' | '-'))
            && prefix.len() <= 32;
        if is_tag {
            Ok(prefix)
        } else {
            Err(invalid("audit option prefix may hold only letters, digits, '@', ':', '_', '-' and blanks"))
        }
    }

    fn write_timeout(&self) -> Result<Duration, KernelError> {
        match self.text("write_timeout") {
            "" => Ok(WRITE_TIMEOUT),
            text => parse_duration(text)
                .filter(|span| !span.is_zero() && *span <= WRITE_TIMEOUT_MAX)
                .ok_or_else(|| invalid("audit option write_timeout must be a duration up to 60s")),
        }
    }

    fn file(&self, forbidden: &[PathBuf]) -> Result<DeviceKind, KernelError> {
        // CVE-2026-5051: the old name of the option is checked like the new one.
        let path = match (self.text("file_path"), self.text("path")) {
            ("", "") => return Err(invalid("audit option file_path is missing")),
            (path, "") | ("", path) => path,
            (path, other) if path == other => path,
            _ => return Err(invalid("audit options file_path and path differ")),
        };
        let target = match path {
            "discard" => FileTarget::Discard,
            "stdout" => FileTarget::Stdout,
            path => FileTarget::Path(allowed_path(Path::new(path), forbidden)?),
        };
        let mode = match self.text("mode") {
            "" => Some(0o600),
            text => u32::from_str_radix(text, 8)
                .ok()
                .map(|mode| (mode != 0).then_some(mode))
                .ok_or_else(|| invalid("audit option mode must be octal"))?,
        };
        // CVE-2025-6000: nothing an audit device makes can be run.
        if mode.is_some_and(|mode| mode & !0o666 != 0) {
            return Err(invalid("audit option mode may set only read and write bits"));
        }
        Ok(DeviceKind::File { target, mode })
    }

    fn socket(&self) -> Result<DeviceKind, KernelError> {
        let address = self.text("address").to_owned();
        if address.is_empty() {
            return Err(invalid("audit option address is missing"));
        }
        let protocol = match self.text("socket_type") {
            "" | "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "unix" => Protocol::Unix,
            _ => return Err(invalid("audit option socket_type must be tcp, udp or unix")),
        };
        Ok(DeviceKind::Socket { address, protocol })
    }

    fn syslog(&self) -> Result<DeviceKind, KernelError> {
        let wanted = match self.text("facility") {
            "" => "AUTH".to_owned(),
            text => text.to_ascii_uppercase(),
        };
        let facility =
            FACILITIES.iter().position(|name| *name == wanted).and_then(|at| u8::try_from(at).ok());
        let facility = facility.ok_or_else(|| invalid("audit option facility is not a syslog facility"))?;
        let tag = match self.text("tag") {
            "" => "arca",
            tag => tag,
        };
        if tag.len() > 48 || !tag.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'[' | b':'))
        {
            return Err(invalid("audit option tag must be a short word"));
        }
        Ok(DeviceKind::Syslog { facility, tag: tag.to_owned() })
    }
}

/// The path with its folder's links and `..` resolved, unless it leads into a forbidden folder.
fn allowed_path(path: &Path, forbidden: &[PathBuf]) -> Result<PathBuf, KernelError> {
    let bad = || invalid("audit option file_path must name a file in an existing folder");
    let name = path.file_name().ok_or_else(bad)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let place = folder.canonicalize().map_err(|_| bad())?.join(name);
    // The file itself may be a link too.
    let end = place.canonicalize().unwrap_or_else(|_| place.clone());
    let is_forbidden = forbidden.iter().any(|folder| {
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.clone());
        end.starts_with(&folder) || place.starts_with(&folder)
    });
    if is_forbidden {
        return Err(invalid("audit option file_path leads into a folder the server keeps its own files in"));
    }
    Ok(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(
        kind: &str,
        pairs: &[(&str, &str)],
        forbidden: &[PathBuf],
    ) -> Result<DeviceOptions, KernelError> {
        let options = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        DeviceOptions::parse(kind, &options, forbidden)
    }

    #[track_caller]
    fn check(kind: &str, pairs: &[(&str, &str)], want: &str) {
        let got = parse(kind, pairs, &[]).map_or_else(|err| err.to_string(), |_| "taken".to_owned());
        assert_eq!(got, want, "{kind} {pairs:?}");
    }

    #[test]
    fn defaults_are_vaults() {
        let options = parse("file", &[("file_path", "stdout")], &[]).unwrap();
        assert!(!options.is_raw && options.hashes_accessors && !options.elides_lists);
        assert_eq!(options.kind, DeviceKind::File { target: FileTarget::Stdout, mode: Some(0o600) });
        let options = parse("syslog", &[], &[]).unwrap();
        assert_eq!(options.kind, DeviceKind::Syslog { facility: 4, tag: "arca".to_owned() });
        let options = parse("socket", &[("address", "h:1")], &[]).unwrap();
        assert_eq!(options.kind, DeviceKind::Socket { address: "h:1".to_owned(), protocol: Protocol::Tcp });
    }

    #[test]
    fn cve_2025_6000_no_log_can_be_run() {
        let mode = |text| {
            check(
                "file",
                &[("file_path", "discard"), ("mode", text)],
                "audit option mode may set only read and write bits",
            )
        };
        ["0700", "4644", "0755", "2600", "1600", "0601"].into_iter().for_each(mode);
        check("file", &[("file_path", "discard"), ("mode", "0644")], "taken");
        check("file", &[("file_path", "discard"), ("mode", "0000")], "taken");
        check("file", &[("file_path", "discard"), ("mode", "rw")], "audit option mode must be octal");
        for prefix in ["#!/bin/sh\n", "#!", "`x`", "a\nb", "{", "\"", &"x".repeat(33)] {
            let got = parse("file", &[("file_path", "discard"), ("prefix", prefix)], &[]);
            assert!(got.is_err(), "{prefix:?}");
        }
        check("file", &[("file_path", "discard"), ("prefix", "@cee: ")], "taken");
    }

    #[test]
    fn cve_2026_5051_no_name_or_link_leads_into_a_forbidden_folder() {
        let dir = tempfile::tempdir().unwrap();
        let (data, logs) = (dir.path().join("data"), dir.path().join("logs"));
        std::fs::create_dir_all(&data).unwrap();
        std::fs::create_dir_all(&logs).unwrap();
        std::fs::write(data.join("x"), "").unwrap();
        std::os::unix::fs::symlink(&data, logs.join("link")).unwrap();
        std::os::unix::fs::symlink(data.join("x"), logs.join("file")).unwrap();
        let forbidden = [data.clone()];
        for bad in ["data/a", "logs/../data/a", "logs/link/a", "logs/file"] {
            for name in ["file_path", "path"] {
                let path = dir.path().join(bad);
                assert!(
                    parse("file", &[(name, path.to_str().unwrap())], &forbidden).is_err(),
                    "{name} {bad}"
                );
            }
        }
        let fine = logs.join("a");
        assert!(parse("file", &[("path", fine.to_str().unwrap())], &forbidden).is_ok());
        check(
            "file",
            &[("file_path", "discard"), ("path", "stdout")],
            "audit options file_path and path differ",
        );
        check(
            "file",
            &[("file_path", "/nowhere/at/all")],
            "audit option file_path must name a file in an existing folder",
        );
    }

    #[test]
    fn what_is_not_known_is_refused() {
        check(
            "file",
            &[("file_path", "discard"), ("filter", "x")],
            "audit option \"filter\" is not supported",
        );
        check("file", &[("file_path", "discard"), ("format", "jsonx")], "audit option format must be json");
        check(
            "file",
            &[("file_path", "discard"), ("log_raw", "canary")],
            "audit option log_raw must be true or false",
        );
        check("file", &[("file_path", "discard"), ("tag", "x")], "audit option \"tag\" is not supported");
        check("http", &[], "unknown audit device type, use file, socket or syslog");
        check("syslog", &[("facility", "NOPE")], "audit option facility is not a syslog facility");
        check(
            "socket",
            &[("address", "x"), ("write_timeout", "2h")],
            "audit option write_timeout must be a duration up to 60s",
        );
    }
}
