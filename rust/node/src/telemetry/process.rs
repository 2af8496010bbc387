//! Resource usage of this process, from the operating system.

/// CPU time in seconds, and resident memory in bytes.
pub(crate) fn usage() -> (f64, u64) {
    (cpu_seconds().unwrap_or(0.0), resident_bytes().unwrap_or(0))
}

/// User and system time, from the 14th and 15th field of `/proc/self/stat`, in ticks of 10 ms.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name and may contain spaces: count from its closing parenthesis.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(ticks / 100.0)
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace()
        .nth(1)?
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(target_os = "linux")]
    fn a_running_process_has_memory() {
        assert!(super::usage().1 > 1 << 20);
    }
}
