//! Facts about the machine: its name, load and memory, as `sys/host-info` shows them.

use arca_engine_api::Map;
use serde_json::json;

/// The machine's name.
#[must_use]
pub(crate) fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// `sys/host-info`. Bytes and seconds.
#[must_use]
pub(crate) fn info(timestamp: &str) -> Map {
    let system = rustix::system::uname();
    let usage = rustix::system::sysinfo();
    let unit = u64::from(usage.mem_unit.max(1));
    let (total, free) = (usage.totalram * unit, usage.freeram * unit);
    let value = json!({
        "timestamp": timestamp,
        "host": {
            "hostname": hostname(),
            "os": system.sysname().to_string_lossy().to_lowercase(),
            "kernelVersion": system.release().to_string_lossy(),
            "kernelArch": system.machine().to_string_lossy(),
            "uptime": usage.uptime,
            "procs": usage.procs,
        },
        "cpu": [{ "cores": std::thread::available_parallelism().map_or(1, std::num::NonZero::get) }],
        "memory": { "total": total, "free": free, "used": total.saturating_sub(free) },
    });
    if let serde_json::Value::Object(map) = value { map } else { Map::new() }
}
