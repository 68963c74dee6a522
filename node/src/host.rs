//! Facts about the machine: its name, processors, memory and disk, as `sys/host-info` shows them. The shape is that of
//! the field's standard server, as far as Linux says it in a few small files.

use std::path::Path;

use arca_engine_api::Map;
use serde_json::{Value, json};

/// Ticks of `/proc/stat` in a second, on every Linux there is.
const TICKS: f64 = 100.0;

/// The machine's name.
pub(crate) fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// `sys/host-info`. Bytes and seconds. `folder` is where the data lies.
pub(crate) fn info(timestamp: &str, now_seconds: u64, folder: Option<&Path>) -> Map {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let value = json!({
        "timestamp": timestamp,
        "host": host(now_seconds, &read("/etc/os-release")),
        "cpu": cpus(&read("/proc/cpuinfo")),
        "cpu_times": cpu_times(&read("/proc/stat")),
        "disk": folder.and_then(disk).into_iter().collect::<Vec<_>>(),
        "memory": memory(&read("/proc/meminfo")),
    });
    if let Value::Object(map) = value { map } else { Map::new() }
}

fn host(now_seconds: u64, os_release: &str) -> Value {
    let system = rustix::system::uname();
    let usage = rustix::system::sysinfo();
    let uptime = u64::try_from(usage.uptime).unwrap_or_default();
    let named = |name: &str| {
        let value = os_release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_default().trim_matches('"').to_owned()
    };
    json!({
        "hostname": hostname(),
        "uptime": uptime,
        "bootTime": now_seconds.saturating_sub(uptime),
        "procs": usage.procs,
        "os": system.sysname().to_string_lossy().to_lowercase(),
        "platform": named("ID"),
        "platformFamily": named("ID_LIKE"),
        "platformVersion": named("VERSION_ID"),
        "kernelVersion": system.release().to_string_lossy(),
        "kernelArch": system.machine().to_string_lossy(),
    })
}

/// One object a processor.
fn cpus(cpuinfo: &str) -> Vec<Value> {
    let blocks = cpuinfo.split("\n\n").filter(|block| block.contains("processor"));
    let one = |block: &str| {
        let field = |name: &str| {
            block.lines().find_map(|line| {
                let (found, value) = line.split_once(':')?;
                (found.trim() == name).then(|| value.trim())
            })
        };
        let number = |name: &str| field(name).and_then(|text| text.parse::<f64>().ok()).unwrap_or_default();
        let whole = |name: &str| field(name).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
        json!({
            "cpu": whole("processor"),
            "vendorId": field("vendor_id").unwrap_or_default(),
            "family": field("cpu family").unwrap_or_default(),
            "model": field("model").unwrap_or_default(),
            "stepping": whole("stepping"),
            "physicalId": field("physical id").unwrap_or_default(),
            "coreId": field("core id").unwrap_or_default(),
            "cores": 1,
            "modelName": field("model name").unwrap_or_default(),
            "mhz": number("cpu MHz"),
            "flags": field("flags").unwrap_or_default().split_whitespace().collect::<Vec<_>>(),
        })
    };
    blocks.map(one).collect()
}

#[allow(clippy::cast_precision_loss)] // Ticks since the machine started, shown to a hundredth of a second.
fn cpu_times(stat: &str) -> Vec<Value> {
    const NAMES: [&str; 10] =
        ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guestNice"];
    let lines = stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu "));
    let one = |line: &str| {
        let mut words = line.split_whitespace();
        let mut times = Map::new();
        times.insert("cpu".to_owned(), json!(words.next().unwrap_or_default()));
        for name in NAMES {
            let ticks: u64 = words.next().and_then(|word| word.parse().ok()).unwrap_or_default();
            times.insert(name.to_owned(), json!(ticks as f64 / TICKS));
        }
        Value::Object(times)
    };
    lines.map(one).collect()
}

fn percent(part: u64, whole: u64) -> f64 {
    // In hundredths of a percent first, so that only small numbers become floats.
    let hundredths = u128::from(part) * 10_000 / u128::from(whole.max(1));
    f64::from(u32::try_from(hundredths).unwrap_or(10_000)) / 100.0
}

fn disk(folder: &Path) -> Option<Value> {
    let found = rustix::fs::statvfs(folder).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    let (total, free) = (bytes(found.f_blocks), bytes(found.f_bavail));
    let used = bytes(found.f_blocks.saturating_sub(found.f_bfree));
    let inodes_used = found.f_files.saturating_sub(found.f_ffree);
    Some(json!({
        "path": folder.display().to_string(),
        "total": total,
        "free": free,
        "used": used,
        "usedPercent": percent(used, used.saturating_add(free)),
        "inodesTotal": found.f_files,
        "inodesUsed": inodes_used,
        "inodesFree": found.f_ffree,
        "inodesUsedPercent": percent(inodes_used, found.f_files),
    }))
}

fn memory(meminfo: &str) -> Value {
    let bytes = |name: &str| {
        let value = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kilobytes: u64 =
            value.and_then(|value| value.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default();
        kilobytes.saturating_mul(1024)
    };
    let (total, available) = (bytes("MemTotal"), bytes("MemAvailable"));
    let used = total.saturating_sub(available);
    json!({
        "total": total,
        "available": available,
        "used": used,
        "usedPercent": percent(used, total),
        "free": bytes("MemFree"),
        "active": bytes("Active"),
        "inactive": bytes("Inactive"),
        "buffers": bytes("Buffers"),
        "cached": bytes("Cached"),
        "dirty": bytes("Dirty"),
        "shared": bytes("Shmem"),
        "slab": bytes("Slab"),
        "swaptotal": bytes("SwapTotal"),
        "swapfree": bytes("SwapFree"),
        "swapcached": bytes("SwapCached"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        let all = cpus(
            "processor\t: 0\nmodel name\t: Fast\ncpu MHz\t\t: 2500.5\nflags\t\t: aes avx\n\nprocessor\t: 1\n\n",
        );
        assert_eq!(all.len(), 2);
        assert_eq!((&all[0]["modelName"], &all[0]["mhz"]), (&json!("Fast"), &json!(2500.5)));
        assert_eq!((&all[0]["flags"], &all[1]["cpu"]), (&json!(["aes", "avx"]), &json!(1)));
        let times = cpu_times("cpu  1 2\ncpu0 150 0 25 1000 3 0 1 2 0 0\nintr 5\n");
        assert_eq!((times.len(), &times[0]["cpu"], &times[0]["user"]), (1, &json!("cpu0"), &json!(1.5)));
        let memory = memory("MemTotal:       1000 kB\nMemFree:  100 kB\nMemAvailable:    250 kB\n");
        assert_eq!((&memory["total"], &memory["used"]), (&json!(1_024_000), &json!(768_000)));
        assert_eq!((&memory["usedPercent"], &memory["swapfree"]), (&json!(75.0), &json!(0)));
    }

    #[test]
    fn this_machine_has_a_name_processors_memory_and_a_disk() {
        let info = Value::Object(info("now", 2_000_000_000, Some(Path::new("/"))));
        assert!(info["host"]["hostname"].as_str().is_some_and(|name| !name.is_empty()), "{info}");
        assert!(!info["cpu"].as_array().unwrap().is_empty(), "{info}");
        assert!(!info["cpu_times"].as_array().unwrap().is_empty(), "{info}");
        assert!(info["memory"]["total"].as_u64().unwrap() > 0, "{info}");
        assert!(info["disk"][0]["total"].as_u64().unwrap() > 0, "{info}");
    }
}
